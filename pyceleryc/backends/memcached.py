"""Results in memcached: ``cache+memcached://host1;host2/`` (PROTOCOL §3.5.5)."""
from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from pyceleryc.backends.remote import RemoteStore, require
from pyceleryc.exceptions import BackendError, BackendStoreError, ChordError, ImproperlyConfigured

__all__ = ('MemcachedBackend', 'SCHEMES')

SCHEMES = ('memcache', 'memcached', 'pylibmc')
PORT = 11211
#: Longer times to live are taken for dates by the server.
MONTH = 30 * 86400


class MemcachedBackend(RemoteStore):
    """Documents under keys that expire; chords are counted.

    ``pylibmc://`` takes the client library pylibmc; ``memcached://`` takes it where it is
    installed, else pymemcache.  The setting ``cache_backend_options`` is for the library.

    :param url: also ``memcached:///path/of/socket``.
    """

    implements_incr = True
    supports_autoexpire = True

    def __init__(
        self, app: Any, expires: Any = None, backend: str | None = None, url: str | None = None,
        options: Any = None, **kwargs: Any,
    ) -> None:
        kwargs.setdefault('expires_type', int)
        url = (backend or url or app.conf.cache_backend or '').removeprefix('cache+')
        super().__init__(app, expires=expires, url=url, **kwargs)
        scheme, _, rest = url.partition('://')
        if scheme not in SCHEMES:
            raise ImproperlyConfigured(f'{url!r} is no URL of memcached: cache+memcached://host:port/')
        self.servers = _servers(rest)
        self.options = {**(app.conf.cache_backend_options or {}), **(options or {})}
        self._library = _library(scheme)
        self.unreachable, self.refusals = self._library.unreachable, self._library.refusals
        self._client: Any = None
        self._pid = 0

    @property
    def client(self) -> Any:
        """The client of this thread and process."""
        if self._client is None or self._pid != os.getpid():
            self._client, self._pid = self._library.connect(self.servers, self.options), os.getpid()
        return self._client

    def disconnect(self) -> None:
        """Connect anew at the next call."""
        self._client = None

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URL; it has no password."""
        return f'cache+{self.url}'

    # -- keys ---------------------------------------------------------------------------------

    def get(self, key: Any) -> Any:
        """Return the value of *key*, or None.

        :raises ValueError: it can be no key of memcached.
        """
        return self.reach(lambda: self.client.get(_checked(key)))

    def mget(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """Return a dict of those that exist."""
        wanted = [_checked(key) for key in keys]
        return self.reach(lambda: self._library.get_many(self.client, wanted))

    def set(self, key: Any, value: Any) -> None:
        """Store *value* for ``self.expires`` seconds.

        :raises BackendStoreError: memcached does not take it.
        """
        try:
            stored = self.reach(lambda: self._library.set(self.client, key, value, self._ttl()))
        except BackendError as exc:
            raise BackendStoreError(_refused(key, value, exc)) from exc
        if not stored:
            raise BackendStoreError(_refused(key, value, 'the server says that it is not stored'))

    def _ttl(self) -> int:
        seconds = int(self.expires or 0)
        return seconds if seconds <= MONTH else int(time.time()) + seconds

    def delete(self, key: Any) -> None:
        """Delete *key*."""
        self.reach(lambda: self.client.delete(key))

    def incr(self, key: Any) -> int:
        """Add 1 to the number under *key*; return the new number."""
        number = self.reach(lambda: self._library.incr(self.client, key))
        if number is None:
            raise ChordError(
                f'memcached has dropped the counter {key}: it has expired, or the memory is full')
        return int(number)

    def expire(self, key: Any, value: float) -> Any:
        """Let *key* be deleted in *value* seconds."""
        return self.reach(lambda: self.client.touch(key, self._ttl()))

    def prepare_count(self, group_id: str) -> None:
        """Store 0."""
        # The server only adds to a number that is there.
        self.set(self.get_key_for_chord(group_id), b'0')


def _checked(key: str) -> str:
    if len(key.encode()) > 250 or any(char <= ' ' or char == '\x7f' for char in key):
        raise ValueError(f'{key!r} can be no key of memcached: use other ids of tasks')
    return key


def _refused(key: Any, value: Any, why: Any) -> str:
    return (f'memcached does not take {len(value)} bytes under {key}: {why}. '
            'Its limit is set with "memcached -I", 1 MiB by default')


def _servers(rest: str) -> list[str]:
    hosts = unquote(rest).strip()
    if hosts.startswith('/') and len(hosts) > 1:
        return [hosts.rstrip('/')]
    found = [host for host in hosts.rstrip('/').split(';') if host]
    return [host if ':' in host else f'{host}:{PORT}' for host in found or ['127.0.0.1']]


# -- client libraries ---------------------------------------------------------------------------


class _Pylibmc:
    def __init__(self) -> None:
        self.module = module = require('pylibmc', 'memcache', 'The result store cache+pylibmc://')
        self.refusals = (module.TooBig,)
        self.unreachable = (module.ConnectionError, module.HostLookupError, module.ServerDown,
                            module.ServerDead, module.SocketCreateError, module.UnknownReadFailure, OSError)

    def connect(self, servers: list[str], options: Any) -> Any:
        return self.module.Client(servers, **options)

    def get_many(self, client: Any, keys: list[Any]) -> Any:
        return client.get_multi(keys)

    def set(self, client: Any, key: Any, value: Any, ttl: int) -> Any:
        return client.set(key, value, ttl)

    def incr(self, client: Any, key: Any) -> Any:
        try:
            return client.incr(key)
        except self.module.NotFound:
            return None


class _Pymemcache:
    def __init__(self) -> None:
        self.module = module = require('pymemcache', 'pymemcache', 'The result store cache+memcached://')
        errors = module.exceptions
        self.refusals = (errors.MemcacheServerError,)
        self.unreachable = (errors.MemcacheUnexpectedCloseError, OSError)

    def connect(self, servers: list[str], options: Any) -> Any:
        options = {'connect_timeout': 5, 'timeout': 10, 'allow_unicode_keys': True, **options}
        if len(servers) == 1:
            return self.module.Client(servers[0], default_noreply=False, **options)
        options = {'dead_timeout': 1, 'retry_attempts': 0, **options}
        return self.module.HashClient(servers, default_noreply=False, **options)

    def get_many(self, client: Any, keys: list[Any]) -> Any:
        return client.get_many(keys)

    def set(self, client: Any, key: Any, value: Any, ttl: int) -> Any:
        return client.set(key, value, ttl)

    def incr(self, client: Any, key: Any) -> Any:
        return client.incr(key, 1)


def _library(scheme: str) -> Any:
    if scheme == 'pylibmc':
        return _Pylibmc()
    try:
        return _Pylibmc()
    except ImproperlyConfigured:
        return _Pymemcache()
