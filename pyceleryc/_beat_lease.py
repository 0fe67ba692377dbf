"""Several beats, one of which sends: the lease that says which (setting ``beat_lease``).

The lease and the times of the last runs are kept by the broker, so that the beat that takes over
goes on where the other one stopped: with Redis a key that expires, with AMQP an exclusive queue,
which goes with its connection, with SQLite a lock on a file beside the database.  A beat asks before
each task that it sends, and does not trust an answer that took longer than the lease lasts: it may
have stood still meanwhile.  The time of a run is noted after its task was sent: a beat that dies in
between makes its successor send it again.
"""
from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from kombu.utils.uuid import uuid

from pyceleryc._beat_entry import ScheduleEntry
from pyceleryc.app.drivers import broker_config, broker_urls, scheme_of
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.log import get_logger
from pyceleryc.utils.time import maybe_make_aware

__all__ = ('Leader', 'Lease', 'find_lease')

logger = get_logger('celery.beat')

Runs = dict[str, str]

_CLOCK = getattr(time, 'CLOCK_BOOTTIME', time.CLOCK_MONOTONIC)


class Lease(Protocol):
    """What one of several programs may hold.  Errors of the broker are raised as they are."""

    #: For how long nobody else gets it after acquire() or renew() was called; after acquire() it may be less than before.
    seconds: float

    def acquire(self) -> bool:
        """Try to get it."""

    def renew(self) -> bool:
        """Tell whether it is still held; for as long again, then."""

    def load(self) -> Runs:
        """Return what was saved last."""

    def save(self, runs: Runs) -> bool:
        """Store *runs*, if it is still held."""

    def release(self) -> None:
        """Let another one have it."""


class RedisLease:
    """A key with the holder's token, which expires."""

    _RENEW = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('pexpire', KEYS[1], ARGV[2])"
    _SAVE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('set', KEYS[2], ARGV[2])"
    _RELEASE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1])"

    def __init__(self, app: Any, name: str, timeout: float) -> None:
        self._app = app
        self._connection: Any = None
        prefix = (app.conf.broker_transport_options or {}).get('global_keyprefix', '')
        self.lock, self.runs = f'{prefix}pyceleryc:beat:{name}', f'{prefix}pyceleryc:beat:{name}:runs'
        self.token, self.seconds, self.ms = uuid(), timeout, int(timeout * 1000)

    def _client(self) -> Any:
        from redis import Redis  # optional, but kombu needs it for this broker

        if self._connection is None:
            self._connection = self._app.connection_for_write(transport_options={'socket_timeout': self.seconds})
        # Not the channel's own client, which adds the prefix to some commands and to others not.
        return Redis(connection_pool=self._connection.default_channel.client.connection_pool)

    def acquire(self) -> bool:
        return bool(self._client().set(self.lock, self.token, nx=True, px=self.ms)) or self.renew()

    def renew(self) -> bool:
        return bool(self._client().eval(self._RENEW, 1, self.lock, self.token, self.ms))

    def load(self) -> Runs:
        return _read(self._client().get(self.runs))

    def save(self, runs: Runs) -> bool:
        return bool(self._client().eval(self._SAVE, 2, self.lock, self.runs, self.token, json.dumps(runs)))

    def release(self) -> None:
        if self._connection is not None:
            try:
                self._client().eval(self._RELEASE, 1, self.lock, self.token)
            finally:
                connection, self._connection = self._connection, None
                connection.close()


class AmqpLease:
    """An exclusive queue; and one of a single message with the runs."""

    def __init__(self, app: Any, name: str, timeout: float) -> None:
        self._app = app
        self._connection: Any = None
        self.lock, self.runs = f'pyceleryc.beat.{name}', f'pyceleryc.beat.{name}.runs'
        self.timeout = self.seconds = timeout

    def _channel(self) -> Any:
        if self._connection is None:
            self._connection = self._app.connection_for_write(
                heartbeat=math.ceil(self.timeout / 2),  # the broker waits for two at least
                transport_options={'read_timeout': self.timeout, 'write_timeout': self.timeout})
        return self._connection.default_channel

    def acquire(self) -> bool:
        channel = self._channel()
        try:
            channel.queue_declare(self.lock, exclusive=True, auto_delete=True)
        except channel.connection.channel_errors as exc:
            if getattr(exc, 'reply_code', 0) != 405:  # RESOURCE_LOCKED: it is another's
                raise
            self.release()
            return False
        channel.queue_declare(self.runs, durable=True, auto_delete=False, arguments={'x-max-length': 1})
        self.seconds = min(self.timeout, 2 * channel.connection.heartbeat)  # the broker may have said: less
        return True

    def renew(self) -> bool:
        # There and back within the heartbeat: neither side takes the other for dead.
        self._channel().queue_declare(self.lock, passive=True)
        return True

    def load(self) -> Runs:
        channel = self._channel()
        message = channel.basic_get(self.runs)
        if message is None:
            return {}
        channel.basic_reject(message.delivery_tag, requeue=True)
        return _read(message.body)

    def save(self, runs: Runs) -> bool:
        self.renew()  # what follows on the same connection comes from the holder of the lease, or not at all
        channel = self._channel()
        message = channel.prepare_message(
            json.dumps(runs), content_type='application/json', content_encoding='utf-8', properties={'delivery_mode': 2})
        channel.basic_publish(message, exchange='', routing_key=self.runs)
        return self.renew()

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class FileLease:
    """A lock on the file *path*, which contains the runs; the system drops it when its holder dies."""

    def __init__(self, path: str, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._fd: int | None = None

    def acquire(self) -> bool:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(fd)
            if exc.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        self._fd = fd
        return self.renew()

    def renew(self) -> bool:
        # A file that was removed, or replaced, is locked for nobody.
        return self._fd is not None and os.path.samestat(os.fstat(self._fd), os.stat(self.path))

    def load(self) -> Runs:
        with open(self.path, 'rb') as file:
            return _read(file.read())

    def save(self, runs: Runs) -> bool:
        if self._fd is None or not self.renew():
            return False
        data = json.dumps(runs).encode()
        # Padded, in one write: what is read after a crash is the old text or the new.
        os.pwrite(self._fd, data.ljust(os.fstat(self._fd).st_size), 0)
        return True

    def release(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _read(text: Any) -> Runs:
    try:
        runs = json.loads(text or '{}')
    except ValueError:
        logger.error('beat: the last runs of the lease cannot be read, they are those of the schedule here')
        return {}
    return runs if isinstance(runs, dict) else {}


def find_lease(app: Any) -> Lease | None:
    """Return what the settings ``beat_lease`` (a name) and ``beat_lease_timeout`` (seconds) ask for.

    :raises ImproperlyConfigured: the broker can't keep one.
    """
    name, timeout = app.conf.beat_lease, float(app.conf.beat_lease_timeout)
    if not name:
        return None
    url = broker_urls(app.conf.broker_write_url)[0]
    scheme = scheme_of(url)
    if timeout < 1:
        raise ImproperlyConfigured(f'beat_lease_timeout is {timeout} seconds: at least one is needed')
    if scheme == 'redis':
        return RedisLease(app, name, timeout)
    if scheme in ('amqp', 'amqps'):
        return AmqpLease(app, name, timeout)
    if scheme == 'sqlite':
        config: Mapping[str, Any] = broker_config(app.conf, url) or {}
        return FileLease(f"{config['vhost']}.beat-{name}", timeout)
    raise ImproperlyConfigured(
        f'beat_lease does not work with a {scheme} broker: use amqp, redis or sqlite, or run one beat only')


def _now() -> float:
    """Return the seconds of a clock that goes on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


class Leader:
    """Which of the beats is this one?

    :param lease: what decides.
    :param now: a clock, in seconds.
    """

    def __init__(self, lease: Lease, now: Callable[[], float] = _now) -> None:
        self.lease, self._now = lease, now
        self._renewed: float | None = None
        self._standing_by = False
        self._saved: Runs = {}

    @property
    def leads(self) -> bool:
        """Whether it was this one at the last look."""
        return self._renewed is not None

    @property
    def pause(self) -> float:
        """Seconds between two looks."""
        return self.lease.seconds / 3

    def lead(self, scheduler: Any) -> bool:
        """Tell whether this one sends; asked before every tick."""
        if self._renewed is not None:
            return self._now() - self._renewed < self.pause or self.confirm()
        if not self._ask(self.lease.acquire, 'another beat holds the lease'):
            return False
        try:
            self._saved = self.lease.load()
        except Exception as exc:
            return self._lost(f'the broker does not tell the last runs: {exc}')
        _set_runs(scheduler, self._saved)
        self._standing_by = False
        logger.info('beat: This beat holds the lease and sends the tasks')
        return True

    def confirm(self) -> bool:
        """Ask whether this one still sends; done before every task."""
        return self.leads and self._ask(self.lease.renew, 'the lease has ended')

    def _ask(self, question: Callable[[], bool], no: str) -> bool:
        asked = self._now()
        try:
            held = question()
        except Exception as exc:
            return self._lost(f'the broker does not answer for the lease: {exc}')
        if not held:
            return self._lost(no)
        if self._now() - asked >= self.lease.seconds:
            return self._lost('the answer about the lease came too late')
        self._renewed = asked  # never longer than the broker thinks
        return True

    def _lost(self, why: str) -> bool:
        if self.leads or not self._standing_by:
            logger.warning('beat: Standing by: %s', why)
        self._renewed, self._standing_by = None, True
        try:
            self.lease.release()
        except Exception as exc:
            logger.debug('beat: The lease was not given back: %s', exc)
        return False

    def note(self, scheduler: Any) -> None:
        """A task was sent: let a successor know."""
        runs = _runs_of(scheduler)
        if not self.leads or runs == self._saved:
            return
        try:
            saved = self.lease.save(runs)
        except Exception as exc:
            self._lost(f'the broker does not keep the last runs: {exc}')
            return
        if saved:
            self._saved = runs
        else:
            self._lost('the lease has ended')

    def end(self) -> None:
        """Let another beat take over at once."""
        if self.leads:
            self._renewed = None
            try:
                self.lease.release()
            except Exception as exc:  # of any broker; beat is ending
                logger.warning('beat: The lease was not given back, it ends by itself: %s', exc)


def _entries(scheduler: Any) -> dict[str, Any]:
    # Schedulers with entries of their own keep the last runs in a store of their own.
    return {name: entry for name, entry in scheduler.schedule.items() if type(entry) is ScheduleEntry}


def _runs_of(scheduler: Any) -> Runs:
    return {name: maybe_make_aware(entry.last_run_at).astimezone(UTC).isoformat()
            for name, entry in _entries(scheduler).items() if entry.last_run_at}


def _set_runs(scheduler: Any, runs: Runs) -> None:
    for name, entry in _entries(scheduler).items():
        if name in runs:
            last = datetime.fromisoformat(runs[name])
            if not entry.last_run_at or last > maybe_make_aware(entry.last_run_at):
                entry.last_run_at = last.astimezone(maybe_make_aware(entry.default_now()).tzinfo)
    # The order of the heap is that of other times.
    scheduler.old_schedulers = None
