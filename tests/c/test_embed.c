/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/embed.h"

#include <stdio.h>

#include "golden.h"
#include "harness.h"

#define CHAIN(links) PC_EMBED_CHAIN "[" links "]" PC_EMBED_CHORD
#define BODY(args, kwargs, links) "[" args ", " kwargs ", " CHAIN(links) "]"

static bool
split(const char *body, pc_links *links)
{
    *links = (pc_links){0};
    return pc_embed_split(pc_slice_str(body), links);
}

static void
check_rest(const pc_links *links, const char *want)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_embed_put_rest(links, &out, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), want);
    pc_buf_fini(&out);
}

void
test_embed_last_link(void)
{
    pc_links links;
    PC_ASSERT(split(BODY("[1]", "{}", "{\"task\": \"t\"}"), &links));
    PC_ASSERT_TEXT(links.args, "[1]");
    PC_ASSERT_TEXT(links.kwargs, "{}");
    PC_ASSERT_TEXT(links.embed, CHAIN("{\"task\": \"t\"}"));
    PC_ASSERT_TEXT(links.next, "{\"task\": \"t\"}");
    check_rest(&links, CHAIN(""));
}

void
test_embed_next_is_the_last_of_the_list(void)
{
    pc_links links;
    PC_ASSERT(split(BODY("[[2], {\"a\": \"]}\"}]", "{\"k\": {\"l\": [1]}}", "{\"n\": 1}, {\"n\": 2}, {\"n\": [{}]}"),
                    &links));
    PC_ASSERT_TEXT(links.args, "[[2], {\"a\": \"]}\"}]");
    PC_ASSERT_TEXT(links.kwargs, "{\"k\": {\"l\": [1]}}");
    PC_ASSERT_TEXT(links.next, "{\"n\": [{}]}");
    check_rest(&links, CHAIN("{\"n\": 1}, {\"n\": 2}"));
}

/* Quotes, brackets and backslashes in strings, read from either side. */
void
test_embed_strings(void)
{
    static const char *const texts[] = {
        "\"}\"", "\"{\"", "\"\\\"\"", "\"\\\\\"", "\"\\\\\\\"]\"", "\"\\\\\\\\\"", "\"\", \"[\"", "\"\\\"}, {\\\"\"",
    };
    char body[512];
    char next[64];
    pc_links links;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        (void)snprintf(next, sizeof next, "{\"a\": [%s]}", texts[i]);
        (void)snprintf(body, sizeof body, "[[%s], {}, " PC_EMBED_CHAIN "[{\"b\": [%s]}, %s]" PC_EMBED_CHORD "]", texts[i],
                       texts[i], next);
        PC_ASSERT(split(body, &links), "%s", body);
        PC_ASSERT_TEXT(links.next, next);
        PC_ASSERT_INT(links.rest.len, strlen("{\"b\": []}") + strlen(texts[i]));
    }
}

/* What looks like embedded options is part of an argument. */
void
test_embed_in_arguments(void)
{
    pc_links links;
    PC_ASSERT(split(BODY("[" CHAIN("{\"x\": 1}") "]", "{}", "{\"y\": 2}"), &links));
    PC_ASSERT_TEXT(links.next, "{\"y\": 2}");
    PC_ASSERT(!split("[[], {}, " PC_EMBED_NONE ", " CHAIN("{}") "]", &links));
    PC_ASSERT(!split("[[], {\"a\": " CHAIN("{}") "]", &links));
}

void
test_embed_others_are_left_alone(void)
{
    static const char *const others[] = {
        "", "]", "[]", PC_EMBED_CHORD "]", "]" PC_EMBED_CHORD "]", "[]" PC_EMBED_CHORD "]",
        "[[], {}, " PC_EMBED_NONE "]",
        BODY("[]", "{}", ""),
        BODY("[]", "{}", "null"),
        BODY("[]", "{}", "[{}]"),
        BODY("[]", "{}", "{}]"),
        BODY("[]", "{}", "{}{}"),
        BODY("[]", "{}", ", {}"),
        BODY("[]", "{}", "}"),
        BODY("[]", "{}", "\"}"),
        BODY("{}", "[]", "{}"),
        BODY("null", "{}", "{}"),
        BODY("[", "{}", "{}"),
        BODY("[\"", "{}", "{}"),
        BODY("[]", "{\"\\", "{}"),
        "[[],{}," CHAIN("{}") "]",
        "{[], {}, " CHAIN("{}") "]",
        "[[], {}, {\"callbacks\": [], \"errbacks\": null, \"chain\": [{}]" PC_EMBED_CHORD "]",
    };
    pc_links links;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        PC_ASSERT(!split(others[i], &links), "%s", others[i]);
    }
}

static int
put_rest(void *arg)
{
    pc_buf out;
    pc_buf_init(&out);
    int rc = pc_embed_put_rest(arg, &out, NULL);
    pc_buf_fini(&out);
    return rc;
}

void
test_embed_without_memory(void)
{
    pc_links links;
    PC_ASSERT(split(BODY("[]", "{}", "{\"a\": 1}, {\"b\": 2}"), &links));
    PC_ASSERT(PC_OOM(put_rest, &links) > 0);
}

void
bench_embed_split(long n)
{
    char body[30000];
    pc_links links;
    size_t len = (size_t)snprintf(body, sizeof body, "[[1], {}, " PC_EMBED_CHAIN "[");
    for (int i = 0; i < 100; i++) {
        len += (size_t)snprintf(body + len, sizeof body - len, "%s{\"task\": \"tasks.plus\", \"args\": [1], \"kwargs\": {}, "
                                "\"options\": {\"task_id\": \"2f3a3b52-0d3c-4f0e-9c58-6a2f6d2f1c11\"}}", i > 0 ? ", " : "");
    }
    (void)snprintf(body + len, sizeof body - len, "]" PC_EMBED_CHORD "]");
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        PC_ASSERT(split(body, &links));
    }
}
