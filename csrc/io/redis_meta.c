/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_meta.h"

#include <stdio.h>

#define KEY_PREFIX "celery-task-meta-"
#define MAX_TTL 3e9  // seconds, 95 years

const char pc_redis_meta_script[] =
    "local head = redis.call('GETRANGE', KEYS[1], 0, 63)\n"
    "if head ~= '' then\n"
    "  local first, found = head:byte(), nil\n"
    "  if first == 123 then\n"
    "    found = head:find('^{%s*\"status\"%s*:%s*\"SUCCESS\"')\n"
    "  elseif first >= 128 then\n"
    "    found = head:find('status.?.?.?.?.?.?.?.?SUCCESS')\n"
    "  else\n"
    "    found = ('\\n' .. redis.call('GET', KEYS[1])):find('\\nstatus: SUCCESS', 1, true)\n"
    "  end\n"
    "  if found then return 0 end\n"
    "end\n"
    "if ARGV[2] == '0' then\n"
    "  redis.call('SET', KEYS[1], ARGV[1])\n"
    "else\n"
    "  redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])\n"
    "end\n"
    "redis.call('PUBLISH', KEYS[1], ARGV[1])\n"
    "return 1\n";

const char pc_redis_meta_sha[] = "2e1b9c13acb2c359f72269bf51d927274384a96d";

pc_redis_config
pc_redis_meta_config(const pc_store_config *config)
{
    return (pc_redis_config){
        .host = config->host,
        .port = config->port,
        .unix_path = config->unix_path,
        .sentinels = config->sentinels,
        .db = config->db,
        .user = config->user,
        .password = config->password,
        .tls = config->tls,
        .client_name = "pyceleryc",
        .connect_timeout = config->connect_timeout,
        .socket_timeout = config->socket_timeout,
    };
}

int
pc_redis_meta_prefix(const char *global_prefix, pc_buf *out, pc_err *err)
{
    size_t len = global_prefix == NULL ? 0 : strlen(global_prefix);
    bool joined = len == 0 || strchr(":_-.", global_prefix[len - 1]) != NULL;
    if (pc_buf_put(out, global_prefix, len, err) < 0) {
        return -1;
    }
    return pc_buf_put_str(out, joined ? KEY_PREFIX : "_" KEY_PREFIX, err);
}

void
pc_redis_meta_put_init(pc_redis_meta_put *put, bool by_sha, pc_slice key, pc_slice document,
                       pc_slice ttl)
{
    put->argv[0] = pc_slice_str(by_sha ? "EVALSHA" : "EVAL");
    put->argv[1] = pc_slice_str(by_sha ? pc_redis_meta_sha : pc_redis_meta_script);
    put->argv[2] = pc_slice_str("1");
    put->argv[3] = key;
    put->argv[4] = document;
    put->argv[5] = ttl;
}

pc_slice
pc_redis_meta_ttl(double expires, char out[PC_REDIS_TTL_MAX])
{
    if (!(expires > 0)) {
        return pc_slice_str("0");
    }
    double whole = expires < 1 ? 1 : expires > MAX_TTL ? MAX_TTL : expires;
    int len = snprintf(out, PC_REDIS_TTL_MAX, "%lld", (long long)whole);
    return pc_slice_of(out, (size_t)len);
}

int
pc_redis_meta_check_size(pc_slice document, pc_err *err)
{
    if (document.len <= PC_REDIS_VALUE_MAX) {
        return 0;
    }
    return pc_fail(err, PC_ELIMIT,
                   "a result of %zu bytes; Redis holds at most 512 MiB in one value: return less, "
                   "or store it elsewhere and return where",
                   document.len);
}
