"""Sending messages: queues, routing, serialization and the way to the broker."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue, pools
from kombu.common import Broadcast
from kombu.exceptions import EncodeError
from kombu.compression import compress

from pyceleryc import signals
from pyceleryc.app import routes as _routes
from pyceleryc.app.batch import Batch
from pyceleryc.app.delayed import Delayed
from pyceleryc.app.drivers import broker_config, broker_urls, queue_config, scheme_of
from pyceleryc.app.messages import TaskMessages, cannot_encode, encode, task_message, unix_time
from pyceleryc.app.publisher import NO_RETRY, Publisher, RetryPolicy
from pyceleryc.app.queues import Queues
from pyceleryc.utils.locks import shared_property

__all__ = ('AMQP', 'Queues', 'task_message')

_DELIVERY_MODES = {'transient': 1, 'persistent': 2}
#: Kombu knows no such broker, or another one of that name.
_OWN_BROKERS = frozenset({'memory', 'sqlite'})
#: As :func:`scheme_of` names them.
_RABBITMQ = frozenset({'amqp', 'amqps'})
#: Settings that change what AMQP has computed from them.
_ROUTING_SETTINGS = ('task_routes', 'task_queues', 'task_default_', 'task_create_missing',
                     'task_queue_max_priority')


class AMQP(TaskMessages):
    """What an app knows about its broker (FEATURES 2.1)."""

    Connection = Connection
    Consumer = Consumer
    Producer = Producer
    #: Old name of :attr:`Connection`.
    BrokerConnection = Connection
    queues_cls = Queues

    def __init__(self, app: Any) -> None:
        self.app = app
        self.task_protocols: dict[int, Callable[..., Any]] = {1: self.as_task_v1, 2: self.as_task_v2}
        self._producer_pool: Any = None
        self._rtable: Any = None
        self._delayed = Delayed(app)
        self.app._conf_changed.append(self._handle_conf_update)

    # -- what the settings say ------------------------------------------------------------

    @property
    def create_task_message(self) -> Callable[..., Any]:
        """The method that makes messages of the protocol in use."""
        return self.task_protocols[self.app.send_settings.protocol]

    @property
    def send_task_message(self) -> Callable[..., None]:
        """The method that publishes a message made by :attr:`create_task_message`."""
        return self.send

    @shared_property
    def queues(self) -> Queues:
        """The queues, made of the setting ``task_queues``."""
        return self.make_queues(self.app.conf.task_queues)

    @shared_property
    def default_queue(self) -> Queue:
        """The queue of tasks that nothing routes elsewhere."""
        return self.queues[self.app.conf.task_default_queue]

    @shared_property
    def default_exchange(self) -> Exchange:
        """The exchange of the default queue, if that is not configured."""
        conf = self.app.conf
        return Exchange(conf.task_default_exchange, conf.task_default_exchange_type)

    @shared_property
    def router(self) -> _routes.Router:
        """Finds the route of a task."""
        return self.Router()

    @property
    def routes(self) -> Any:
        """The routers of ``task_routes``."""
        if self._rtable is None:
            self.flush_routes()
        return self._rtable

    def flush_routes(self) -> None:
        """Read ``task_routes`` again."""
        self._rtable = _routes.prepare(self.app.conf.task_routes)

    def Router(  # noqa: N802  the public name
        self, queues: Any = None, create_missing: bool | None = None,
    ) -> _routes.Router:
        """Make a router over *queues* (default: the app's)."""
        if create_missing is None:
            create_missing = self.app.conf.task_create_missing_queues
        return _routes.Router(self.routes, queues or self.queues, create_missing, app=self.app)

    @property
    def autoexchange(self) -> Callable[[str], Exchange]:
        """Makes the exchange of a queue that is made on demand."""
        return Exchange

    @property
    def utc(self) -> bool:
        """The setting ``enable_utc``."""
        return bool(self.app.conf.enable_utc)

    def make_queues(
        self, queues: Any, create_missing: bool | None = None,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        autoexchange: Callable[[str], Exchange] | None = None, max_priority: int | None = None,
    ) -> Queues:
        """Make a :class:`Queues`; what is not given comes from the settings."""
        conf = self.app.conf
        if not queues and conf.task_default_queue:
            queues = (self._configured_default_queue(),)
        return self.queues_cls(
            queues, self.default_exchange,
            conf.task_create_missing_queues if create_missing is None else create_missing,
            create_missing_queue_type or conf.task_create_missing_queue_type,
            create_missing_queue_exchange_type or conf.task_create_missing_queue_exchange_type,
            autoexchange or self.autoexchange,
            conf.task_queue_max_priority if max_priority is None else max_priority,
            conf.task_default_routing_key)

    def _configured_default_queue(self) -> Queue:
        conf = self.app.conf
        arguments = None
        if conf.task_default_queue_type not in (None, 'classic'):
            arguments = {'x-queue-type': conf.task_default_queue_type}
        return Queue(
            conf.task_default_queue, exchange=self.default_exchange,
            routing_key=conf.task_default_routing_key, queue_arguments=arguments)

    def TaskConsumer(  # noqa: N802  the public name
        self, channel: Any, queues: Any = None, accept: Any = None, **kw: Any,
    ) -> Any:
        """Make a consumer of the queues that workers consume from."""
        if accept is None:
            accept = self.app.conf.accept_content
        sources = queues or list(self.queues.consume_from.values())
        return self.Consumer(channel, accept=accept, queues=sources, **kw)

    def _handle_conf_update(self, names: tuple[str, ...]) -> None:
        if any(name.startswith(_ROUTING_SETTINGS) for name in names):
            self._rtable = None
            self.__dict__.pop('router', None)
        if any(name.startswith(('broker_', 'BROKER_')) for name in names):
            self.__dict__.pop('publisher', None)
            self._delayed.reached.clear()

    # -- connections ------------------------------------------------------------------------

    def core_config(self, url: str | None = None, role: str = 'write') -> dict[str, Any] | None:
        """Return the configuration of ``_core.Producer``; None without a C driver for *url*.

        :param url: default: ``broker_write_url``, or ``broker_read_url`` for role ``read``.
        """
        conf = self.app.conf
        if url is None:
            url = conf.broker_read_url if role == 'read' else conf.broker_write_url
        return broker_config(conf, broker_urls(url)[0], role)

    def queue_config(self, queue: Queue) -> dict[str, Any]:
        """Return *queue* as the core takes it."""
        return queue_config(queue)

    @shared_property
    def publisher(self) -> Publisher | None:
        """The process's publisher; None if kombu has to publish."""
        conf = self.app.conf
        configs = [broker_config(conf, url) for url in broker_urls(conf.broker_write_url)]
        usable = [config for config in configs if config is not None]
        # One URL without a driver takes all of them to kombu, which does the failover.
        return Publisher(usable, conf.broker_failover_strategy) if len(usable) == len(configs) else None

    @property
    def producer(self) -> Any:
        """The process's ``_core.Producer``, or None."""
        return None if self.publisher is None else self.publisher.core

    def batch(self) -> AbstractContextManager[Batch | None]:
        """Return a context manager that collects the tasks sent in its block by this thread.

        They leave together at its end: in one write to RabbitMQ or Redis, in one transaction of SQLite.
        If the block raises none of them is sent.  ``before_task_publish`` is sent in the block,
        ``after_task_publish`` once the messages have left.  What is sent with a kombu producer
        or connection of the caller's, and through transports without a C driver, leaves at once.
        """
        if self.publisher is None or self.is_instrumented:
            return nullcontext()
        return self.publisher.collect()

    @property
    def is_instrumented(self) -> bool:
        """Has somebody replaced kombu's ``Producer.publish``?  It is used then, where kombu knows the broker (D18)."""
        return is_patched(Producer.publish) and scheme_of(
            broker_urls(self.app.conf.broker_write_url)[0]) not in _OWN_BROKERS

    @property
    def current_batch(self) -> Batch | None:
        """What :meth:`batch` collects in this thread, or None."""
        publisher = self.__dict__.get('publisher')
        return None if publisher is None else publisher.batch

    @property
    def producer_pool(self) -> Any:
        """Kombu's pool of producers."""
        if self._producer_pool is None:
            self._producer_pool = pools.producers[self.app.connection_for_write()]
            self._producer_pool.limit = self.app.pool.limit
        return self._producer_pool

    publisher_pool = producer_pool

    @shared_property
    def _event_dispatcher(self) -> Any:
        # Only task-sent events are sent from here, and not from inside a worker.
        return self.app.events.Dispatcher(enabled=False)

    # -- sending ------------------------------------------------------------------------------

    def send(
        self, producer: Any, name: str, message: task_message, exchange: Any = None,
        routing_key: str | None = None, queue: Any = None, event_dispatcher: Any = None,
        retry: bool | None = None, retry_policy: Mapping[str, Any] | None = None,
        serializer: str | None = None, delivery_mode: Any = None,
        compression: str | None = None, declare: Any = None,
        headers: Mapping[str, Any] | None = None, exchange_type: str | None = None,
        timeout: float | None = None, confirm_timeout: float | None = None, **kwargs: Any,
    ) -> None:
        """Publish a task message.

        :param producer: of kombu, or None for the process's publisher.
        :param retry_policy: merged over ``task_publish_retry_policy`` (C-072).
        :param headers: further headers; they win over those of the protocol.
        :param kwargs: AMQP properties, ``mandatory``, ``due``.
        :raises OperationalError: the broker cannot be reached.
        :raises EncodeError: the arguments cannot be serialized.
        """
        settings = self.app.send_settings
        queue = self._queue(queue, exchange)
        exchange, routing_key = self._destination(queue, exchange, routing_key, exchange_type)
        if declare is None and queue is not None and self._declares(queue):
            declare = [queue]
        policy = {**settings.retry_policy, **(retry_policy or {})}
        retry = settings.retry if retry is None else retry
        own, properties, body, sent_event = message
        if own.get('eta'):
            exchange, routing_key = self._delay(own['eta'], queue, exchange, routing_key, producer)
        all_headers = {**own, **headers} if headers else dict(own)
        properties = {**kwargs, **properties}
        if signals.before_task_publish.receivers:
            signals.before_task_publish.send(
                sender=name, body=body, exchange=exchange, routing_key=routing_key,
                declare=declare, headers=all_headers, properties=properties,
                retry_policy=policy)
        self._publish(
            name, producer, body, exchange=exchange, routing_key=routing_key, declare=declare,
            headers=all_headers, properties=properties, retry=retry, policy=policy,
            serializer=serializer or settings.serializer,
            compression=compression or settings.compression,
            delivery_mode=self._delivery_mode(queue, delivery_mode), timeout=timeout,
            confirm_timeout=confirm_timeout)
        tell = partial(
            self._tell, name, body, all_headers, exchange, routing_key, properties,
            event_dispatcher, producer, sent_event, queue, retry, policy)
        batch = self.current_batch if producer is None else None
        if batch is None:
            tell()
        else:
            batch.afterwards(tell)

    def _declares(self, queue: Any) -> bool:
        """Tell whether publishing to *queue* declares it.

        Queues of :class:`Broadcast` are their consumers'; but a Redis producer must know that their exchange
        is a fanout, which is all that declaring one does there.
        """
        return not isinstance(queue, Broadcast) or (
            self.publisher is not None and self.publisher.scheme == 'redis')

    def _queue(self, queue: Any, exchange: Any) -> Queue | None:
        if queue is None and exchange is None:
            return self.default_queue
        return self.queues[queue] if isinstance(queue, str) else queue

    def _destination(
        self, queue: Queue | None, exchange: Any, routing_key: str | None,
        exchange_type: str | None,
    ) -> tuple[str, str | None]:
        """Return exchange and key; direct queues are sent to by name (C-140, C-146, C-147)."""
        of_queue = None if queue is None else queue.exchange
        if exchange_type is None:
            exchange_type = getattr(of_queue, 'type', None) or 'direct'
        if exchange_type == 'direct' and queue is not None and not (exchange and routing_key):
            return '', queue.name
        if exchange is None:
            exchange = getattr(of_queue, 'name', None) or self.app.conf.task_default_exchange
            routing_key = (routing_key or getattr(queue, 'routing_key', None)
                           or self.app.conf.task_default_routing_key)
        return getattr(exchange, 'name', exchange), routing_key

    def _delay(
        self, eta: str, queue: Queue | None, exchange: str, routing_key: str | None, producer: Any,
    ) -> tuple[str, str | None]:
        """Return exchange and key for a message with an ETA: RabbitMQ may keep it until then."""
        connection = getattr(producer, 'connection', None)
        if connection is not None:
            is_rabbitmq = connection.transport.driver_type == 'amqp'
        else:
            is_rabbitmq = scheme_of(broker_urls(self.app.conf.broker_write_url)[0]) in _RABBITMQ
        return self._delayed.route(unix_time(eta), queue, exchange, routing_key, connection) if is_rabbitmq else (
            exchange, routing_key)

    def _delivery_mode(self, queue: Queue | None, delivery_mode: Any) -> int:
        if delivery_mode is None and queue is not None and queue.exchange is not None:
            delivery_mode = queue.exchange.delivery_mode
        mode = delivery_mode or self.app.send_settings.delivery_mode
        return int(_DELIVERY_MODES.get(mode, mode))

    def _publish(self, name: str, producer: Any, body: Any, **how: Any) -> None:
        try:
            self._publish_with(producer, body, **how)
        except EncodeError as exc:
            args, kwargs = (body['args'], body['kwargs']) if isinstance(body, Mapping) else body[:2]
            raise cannot_encode(name, args, kwargs, exc, how['serializer']) from exc

    def _publish_with(self, producer: Any, body: Any, **how: Any) -> None:
        if producer is not None:
            self._publish_with_kombu(producer, body, **how)
        elif self.publisher is None or self.is_instrumented:
            with self.producer_pool.acquire(block=True) as pooled:
                self._publish_with_kombu(pooled, body, **how)
        else:
            self._publish_with_core(self.publisher, body, **how)

    def _publish_with_kombu(
        self, producer: Any, body: Any, *, properties: dict[str, Any], policy: dict[str, Any],
        **how: Any,
    ) -> None:
        properties.pop('due', None)
        producer.publish(body, retry_policy=policy, **how, **properties)

    def _publish_with_core(
        self, publisher: Publisher, body: Any, *, properties: dict[str, Any],
        headers: dict[str, Any], serializer: str | None, compression: str | None,
        delivery_mode: int, retry: bool, policy: dict[str, Any], exchange: str,
        routing_key: str | None, declare: Any, timeout: float | None,
        confirm_timeout: float | None,
    ) -> None:
        content_type, encoding, data = encode(body, serializer)
        if compression:
            data, headers['compression'] = compress(data, compression)
        properties = dict(
            properties, content_type=content_type, content_encoding=encoding,
            delivery_mode=delivery_mode, priority=properties.get('priority') or 0)
        expiration = properties.get('expiration')
        if expiration is not None:
            # Kombu's unit are seconds, AMQP's a text of milliseconds.
            properties['expiration'] = str(max(0, int(float(expiration) * 1000)))
        publisher.publish(
            data, exchange=exchange, routing_key=routing_key or '', headers=headers,
            properties=properties, declare=declare, mandatory=bool(properties.get('mandatory')),
            due=self._due(publisher, headers, properties), timeout=timeout or confirm_timeout,
            policy=RetryPolicy(**policy) if retry else NO_RETRY)

    def _due(
        self, publisher: Publisher, headers: dict[str, Any], properties: dict[str, Any],
    ) -> float | None:
        """Return when the message is to be delivered, if the driver holds it until then."""
        eta = headers.get('eta')
        if publisher.scheme != 'sqlite' or not eta:
            return properties.pop('due', None)
        return unix_time(eta)

    def _tell(
        self, name: str, body: Any, headers: dict[str, Any], exchange: str,
        routing_key: str | None, properties: dict[str, Any], dispatcher: Any, producer: Any,
        sent_event: dict[str, Any] | None, queue: Queue | None, retry: bool,
        policy: dict[str, Any],
    ) -> None:
        """Do what is to be done when a message has been published."""
        self._announce(name, body, headers, exchange, routing_key, properties)
        if sent_event is not None:
            self._send_event(
                dispatcher, producer, sent_event, queue, exchange, routing_key, retry, policy)

    def _announce(
        self, name: str, body: Any, headers: dict[str, Any], exchange: str,
        routing_key: str | None, properties: dict[str, Any],
    ) -> None:
        if signals.after_task_publish.receivers:
            signals.after_task_publish.send(
                sender=name, body=body, headers=headers, exchange=exchange,
                routing_key=routing_key)
        if not signals.task_sent.receivers:
            return
        # The signal of Celery 3: it has the fields of protocol 1 messages.
        fields = body if isinstance(body, Mapping) else {
            'args': body[0], 'kwargs': body[1], 'eta': headers.get('eta'),
            'group': headers.get('group')}
        signals.task_sent.send(
            sender=name, task_id=properties.get('correlation_id'), task=name,
            args=fields['args'], kwargs=fields['kwargs'], eta=fields['eta'],
            taskset=fields.get('group'))

    def _send_event(
        self, dispatcher: Any, producer: Any, fields: dict[str, Any], queue: Queue | None,
        exchange: str, routing_key: str | None, retry: bool, policy: dict[str, Any],
    ) -> None:
        fields.update(
            queue=getattr(queue, 'name', queue), exchange=exchange, routing_key=routing_key)
        dispatcher = dispatcher or self._event_dispatcher
        if dispatcher.exchange is None:  # not with this broker
            return
        if producer is not None:
            dispatcher.publish('task-sent', fields, producer, retry=retry, retry_policy=policy)
            return
        with self.producer_pool.acquire(block=True) as pooled:
            dispatcher.publish('task-sent', fields, pooled, retry=retry, retry_policy=policy)


def is_patched(function: Callable[..., Any]) -> bool:
    """Tell whether instrumentation has replaced this function of kombu (D18)."""
    namespace = getattr(function, '__globals__', None) or {}
    return namespace.get('__name__') != 'kombu.messaging'
