"""Results as messages to the program that sent the task (PROTOCOL §3.5.3, T-210..T-213)."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from pyceleryc.app.drivers import scheme_of
from pyceleryc.backends.core import REREAD, Client, CoreBackend
from pyceleryc.backends.redis_replies import RedisReceiver, reply_list
from pyceleryc.backends.remote import Remote
from pyceleryc.backends.replies import KombuReceiver, Receiver, ReplyClient
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.locks import shared_property

__all__ = ('RPCBackend',)

NO_GROUPS = (
    'The rpc result backend sends each result as one message to the program that asked for it, '
    'so a worker cannot read the results of other tasks: no {what}. Use another result backend, '
    'for example redis://.')


#: Brokers whose driver in C has a store, too.
WITH_DRIVER = frozenset({'amqp', 'memory', 'sqlite'})
#: Kombu's part of trying again; :meth:`Remote.reach` does the rest.
ONCE_MORE = {'max_retries': 1, 'interval_start': 0}


class RPCBackend(Remote, CoreBackend):
    """One reply queue for each process; results are read once, by the process that asked.

    With RabbitMQ the driver in C sends and receives them; with every other broker a thread receives them
    (:mod:`pyceleryc.backends.replies`), and they are sent as the tasks are, with Redis by the worker's machine. Where the broker is ``memory://`` or ``sqlite://``,
    which have no reply queues, its own result store serves.

    :param persistent: do messages survive a restart of the broker? Default:
        ``result_persistent``, else no.
    """

    persistent = False
    wants_task_call = True
    unreachable = (OperationalError, OSError)

    def __init__(
        self, app: Any, connection: Any = None, exchange: Any = None, exchange_type: Any = None,
        persistent: bool | None = None, serializer: str | None = None,
        auto_delete: bool = True, **kwargs: Any,
    ) -> None:
        super().__init__(app, serializer, **kwargs)
        self.persistent = self.prepare_persistent(persistent)
        #: Of the Redis that results were sent to last.
        self._server: Client | None = None

    @shared_property
    def broker(self) -> dict[str, Any] | None:
        """Configuration of the broker's driver, if that can send and receive results; else None."""
        config: dict[str, Any] | None = self.app.amqp.core_config()
        return config if config is not None and config['scheme'] in WITH_DRIVER else None

    @shared_property
    def core(self) -> Client:
        """The process's client."""
        if self.broker is not None:
            return Client.shared(self.client_config())
        return ReplyClient(self._receiver, partial(self.reach, self._send))

    def _receiver(self, name: str, deliver: Callable[[str, bytes], None]) -> Receiver:
        publisher = self.app.amqp.publisher
        if publisher is not None and publisher.scheme == 'redis':
            return RedisReceiver(lambda: publisher.config, name, deliver)
        queue = Queue(name, Exchange(''), name, auto_delete=True, expires=self.expires or None, durable=self.persistent)
        return KombuReceiver(self.app.connection_for_write(), queue, deliver)

    def core_config(self) -> dict[str, Any] | None:
        """Return the configuration with which a worker's machine sends results itself; None: it cannot."""
        if self.broker is not None:
            return super().core_config()
        publisher = self.app.amqp.publisher
        if publisher is None or publisher.scheme != 'redis' or len(publisher.configs) > 1 or not self._writes_plainly:
            return None
        return {'scheme': 'redis', 'broker': publisher.config, 'persistent': self.persistent, 'expires': float(self.expires or 0)}

    def client_config(self) -> dict[str, Any]:
        """Return the configuration of ``_core.Results``.

        :raises ImproperlyConfigured: that has no driver for the broker; kombu is used.
        """
        broker = self.broker
        if broker is None:
            raise ImproperlyConfigured(
                f'Results over {scheme_of(self.app.conf.broker_write_url or "")}:// are sent and received by kombu')
        config = {'expires': float(self.expires or 0)}
        if broker['scheme'] == 'memory':
            return {**config, 'scheme': 'memory', 'hub': broker['hub']}
        if broker['scheme'] == 'sqlite':
            return {**config, 'scheme': 'sqlite', 'path': broker['vhost']}
        return {**config, 'scheme': 'rpc', 'broker': broker, 'persistent': self.persistent}

    def _send(
        self, document: bytes | str, content_type: str, content_encoding: str, reply_to: str, correlation_id: str | None,
    ) -> None:
        """Send a result the way tasks are sent, and wait until the broker has it."""
        properties = {
            'content_type': content_type, 'content_encoding': content_encoding, 'correlation_id': correlation_id,
            'delivery_mode': 2 if self.persistent else 1, 'priority': 0}
        publisher = self.app.amqp.publisher
        if publisher is None:
            with self.app.amqp.producer_pool.acquire(block=True) as producer:
                producer.publish(
                    document, exchange='', routing_key=reply_to, retry=True, retry_policy=ONCE_MORE, **properties)
            return

        def publish(core: Any) -> None:
            # Not through a batch that this thread may be collecting: others wait for the result.
            core.publish('', reply_to, document, {}, properties, False, None, None)
            core.flush(None)

        publisher.call(publish, None)
        if publisher.scheme == 'redis' and self.expires:
            self._let_expire(publisher.config, reply_to)

    def _let_expire(self, config: dict[str, Any], reply_to: str) -> None:
        """Set when Redis drops the queue: nobody else would, if the program that waits has been killed."""
        if self._server is None or self._server.config != config:
            self._server = Client.shared(config)
        with contextlib.suppress(OSError):  # the result is there, which is what counts
            self._server.redis.run(
                [['PEXPIRE', reply_list(config, reply_to), int(self.expires * 1000)]], False, None)

    # -- waiting for many -------------------------------------------------------------------------

    def _gather(
        self, waiting: dict[str, Any], deadline: float | None, interval: float, on_message: Any, on_interval: Any,
    ) -> Iterator[tuple[str, Any]]:
        if self.broker is not None:
            yield from super()._gather(waiting, deadline, interval, on_message, on_interval)
            return
        replies = self.core.results
        pause = REREAD if on_interval is None else interval
        replies.watch_many(waiting)
        arrived: list[str] | None = None
        seen = replies.arrivals(0, 0)[0]
        while waiting:
            for task_id in list(waiting) if arrived is None else arrived:
                meta = self._ready_meta(task_id, on_message) if task_id in waiting else None
                if meta is not None:
                    del waiting[task_id]
                    yield task_id, meta
            left = pause if deadline is None else min(pause, deadline - time.monotonic())
            if waiting and left <= 0:
                raise self.TimeoutError('The operation timed out.')
            if waiting:
                seen, arrived = self.call(replies.arrivals, seen, left)
            if waiting and on_interval is not None:
                on_interval()

    def _ready_meta(self, task_id: str, on_message: Any) -> Any:
        """Return the meta dict of a task that is ready; else None."""
        document = self.core.results.peek(task_id)
        if document is None:
            return None
        meta = self._arrived(task_id, 0, on_message)
        if meta is not None:
            return meta
        meta = self.decode_result(document)  # somebody has read it before
        return self._remember(task_id, meta) if meta['status'] in self.READY_STATES else None

    @property
    def reply_to(self) -> str | None:
        """Name of the reply queue."""
        return self.core.reply_queue

    oid = reply_to

    def as_uri(self, include_password: bool = True) -> str:
        """Return ``rpc://``."""
        return 'rpc://'

    def ensure_chords_allowed(self) -> None:
        """Raise NotImplementedError (T-213)."""
        raise NotImplementedError(NO_GROUPS.format(what='chords'))

    def _save_group(self, group_id: str, result: Any) -> Any:
        raise NotImplementedError(NO_GROUPS.format(what='saved groups'))

    def _restore_group(self, group_id: str) -> Any:
        raise NotImplementedError(NO_GROUPS.format(what='saved groups'))

    def _delete_group(self, group_id: str) -> None:
        raise NotImplementedError(NO_GROUPS.format(what='saved groups'))
