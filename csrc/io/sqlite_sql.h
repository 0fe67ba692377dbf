/* SPDX-License-Identifier: BSD-3-Clause */
/* Every statement that is run against the database file, by name, and the schema. Only
 * sqlite_db.c uses the texts; everybody else uses the names. Times are microseconds since
 * 1970 (UTC).
 *
 * A message is ready when it has no owner and due = 0. The conditions in the statements repeat
 * those of the partial indexes word for word, otherwise SQLite would not use them. */
#ifndef PC_IO_SQLITE_SQL_H
#define PC_IO_SQLITE_SQL_H

#define PC_SQL_APPLICATION 0x70796363 /* "pycc", in the file's header */
#define PC_SQL_VERSION 1

/* Ids of queues, workers and messages are never used twice (AUTOINCREMENT): a late statement about
 * something that was deleted meanwhile hits nothing. */
#define PC_SQL_SCHEMA \
    "CREATE TABLE queue(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE," \
    " auto_delete INTEGER NOT NULL);" \
    "CREATE TABLE exchange(name TEXT PRIMARY KEY, type TEXT NOT NULL) WITHOUT ROWID;" \
    "CREATE TABLE binding(exchange TEXT NOT NULL, routing_key TEXT NOT NULL, q INTEGER NOT NULL," \
    " PRIMARY KEY(exchange, routing_key, q)) WITHOUT ROWID;" \
    "CREATE TABLE worker(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE," \
    " process TEXT NOT NULL);" \
    "CREATE TABLE consumer(q INTEGER NOT NULL, worker INTEGER NOT NULL," \
    " PRIMARY KEY(q, worker)) WITHOUT ROWID;" \
    "CREATE TABLE msg(id INTEGER PRIMARY KEY AUTOINCREMENT, q INTEGER NOT NULL," \
    " prio INTEGER NOT NULL, due INTEGER NOT NULL, owner INTEGER, tries INTEGER NOT NULL," \
    " props BLOB, headers TEXT, body BLOB);" \
    "CREATE INDEX ready ON msg(q, prio DESC, id) WHERE owner IS NULL AND due=0;" \
    "CREATE INDEX later ON msg(due) WHERE due>0;" \
    "CREATE INDEX held ON msg(owner) WHERE owner IS NOT NULL;" \
    "CREATE TRIGGER queue_gone AFTER DELETE ON queue BEGIN" \
    " DELETE FROM msg WHERE q=old.id;" \
    " DELETE FROM binding WHERE q=old.id;" \
    " DELETE FROM consumer WHERE q=old.id;" \
    "END;" \
    "CREATE TABLE result(id TEXT PRIMARY KEY, state TEXT NOT NULL, doc BLOB NOT NULL," \
    " changed INTEGER NOT NULL, expires INTEGER NOT NULL);" \
    "CREATE INDEX expiry ON result(expires) WHERE expires>0;"

#define PC_SQL_ROW " id, prio, tries, props, headers, body"

#define PC_SQL_LIST(X) \
    X(BEGIN, "BEGIN IMMEDIATE") \
    X(COMMIT, "COMMIT") \
    X(ROLLBACK, "ROLLBACK") \
    X(DATA_VERSION, "PRAGMA data_version") \
    /* queues, exchanges */ \
    X(QUEUE_ADD, "INSERT INTO queue(name, auto_delete) VALUES(?1, ?2)" \
      " ON CONFLICT(name) DO NOTHING") \
    X(QUEUE_ID, "SELECT id FROM queue WHERE name=?1") \
    X(QUEUE_ALIVE, "SELECT 1 FROM queue WHERE id=?1") \
    X(QUEUE_REMOVE, "DELETE FROM queue WHERE name=?1") \
    X(QUEUE_SIZE, "SELECT count(*) FROM msg WHERE q=?1 AND owner IS NULL AND due=0") \
    X(QUEUE_CONSUMERS, "SELECT count(*) FROM consumer WHERE q=?1") \
    X(QUEUE_PURGE, "DELETE FROM msg WHERE q=?1 AND owner IS NULL") \
    X(EXCHANGE_ADD, "INSERT INTO exchange(name, type) VALUES(?1, ?2)" \
      " ON CONFLICT(name) DO NOTHING") \
    X(EXCHANGE_TYPE, "SELECT type FROM exchange WHERE name=?1") \
    X(BINDING_ADD, "INSERT INTO binding(exchange, routing_key, q)" \
      " SELECT ?1, ?2, id FROM queue WHERE name=?3 ON CONFLICT DO NOTHING") \
    X(BINDING_LIST, "SELECT binding.routing_key, queue.name FROM binding" \
      " JOIN queue ON queue.id=binding.q WHERE binding.exchange=?1 ORDER BY queue.id") \
    /* messages */ \
    X(MSG_PUT, "INSERT INTO msg(q, prio, due, tries, props, headers, body)" \
      " SELECT id, ?2, ?3, 0, ?4, ?5, ?6 FROM queue WHERE name=?1") \
    X(MSG_CLAIM, "UPDATE msg SET owner=?1, tries=tries+1 WHERE id IN (SELECT id FROM msg" \
      " WHERE q=?2 AND owner IS NULL AND due=0 ORDER BY prio DESC, id LIMIT ?3)" \
      " RETURNING" PC_SQL_ROW) \
    X(MSG_TAKE, "DELETE FROM msg WHERE id=(SELECT id FROM msg" \
      " WHERE q=?1 AND owner IS NULL AND due=0 ORDER BY prio DESC, id LIMIT 1)" \
      " RETURNING" PC_SQL_ROW) \
    X(MSG_IS_READY, "SELECT 1 FROM msg WHERE q=?1 AND owner IS NULL AND due=0 LIMIT 1") \
    X(MSG_DELETE, "DELETE FROM msg WHERE id=?1 AND owner=?2") \
    X(MSG_REQUEUE, "UPDATE msg SET owner=NULL WHERE id=?1 AND owner=?2") \
    X(MSG_UNCLAIM, "UPDATE msg SET owner=NULL, tries=tries-1 WHERE id=?1 AND owner=?2") \
    X(MSG_RELEASE, "UPDATE msg SET owner=NULL WHERE owner=?1") \
    X(MSG_PROMOTE, "UPDATE msg SET due=0 WHERE due>0 AND due<=?1") \
    X(MSG_NEXT_DUE, "SELECT due FROM msg WHERE due>0 ORDER BY due LIMIT 1") \
    /* workers */ \
    X(WORKER_ADD, "INSERT INTO worker(name, process) VALUES(?1, ?2)") \
    X(WORKER_FIND, "SELECT id FROM worker WHERE name=?1") \
    X(WORKER_LIST, "SELECT id, name, process FROM worker WHERE id<>?1") \
    X(WORKER_REMOVE, "DELETE FROM worker WHERE id=?1") \
    X(CONSUMER_ADD, "INSERT INTO consumer(q, worker) VALUES(?1, ?2) ON CONFLICT DO NOTHING") \
    X(CONSUMER_REMOVE, "DELETE FROM consumer WHERE q=?1 AND worker=?2") \
    X(CONSUMER_REMOVE_ALL, "DELETE FROM consumer WHERE worker=?1") \
    /* auto-delete queues that have no other consumer than worker ?1 */ \
    X(QUEUE_REAP, "DELETE FROM queue WHERE auto_delete=1" \
      " AND id IN (SELECT q FROM consumer WHERE worker=?1)" \
      " AND NOT EXISTS (SELECT 1 FROM consumer WHERE q=queue.id AND worker<>?1)") \
    /* results; `changed` grows with every write of an id, even when the clock is set back */ \
    X(RESULT_PUT, "INSERT INTO result(id, state, doc, changed, expires)" \
      " VALUES(?1, ?2, ?3, ?4, ?5)" \
      " ON CONFLICT(id) DO UPDATE SET state=excluded.state, doc=excluded.doc," \
      " changed=max(excluded.changed, result.changed+1), expires=excluded.expires" \
      " WHERE result.state<>'SUCCESS' OR excluded.state='SUCCESS'" \
      " OR (result.expires>0 AND result.expires<=?4)") \
    X(RESULT_GET, "SELECT doc, changed FROM result WHERE id=?1 AND (expires=0 OR expires>?2)") \
    X(RESULT_REMOVE, "DELETE FROM result WHERE id=?1") \
    X(RESULT_EXPIRE, "DELETE FROM result WHERE rowid IN" \
      " (SELECT rowid FROM result WHERE expires>0 AND expires<=?1 LIMIT 100)")

#define PC_SQL_NAME(name, text) PC_SQL_##name,
typedef enum pc_sql { PC_SQL_LIST(PC_SQL_NAME) PC_SQL_COUNT } pc_sql;
#undef PC_SQL_NAME

#endif
