/* SPDX-License-Identifier: BSD-3-Clause */
/* A small HTTP server on a loop, for probes and metrics: one request per connection, GET and HEAD, bounded in everything.
 *
 * DESIGN. All on the loop's thread, but pc_httpd_abandon. A connection that finds all places taken is told 503; one that has not sent
 * its request within PC_HTTPD_TIMEOUT_NS is told 408. After the answer our side is shut down and what the client still sends is
 * thrown away for a moment, since a reset would take the answer with it. A fork may copy descriptors: connections are therefore
 * ended by shutdown(), which ends the copies, too. */
#ifndef PC_IO_HTTPD_H
#define PC_IO_HTTPD_H

#include "io/loop.h"
#include "wire/http.h"

#define PC_HTTPD_PLACES 32
#define PC_HTTPD_TIMEOUT_NS (5 * PC_NS_PER_SEC)

typedef struct pc_httpd_answer {
    int status;                // 200
    const char *content_type;  // text/plain; charset=utf-8
    pc_slice body;             // what fits nowhere else goes into `memory`
    pc_buf *memory;            // of the connection, empty
} pc_httpd_answer;

typedef struct pc_httpd pc_httpd;

/* Listens on host ("" or "*": all addresses; names are looked up) and port (0: any). `respond` is asked for every well-formed GET or
 * HEAD request, with the answer's defaults filled in. PC_EIO with the reason when the address cannot be had. */
pc_httpd *pc_httpd_new(pc_loop *loop, const char *host, int port,
                       void (*respond)(void *ctx, const pc_http_request *request, pc_httpd_answer *answer), void *ctx,
                       pc_err *err);
/* Closes at once what is open. */
void pc_httpd_free(pc_httpd *server);
/* The port that was got. */
int pc_httpd_port(const pc_httpd *server);
/* In a forked child: closes the descriptors, touches nothing else. */
void pc_httpd_abandon(const pc_httpd *server);

#endif
