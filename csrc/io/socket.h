/* SPDX-License-Identifier: BSD-3-Clause */
/* Options of stream sockets. */
#ifndef PC_IO_SOCKET_H
#define PC_IO_SOCKET_H

#include <stdbool.h>

/* Keepalive, and on TCP no delay and (when not 0) the time after which unacknowledged data breaks
 * the connection. Best effort: a connection works without them. */
void pc_socket_tune(int fd, bool tcp, int user_timeout_ms);
/* O_NONBLOCK and FD_CLOEXEC; -1 with errno. */
int pc_socket_unblock(int fd);
/* The outcome of a connect() in progress: 0 or an errno. */
int pc_socket_error(int fd);

#endif
