/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections that are refused, fall silent, or meet a peer that breaks the protocol. */
#include "amqp_fixture.h"
#include "harness.h"

/* ---- refusals ---- */

static void
expect_down(const pc_broker_config *config, pc_code code, const char *text)
{
    pc_err err = {0};
    amqp_sink *sink = amqp_sink_new(config);
    if (sink->source->ops->connect(sink->source, &err) == 0) {
        amqp_turn_until(sink->loop, &sink->downs, 1);
        err = sink->why;
    }
    PC_ASSERT_INT(sink->ups, 0);
    PC_ASSERT(err.code == code, "%s: %s", pc_code_name(err.code), err.msg);
    PC_ASSERT(strstr(err.msg, text) != NULL, "%s", err.msg);
    PC_ASSERT(strstr(err.msg, "se/cret") == NULL, "%s", err.msg);
    amqp_sink_end(sink);
}

void
test_amqp_login_is_refused_with_telling_errors(void)
{
    pc_broker_config config = amqp_config();
    config.password = "se/cret";
    expect_down(&config, PC_EAUTH, "access refused for user 'guest'");
    config.login_method = "AMQPLAIN";
    expect_down(&config, PC_EAUTH, "access refused for user 'guest'");
    config.login_method = "EXTERNAL";
    expect_down(&config, PC_EUNSUP, "EXTERNAL");
    config = amqp_config();
    config.vhost = "no-such-vhost";
    expect_down(&config, PC_EAUTH, "'no-such-vhost'");
    config.vhost = "/";
    config.port = 1;
    expect_down(&config, PC_EIO, "127.0.0.1:1");
}

void
test_amqp_amqplain_logs_in(void)
{
    pc_broker_config config = amqp_config();
    config.login_method = "AMQPLAIN";
    amqp_sink *sink = amqp_sink_new(&config);
    amqp_sink_start(sink, NULL, 0);
    amqp_sink_end(sink);
}

/* A peer that goes silent is given up after two heartbeats. */
void
test_amqp_heartbeats_keep_and_end_a_connection(void)
{
    pc_broker_config config = amqp_config();
    pc_broker_config through = config;
    amqp_relay *relay = amqp_relay_start(&config, &through.port);
    through.heartbeat = 1;
    amqp_sink *sink = amqp_sink_new(&through);
    amqp_sink_start(sink, NULL, 0);
    amqp_turn_for(sink->loop, 4.0);
    PC_ASSERT(sink->downs == 0, "%s", sink->why.msg);
    amqp_relay_freeze(relay, false, true);
    amqp_turn_for(sink->loop, 3.5);
    PC_ASSERT_INT(sink->downs, 1);
    PC_ASSERT(strstr(sink->why.msg, "sign of life") != NULL, "%s", sink->why.msg);
    amqp_sink_end(sink);
    amqp_relay_stop(relay);
}

static void
expect_canned(const char *greeting, size_t len, pc_code code, const char *text)
{
    pc_broker_config config = amqp_config();
    config.connect_timeout = 1;
    amqp_canned *canned = amqp_canned_start(greeting, len, &config.port);
    expect_down(&config, code, text);
    amqp_canned_stop(canned);
}

void
test_amqp_strange_servers_are_described(void)
{
    static const char start[] =
        "\1\0\0\0\0\0\x20\0\x0a\0\x0a\0\x09\0\0\0\4\1at\1\0\0\0\5PLAIN\0\0\0\5en_US\xce";
    static const char deep[] = "\1\0\0\0\0\0\x12\0\x0a\0\x0a\0\x09\0\0\0\4\1aF\xff\0\0\0\0\xce";
    expect_canned(start, sizeof start - 1, PC_EIO, "probably wrong user name or password");
    expect_canned("AMQP\0\0\x09\0", 8, PC_EPROTO, "AMQP 0-9-1");
    expect_canned("-ERR hello\r\n", 12, PC_EPROTO, "AMQP 0-9-1");
    expect_canned(deep, sizeof deep - 1, PC_EDATA, "127.0.0.1");
    expect_canned("", 0, PC_ETIMEOUT, "login");
}

/* What a broken or hostile server may send while all is well. */
void
test_amqp_frames_out_of_turn_end_the_connection(void)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"\2\0\1\0\0\0\x0e\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0\xce", 22},  // header
        {"\3\0\1\0\0\0\1x\xce", 9},                                  // body
        {"\1\0\1\0\0\0\4\0\x32\0\x15\xce", 12},                      // bind-ok
        {"\1\0\7\0\0\0\4\0\x3c\0\x48\xce", 12},                      // channel 7
        {"\1\0\0\0\0\0\4\0\x3c\0\x48\xce", 12},                      // channel 0
        {"\1\0\0\0\0\0\4\0\x0a\0\x29\xce", 12},                      // open-ok
    };
    pc_broker_config config = amqp_config();
    pc_broker_config through = config;
    amqp_relay *relay = amqp_relay_start(&config, &through.port);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        amqp_sink *sink = amqp_sink_new(&through);
        amqp_sink_start(sink, NULL, 0);
        amqp_relay_inject(relay, bad[i].bytes, bad[i].len);
        amqp_turn_until(sink->loop, &sink->downs, 1);
        PC_ASSERT(sink->why.code == PC_EPROTO, "case %zu: %s", i, sink->why.msg);
        amqp_sink_end(sink);
        amqp_relay_cut(relay);
    }
    amqp_relay_stop(relay);
}
