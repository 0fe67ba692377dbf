"""The queues of an app: the setting ``task_queues`` and those made on demand (C-140)."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from kombu import Exchange, Queue

from pyceleryc.utils.text import indent as indent_text

__all__ = ('Queues',)

#: A line of the worker's banner.
QUEUE_FORMAT = (
    '.> {0.name:<16} exchange={0.exchange.name}({0.exchange.type}) key={0.routing_key}'
)


class Queues(dict):  # type: ignore[type-arg]
    """Queue name to Queue.  Looking up an unknown name makes the queue.

    :param queues: a mapping of names to queues or options, or an iterable of queues.
    :param create_missing: False: unknown names raise KeyError.
    :param create_missing_queue_type: ``x-queue-type`` of queues made on demand.
    :param autoexchange: makes the exchange of a queue made on demand, given its name.
    :param max_priority: ``x-max-priority`` of queues that do not say.
    """

    def __init__(
        self, queues: Any = None, default_exchange: Exchange | None = None,
        create_missing: bool = True, create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        autoexchange: Callable[[str], Exchange] | None = None, max_priority: int | None = None,
        default_routing_key: str | None = None,
    ) -> None:
        super().__init__()
        self.aliases: WeakValueDictionary[str, Queue] = WeakValueDictionary()
        self.default_exchange = default_exchange
        self.default_routing_key = default_routing_key
        self.create_missing = create_missing
        self.create_missing_queue_type = create_missing_queue_type
        self.create_missing_queue_exchange_type = create_missing_queue_exchange_type
        self.autoexchange = Exchange if autoexchange is None else autoexchange
        self.max_priority = max_priority
        self._consume_from: dict[str, Queue] | None = None
        for name, queue in _named_queues(queues):
            self.add(queue, **(name if isinstance(name, dict) else {}))

    # -- the mapping ------------------------------------------------------------------

    def __getitem__(self, name: str) -> Queue:
        try:
            return self.aliases[name]
        except KeyError:
            return super().__getitem__(name)

    def __setitem__(self, name: str, queue: Queue) -> None:
        if self.default_exchange is not None and not queue.exchange:
            queue.exchange = self.default_exchange
        super().__setitem__(name, queue)
        if queue.alias:
            self.aliases[queue.alias] = queue

    def __missing__(self, name: str) -> Queue:
        if not self.create_missing:
            raise KeyError(name)
        return self.add(self.new_missing(name))

    # -- adding -----------------------------------------------------------------------

    def add(self, queue: Any, **kwargs: Any) -> Queue:
        """Add a queue: a Queue, or its name and options of :class:`kombu.Queue`.

        A routing key that is missing is that of the default queue, or the name.
        """
        if not isinstance(queue, Queue):
            return self.add_compat(queue, **kwargs)
        return self._add(queue)

    def add_compat(self, name: str, **options: Any) -> Queue:
        """Add a queue called *name*; ``binding_key`` means ``routing_key``."""
        options.setdefault('routing_key', options.get('binding_key'))
        if options['routing_key'] is None:
            options['routing_key'] = name
        return self._add(Queue.from_dict(name, **options))

    def _add(self, queue: Queue) -> Queue:
        if queue.exchange is None or queue.exchange.name == '':
            queue.exchange = self.default_exchange
        if not queue.routing_key:
            queue.routing_key = self.default_routing_key
        if self.max_priority is not None:
            queue.queue_arguments = {
                'x-max-priority': self.max_priority, **(queue.queue_arguments or {}),
            }
        self[queue.name] = queue
        return queue

    def new_missing(self, name: str) -> Queue:
        """Make (but do not add) a queue that was not configured."""
        exchange = self.autoexchange(name)
        if self.create_missing_queue_exchange_type:
            exchange.type = self.create_missing_queue_exchange_type
        arguments = None
        if self.create_missing_queue_type not in (None, 'classic'):
            arguments = {'x-queue-type': self.create_missing_queue_type}
        return Queue(name, exchange, name, queue_arguments=arguments)

    # -- what a worker consumes from ----------------------------------------------------

    def select(self, include: Iterable[str] | str | None) -> None:
        """Consume from these queues only."""
        if include:
            names = include.split(',') if isinstance(include, str) else include
            self._consume_from = {name: self[name] for name in names}

    def deselect(self, exclude: Iterable[str] | str | None) -> None:
        """Do not consume from these queues."""
        if exclude:
            names = exclude.split(',') if isinstance(exclude, str) else list(exclude)
            if self._consume_from is None:
                self._consume_from = {n: q for n, q in self.items() if n not in names}
            else:
                for name in names:
                    self._consume_from.pop(name, None)

    def select_add(self, queue: Any, **kwargs: Any) -> Queue:
        """Add a queue and consume from it, too."""
        added = self.add(queue, **kwargs)
        if self._consume_from is not None:
            self._consume_from[added.name] = added
        return added

    @property
    def consume_from(self) -> dict[str, Queue]:
        """The queues that a worker consumes from."""
        return self if self._consume_from is None else self._consume_from

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """Return the queues that are consumed from as text, a line each."""
        lines = [QUEUE_FORMAT.format(queue) for _, queue in sorted(self.consume_from.items())]
        if indent_first or not lines:
            return indent_text('\n'.join(lines), indent)
        return '\n'.join([lines[0], indent_text('\n'.join(lines[1:]), indent)] if lines[1:]
                         else lines)


def _named_queues(queues: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(queues, Mapping):
        for name, value in queues.items():
            yield (None, value) if isinstance(value, Queue) else (dict(value or {}), name)
        return
    for queue in queues or ():
        yield None, queue
