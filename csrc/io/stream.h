/* SPDX-License-Identifier: BSD-3-Clause */
/* A non-blocking byte stream on a loop: TCP, unix socket or TLS. Opening resolves the name (the one
 * blocking call here), tries the addresses in turn and shakes hands, all within the connect timeout. Input gathers in `in`, output in `out`; what is
 * in `out` at the end of the turn leaves in one write. */
#ifndef PC_IO_STREAM_H
#define PC_IO_STREAM_H

#include "io/loop.h"
#include "io/tls.h"

typedef struct pc_endpoint {
    const char *host;       // NULL with unix_path
    int port;
    const char *unix_path;
    const pc_tls_config *tls;  // NULL: plain
    int64_t connect_timeout_ns;
    int user_timeout_ms;    // TCP_USER_TIMEOUT, 0: the system's
} pc_endpoint;

typedef struct pc_stream_hooks {
    void (*opened)(void *ctx);
    /* New bytes are in `in`; the reader consumes what it can use. */
    void (*readable)(void *ctx);
    /* The stream is closed (EOF, error, timeout); called at most once per open, never from inside a stream function except poll paths of the loop. */
    void (*closed)(void *ctx, const pc_err *why);
    void *ctx;
} pc_stream_hooks;

typedef struct pc_stream {
    pc_loop *loop;
    pc_stream_hooks hooks;
    pc_buf in;
    pc_buf out;
    uint64_t bytes_in;
    uint64_t bytes_out;
    pc_mono last_in;   // when bytes last arrived
    pc_mono last_out;
    // --
    int state;
    int fd;
    pc_watch watch;
    pc_timer timer;
    pc_defer flush;
    pc_tls *tls;
    struct addrinfo *addresses;
    struct addrinfo *next_address;
    pc_endpoint endpoint;  // borrowed strings: the owner keeps them
    unsigned want;    // events that TLS wants besides PC_READ
    pc_mono give_up;  // end of the connect timeout
} pc_stream;

void pc_stream_init(pc_stream *stream, pc_loop *loop,
                    const pc_stream_hooks *hooks);
/* Closes without a callback, frees. */
void pc_stream_fini(pc_stream *stream);

/* Starts opening a closed stream. -1: failed at once (closed() is not called then). */
int pc_stream_open(pc_stream *stream, const pc_endpoint *endpoint, pc_err *err);
/* Adopts a connected socket: opened() is not called. */
int pc_stream_adopt(pc_stream *stream, int fd, pc_err *err);
bool pc_stream_is_open(const pc_stream *stream);
/* Asks for `out` to leave at the end of the turn: call after appending. */
void pc_stream_flush(pc_stream *stream);
/* Tries to write right now; what doesn't fit leaves later. -1: the connection failed; closed() follows from
 * the loop. */
int pc_stream_flush_now(pc_stream *stream, pc_err *err);
/* Closes at once without a callback; both buffers are emptied. */
void pc_stream_close(pc_stream *stream);
/* After fork in the child: closes the descriptor, sends nothing. */
void pc_stream_abandon(pc_stream *stream);

#endif
