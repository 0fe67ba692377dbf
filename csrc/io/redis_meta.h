/* SPDX-License-Identifier: BSD-3-Clause */
/* How task results lie in Redis (PROTOCOL §3.5.2): key names, and the one script that writes a
 * document.
 *
 * Key and channel are <prefix>celery-task-meta-<id>. The script does guard, SETEX and PUBLISH
 * as one step, so that a reader sees both or none and a SUCCESS is never replaced; it returns
 * 1, or 0 when a SUCCESS was there. Measured with Redis 7.0, 185-byte documents, 64 in a
 * pipeline: the script costs the server 4.7-5.3 us, MULTI SETEX PUBLISH EXEC without any guard
 * 3.0-4.0 us; but the script is one command and one reply for us instead of four, sends the
 * document once instead of twice, and needs no GET before it. From start to end it was the
 * quicker one (8.0-9.2 against 9.6-10.6 us; 10 kB: 34-37 against 47-58).
 *
 * The guard looks at the first bytes of what is stored: JSON that begins with the status; a
 * binary document (pickle, msgpack) with the word SUCCESS within 8 bytes of the word status in
 * its first 64; any other text (YAML) with a line "status: SUCCESS". */
#ifndef PC_IO_REDIS_META_H
#define PC_IO_REDIS_META_H

#include "io/redis_conn.h"
#include "io/store.h"

extern const char pc_redis_meta_script[];
extern const char pc_redis_meta_sha[];  // of the script, for EVALSHA

/* What the connection needs of the store's configuration. Strings are lent. */
pc_redis_config pc_redis_meta_config(const pc_store_config *config);
/* Appends the key prefix of all results: global_keyprefix, "_" unless it ends in one of
 * ":_-.", "celery-task-meta-". */
int pc_redis_meta_prefix(const char *global_prefix, pc_buf *out, pc_err *err);

/* One call of the script: EVALSHA or EVAL, 1 key, document, seconds to live ("0": for ever). */
#define PC_REDIS_META_ARGS 6
typedef struct pc_redis_meta_put {
    pc_slice argv[PC_REDIS_META_ARGS];
} pc_redis_meta_put;

void pc_redis_meta_put_init(pc_redis_meta_put *put, bool by_sha, pc_slice key, pc_slice document,
                            pc_slice ttl);
/* Writes the seconds to live as text: whole, at least 1, 0 for "never". */
#define PC_REDIS_TTL_MAX 24
pc_slice pc_redis_meta_ttl(double expires, char out[PC_REDIS_TTL_MAX]);
/* PC_ELIMIT when Redis cannot hold such a value. */
int pc_redis_meta_check_size(pc_slice document, pc_err *err);

#endif
