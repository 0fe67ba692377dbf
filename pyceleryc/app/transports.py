"""Transports of kombu that are ours: our own brokers for whoever asks for a kombu connection, and a safer ``filesystem://``.

Tasks go to ``sqlite://`` and ``memory://`` through the core. Remote control, events, ``app.connection()`` and
third-party code want kombu: here both meet the same queues.
"""
from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import queue as queues
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from amqp.exceptions import NotFound
from amqp.protocol import queue_declare_ok_t
from kombu.transport import filesystem, virtual
from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid

from pyceleryc import _core, _state
from pyceleryc.app.drivers import sqlite_config
from pyceleryc.app.publisher import Publisher

__all__ = ('SQLite', 'Memory', 'FileSystem')

logger = logging.getLogger('celery.app.transports')

#: Between the name of a message's file and the one who holds it.
_TAKEN = '.taken-'
#: At the end of the first part of a name: the message was taken before.
_AGAIN = '-again'
#: Seconds between looks for messages of processes that are gone.
LOOK_FOR_DEAD = 2.0


class CoreChannel(virtual.Channel):
    """A channel that publishes to, and takes from, a broker of the core.

    What is taken is gone from the broker: kombu puts it back when the channel is closed and it was not acknowledged.
    (The worker does not take its tasks this way.)
    """

    supports_fanout = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._publisher = self.connection.publisher
        self._types: dict[str, str] = {}
        self._temporary: set[str] = set()

    @property
    def _core(self) -> Any:
        return self._publisher.core

    # -- declaring -------------------------------------------------------------------------------

    def exchange_declare(
        self, exchange: str | None = None, type: str = 'direct', durable: bool = False,  # noqa: A002
        auto_delete: bool = False, arguments: Any = None, nowait: bool = False, passive: bool = False,
    ) -> None:
        """Declare an exchange of type direct, topic or fanout."""
        if exchange and not passive:
            self._types[exchange] = type or 'direct'
            self._core.declare({'name': '', 'exchange': exchange, 'exchange_type': self._types[exchange]}, None)

    def queue_declare(self, queue: str | None = None, passive: bool = False, **kwargs: Any) -> Any:
        """Declare a queue, or, if *passive*, look whether it is there."""
        name = queue or f'amq.gen-{uuid()}'
        if not passive:
            temporary = bool(kwargs.get('auto_delete') or kwargs.get('exclusive'))
            self._core.declare({'name': name, 'auto_delete': temporary}, None)
            if temporary:
                self._temporary.add(name)
        messages, consumers = self._measure(name)
        return queue_declare_ok_t(name, messages, consumers)

    def _measure(self, queue: str) -> tuple[int, int]:
        try:
            messages, consumers = self._core.size(queue, None)
        except _core.NotFound as exc:
            raise NotFound(str(exc), (50, 10), 'Queue.declare', 404) from exc
        return messages, consumers

    def queue_bind(self, queue: str, exchange: str | None = None, routing_key: str = '', arguments: Any = None,
                   **kwargs: Any) -> None:
        """Bind a queue to an exchange that was declared on this channel (or is a direct one)."""
        if exchange:
            self._core.declare({'name': queue, 'exchange': exchange, 'routing_key': routing_key or '',
                                'exchange_type': self._types.get(exchange, 'direct'),
                                'auto_delete': queue in self._temporary}, None)

    def queue_unbind(self, queue: str, exchange: str | None = None, routing_key: str = '', arguments: Any = None,
                     **kwargs: Any) -> None:
        """Raise NotImplementedError: the core's brokers forget bindings with their queue only."""
        raise NotImplementedError('sqlite:// and memory:// brokers cannot unbind a queue; delete it instead')

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Forget the exchange; its bindings go with their queues."""
        self._types.pop(exchange, None)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Delete a queue with its messages."""
        try:
            messages, consumers = self._core.size(queue, None)
            if not (if_empty and messages) and not (if_unused and consumers):
                self._core.remove(queue, None)
        except _core.NotFound:
            logger.debug('There is no queue %s to be deleted', queue)
        self._temporary.discard(queue)

    def queue_purge(self, queue: str, **kwargs: Any) -> int:
        """Delete what waits in a queue; return how many that were."""
        self._measure(queue)  # kombu's error if there is no such queue
        return int(self._core.purge(queue, None))

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        try:
            self._core.size(queue, None)
        except _core.NotFound:
            return False
        return True

    def _size(self, queue: str) -> int:
        return self._measure(queue)[0]

    # -- messages ----------------------------------------------------------------------------------

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **kwargs: Any) -> None:
        """Publish; as with AMQP a message that no queue takes is dropped."""
        self._send(message, exchange or '', routing_key or '')

    def _send(self, message: Mapping[str, Any], exchange: str, routing_key: str) -> None:
        properties = {name: value for name, value in message['properties'].items()
                      if isinstance(value, (str, int)) and not isinstance(value, bool)}
        for name in ('content-type', 'content-encoding'):
            if message.get(name):
                properties[name.replace('-', '_')] = message[name]
        try:
            self._core.publish(exchange, routing_key, message['body'] or b'', message.get('headers') or {}, properties,
                               False, None, None)
        except _core.NotFound:
            logger.debug('No queue takes a message for %s of exchange %r', routing_key, exchange)

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        self._send(message, '', queue)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        try:
            # Looking takes no lock of the database.
            taken = self._core.get(queue, None) if self._core.size(queue, None)[0] else None
        except _core.NotFound:
            taken = None
        if taken is None:
            raise queues.Empty
        body, headers, properties, info = taken
        return {'body': body, 'headers': headers,
                'content-type': properties.pop('content_type', None),
                'content-encoding': properties.pop('content_encoding', None),
                'properties': {**properties, 'delivery_tag': self._next_delivery_tag(),
                               'delivery_info': {**info, 'queue': queue}}}

    def _restore(self, message: Any) -> None:
        payload = message.serializable()
        self._send(payload, '', message.delivery_info.get('queue') or message.delivery_info['routing_key'])

    def _restore_at_beginning(self, message: Any) -> None:
        self._restore(message)

    def close(self) -> None:
        """Put back what was not acknowledged; the queues that were only for us go."""
        if not self.closed:
            super().close()
            for name in list(self._temporary):
                self.queue_delete(name)


class CoreTransport(virtual.Transport):
    """A broker of the core as a transport of kombu."""

    Channel = CoreChannel
    can_parse_url = True
    default_port = None
    polling_interval = 0.1
    implements = virtual.Transport.implements.extend(exchange_type=frozenset(['direct', 'topic', 'fanout']))
    connection_errors = (*virtual.Transport.connection_errors, ConnectionError)
    recoverable_connection_errors = connection_errors
    recoverable_channel_errors = virtual.Transport.channel_errors

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.publisher = Publisher([self._config(client)])

    def _config(self, client: Any) -> dict[str, Any]:
        raise NotImplementedError(f'{type(self).__name__} must define _config()')

    def close_connection(self, connection: Any) -> None:
        """Close the channels, then the core's connection."""
        super().close_connection(connection)
        self.publisher.close()

    def driver_version(self) -> str:
        """Return ``N/A``: there is no driver but ours."""
        return 'N/A'


class SQLite(CoreTransport):
    """``sqlite:///file.db``."""

    driver_type = driver_name = 'sqlite'

    def _config(self, client: Any) -> dict[str, Any]:
        return {'scheme': 'sqlite', **sqlite_config(client.hostname, client.transport_options)}


class Memory(CoreTransport):
    """``memory://``: the queues of the apps of this process."""

    driver_type = driver_name = 'memory'
    polling_interval = 0.01

    def _config(self, client: Any) -> dict[str, Any]:
        return {'scheme': 'memory', 'hub': _state.get_memory_hub()}


class FileChannel(filesystem.Channel):
    """Kombu's channel, but a message appears as a whole, in order, and is not gone before it is acknowledged.

    Kombu's writes into the file that others look for already: who reads too early takes an empty file and loses the message.
    And it deletes what it reads, so that a process that is killed takes its messages with it. Here the file is renamed to
    ``<name>.taken-<holder>`` until it is acknowledged, and a holder has a lock on a file of its own as long as it lives: whoever
    gets that lock puts back what was held. Kombu's own channels, in the same folder, look for other names.
    """

    _numbers = itertools.count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen: dict[str, deque[str]] = {}
        self._held: dict[str, str] = {}  # delivery tag -> path
        self._holder = uuid()
        self._lock: Any = None
        self._no_ack_queues: set[str] = set()
        self._next_look = 0.0

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        name = f'{time.time_ns() // 1_000_000}_{next(self._numbers):08d}-{uuid()}.{queue}.msg'
        hidden = os.path.join(self.data_folder_out, f'.{name}.new')
        with open(hidden, 'w', encoding='utf-8') as file:
            file.write(dumps(payload))
        os.rename(hidden, os.path.join(self.data_folder_out, name))

    # -- taking ------------------------------------------------------------------------------------

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        if not self._seen.get(queue):
            self._look(queue)
        names = self._seen[queue]
        while names:
            payload = self._take(names.popleft())
            if payload is not None:
                if queue in self._no_ack_queues:
                    self._settle(payload['properties']['delivery_tag'])
                return payload
        raise queues.Empty

    def _look(self, queue: str) -> None:
        if self._next_look <= time.monotonic():
            self._next_look = time.monotonic() + LOOK_FOR_DEAD
            self._put_back_of_dead()
        suffix = f'.{queue}.msg'
        self._seen[queue] = deque(sorted(
            name for name in os.listdir(self.data_folder_in) if name.endswith(suffix) and not name.startswith('.')))

    def _take(self, name: str) -> Any:
        """Return the message in a file, which is ours then; None if it is another's, or not written yet."""
        path = os.path.join(self.data_folder_in, name)
        try:
            with open(path, 'rb') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                data = file.read()
                if not data or not os.path.exists(path):  # its writer comes now, or another reader was here
                    return None
                return self._claim(path, data)
        except (BlockingIOError, FileNotFoundError):
            return None

    def _claim(self, path: str, data: bytes) -> Any:
        try:
            payload = loads(data)
            properties = payload['properties']
            tag = properties['delivery_tag'] = self._next_delivery_tag()  # copies of a broadcast share theirs
            properties['delivery_info']['redelivered'] = _stem(path).endswith(_AGAIN)
        except (ValueError, KeyError, TypeError) as exc:
            os.rename(path, f'{path}.bad')
            logger.error('%s.bad is not a message: %r', path, exc)
            return None
        if self._lock is None:
            self._lock = open(self._lock_of(self._holder), 'wb')  # noqa: SIM115  held as long as we live
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        taken = f'{path}{_TAKEN}{self._holder}'
        os.rename(path, taken)
        self._held[tag] = taken
        return payload

    def _lock_of(self, holder: str) -> str:
        return os.path.join(self.data_folder_in, f'.holder-{holder}')

    def _put_back_of_dead(self) -> None:
        held: dict[str, list[str]] = {}
        for name in os.listdir(self.data_folder_in):
            _, found, holder = name.rpartition(_TAKEN)
            if found and holder != self._holder:
                held.setdefault(holder, []).append(name)
        for holder, names in held.items():
            if self._is_dead(holder):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):  # somebody else has done it
                        _give_back(os.path.join(self.data_folder_in, name))
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._lock_of(holder))

    def _is_dead(self, holder: str) -> bool:
        try:
            with open(self._lock_of(holder), 'rb') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        return True

    # -- settling ----------------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume a queue."""
        if no_ack:
            self._no_ack_queues.add(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message; None if there is none."""
        message = super().basic_get(queue, no_ack, **kwargs)
        if message is not None and no_ack:
            self._settle(message.delivery_tag)
        return message

    def basic_ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        """The message is done with."""
        super().basic_ack(delivery_tag, multiple)
        self._settle(delivery_tag)

    def basic_reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        """Drop the message, or put it back."""
        super().basic_reject(delivery_tag, requeue)
        self._settle(delivery_tag)

    def _settle(self, delivery_tag: Any) -> None:
        path = self._held.pop(str(delivery_tag), None)
        if path is None:
            return
        if self.store_processed:
            os.makedirs(self.processed_folder, exist_ok=True)
            name = os.path.basename(path).rpartition(_TAKEN)[0]
            os.rename(path, os.path.join(self.processed_folder, name))
        else:
            os.unlink(path)

    def _restore(self, message: Any) -> None:
        tag = str(message.delivery_tag)
        if tag not in self._held:
            return
        try:
            _give_back(self._held[tag])
        except OSError as exc:
            logger.warning('A message cannot be put back now, others will do it: %s', exc)
        else:
            del self._held[tag]

    def _restore_at_beginning(self, message: Any) -> None:
        self._restore(message)

    def close(self) -> None:
        """Put back what was not acknowledged."""
        try:
            super().close()
        finally:
            lock, self._lock = self._lock, None
            if lock is not None:
                lock.close()  # what could not be put back is for others now
                if not self._held:
                    with contextlib.suppress(OSError):
                        os.unlink(self._lock_of(self._holder))


def _stem(path: str) -> str:
    return os.path.basename(path).partition('.')[0]


def _give_back(taken: str) -> None:
    """Rename a file so that others find it, and see that it is not new."""
    folder, name = os.path.split(taken.rpartition(_TAKEN)[0])
    stem, _, rest = name.partition('.')
    os.rename(taken, os.path.join(folder, name if stem.endswith(_AGAIN) else f'{stem}{_AGAIN}.{rest}'))


class FileSystem(filesystem.Transport):
    """``filesystem://``, in kombu's format."""

    Channel = FileChannel
    can_parse_url = True
