/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests against a real AMQP broker share: where it is, a consumer that counts, a TCP relay
 * that can be cut or frozen between client and broker. */
#ifndef PC_TESTS_AMQP_FIXTURE_H
#define PC_TESTS_AMQP_FIXTURE_H

#include "io/broker.h"

/* From PYCELERYC_TEST_AMQP (amqp://user:password@host:port), else the local default; fails the test
 * when nothing listens. */
pc_broker_config amqp_config(void);
pc_mono in_seconds(double seconds);

/* "<prefix>-<uuid>" into `name` (64 bytes). */
void amqp_queue_name(char *name, const char *prefix);
pc_queue amqp_queue(const char *name);
/* A transient message for that queue through the default exchange. */
pc_message amqp_message(const char *queue, const char *body, size_t len);

pc_producer *amqp_producer(const pc_broker_config *config);
void amqp_producer_end(pc_producer *producer, const char *queue_to_remove);

typedef struct amqp_sink {
    pc_loop *loop;
    pc_source *source;
    int ups;
    int downs;
    int cancels;
    pc_err why;
    char cancelled[128];
    int refusals;
    char refused[300];  // "queue: why", of the last
    // what to do with each message
    bool hold;  // keep tags, settle later
    pc_settle how;
    uint64_t tags[20000];
    int held;
    int count;
    int redelivered;
    size_t body_len;  // of the last message
    uint32_t body_sum;
    void (*see)(struct amqp_sink *sink, const pc_message *message);
    void *see_ctx;
} amqp_sink;

/* On the heap: it is large. */
amqp_sink *amqp_sink_new(const pc_broker_config *config);
void amqp_sink_end(amqp_sink *sink);
void amqp_sink_start(amqp_sink *sink, const char *queue, unsigned prefetch);
/* Turns the loop until *value >= want; fails the test after 10 seconds. */
void amqp_turn_until(pc_loop *loop, const int *value, int want);
void amqp_turn_for(pc_loop *loop, double seconds);

uint32_t amqp_sum(const char *body, size_t len);

/* --- the relay: a thread --- */
typedef struct amqp_relay amqp_relay;
amqp_relay *amqp_relay_start(const pc_broker_config *to, int *port);
/* Cuts all connections now (RST-like: both sides closed), takes new ones. */
void amqp_relay_cut(amqp_relay *relay);
/* From now on bytes of the client (up) or of the broker (down) stay where they are. */
void amqp_relay_freeze(amqp_relay *relay, bool up, bool down);
/* Sends these bytes to the client as if the broker had. */
void amqp_relay_inject(amqp_relay *relay, const char *bytes, size_t len);
void amqp_relay_stop(amqp_relay *relay);

/* --- a server that takes one connection, says `greeting`, waits for an answer beyond the protocol
 * header, hangs up --- */
typedef struct amqp_canned amqp_canned;
amqp_canned *amqp_canned_start(const char *greeting, size_t len, int *port);
void amqp_canned_stop(amqp_canned *canned);

/* A producer that goes by a relay, and one that does not, with a queue. */
typedef struct amqp_rig {
    pc_broker_config config;   // straight
    pc_broker_config through;  // by the relay
    amqp_relay *relay;
    pc_producer *producer;  // by the relay
    pc_producer *direct;
    char queue[64];
} amqp_rig;

void amqp_rig_init(amqp_rig *rig, int confirm, int window);
void amqp_rig_fini(amqp_rig *rig);
/* Messages that are ready. */
int amqp_rig_size(amqp_rig *rig);

#endif
