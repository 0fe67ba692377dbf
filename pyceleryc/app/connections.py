"""Connections to the broker through kombu (FEATURES 1.28, 2.1)."""
from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu.transport
from kombu import pools
from kombu.utils.imports import symbol_by_name

from pyceleryc.app.drivers import broker_urls, scheme_of
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.objects import FallbackContext

__all__ = ('Connections', 'transport_named')

#: Transports of our own, imported when they are used.
_TRANSPORTS = {
    'sqlite': 'pyceleryc.app.transports:SQLite', 'memory': 'pyceleryc.app.transports:Memory',
    'filesystem': 'pyceleryc.app.transports:FileSystem',
}
#: What is to be installed for which transport of kombu.
_EXTRAS = {
    'sqs': 'sqs', 'mongodb': 'mongodb', 'sqla': 'sqlalchemy', 'sqlalchemy': 'sqlalchemy', 'redis': 'redis', 'rediss': 'redis',
    'sentinel': 'redis', 'zookeeper': 'zookeeper', 'consul': 'consul', 'slmq': 'slmq', 'pyro': 'pyro',
}
# For connections that others make; kombu has no transport of this name.
kombu.transport.TRANSPORT_ALIASES.setdefault('sqlite', _TRANSPORTS['sqlite'])


def own_transport(url: str) -> Any:
    """Return our own transport class for *url*, or None: kombu has one."""
    name = _TRANSPORTS.get(scheme_of(url))
    return name and symbol_by_name(name)


@contextmanager
def transport_named(url: str) -> Iterator[None]:
    """While kombu looks for the transport of *url*: say what is wrong if there is none, or which package it lacks.

    :raises ImproperlyConfigured: that.
    """
    scheme = scheme_of(url).partition('+')[0]
    try:
        yield
    except KeyError:
        raise ImproperlyConfigured(f'There is no broker transport {scheme!r}: check the scheme of broker_url.') from None
    except (ImportError, AttributeError) as exc:
        why = exc if isinstance(exc, ImportError) else _missing_redis(scheme)
        if why is None:
            raise
        extra = _EXTRAS.get(scheme)
        package = f'pyceleryc[{extra}]' if extra else f'kombu[{scheme}]'
        raise ImproperlyConfigured(f'The broker transport {scheme!r} cannot be imported ({why}): pip install "{package}".') from exc


def _missing_redis(scheme: str) -> ImportError | None:
    """Kombu's transport of Redis ends with an AttributeError without the client."""
    try:
        if _EXTRAS.get(scheme) == 'redis':
            importlib.import_module('redis')
    except ImportError as exc:
        return exc
    return None


class Connections:
    """The part of :class:`~pyceleryc.app.base.Celery` that connects with kombu.

    Tasks are published through the C drivers where there is one; these connections are for
    everything else: health checks, remote control, events, other transports.
    """

    amqp: Any
    conf: Any
    _pool: Any

    def connection_for_read(self, url: Any = None, **kwargs: Any) -> Any:
        """Return a new connection for consuming; it connects when it is used."""
        return self._connection(url or self.conf.broker_read_url, **kwargs)

    def connection_for_write(self, url: Any = None, **kwargs: Any) -> Any:
        """Return a new connection for publishing; it connects when it is used."""
        return self._connection(url or self.conf.broker_write_url, **kwargs)

    def connection(
        self, hostname: Any = None, userid: str | None = None, password: str | None = None,
        virtual_host: str | None = None, port: int | None = None, ssl: Any = None,
        connect_timeout: float | None = None, transport: Any = None,
        transport_options: Any = None, heartbeat: float | None = None,
        login_method: str | None = None, failover_strategy: Any = None, **kwargs: Any,
    ) -> Any:
        """Return a new connection; what is not given comes from the settings.

        :param hostname: URL or host.
        """
        return self.connection_for_write(
            hostname or self.conf.broker_write_url, userid=userid, password=password,
            virtual_host=virtual_host, port=port, ssl=ssl, connect_timeout=connect_timeout,
            transport=transport, transport_options=transport_options, heartbeat=heartbeat,
            login_method=login_method, failover_strategy=failover_strategy, **kwargs)

    broker_connection = connection

    def _connection(
        self, url: Any, userid: str | None = None, password: str | None = None,
        virtual_host: str | None = None, port: int | None = None, ssl: Any = None,
        connect_timeout: float | None = None, transport: Any = None,
        transport_options: Any = None, heartbeat: float | None = None,
        login_method: str | None = None, failover_strategy: Any = None, **kwargs: Any,
    ) -> Any:
        conf = self.conf
        first = broker_urls(url)[0]
        own = own_transport(first)
        with transport_named(first):
            return self.amqp.Connection(
                url,
                userid or conf.broker_user,
                password or conf.broker_password,
                virtual_host or conf.broker_vhost,
                port or conf.broker_port,
                transport=transport or conf.broker_transport or own,
                ssl=conf.broker_use_ssl if ssl is None else ssl,
                heartbeat=heartbeat,
                login_method=login_method or conf.broker_login_method,
                failover_strategy=failover_strategy or conf.broker_failover_strategy,
                transport_options={**(conf.broker_transport_options or {}),
                                   **(transport_options or {})},
                connect_timeout=(conf.broker_connection_timeout if connect_timeout is None
                                 else connect_timeout),
                **kwargs)

    @property
    def pool(self) -> Any:
        """Kombu's pool of connections, of ``broker_pool_limit`` at most (C-130)."""
        if self._pool is None:
            limit = self.conf.broker_pool_limit
            pools.set_limit(limit)
            self._pool = pools.connections[self.connection_for_write()]
            self._pool.limit = limit
        return self._pool

    @property
    def producer_pool(self) -> Any:
        """Kombu's pool of producers."""
        return self.amqp.producer_pool

    def _acquire_connection(self, pool: bool = True) -> Any:
        if pool:
            return self.pool.acquire(
                block=True, timeout=self.conf.broker_pool_acquire_timeout)
        return self.connection_for_write()

    def connection_or_acquire(
        self, connection: Any = None, pool: bool = True, *_: Any, **__: Any,
    ) -> FallbackContext:
        """Return a context manager: *connection*, or one of the pool (or a new one)."""
        return FallbackContext(connection, self._acquire_connection, pool=pool)

    default_connection = connection_or_acquire

    def producer_or_acquire(self, producer: Any = None) -> FallbackContext:
        """Return a context manager: *producer*, or one of kombu's pool."""
        return FallbackContext(producer, self._acquire_producer)

    default_producer = producer_or_acquire

    def _acquire_producer(self) -> Any:
        return self.producer_pool.acquire(
            block=True, timeout=self.conf.broker_pool_acquire_timeout)


#: Kombu's pools of the parent: kept, because closing them would talk on the parent's sockets.
_inherited: list[Any] = []


def _after_fork() -> None:
    for group in (pools.connections, pools.producers):
        _inherited.append(dict(group))
        group.clear()


os.register_at_fork(after_in_child=_after_fork)
