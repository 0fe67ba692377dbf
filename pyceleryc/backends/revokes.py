"""Revoked ids that outlive the workers (setting ``worker_durable_revokes``).

They are kept in the result store, else in the broker, each with the time after which it is forgotten. Who revokes writes there; workers
read when they connect. Nothing is asked when a task comes: that is a look into the worker's memory, as ever.
"""
from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

from pyceleryc.app.drivers import broker_config, broker_urls, scheme_of
from pyceleryc.backends.errors import StoreUnreachable
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('BrokerRevokes', 'FileRevokes', 'RedisRevokes', 'RevokeStore', 'durable_revokes', 'entries')

#: Most ids that are kept, the newest; a worker remembers no more.
LIMIT = 50_000
#: Seconds that a writer of an SQLite file waits for another one.
LOCK_TIMEOUT = 5.0
KEY = 'pyceleryc-revoked'


class RevokeStore(Protocol):
    """Where revoked ids are kept."""

    def add(self, task_ids: Sequence[str], expires: float) -> None:
        """Keep *task_ids* for *expires* seconds.  :raises OperationalError: the store cannot be reached."""

    def load(self) -> list[str]:
        """Return the ids that are kept, the oldest first.  :raises OperationalError: the store cannot be reached."""


def durable_revokes(app: Any) -> RevokeStore | None:
    """Return what the setting ``worker_durable_revokes`` asks for; None if it is off.

    :raises ImproperlyConfigured: neither the result store nor the broker can keep ids.
    """
    conf = app.conf
    if not conf.worker_durable_revokes:
        return None
    if not conf.worker_durable_revokes_expires > 0:
        raise ImproperlyConfigured(
            f'worker_durable_revokes_expires is {conf.worker_durable_revokes_expires!r}: it has to be a number of seconds above 0')
    found: RevokeStore | None = app.backend.revoke_store()
    if found is not None:
        return found
    url = broker_urls(conf.broker_write_url)[0]
    scheme = scheme_of(url)
    if scheme == 'redis':
        return BrokerRevokes(app)
    if scheme == 'sqlite':
        return FileRevokes(f"{(broker_config(conf, url) or {})['vhost']}.revoked")
    raise ImproperlyConfigured(
        f'worker_durable_revokes: neither the result store ({type(app.backend).__name__}) nor the broker ({scheme}) can keep revoked ids. '
        'Use a Redis, SQLite or db+… result store, or a Redis or SQLite broker; or set it to False')


class RedisRevokes:
    """A sorted set: the score of an id is the Unix time at which it is forgotten.

    :param run: ``run(*words)`` returns Redis's answer to one command.
    """

    #: The set itself goes with its last member.
    _ADD = """
        for i = 4, #ARGV do redis.call('zadd', KEYS[1], ARGV[1], ARGV[i]) end
        redis.call('zremrangebyscore', KEYS[1], '-inf', ARGV[2])
        redis.call('zremrangebyrank', KEYS[1], 0, -1 - ARGV[3])
        local last = redis.call('zrange', KEYS[1], -1, -1, 'withscores')[2]
        if last then redis.call('expireat', KEYS[1], math.ceil(tonumber(last))) end"""

    def __init__(self, run: Callable[..., Any], key: str = KEY) -> None:
        self._run, self.key = run, key

    def add(self, task_ids: Sequence[str], expires: float) -> None:
        now = time.time()
        for part in entries(task_ids):
            self._run('EVAL', self._ADD, 1, self.key, now + expires, now, LIMIT, *part)

    def load(self) -> list[str]:
        found = self._run('ZRANGEBYSCORE', self.key, time.time(), '+inf')
        return [item.decode() if isinstance(item, bytes) else item for item in found]


class BrokerRevokes(RedisRevokes):
    """The same in the Redis that is the broker; connected as long as it takes."""

    def __init__(self, app: Any) -> None:
        # Kombu's client adds its prefix to the keys of few commands, and these are none of them.
        prefix = (app.conf.broker_transport_options or {}).get('global_keyprefix') or ''
        super().__init__(self._ask, f'{prefix}{KEY}')
        self._app = app

    def _ask(self, *words: Any) -> Any:
        with self._app.connection_for_write() as connection:
            try:
                return connection.default_channel.client.execute_command(*words)
            except (*connection.recoverable_connection_errors, *connection.recoverable_channel_errors) as exc:
                raise StoreUnreachable(f'Revoked ids cannot be kept in {connection.as_uri()}: {exc}') from exc


class FileRevokes:
    """An SQLite file of its own, beside that of the results or messages.

    :param path: of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @contextmanager
    def _table(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_TIMEOUT)) as connection, connection:
                connection.execute('CREATE TABLE IF NOT EXISTS revoked (task_id TEXT PRIMARY KEY, expires REAL NOT NULL)')
                yield connection
        except sqlite3.OperationalError as exc:
            raise StoreUnreachable(f'Revoked ids cannot be kept in {self.path}: {exc}') from exc

    def add(self, task_ids: Sequence[str], expires: float) -> None:
        now = time.time()
        with self._table() as table:
            table.executemany('INSERT OR REPLACE INTO revoked VALUES (?, ?)', [(task_id, now + expires) for task_id in task_ids])
            table.execute('DELETE FROM revoked WHERE expires <= ?', (now,))

    def load(self) -> list[str]:
        with self._table() as table:
            found = table.execute(
                'SELECT task_id FROM revoked WHERE expires > ? ORDER BY expires DESC LIMIT ?', (time.time(), LIMIT)).fetchall()
        return [task_id for task_id, in reversed(found)]


def entries(task_ids: Sequence[str], most: int = 1000) -> Iterator[Sequence[str]]:
    """Yield *task_ids* in parts of a size that one command may have."""
    for start in range(0, len(task_ids), most):
        yield task_ids[start:start + most]
