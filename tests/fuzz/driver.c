/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs one fuzz target for a while: fuzz_json <corpus directory> <seconds> [seed].
 *
 * A target defines LLVMFuzzerTestOneInput, so that libFuzzer can drive it as well. This driver
 * needs only ASan: it takes files of the corpus and mutates them. When the target dies, or needs
 * longer than SLOW seconds, the input is in ./fuzz-crash. */
#include <dirent.h>
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_SEEDS 512
#define INPUT_SIZE 65536
#define SLOW 20

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
const char *__ubsan_default_options(void);

typedef struct {
    uint8_t *data;
    size_t len;
} input;

typedef struct {
    input seeds[MAX_SEEDS];
    size_t nseeds;
    uint64_t random;
    uint8_t *trial; // INPUT_SIZE bytes
} fuzzer;

static input current; // what the target is given now; for the last words

/* xorshift64*: the same seed tries the same inputs. */
static size_t
below(fuzzer *fuzz, size_t limit)
{
    fuzz->random ^= fuzz->random >> 12;
    fuzz->random ^= fuzz->random << 25;
    fuzz->random ^= fuzz->random >> 27;
    return (size_t)((fuzz->random * 0x2545F4914F6CDD1DULL) >> 32) % limit;
}

static void
load(fuzzer *fuzz, const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_SIZE);
    if (!file || !data) {
        perror(path);
        exit(2);
    }
    size_t len = fread(data, 1, INPUT_SIZE, file);
    fclose(file);
    fuzz->seeds[fuzz->nseeds++] = (input){data, len};
}

static void
load_all(fuzzer *fuzz, const char *dir)
{
    DIR *list = opendir(dir);
    if (!list) {
        perror(dir);
        exit(2);
    }
    for (struct dirent *entry; (entry = readdir(list)) && fuzz->nseeds < MAX_SEEDS;) {
        if (entry->d_name[0] != '.') {
            load(fuzz, dir, entry->d_name);
        }
    }
    closedir(list);
    if (!fuzz->nseeds) {
        fprintf(stderr, "%s: no corpus\n", dir);
        exit(2);
    }
}

/* Copies a piece of another seed to somewhere in the trial. */
static size_t
splice(fuzzer *fuzz, size_t len)
{
    const input *other = &fuzz->seeds[below(fuzz, fuzz->nseeds)];
    if (!other->len) {
        return len;
    }
    size_t from = below(fuzz, other->len), at = below(fuzz, len + 1);
    size_t size = below(fuzz, other->len - from) + 1;
    size = size < INPUT_SIZE - at ? size : INPUT_SIZE - at;
    memcpy(fuzz->trial + at, other->data + from, size);
    return at + size > len ? at + size : len;
}

static size_t
mutate(fuzzer *fuzz, size_t len)
{
    static const uint8_t odd[] = {0, 1, 0x7f, 0x80, 0xff, '"', '\\', '{', '[', '-', '9', ','};
    size_t at = len ? below(fuzz, len) : 0;
    switch (len ? below(fuzz, 6) : 5) {
    case 0: fuzz->trial[at] ^= (uint8_t)(1u << below(fuzz, 8)); return len;
    case 1: fuzz->trial[at] = odd[below(fuzz, sizeof odd)]; return len;
    case 2: fuzz->trial[at] = (uint8_t)below(fuzz, 256); return len;
    case 3: return at; // cut here
    case 4: memmove(fuzz->trial + at, fuzz->trial + at + 1, len - at - 1); return len - 1;
    default: return splice(fuzz, len);
    }
}

static void
save_current(void)
{
    FILE *file = fopen("fuzz-crash", "wb");
    if (file && fwrite(current.data, 1, current.len, file) == current.len && !fclose(file)) {
        fprintf(stderr, "the input is in ./fuzz-crash\n");
    }
}

/* UBSan has no death callback; it aborts instead. */
__attribute__((visibility("default"))) const char *
__ubsan_default_options(void)
{
    return "abort_on_error=1:print_stacktrace=1";
}

static void
last_words(int sig)
{
    fprintf(stderr, "%s\n", sig == SIGALRM ? "too slow" : "aborted");
    save_current();
    _exit(1);
}

static void
try_one(fuzzer *fuzz)
{
    const input *seed = &fuzz->seeds[below(fuzz, fuzz->nseeds)];
    size_t len = seed->len;
    memcpy(fuzz->trial, seed->data, len);
    for (size_t n = below(fuzz, 6); n > 0; n--) {
        len = mutate(fuzz, len);
    }
    uint8_t *exact = malloc(len ? len : 1); // so that ASan sees one byte too far
    if (!exact) {
        exit(2);
    }
    memcpy(exact, fuzz->trial, len);
    current = (input){exact, len};
    alarm(SLOW);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
}

int
main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s <corpus directory> <seconds> [seed]\n", argv[0]);
        return 2;
    }
    fuzzer *fuzz = calloc(1, sizeof *fuzz);
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL);
    time_t end = time(NULL) + strtol(argv[2], NULL, 10);
    if (!fuzz || !(fuzz->trial = malloc(INPUT_SIZE))) {
        return 2;
    }
    fuzz->random = seed * 2 + 1; // xorshift must not begin with 0
    load_all(fuzz, argv[1]);
    __sanitizer_set_death_callback(save_current);
    signal(SIGALRM, last_words);
    signal(SIGABRT, last_words);
    unsigned long tried = 0;
    for (; time(NULL) < end; tried++) {
        try_one(fuzz);
    }
    alarm(0);
    printf("%s: %lu inputs, seed %llu\n", argv[0], tried, (unsigned long long)seed);
    for (size_t i = 0; i < fuzz->nseeds; i++) {
        free(fuzz->seeds[i].data);
    }
    free(fuzz->trial);
    free(fuzz);
    return 0;
}
