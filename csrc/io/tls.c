/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

struct pc_tls {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO_METHOD *method;
    int fd;
    bool eof;
    int sys_errno;  // of the last recv or send that failed for good
};

/* --- the socket under OpenSSL: its own socket BIO would raise SIGPIPE --- */

static bool
is_transient(int code)
{
    return code == EAGAIN || code == EWOULDBLOCK || code == EINTR;
}

static int
bio_write(BIO *bio, const char *data, int len)
{
    pc_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t sent = send(tls->fd, data, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
        return (int)sent;
    }
    if (is_transient(errno)) {
        BIO_set_retry_write(bio);
    } else {
        tls->sys_errno = errno;
    }
    return -1;
}

static int
bio_read(BIO *bio, char *data, int len)
{
    pc_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t got = recv(tls->fd, data, (size_t)len, MSG_DONTWAIT);
    if (got > 0) {
        return (int)got;
    }
    if (got == 0) {
        tls->eof = true;
        return 0;
    }
    if (is_transient(errno)) {
        BIO_set_retry_read(bio);
    } else {
        tls->sys_errno = errno;
    }
    return -1;
}

static long
bio_ctrl(BIO *bio, int command, long number, void *ptr)
{
    (void)number;
    (void)ptr;
    const pc_tls *tls = BIO_get_data(bio);
    if (command == BIO_CTRL_EOF) {
        return tls->eof;
    }
    return command == BIO_CTRL_FLUSH;
}

static int
attach_socket(pc_tls *tls, pc_err *err)
{
    tls->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "pyceleryc socket");
    if (tls->method == NULL || BIO_meth_set_write(tls->method, bio_write) != 1 ||
        BIO_meth_set_read(tls->method, bio_read) != 1 ||
        BIO_meth_set_ctrl(tls->method, bio_ctrl) != 1) {
        return pc_fail_nomem(err);
    }
    BIO *bio = BIO_new(tls->method);
    if (bio == NULL) {
        return pc_fail_nomem(err);
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);  // consumes it
    return 0;
}

/* --- errors --- */

/* Reasons by which a peer or we refuse an identity; anything else may be a passing trouble. */
static const int refusals[] = {
    SSL_R_CERTIFICATE_VERIFY_FAILED,       SSL_R_SSLV3_ALERT_BAD_CERTIFICATE,
    SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED,
    SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE,
    SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE,   SSL_R_TLSV1_ALERT_UNKNOWN_CA,
    SSL_R_TLSV1_ALERT_ACCESS_DENIED,       SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED,
};

static bool
is_refusal(int reason)
{
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        if (refusals[i] == reason) {
            return true;
        }
    }
    return false;
}

static const char *
reason_text(unsigned long code)
{
    const char *text = code == 0 ? NULL : ERR_reason_error_string(code);
    return text == NULL ? "unknown error" : text;
}

/* A protocol error, from OpenSSL's queue. */
static int
fail_ssl(const pc_tls *tls, const char *doing, pc_err *err)
{
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    ERR_clear_error();
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        long result = SSL_get_verify_result(tls->ssl);
        return pc_fail(err, PC_EAUTH, "the server's certificate is not accepted: %s",
                       X509_verify_cert_error_string(result));
    }
    if (reason == SSL_R_WRONG_VERSION_NUMBER) {
        return pc_fail(err, PC_EPROTO,
                       "TLS %s failed: the server does not speak TLS on "
                       "this port",
                       doing);
    }
    return pc_fail(err, is_refusal(reason) ? PC_EAUTH : PC_EIO, "TLS %s failed: %s", doing,
                   reason_text(code));
}

/* What the result of an SSL_ function means. */
static int
judge(pc_tls *tls, int rc, const char *doing, pc_err *err)
{
    switch (SSL_get_error(tls->ssl, rc)) {
    case SSL_ERROR_NONE: return PC_TLS_DONE;
    case SSL_ERROR_WANT_READ: return PC_TLS_READ;
    case SSL_ERROR_WANT_WRITE: return PC_TLS_WRITE;
    case SSL_ERROR_ZERO_RETURN: return PC_TLS_EOF;
    case SSL_ERROR_SYSCALL:
        ERR_clear_error();
        if (tls->sys_errno == 0) {
            return PC_TLS_EOF;
        }
        errno = tls->sys_errno;
        return pc_fail_errno(err, PC_EIO, "TLS %s failed", doing);
    default: return fail_ssl(tls, doing, err);
    }
}

static int
fail_file(const char *what, const char *path, pc_err *err)
{
    unsigned long code = ERR_peek_last_error();
    ERR_clear_error();
    return pc_fail(err, PC_EDATA, "cannot use the %s %s: %s", what, path, reason_text(code));
}

/* --- configuration --- */

/* OpenSSL reports a missing file badly and a missing directory not at all. */
static int
check_path(const char *what, const char *path, pc_err *err)
{
    if (path != NULL && access(path, R_OK) != 0) {
        return pc_fail_errno(err, PC_EDATA, "cannot read the %s %s", what, path);
    }
    return 0;
}

static int
check_paths(const pc_tls_config *config, pc_err *err)
{
    if (check_path("CA file", config->ca_file, err) != 0 ||
        check_path("CA directory", config->ca_path, err) != 0 ||
        check_path("certificate", config->cert_file, err) != 0) {
        return -1;
    }
    return check_path("private key", config->key_file, err);
}

/* Also set without a password: OpenSSL would ask the terminal for one. */
static int
give_password(char *to, int size, int writing, void *ctx)
{
    (void)writing;
    const char *password = ctx;
    size_t len = password == NULL ? 0 : strlen(password);
    if (len > (size_t)size) {
        return -1;
    }
    memcpy(to, password == NULL ? "" : password, len);
    return (int)len;
}

static int
load_identity(SSL_CTX *ctx, const pc_tls_config *config, pc_err *err)
{
    const char *cert = config->cert_file;
    const char *key = config->key_file == NULL ? cert : config->key_file;
    if (cert == NULL) {
        return 0;
    }
    SSL_CTX_set_default_passwd_cb(ctx, give_password);
    SSL_CTX_set_default_passwd_cb_userdata(ctx, (void *)config->key_password);
    int rc = 0;
    if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1) {
        rc = fail_file("certificate", cert, err);
    } else if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 ||
               SSL_CTX_check_private_key(ctx) != 1) {
        rc = fail_file("private key", key, err);
    }
    // The password is lent for this call only.
    SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL);
    return rc;
}

static int
load_trust(SSL_CTX *ctx, const pc_tls_config *config, pc_err *err)
{
    if (!config->verify) {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
        return 0;
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (config->ca_file == NULL && config->ca_path == NULL) {
        return SSL_CTX_set_default_verify_paths(ctx) == 1
                   ? 0
                   : fail_file("CA store", "of the system", err);
    }
    if (SSL_CTX_load_verify_locations(ctx, config->ca_file, config->ca_path) != 1) {
        return fail_file("CA file", config->ca_file == NULL ? config->ca_path : config->ca_file,
                         err);
    }
    return 0;
}

static int
make_context(pc_tls *tls, const pc_tls_config *config, pc_err *err)
{
    tls->ctx = SSL_CTX_new(TLS_client_method());
    if (tls->ctx == NULL || SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION) != 1) {
        ERR_clear_error();
        return pc_fail_nomem(err);
    }
    SSL_CTX_set_options(tls->ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
#ifdef SSL_OP_IGNORE_UNEXPECTED_EOF  // our protocols see truncation themselves
    SSL_CTX_set_options(tls->ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
#endif
    SSL_CTX_set_mode(tls->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                   SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_clear_mode(tls->ctx, SSL_MODE_AUTO_RETRY);
    if (config->ciphers != NULL && SSL_CTX_set_cipher_list(tls->ctx, config->ciphers) != 1) {
        ERR_clear_error();
        return pc_fail(err, PC_EDATA, "no usable cipher in \"%s\"", config->ciphers);
    }
    if (load_trust(tls->ctx, config, err) != 0) {
        return -1;
    }
    return load_identity(tls->ctx, config, err);
}

/* An address goes into the check only: SNI is for names (RFC 6066 section 3). */
static int
set_server_name(SSL *ssl, const pc_tls_config *config, pc_err *err)
{
    const char *name = config->server_name;
    unsigned char address[sizeof(struct in6_addr)];
    if (name == NULL || name[0] == '\0') {
        return !config->check_hostname
                   ? 0
                   : pc_fail(err, PC_EDATA, "a server name is needed to check it");
    }
    bool is_ip = inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
    int ok = 1;
    if (!is_ip) {
        ok = (int)SSL_set_tlsext_host_name(ssl, name);
    }
    if (ok == 1 && config->check_hostname) {
        ok = is_ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name)
                   : SSL_set1_host(ssl, name);
    }
    if (ok != 1) {
        ERR_clear_error();
        return pc_fail(err, PC_EDATA, "%s is no usable server name", name);
    }
    return 0;
}

pc_tls *
pc_tls_new(const pc_tls_config *config, int fd, pc_err *err)
{
    pc_tls *tls = pc_zalloc(sizeof *tls);
    if (tls == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    tls->fd = fd;
    if (config->check_hostname && !config->verify) {
        pc_fail(err, PC_EDATA,
                "the host name can only be checked when the certificate is: "
                "turn verification on or the host name check off");
        goto fail;
    }
    if (check_paths(config, err) != 0 || make_context(tls, config, err) != 0) {
        goto fail;
    }
    tls->ssl = SSL_new(tls->ctx);
    if (tls->ssl == NULL) {
        ERR_clear_error();
        pc_fail_nomem(err);
        goto fail;
    }
    if (attach_socket(tls, err) != 0 || set_server_name(tls->ssl, config, err) != 0) {
        goto fail;
    }
    SSL_set_connect_state(tls->ssl);
    return tls;
fail:
    pc_tls_free(tls);
    return NULL;
}

/* Sends nothing, so that a forked child may call it, too. */
void
pc_tls_free(pc_tls *tls)
{
    if (tls == NULL) {
        return;
    }
    SSL_free(tls->ssl);
    SSL_CTX_free(tls->ctx);
    BIO_meth_free(tls->method);
    pc_free(tls);
}

/* --- traffic --- */

int
pc_tls_handshake(pc_tls *tls, pc_err *err)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(tls->ssl);
    return judge(tls, rc, "handshake", err);
}

/* Goes on while OpenSSL holds decrypted bytes, which no poll can see. One record fits into 16 KiB:
 * with that much room nothing stays behind. */
int
pc_tls_read(pc_tls *tls, void *to, size_t n, size_t *done, pc_err *err)
{
    *done = 0;
    do {
        size_t got = 0;
        ERR_clear_error();
        int rc = SSL_read_ex(tls->ssl, (char *)to + *done, n - *done, &got);
        if (rc != 1) {
            return *done > 0 ? PC_TLS_DONE : judge(tls, rc, "read", err);
        }
        *done += got;
    } while (*done < n && SSL_pending(tls->ssl) > 0);
    return PC_TLS_DONE;
}

int
pc_tls_write(pc_tls *tls, const void *from, size_t n, size_t *done, pc_err *err)
{
    *done = 0;
    ERR_clear_error();
    int rc = SSL_write_ex(tls->ssl, from, n, done);
    return judge(tls, rc, "write", err);
}
