"""Results in Redis (PROTOCOL §3.5.2)."""
from __future__ import annotations

import importlib
import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


from pyceleryc._state import task_join_will_block
from pyceleryc.app.redis_driver import sentinel_config
from pyceleryc.backends.base import join_header
from pyceleryc.backends.core import CoreBackend
from pyceleryc.backends.keyvalue import BaseKeyValueStoreBackend
from pyceleryc.backends.revokes import KEY as REVOKED_KEY
from pyceleryc.backends.revokes import RedisRevokes
from pyceleryc.exceptions import BackendGetMetaError, ChordError, ImproperlyConfigured
from pyceleryc.result import GroupResult
from pyceleryc.states import PROPAGATE_STATES, SUCCESS
from pyceleryc.utils.locks import shared_property

__all__ = ('RedisBackend', 'SentinelBackend')

DEFAULT_PORT = 6379
#: Documents that are read with one command.
READ_MAX = 1000
_CERT_REQS = {
    'CERT_REQUIRED': ssl.CERT_REQUIRED, 'required': ssl.CERT_REQUIRED,
    'CERT_OPTIONAL': ssl.CERT_OPTIONAL, 'optional': ssl.CERT_OPTIONAL,
    'CERT_NONE': ssl.CERT_NONE, 'none': ssl.CERT_NONE,
}
#: What redis-py calls it, and what the core calls it.
_SSL_KEYS = {
    'ssl_ca_certs': 'ca_file', 'ssl_ca_path': 'ca_path', 'ssl_certfile': 'cert_file',
    'ssl_keyfile': 'key_file', 'ssl_password': 'key_password', 'ssl_ciphers': 'ciphers',
    'ssl_check_hostname': 'check_hostname',
}


class RedisBackend(CoreBackend, BaseKeyValueStoreBackend):  # type: ignore[misc]
    """Documents that expire; who waits is told through pub/sub; chords are counted.

    :param url: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` with TLS,
        ``redis+socket:///path[?virtual_host=db]``.
    """

    wants_task_call = True
    finds_late = True
    reads_many = True
    implements_incr = True
    supports_autoexpire = True

    def __init__(
        self, app: Any, url: str | None = None, host: str | None = None,
        port: int | None = None, db: Any = None, password: str | None = None, **kwargs: Any,
    ) -> None:
        kwargs.setdefault('expires_type', int)
        super().__init__(app, url=url, **kwargs)
        given = {'host': host, 'port': port, 'db': db, 'password': password}
        self._given = {key: value for key, value in given.items() if value is not None}
        options = app.conf.result_backend_transport_options or {}
        self.ordered = bool(options.get('result_chord_ordered', True))
        if options.get('retry_policy'):
            self.retry_policy = {**self.retry_policy, **options['retry_policy']}

    def client_config(self) -> dict[str, Any]:
        """Return the configuration of ``_core.Results`` and ``_core.Redis``."""
        conf = self.app.conf
        config = {**_from_settings(conf), **_from_url(self.url, conf), **self._given}
        config.update(
            scheme='redis', expires=float(self.expires or 0), key_prefix=self.global_keyprefix)
        config['db'] = _database(config.get('db'))
        return {key: value for key, value in config.items() if value is not None}

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URL, without the password unless that is asked for."""
        return super().as_uri(include_password) if self.url else 'redis://'

    @shared_property
    def client(self) -> Any:
        """A redis-py client of the same server, for programs that keep other things there.

        The backend itself does not use it; it needs the package ``redis``.
        """
        redis, config = importlib.import_module('redis'), self.client_config()
        if self.url and 'socket' not in self.url.partition('://')[0]:
            return redis.Redis.from_url(self.url)
        names = {'unix_path': 'unix_socket_path', 'user': 'username'}
        options = {names.get(key, key): config[key] for key in
                   ('host', 'port', 'db', 'user', 'password', 'unix_path') if key in config}
        return redis.Redis(**options)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Listen for the result before the task is sent, unless a task sends it.

        There nobody waits for it, as a rule; and who does finds what is stored.
        """
        if not task_join_will_block():
            self.core.announce(task_id)

    def on_tasks_call(self, task_ids: list[str]) -> None:
        """Do the same for many, in one write."""
        if type(self).on_task_call is not RedisBackend.on_task_call:
            super().on_tasks_call(task_ids)
        elif not task_join_will_block():
            self.core.announce_all(task_ids)

    def read_many(self, task_ids: list[str]) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta dict) of those that are ready."""
        for start in range(0, len(task_ids), READ_MAX):
            part = task_ids[start:start + READ_MAX]
            documents = self.mget([self.get_key_for_task(task_id) for task_id in part])
            for task_id, document in zip(part, documents, strict=True):
                if document is not None:
                    meta = self.decode_result(document)
                    if meta['status'] in self.READY_STATES:
                        yield task_id, meta

    def ready_metas(self, task_ids: list[str]) -> dict[str, Any]:
        """Return the meta dicts of those tasks that are ready, by id."""
        self._ensure_not_eager()
        found: dict[str, Any] = self._retrying(
            lambda: dict(self.read_many(task_ids)), lambda: BackendGetMetaError('failed to get metas'))
        for task_id, meta in found.items():
            self._remember(task_id, meta)
        return found

    # -- keys -----------------------------------------------------------------------------------

    def run(self, *commands: Any, transaction: bool = False, retry: bool = False) -> list[Any]:
        """Return the answers of Redis to *commands*, each a sequence of its words."""
        return self.call(
            self.core.redis.run, commands, transaction, None, retry=retry)

    def get(self, key: Any) -> Any:
        """Return the value of *key*, or None."""
        return self.run(('GET', key))[0]

    def mget(self, keys: Iterable[Any]) -> list[Any]:
        """Return the values of *keys*."""
        wanted = list(keys)
        return self.run(('MGET', *wanted))[0] if wanted else []

    def set(self, key: Any, value: Any, **retry_policy: Any) -> None:
        """Store *value* and tell those who listen on *key*."""
        self.run(self._store_command(key, value), ('PUBLISH', key, value), transaction=True,
                 retry=True)

    def _store_command(self, key: Any, value: Any) -> tuple[Any, ...]:
        if self.expires:
            return 'SETEX', key, int(self.expires), value
        return 'SET', key, value

    def delete(self, key: Any) -> None:
        """Delete *key*."""
        self.run(('DEL', key))

    def incr(self, key: Any) -> int:
        """Add 1 to the number under *key*; return the new number."""
        return int(self.run(('INCR', key))[0])

    def expire(self, key: Any, value: float) -> Any:
        """Let *key* be deleted in *value* seconds."""
        return self.run(('EXPIRE', key, int(value)))[0]

    _save_group = BaseKeyValueStoreBackend._save_group
    _restore_group = BaseKeyValueStoreBackend._restore_group
    _delete_group = BaseKeyValueStoreBackend._delete_group

    def revoke_store(self) -> RedisRevokes:
        """Return what keeps revoked ids there."""
        return RedisRevokes(lambda *words: self.run(words)[0], f'{self.global_keyprefix}{REVOKED_KEY}')

    # -- chords -----------------------------------------------------------------------------------

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Save the header if its results are nested: the parts alone don't tell its shape."""
        header = self.app.GroupResult(*header_result_args)
        if any(isinstance(member, GroupResult) for member in header.results):
            header.save(backend=self)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Note how many tasks end before the body is sent."""
        self.set(self.get_key_for_group(group_id, '.s'), chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Let the chord wait for one task more."""
        self.run(('INCR', self.get_key_for_group(chord_id, '.t')), retry=True)

    def _store_and_count(self, task_id: str, result: Any, request: Any, state: str) -> bool:
        """Do both in one round trip."""
        if not (request.group and request.id and state == SUCCESS and self._stores_plainly):
            return False
        key = self.get_key_for_task(task_id)
        document = self._encode_document(task_id, result, state, None, request)
        self._part_done(request, state, result, (
            self._store_command(key, document), ('PUBLISH', key, document)))
        return True

    @shared_property
    def _stores_plainly(self) -> bool:
        # SUCCESS replaces whatever was stored, so the script that looks first is not needed.
        names = ('set', 'on_chord_part_return')
        return self._writes_plainly and all(getattr(type(self), name) is getattr(RedisBackend, name) for name in names)

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, **kwargs: Any,
    ) -> None:
        """Count the task; send the chord's body if it was the last."""
        if request.group and request.id:
            self._part_done(request, state, result, ())

    def _part_done(self, request: Any, state: str, result: Any, before: Any) -> None:
        """Count the task, after the commands *before* in the same transaction."""
        group_id = request.group
        part = self.encode([1, request.id, state, self.encode_result(result, state)])
        self._finish_if_complete(request, *self._count_part(group_id, request.group_index, part, before))

    def resume_chord(self, request: Any) -> None:
        """Send the body if all are counted and still there."""
        if request.group:
            parts, added, size = self._chord_keys(request.group)
            self._finish_if_complete(request, *self.run(self._count(parts), ('GET', added), ('GET', size), transaction=True))

    def _finish_if_complete(self, request: Any, count: int, added: Any, size: Any) -> None:
        group_id = request.group
        if size is None:
            size = request.chord.get('chord_size') or 0
        if not count or count != int(size) + int(added or 0):
            return
        body = self.app.signature(request.chord)
        try:
            self.finish_chord(body, lambda: self._chord_values(group_id))
        finally:
            self.run(('DEL', *self._chord_keys(group_id)), retry=True)

    def _chord_keys(self, group_id: str) -> list[Any]:
        return [self.get_key_for_group(group_id, part) for part in ('.j', '.t', '.s')]

    def _count_part(
        self, group_id: str, index: Any, part: Any, before: Any = (),
    ) -> list[Any]:
        """Store one result; return how many there are, how many were added, and the size."""
        parts, added, size = self._chord_keys(group_id)
        store: tuple[Any, ...]
        if self.ordered:
            store = ('ZADD', parts, '+inf' if index is None else index, part)
        else:
            store = ('RPUSH', parts, part)
        commands = [*before, store, self._count(parts), ('GET', added), ('GET', size)]
        if self.expires:
            commands += [('EXPIRE', key, int(self.expires)) for key in (parts, added, size)]
        first = len(before) + 1
        return self.run(*commands, transaction=True, retry=True)[first:first + 3]

    def _count(self, parts: Any) -> tuple[Any, ...]:
        return ('ZCOUNT', parts, '-inf', '+inf') if self.ordered else ('LLEN', parts)

    def _chord_values(self, group_id: str) -> list[Any]:
        header = self.restore_group(group_id, cache=False)
        if header is not None:
            return self._nested_values(header)
        key = self.get_key_for_group(group_id, '.j')
        read = ('ZRANGE', key, 0, -1) if self.ordered else ('LRANGE', key, 0, -1)
        return [self._part_value(part) for part in self.run(read)[0]]

    def _nested_values(self, header: Any) -> list[Any]:
        try:
            return join_header(header, self.app.conf.result_chord_join_timeout)
        except Exception as exc:
            raise ChordError(f'Dependency {header.id} raised {exc!r}') from exc
        finally:
            header.delete(backend=self)

    def _part_value(self, part: Any) -> Any:
        _, task_id, state, value = self.decode(part)
        if state in PROPAGATE_STATES:
            raise ChordError(f'Dependency {task_id} raised {self.exception_to_python(value)!r}')
        return value


class SentinelBackend(RedisBackend):
    """Results in the master of a group of servers that Sentinels look after.

    :param url: ``sentinel://[:password@]host:port[/db];sentinel://host:port``; the setting
        ``result_backend_transport_options`` has the ``master_name`` and maybe ``sentinel_kwargs``.
    """

    @shared_property
    def client(self) -> Any:
        """A redis-py client of the master, for programs that keep other things there."""
        sentinel = importlib.import_module('redis.sentinel')
        config, options = self.client_config(), self.app.conf.result_backend_transport_options
        found = sentinel.Sentinel(
            [tuple(host.rsplit(':', 1)) for host in config['sentinel']['hosts'].split(';')],
            sentinel_kwargs=options.get('sentinel_kwargs'),
            db=config['db'], username=config.get('user'), password=config.get('password'))
        return found.master_for(options['master_name'])


def _from_settings(conf: Any) -> dict[str, Any]:
    return {
        'host': conf.redis_host, 'port': conf.redis_port, 'db': conf.redis_db,
        'user': conf.redis_username, 'password': conf.redis_password,
        'socket_timeout': conf.redis_socket_timeout,
        'connect_timeout': conf.redis_socket_connect_timeout,
        'ssl': _tls(conf.redis_backend_use_ssl) if conf.redis_backend_use_ssl else None,
    }


def _from_url(url: str | None, conf: Any) -> dict[str, Any]:
    if not url or '://' not in url:
        return {}
    scheme = url.partition('://')[0]
    if scheme not in ('redis', 'rediss', 'redis+socket', 'socket', 'sentinel'):
        raise ImproperlyConfigured(
            f'The Redis backend cannot connect to {scheme}://; it knows redis://, rediss://, '
            'redis+socket:// and sentinel://.')
    parts = urlsplit(url.partition(';')[0] if scheme == 'sentinel' else url)
    query = dict(parse_qsl(parts.query))
    config: dict[str, Any] = {
        'host': parts.hostname, 'port': parts.port,
        'user': unquote(parts.username or '') or None,
        'password': unquote(parts.password or '') or None,
        'db': query.get('db') or unquote(parts.path),
        'socket_timeout': _number(query.get('socket_timeout')),
        'connect_timeout': _number(query.get('socket_connect_timeout')),
    }
    if 'socket' in scheme:
        config.update(unix_path=unquote(parts.path), host=None, port=None,
                      db=query.get('virtual_host') or query.get('db'))
    if scheme == 'sentinel':
        config['sentinel'] = sentinel_config(url, conf.result_backend_transport_options or {})
    if scheme == 'rediss':
        config['ssl'] = _tls({**(conf.redis_backend_use_ssl or {}), **query})
    return {key: value for key, value in config.items() if value not in (None, '', '/')}


def _tls(settings: Mapping[str, Any]) -> dict[str, Any]:
    required = settings.get('ssl_cert_reqs')
    if isinstance(required, str):
        required = _CERT_REQS.get(required)
    if required not in set(_CERT_REQS.values()):
        raise ValueError(
            'A rediss:// URL must have parameter ssl_cert_reqs and this must be set to '
            'CERT_REQUIRED, CERT_OPTIONAL, or CERT_NONE')
    config = {ours: settings[name] for name, ours in _SSL_KEYS.items()
              if settings.get(name) is not None}
    config['verify'] = required != ssl.CERT_NONE
    return config


def _database(value: Any) -> int:
    text = str(value or 0).strip('/') or '0'
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'Database is int between 0 and limit - 1, not {value}') from None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
