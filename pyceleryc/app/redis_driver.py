"""Configuration of the C driver for Redis, made of the URL and ``broker_transport_options``."""
from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('redis_config', 'sentinel_config')

#: Options of kombu's Redis transport (and our ``lease``) that are numbers of seconds or texts, and
#: what the core calls them.
_SECONDS = {'visibility_timeout': 'visibility_timeout', 'lease': 'lease',
            'socket_timeout': 'socket_timeout', 'socket_connect_timeout': 'connect_timeout'}
_TEXTS = {'global_keyprefix': 'key_prefix', 'sep': 'sep', 'queue_order_strategy': 'queue_order',
          'unacked_key': 'unacked_key', 'unacked_index_key': 'unacked_index_key',
          'unacked_mutex_key': 'unacked_mutex_key', 'client_name': 'client_name'}
_SSL_KEYS = {'ca_certs': 'ca_file', 'ca_path': 'ca_path', 'certfile': 'cert_file',
             'keyfile': 'key_file', 'password': 'key_password', 'ciphers': 'ciphers',
             'check_hostname': 'check_hostname'}
#: Of sentinel_kwargs: the core has the timeouts of the server itself.
_IGNORED = frozenset({'socket_timeout', 'socket_connect_timeout', 'socket_keepalive', 'db', 'decode_responses'})
_CERT_REQS = {'none': ssl.CERT_NONE, 'optional': ssl.CERT_OPTIONAL, 'required': ssl.CERT_REQUIRED}


def redis_config(conf: Any, url: str) -> dict[str, Any]:
    """Return what the core needs besides what all drivers do (PROTOCOL 3.6).

    :param url: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` with TLS,
        ``redis+socket:///path[?virtual_host=db]``, or those of Sentinels,
        ``sentinel://host:port;sentinel://host:port``.
    :raises ImproperlyConfigured: an option has a value that makes no sense.
    """
    options = conf.broker_transport_options or {}
    scheme = url.partition('://')[0].lower()
    parts = urlsplit(url.partition(';')[0])
    query = dict(parse_qsl(parts.query))
    config: dict[str, Any] = {
        'scheme': 'redis',
        'user': unquote(parts.username or '') or conf.broker_user or options.get('username'),
        'password': unquote(parts.password or '') or conf.broker_password or options.get('password'),
    }
    if scheme == 'redis+socket':
        config['unix_path'] = unquote(parts.path)
        config['db'] = _database(query.get('virtual_host') or query.get('db'))
    else:
        config['host'] = parts.hostname or conf.get('broker_host') or '127.0.0.1'
        config['port'] = int(parts.port or conf.get('broker_port') or 6379)
        config['db'] = _database(unquote(parts.path) or conf.get('broker_vhost') or query.get('db'))
    if scheme == 'sentinel':
        config['sentinel'] = sentinel_config(url, options)
    if scheme == 'rediss' or conf.broker_use_ssl:
        config['ssl'] = _tls(conf.broker_use_ssl, query)
    config.update(_options(options))
    return config


def sentinel_config(urls: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the core needs to find a master through Sentinel.

    :param urls: of the Sentinels, separated by ``;``.
    :param options: with ``master_name`` and, as for redis-py, ``sentinel_kwargs`` (``username``,
        ``password``, ``ssl`` and ``ssl_...`` of the Sentinels; the server's are in the URL and the settings).
    :raises ImproperlyConfigured: no ``master_name``, or an option the core has nothing for.
    """
    if not options.get('master_name'):
        raise ImproperlyConfigured("'master_name' transport option must be specified.")
    given = dict(options.get('sentinel_kwargs') or {})
    config = {
        'hosts': ';'.join(_sentinel_host(part) for part in urls.split(';') if part),
        'master_name': str(options['master_name']),
        'user': given.pop('username', None), 'password': given.pop('password', None),
    }
    tls = {name: given.pop(name) for name in list(given) if name.startswith('ssl_')}
    if given.pop('ssl', bool(tls)):
        config['ssl'] = _tls(tls, {})
    unknown = given.keys() - _IGNORED
    if unknown:
        raise ImproperlyConfigured(f"Unknown sentinel_kwargs: {', '.join(sorted(unknown))}")
    return {key: value for key, value in config.items() if value is not None}


def _sentinel_host(url: str) -> str:
    parts = urlsplit(url if '://' in url else f'sentinel://{url}')
    return f'{parts.hostname or "127.0.0.1"}:{parts.port or 26379}'


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    config.update((ours, float(options[name])) for name, ours in _SECONDS.items()
                  if options.get(name) is not None)
    config.update((ours, str(options[name])) for name, ours in _TEXTS.items()
                  if options.get(name) is not None)
    if options.get('priority_steps'):
        steps = sorted(int(step) for step in options['priority_steps'])
        config['priority_steps'] = ','.join(map(str, steps))
    config.update(_fanout(options))
    return config


def _fanout(options: Mapping[str, Any]) -> dict[str, Any]:
    prefix = options.get('fanout_prefix', True)
    config: dict[str, Any] = {'fanout_plain': not options.get('fanout_patterns', True)}
    if isinstance(prefix, str):
        config['fanout_prefix'] = prefix
    elif not prefix:
        config['fanout_prefix'] = ''
    return config


def _database(value: Any) -> int:
    text = str(value or 0).strip('/') or '0'
    if not text.isdigit():
        raise ImproperlyConfigured(f'Database is int between 0 and limit - 1, not {value}')
    return int(text)


def _tls(settings: Any, query: Mapping[str, str]) -> dict[str, Any]:
    """Return the ``ssl`` dict of the core: certificates are checked unless the settings say no."""
    given = {**(settings if isinstance(settings, Mapping) else {}), **query}
    named = {name.removeprefix('ssl_'): value for name, value in given.items()}
    config = {ours: named[name] for name, ours in _SSL_KEYS.items() if named.get(name) is not None}
    required = named.get('cert_reqs', ssl.CERT_REQUIRED)
    if isinstance(required, str):
        required = _CERT_REQS.get(required.lower().removeprefix('cert_'), ssl.CERT_REQUIRED)
    config['verify'] = required != ssl.CERT_NONE
    if not config['verify']:
        config['check_hostname'] = False
    return config
