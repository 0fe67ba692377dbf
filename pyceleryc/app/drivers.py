"""Configuration of the C drivers, made of the ``broker_*`` settings (D3)."""
from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kombu import Connection, Queue
from kombu.transport import get_transport_cls
from kombu.utils.url import parse_url

from pyceleryc import _core, _state
from pyceleryc.app.redis_driver import redis_config
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('broker_urls', 'broker_config', 'queue_config', 'scheme_of', 'has_fanout',
           'failover')

DEFAULT_URL = 'amqp://'
#: Names of kombu's transports for the driver that we call ``amqp``.
_ALIASES = {'pyamqp': 'amqp', 'librabbitmq': 'amqp', 'amqps': 'amqps', '': 'amqp',
            'rediss': 'redis', 'redis+socket': 'redis', 'sentinel': 'redis'}
#: How long a publish may wait for room, the connection or a confirm; seconds (D16).
PUBLISH_TIMEOUT = 30.0
#: Keys of ``broker_use_ssl`` and what the core calls them.
_SSL_KEYS = {
    'ca_certs': 'ca_file', 'ca_file': 'ca_file', 'ca_path': 'ca_path', 'certfile': 'cert_file',
    'keyfile': 'key_file', 'password': 'key_password', 'ciphers': 'ciphers',
    'server_hostname': 'server_name', 'check_hostname': 'check_hostname',
}


def broker_urls(urls: Any) -> list[str]:
    """Return the URLs of a broker setting: one, several separated by ``;``, or a list.

    Those of Sentinels are one broker together and stay together, separated by ``;``.
    """
    if not urls:
        return [DEFAULT_URL]
    parts = urls.split(';') if isinstance(urls, str) else list(urls)
    found = [part.strip() for part in parts if part and part.strip()] or [DEFAULT_URL]
    if not found[0].lower().startswith('sentinel://'):
        return found
    return [';'.join(found)]


def failover(brokers: Sequence[Any], strategy: Any) -> Iterator[Any]:
    """Return the endless sequence of those to try after the first of *brokers*.

    :param strategy: setting ``broker_failover_strategy``: the name of one of kombu's (round-robin,
        shuffle), or a function that makes an endless iterator of a list; None means round-robin.
    :raises ImproperlyConfigured: there is no such strategy.
    """
    make = Connection.failover_strategies.get(strategy or 'round-robin', strategy)
    if not callable(make):
        known = ', '.join(sorted(Connection.failover_strategies))
        raise ImproperlyConfigured(
            f'broker_failover_strategy {strategy!r} is unknown: use one of {known}, or a function')
    order = iter(make(list(brokers)))
    # Kombu's begin with the first, which is in use.
    next(order, None)
    return order


def scheme_of(url: str) -> str:
    """Return the scheme of *url* as the core names it."""
    scheme, found, _ = url.partition('://')
    scheme = scheme.lower() if found else ''
    return _ALIASES.get(scheme, scheme)


def has_fanout(url: Any) -> bool:
    """Tell whether the broker at *url* can say one thing to many: remote control and events need that."""
    scheme = scheme_of(broker_urls(url)[0])
    if scheme in _core.SCHEMES:
        return True
    try:
        transport = get_transport_cls(scheme.partition('+')[0])
    except (ImportError, KeyError):  # whoever connects will hear of it
        return True
    return 'fanout' in transport.implements.exchange_type


def broker_config(conf: Any, url: str, role: str = 'write') -> dict[str, Any] | None:
    """Return the configuration of ``_core.Producer`` (or Worker) for *url*.

    None if there is no C driver for it.

    :param role: ``write`` (no heartbeat: nobody turns the loop of an idle publisher) or ``read``.
    """
    scheme = scheme_of(url)
    if scheme not in _core.SCHEMES:
        return None
    options = conf.broker_transport_options or {}
    config: dict[str, Any] = {
        'scheme': scheme,
        'publish_timeout': float(options.get('publish_timeout', PUBLISH_TIMEOUT)),
        'window': int(options.get('publish_window', 0)),
        'confirm': _confirm_mode(options.get('confirm_publish')),
        'connect_timeout': float(conf.broker_connection_timeout or 0),
        'heartbeat': float(conf.broker_heartbeat or 0) if role == 'read' else 0.0,
        'client_name': str(options.get('client_name', 'pyceleryc')),
    }
    if scheme == 'redis':
        config.update(redis_config(conf, url))
    elif scheme == 'memory':
        config['hub'] = _state.get_memory_hub()
    elif scheme == 'sqlite':
        config.update(sqlite_config(url, options))
    else:
        config.update(_amqp_config(conf, url, scheme))
    return config


_SYNCHRONOUS = {'off': 0, '0': 0, 'normal': 1, '1': 1, 'full': 2, '2': 2}


def _confirm_mode(value: Any) -> int:
    return 1 if value is None else 2 if value else 0


def sqlite_config(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the core must know of a database: *options* are the transport options."""
    return {'vhost': _database_path(url),
            'synchronous': _SYNCHRONOUS[str(options.get('synchronous', 'normal')).lower()]}


def _database_path(url: str) -> str:
    path = url.split('://', 1)[1].partition('?')[0]
    if not path.startswith('/') or path == '/':
        raise ImproperlyConfigured(
            f'{url!r} names no file: write sqlite:///relative.db or sqlite:////absolute.db')
    return path[1:]


def _amqp_config(conf: Any, url: str, scheme: str) -> dict[str, Any]:
    parts = parse_url(url if '://' in url else f'amqp://{url}')
    use_ssl = conf.broker_use_ssl or parts.get('ssl') or scheme == 'amqps'
    return {
        'scheme': 'amqp',
        'host': parts.get('hostname') or conf.get('broker_host') or '127.0.0.1',
        'port': int(parts.get('port') or conf.get('broker_port') or (5671 if use_ssl else 5672)),
        'vhost': parts.get('virtual_host') or conf.get('broker_vhost') or '/',
        'user': parts.get('userid') or conf.get('broker_user') or 'guest',
        'password': parts.get('password') or conf.get('broker_password') or 'guest',
        'login_method': conf.broker_login_method,
        'ssl': _ssl_config(use_ssl) if use_ssl else None,
    }


def _ssl_config(settings: Any) -> dict[str, Any]:
    """Return the ``ssl`` dict of the core.

    As with kombu the peer is verified if a CA is given or ``cert_reqs`` asks for it.
    """
    given = dict(settings) if isinstance(settings, Mapping) else {}
    config = {ours: given[key] for key, ours in _SSL_KEYS.items() if given.get(key) is not None}
    required = given.get('cert_reqs')
    if required is None:
        config['verify'] = 'ca_file' in config or 'ca_path' in config
    else:
        config['verify'] = required != ssl.CERT_NONE
    return config


def queue_config(queue: Queue) -> dict[str, Any]:
    """Return *queue* and its exchange as the core takes them."""
    exchange = queue.exchange
    named = exchange is not None and bool(exchange.name)
    return {
        'name': queue.name,
        'exchange': exchange.name if named else '',
        'exchange_type': (exchange.type if named else None) or 'direct',
        'routing_key': queue.routing_key or '',
        'durable': bool(queue.durable),
        'exclusive': bool(queue.exclusive),
        'auto_delete': bool(queue.auto_delete),
        'no_ack': bool(queue.no_ack),
        'no_declare': bool(queue.no_declare or (named and exchange.no_declare)),
        'exchange_durable': bool(exchange.durable) if named else True,
        'exchange_auto_delete': bool(exchange.auto_delete) if named else False,
        'passive': bool(named and exchange.passive),
        'queue_arguments': _queue_arguments(queue),
        'exchange_arguments': (exchange.arguments or None) if named else None,
        'binding_arguments': queue.binding_arguments or None,
        'consumer_arguments': queue.consumer_arguments or None,
    }


def _queue_arguments(queue: Queue) -> dict[str, Any] | None:
    """Return the arguments with those that Queue has as attributes; times are milliseconds."""
    arguments = dict(queue.queue_arguments or {})
    named = {
        'x-expires': None if queue.expires is None else int(queue.expires * 1000),
        'x-message-ttl': None if queue.message_ttl is None else int(queue.message_ttl * 1000),
        'x-max-length': queue.max_length,
        'x-max-length-bytes': queue.max_length_bytes,
        'x-max-priority': queue.max_priority,
    }
    arguments.update((key, value) for key, value in named.items() if value is not None)
    return arguments or None
