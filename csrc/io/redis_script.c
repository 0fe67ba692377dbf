/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_script.h"

#include <stdio.h>

#define NOW                                                                                       \
    "local clock = redis.call('TIME')\n"                                                          \
    "local now = clock[1] + clock[2] / 1000000\n"

/* Marks an envelope as kombu does, but leaves every other byte alone: decoding and encoding in Lua
 * would turn empty lists into objects and large integers into floats. */
#define REDELIVER                                                                                 \
    "local function mark(text, brace)\n"                                                          \
    "  local comma = string.find(text, '^%s*}', brace + 1) and '' or ', '\n"                      \
    "  return string.sub(text, 1, brace) .. '\"redelivered\": true' .. comma\n"                   \
    "    .. string.sub(text, brace + 1)\n"                                                        \
    "end\n"                                                                                       \
    "local function redeliver(text)\n"                                                            \
    "  local _, info = string.find(text, '^.*\"delivery_info\": ?{')\n"                           \
    "  if info then\n"                                                                            \
    "    local inside = string.match(text, '^%b{}', info) or ''\n"                                \
    "    if string.find(inside, '\"redelivered\": ?true') then return text end\n"                 \
    "    text = mark(text, info)\n"                                                               \
    "  end\n"                                                                                     \
    "  local _, headers = string.find(text, '\"headers\": ?{')\n"                                 \
    "  return headers and mark(text, headers) or text\n"                                          \
    "end\n"

/* A list that became something else takes no message: the list of the dead does. */
#define TARGET                                                                                    \
    "local function target(list, unacked)\n"                                                      \
    "  local kind = redis.call('TYPE', list).ok\n"                                                \
    "  return (kind == 'list' or kind == 'none') and list or unacked .. '.pyceleryc.dead'\n"      \
    "end\n"

/* Puts one of our deliveries where it came from. The push comes first: when it is refused (memory,
 * type of the key) nothing has happened yet. */
#define RESTORE                                                                                   \
    TARGET                                                                                        \
    "local index, unacked, held = KEYS[1], KEYS[2], KEYS[3]\n"                                    \
    "local function forget(tag)\n"                                                                \
    "  redis.call('ZREM', index, tag)\n"                                                          \
    "  redis.call('HDEL', unacked, tag)\n"                                                        \
    "  redis.call('HDEL', held, tag)\n"                                                           \
    "end\n"                                                                                       \
    "local function restore(tag, push)\n"                                                         \
    "  local list = redis.call('HGET', held, tag)\n"                                              \
    "  if not list then return end\n"                                                             \
    "  local value = redis.call('HGET', unacked, tag)\n"                                          \
    "  local text = value and string.match(value, '^%[(.*), \"\", \".*\"%]$')\n"                  \
    "  if text then redis.call(push, target(list, unacked), redeliver(text)) end\n"                \
    "  if text or not value then forget(tag) end\n"                                               \
    "end\n"

/* The queues that a message is routed to. '*' and '#' match what kombu's patterns match. */
#define LOOK_UP                                                                                   \
    "local function matches(bound, key)\n"                                                        \
    "  local pattern = string.gsub(bound, '[%^%$%(%)%%%.%[%]%+%-%?]', '%%%0')\n"                  \
    "  pattern = string.gsub(pattern, '%*', '.-[^%%.]')\n"                                        \
    "  pattern = string.gsub(pattern, '#', '.-')\n"                                               \
    "  return string.find(key, '^' .. pattern .. '$') ~= nil\n"                                   \
    "end\n"                                                                                       \
    "local function look_up(bindings, sep, key)\n"                                                \
    "  local queues, seen = {}, {}\n"                                                             \
    "  for _, member in ipairs(redis.call('SMEMBERS', bindings)) do\n"                            \
    "    local a, b = string.find(member, sep, 1, true)\n"                                        \
    "    local c, d = string.find(member, sep, b and b + 1 or 1, true)\n"                         \
    "    if a and c and c > b then\n"                                                             \
    "      local bound, topic = string.sub(member, 1, a - 1), c > b + 1\n"                        \
    "      local queue = string.sub(member, d + 1)\n"                                             \
    "      if (bound == key or topic and matches(bound, key)) and not seen[queue] then\n"         \
    "        seen[queue] = true\n"                                                                \
    "        queues[#queues + 1] = queue\n"                                                       \
    "      end\n"                                                                                 \
    "    end\n"                                                                                   \
    "  end\n"                                                                                     \
    "  return queues\n"                                                                           \
    "end\n"

/* KEYS index, unacked, held, then the lists: priority by priority, in each the queues in order.
 * ARGV messages wanted, worker, first number, bytes wanted, number of queues, "1" to rotate them,
 * then what goes behind each queue's texts in `unacked`: empty to take without booking.
 * Returns an error text or "", then for each message the place of its queue, and its text.
 *
 * The three reads at the start fail before anything was popped if a key is of the wrong type. */
static const char claim[] = NOW
    "local index, unacked, held = KEYS[1], KEYS[2], KEYS[3]\n"
    "local want, id, number = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])\n"
    "local room, queues, rotate = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'\n"
    "redis.call('HLEN', unacked)\n"
    "redis.call('ZCARD', index)\n"
    "redis.call('HLEN', held)\n"
    "local order, dry, out = {}, {}, {''}\n"
    "for i = 1, queues do order[i] = i end\n"
    "local function pop()\n"
    "  for first = 3, #KEYS - 1, queues do\n"
    "    for at = 1, queues do\n"
    "      local i = order[at]\n"
    "      local list = KEYS[first + i]\n"
    "      if not dry[list] then\n"
    "        local got = redis.pcall('RPOP', list)\n"
    "        if type(got) == 'string' then\n"
    "          if rotate then\n"
    "            table.remove(order, at)\n"
    "            order[queues] = i\n"
    "          end\n"
    "          return i, list, got\n"
    "        end\n"
    "        dry[list] = true\n"
    "        if got then out[1] = list .. ': ' .. got.err end\n"
    "        if got and not string.find(got.err, 'WRONGTYPE') then out[1] = got.err end\n"
    "      end\n"
    "    end\n"
    "  end\n"
    "end\n"
    "while want > 0 and room > 0 do\n"
    "  local i, list, text = pop()\n"
    "  if not i then break end\n"
    "  if ARGV[6 + i] ~= '' then\n"
    "    local tag = id .. ':' .. string.format('%.0f', number)\n"
    "    redis.call('ZADD', index, now, tag)\n"
    "    redis.call('HSET', unacked, tag, '[' .. text .. ARGV[6 + i])\n"
    "    redis.call('HSET', held, tag, list)\n"
    "  end\n"
    "  out[#out + 1] = i\n"
    "  out[#out + 1] = text\n"
    "  number, want, room = number + 1, want - 1, room - #text\n"
    "end\n"
    "return out\n";

/* KEYS index, unacked, held, dead. ARGV how (ack, back, front, dead), tags. Returns "OK".
 * Tags that are not there any more are skipped: settling twice is harmless. */
static const char settle[] = REDELIVER RESTORE
    "local how = table.remove(ARGV, 1)\n"
    "if how == 'ack' then\n"
    "  redis.call('ZREM', index, unpack(ARGV))\n"
    "  redis.call('HDEL', unacked, unpack(ARGV))\n"
    "  redis.call('HDEL', held, unpack(ARGV))\n"
    "elseif how == 'dead' then\n"
    "  for _, tag in ipairs(ARGV) do\n"
    "    local value = redis.call('HGET', unacked, tag)\n"
    "    if value then\n"
    "      redis.call('LPUSH', KEYS[4], string.match(value, '^%[(.*), \"\", \".*\"%]$') or value)\n"
    "      redis.call('LTRIM', KEYS[4], 0, 9999)\n"
    "    end\n"
    "    forget(tag)\n"
    "  end\n"
    "else\n"
    "  for _, tag in ipairs(ARGV) do restore(tag, how == 'back' and 'LPUSH' or 'RPUSH') end\n"
    "end\n"
    "return redis.status_reply('OK')\n";

/* KEYS index, unacked, held, workers. ARGV worker, most messages, how many seconds ago its lease must have ended ("" for
 * at once), cursor. Gives back what the worker holds, the oldest to the very front. What is too much for one call goes in
 * parts, as they come: to sort all of it each time would keep the server busy for minutes. At the end the worker is
 * forgotten. Returns {given back, next cursor}. */
static const char retire[] = NOW REDELIVER RESTORE
    "local lease = redis.call('ZSCORE', KEYS[4], ARGV[1])\n"
    "if ARGV[3] ~= '' and (not lease or lease + ARGV[3] > now) then return {0, '0'} end\n"
    "local tags, numbers, cursor = {}, {}, '0'\n"
    "if redis.call('HLEN', held) <= tonumber(ARGV[2]) then\n"
    "  tags = redis.call('HKEYS', held)\n"
    "else\n"
    "  local found = redis.call('HSCAN', held, ARGV[4], 'COUNT', math.floor(ARGV[2] / 4))\n"
    "  cursor = found[1]\n"
    "  for i = 1, #found[2], 2 do tags[#tags + 1] = found[2][i] end\n"
    "end\n"
    "for _, tag in ipairs(tags) do numbers[tag] = tonumber(string.match(tag, '%d+$')) or 0 end\n"
    "table.sort(tags, function(a, b) return numbers[a] > numbers[b] end)\n"
    "for _, tag in ipairs(tags) do restore(tag, 'RPUSH') end\n"
    "if cursor == '0' then redis.call('ZREM', KEYS[4], ARGV[1]) end\n"
    "return {#tags, cursor}\n";

/* KEYS index, held. ARGV cursor, how many at a time. Makes what is held young again; never enters
 * into the index what somebody took out. Returns the next cursor. */
static const char touch[] = NOW
    "local found = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])\n"
    "for i = 1, #found[2], 2 do redis.call('ZADD', KEYS[1], 'XX', now, found[2][i]) end\n"
    "return found[1]\n";

/* KEYS workers. ARGV worker, seconds, "1" to begin a lease. Renews the lease of a worker, unless it was
 * ended. Returns the milliseconds until the next lease of another ends (-1: there is none, -2: the
 * worker has no lease), then up to 16 workers whose leases have. */
static const char beat[] = NOW
    "if ARGV[3] ~= '1' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {-2} end\n"
    "redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])\n"
    "local out = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 16)\n"
    "local others = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.6f', now), '+inf',\n"
    "                          'WITHSCORES', 'LIMIT', 0, 2)\n"
    "local wait = -1\n"
    "for i = #others - 1, 1, -2 do\n"
    "  if others[i] ~= ARGV[1] then wait = math.ceil((others[i + 1] - now) * 1000) end\n"
    "end\n"
    "table.insert(out, 1, wait)\n"
    "return out\n";

/* KEYS index, unacked, mutex, workers (or not). ARGV seconds, how many at most, prefix, separator, steps.
 * Kombu's rule for what Celery's workers hold: too old means abandoned. As one step it needs no mutex, but
 * leaves the work to a kombu that holds it. What one of `workers` holds is not abandoned, though it may look
 * old, after the clock was set: it is made young. Returns the number of messages. */
static const char visible[] = NOW REDELIVER LOOK_UP TARGET
    "local index, unacked = KEYS[1], KEYS[2]\n"
    "local prefix, sep, restored = ARGV[3], ARGV[4], 0\n"
    "if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end\n"
    "local function suffix(text)\n"
    "  local priority = tonumber(string.match(text, '^.*\"priority\": ?(%d+)')) or 0\n"
    "  local step = 0\n"
    "  for i = 5, #ARGV do\n"
    "    if i == 5 or tonumber(ARGV[i]) <= priority then step = tonumber(ARGV[i]) end\n"
    "  end\n"
    "  return step == 0 and '' or sep .. step\n"
    "end\n"
    "local function forget(tag)\n"
    "  redis.call('ZREM', index, tag)\n"
    "  redis.call('HDEL', unacked, tag)\n"
    "end\n"
    "local function is_held(tag)\n"
    "  local worker = KEYS[4] and string.match(tag, '^(.*):%d+$')\n"
    "  return worker and redis.call('ZSCORE', KEYS[4], worker)\n"
    "end\n"
    "local function restore(tag)\n"
    "  local value = redis.call('HGET', unacked, tag)\n"
    "  local text, exchange, key\n"
    "  if value then\n"
    "    text, exchange, key = string.match(value, '^%[(.*), \"([^\"]*)\", \"([^\"]*)\"%]$')\n"
    "  else\n"
    "    redis.call('ZREM', index, tag)\n"
    "  end\n"
    "  local queues = {}\n"
    "  if text and exchange == '' then queues = {key} end\n"
    "  if text and exchange ~= '' then\n"
    "    queues = look_up(prefix .. '_kombu.binding.' .. exchange, sep, key)\n"
    "  end\n"
    "  for _, queue in ipairs(queues) do\n"
    "    local list = target(prefix .. queue .. suffix(text), unacked)\n"
    "    redis.call('RPUSH', list, redeliver(text))\n"
    "  end\n"
    "  if #queues > 0 then\n"
    "    forget(tag)\n"
    "    restored = restored + 1\n"
    "  end\n"
    "end\n"
    "local old = redis.call('ZRANGEBYSCORE', index, '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])\n"
    "for _, tag in ipairs(old) do\n"
    "  if is_held(tag) then redis.call('ZADD', index, 'XX', now, tag) else restore(tag) end\n"
    "end\n"
    "return restored\n";

static const char *const texts[PC_SCRIPT_COUNT] = {
    [PC_SCRIPT_CLAIM] = claim, [PC_SCRIPT_SETTLE] = settle, [PC_SCRIPT_RETIRE] = retire,
    [PC_SCRIPT_TOUCH] = touch, [PC_SCRIPT_BEAT] = beat,     [PC_SCRIPT_VISIBLE] = visible,
};

/* KEYS bindings. ARGV prefix, separator, routing key, suffix of the lists, envelope. Returns the number
 * of queues. */
static const char route[] = LOOK_UP
    "local queues = look_up(KEYS[1], ARGV[2], ARGV[3])\n"
    "for _, queue in ipairs(queues) do\n"
    "  redis.call('LPUSH', ARGV[1] .. queue .. ARGV[4], ARGV[5])\n"
    "end\n"
    "return #queues\n";

/* KEYS lists of a queue. */
static const char size[] =
    "local n = 0\n"
    "for _, list in ipairs(KEYS) do n = n + redis.call('LLEN', list) end\n"
    "return n\n";

static const char purge[] =
    "local n = 0\n"
    "for _, list in ipairs(KEYS) do n = n + redis.call('LLEN', list) end\n"
    "redis.call('DEL', unpack(KEYS))\n"
    "return n\n";

/* Returns false for an empty queue. */
static const char get[] =
    "for _, list in ipairs(KEYS) do\n"
    "  local text = redis.call('RPOP', list)\n"
    "  if text then return text end\n"
    "end\n"
    "return false\n";

/* KEYS workers. ARGV worker, seconds. Renews its lease; returns 0 if somebody has ended that. */
static const char pulse[] = NOW
    "if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end\n"
    "redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])\n"
    "return 1\n";

static const char *const questions[PC_ASK_COUNT] = {
    [PC_ASK_ROUTE] = route,
    [PC_ASK_SIZE] = size,
    [PC_ASK_PURGE] = purge,
    [PC_ASK_GET] = get,
    [PC_ASK_PULSE] = pulse,
};

// ---- loading ----

void
pc_redis_scripts_init(pc_redis_scripts *scripts, pc_redis *conn,
                      void (*done)(void *ctx, const pc_err *why), void *ctx)
{
    *scripts = (pc_redis_scripts){.conn = conn, .done = done, .ctx = ctx};
}

/* Answers come in the order of the commands. */
static void
on_loaded(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis_scripts *scripts = ctx;
    if (why != NULL) {
        return;
    }
    char *sha = scripts->sha[PC_SCRIPT_COUNT - scripts->loading];
    if (pc_redis_check(scripts->conn, reply, &scripts->err) == 0) {
        snprintf(sha, sizeof scripts->sha[0], "%.*s", (int)reply->text.len, reply->text.ptr);
    }
    if (--scripts->loading == 0) {
        scripts->done(scripts->ctx, scripts->err.code == PC_OK ? NULL : &scripts->err);
    }
}

int
pc_redis_scripts_load(pc_redis_scripts *scripts, pc_err *err)
{
    if (scripts->loading > 0) {
        return 0;
    }
    scripts->err = (pc_err){0};
    for (size_t i = 0; i < PC_SCRIPT_COUNT; i++) {
        pc_slice words[] = {pc_slice_str("SCRIPT"), pc_slice_str("LOAD"), pc_slice_str(texts[i])};
        if (pc_redis_command(scripts->conn, 3, words, on_loaded, scripts, err) < 0) {
            return -1;
        }
        scripts->loading++;
    }
    return 0;
}

void
pc_redis_scripts_reset(pc_redis_scripts *scripts)
{
    scripts->loading = 0;
}

void
pc_redis_scripts_begin(const pc_redis_scripts *scripts, pc_script which, size_t keys,
                       pc_redis_args *args)
{
    pc_redis_args_reset(args);
    pc_redis_args_str(args, "EVALSHA");
    pc_redis_args_str(args, scripts->sha[which]);
    pc_redis_args_number(args, keys);
}

const char *
pc_redis_question_text(pc_question which)
{
    return questions[which];
}

void
pc_redis_eval_begin(pc_question which, size_t keys, pc_redis_args *args)
{
    pc_redis_args_reset(args);
    pc_redis_args_str(args, "EVAL");
    pc_redis_args_str(args, questions[which]);
    pc_redis_args_number(args, keys);
}
