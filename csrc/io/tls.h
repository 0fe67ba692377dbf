/* SPDX-License-Identifier: BSD-3-Clause */
/* TLS over a non-blocking socket. The only file that knows OpenSSL is tls.c. */
#ifndef PC_IO_TLS_H
#define PC_IO_TLS_H

#include "base/buf.h"

typedef struct pc_tls_config {
    const char *ca_file;    // NULL: the system's store
    const char *ca_path;
    const char *cert_file;  // client certificate, PEM; NULL: none
    const char *key_file;
    const char *key_password;
    const char *ciphers;
    const char *server_name;  // for SNI and the host name check
    bool verify;              // check the certificate chain
    bool check_hostname;
} pc_tls_config;

typedef struct pc_tls pc_tls;

typedef enum pc_tls_want { PC_TLS_DONE, PC_TLS_READ, PC_TLS_WRITE, PC_TLS_EOF } pc_tls_want;

/* At least TLS 1.2. Files are read here, so that wrong paths fail at once (PC_EDATA, naming the file). */
pc_tls *pc_tls_new(const pc_tls_config *config, int fd, pc_err *err);
void pc_tls_free(pc_tls *tls);
/* -1 on failure, else what to wait for; PC_TLS_DONE when shaken hands. */
int pc_tls_handshake(pc_tls *tls, pc_err *err);
/* Reads or writes at most n bytes; *done receives the number moved. Returns PC_TLS_DONE when something moved, else what to wait for, or -1. */
int pc_tls_read(pc_tls *tls, void *to, size_t n, size_t *done, pc_err *err);
int pc_tls_write(pc_tls *tls, const void *from, size_t n, size_t *done, pc_err *err);

#endif
