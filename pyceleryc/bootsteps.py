"""Bootsteps: the parts of a worker, and how user code adds its own (Extensions guide, FEATURES 2.10).

A :class:`Blueprint` makes its steps in the order of what they require, starts them in that order and stops them
in the reverse one.  The worker has one (``app.steps['worker']``), and so has what consumes messages
(``app.steps['consumer']``); the steps of the latter are stopped and started again whenever the connection is lost.
"""
from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from threading import Event
from typing import Any

from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.imports import qualname, symbol_by_name

__all__ = ('Blueprint', 'Step', 'StartStopStep', 'ConsumerStep', 'RUN', 'CLOSE', 'TERMINATE')

logger = logging.getLogger('celery.bootsteps')

RUN, CLOSE, TERMINATE = 0x1, 0x2, 0x3
_STATES = {None: 'initializing', RUN: 'running', CLOSE: 'closing', TERMINATE: 'terminating'}


class _StepType(type):
    """Gives each step class the name under which others require it: ``module.Class``."""

    def __new__(mcs, name: str, bases: tuple[type, ...], ns: dict[str, Any]) -> _StepType:
        ns = {**ns, 'name': ns.get('name') or f'{ns["__module__"]}.{ns["__qualname__"]}'}
        return super().__new__(mcs, name, bases, ns)

    def __str__(cls) -> str:
        return str(cls.name)  # type: ignore[attr-defined]

    def __repr__(cls) -> str:
        return f'step:{cls.name}{{{", ".join(map(_name_of, cls.requires))}}}'  # type: ignore[attr-defined]


class Step(metaclass=_StepType):
    """Prepares its parent, a worker or a consumer; it is neither started nor stopped.

    :cvar requires: steps that come before, as classes or names (``'celery.worker.components:Pool'``).
    :cvar conditional: says in the documentation of a step that :attr:`enabled` depends on something.
    :cvar last: comes after all others; only one may.
    :cvar label: short name for logs.
    """

    name: str = ''
    label: str | None = None
    enabled: bool = True
    conditional: bool = False
    requires: Iterable[Any] = ()
    last: bool = False

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        """:param kwargs: the options of the worker, those of the command line too."""

    def include_if(self, parent: Any) -> bool:
        """Is the step wanted?  Default: :attr:`enabled`."""
        return self.enabled

    def instantiate(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the class called *name*."""
        return symbol_by_name(name)(*args, **kwargs)

    def include(self, parent: Any) -> bool:
        """Take part, if wanted; return whether."""
        if not self.include_if(parent):
            return False
        self.create(parent)
        return True

    def create(self, parent: Any) -> Any:
        """Prepare *parent*; to be overridden."""

    @property
    def alias(self) -> str:
        """The short name."""
        return self.label or _short(self.name)

    def info(self, parent: Any) -> dict[str, Any] | None:
        """Further entries of the worker's ``inspect stats``."""
        return None

    def __repr__(self) -> str:
        return f'<step: {self.alias}>'


class StartStopStep(Step):
    """Is started and stopped with its parent.

    What :meth:`create` returns, if it has ``start`` and ``stop``, is started and stopped by this class.
    """

    #: What create() returned.
    obj: Any = None

    def include(self, parent: Any) -> bool:
        if not self.include_if(parent):
            return False
        self.obj = self.create(parent)
        parent.steps.append(self)
        return True

    def start(self, parent: Any) -> Any:
        """Called with the parent's start; what it raises ends the worker."""
        return self.obj.start() if self.obj else None

    def stop(self, parent: Any) -> Any:
        """Called when the parent stops; a consumer's steps also when the connection is lost."""
        return self.obj.stop() if self.obj else None

    def close(self, parent: Any) -> Any:
        """Called for all steps before the first is stopped."""

    def terminate(self, parent: Any) -> Any:
        """Called instead of stop() in a cold shutdown; default: the same of what create() made."""
        return getattr(self.obj, 'terminate', self.obj.stop)() if self.obj else None


class ConsumerStep(StartStopStep):
    """Consumes messages of its own, beside the tasks: see :meth:`get_consumers`.

    It is for ``app.steps['consumer']``, and needs a RabbitMQ or Redis broker.
    """

    requires: Iterable[Any] = ('pyceleryc.worker.consumer.connection:Connection',)
    #: The kombu consumers, once started.
    consumers: Any = None

    def get_consumers(self, channel: Any) -> Iterable[Any]:
        """Return kombu consumers on *channel*; to be overridden."""
        raise NotImplementedError(f'{qualname(self)} has no get_consumers(channel)')

    def start(self, c: Any) -> None:
        """Open a channel and consume."""
        if c.connection is None:
            raise ImproperlyConfigured(
                f'{qualname(self)} consumes messages with kombu: this needs an amqp:// or redis:// broker_url')
        channel = c.connection.channel()
        self.consumers = list(self.get_consumers(channel) or ())
        for consumer in self.consumers:
            consumer.consume()

    def stop(self, c: Any) -> None:
        """Consume no more."""
        self._close(c, cancel=True)

    def shutdown(self, c: Any) -> None:
        """The worker is gone; channels are closed."""
        self._close(c, cancel=False)

    def _close(self, c: Any, cancel: bool) -> None:
        consumers, self.consumers = self.consumers, None
        for consumer in consumers or ():
            if c.connection is None:
                return  # it was lost, and the channels with it
            if cancel:
                consumer.cancel()
            if consumer.channel is not None:
                consumer.channel.close()


class Blueprint:
    """Steps and the order of things.

    :param steps: further step classes, or their names.
    :param name: for the log; default: the class's.
    :param on_start, on_close, on_stopped: called when that happens.
    """

    name: str | None = None
    default_steps: Iterable[Any] = ()
    state: int | None = None

    def __init__(
        self, steps: Iterable[Any] | None = None, name: str | None = None, on_start: Callable[[], Any] | None = None,
        on_close: Callable[[], Any] | None = None, on_stopped: Callable[[], Any] | None = None,
    ) -> None:
        self.name = name or self.name or qualname(type(self))
        self.types = [*map(_load, self.default_steps), *sorted(map(_load, steps or ()), key=_name_of)]
        self.on_start, self.on_close, self.on_stopped = on_start, on_close, on_stopped
        #: Instances by the names of their classes.
        self.steps: dict[str, Step] = {}
        #: Instances in the order of their start.
        self.order: list[Step] = []
        #: How many steps have been started.
        self.started = 0
        self.shutdown_complete = Event()

    # -- making ------------------------------------------------------------------------------------

    def apply(self, parent: Any, **kwargs: Any) -> Blueprint:
        """Make the steps for *parent*, in order; those that are to be started are in ``parent.steps`` then.

        :raises ImproperlyConfigured: steps that require each other.
        """
        self._debug('Preparing bootsteps.')
        order = _in_order(self._with_required())
        self._debug('New boot order: {%s}', ', '.join(cls.label or _short(cls.name) for cls in order))
        self.order = [_make(cls, parent, kwargs) for cls in order]
        self.steps.update((step.name, step) for step in self.order)
        for step in self.order:
            step.include(parent)
        return self

    def _with_required(self) -> list[type[Step]]:
        """The step classes, with those that others require; these come first."""
        found: list[type[Step]] = []

        def add(cls: type[Step]) -> None:
            if cls not in found:
                found.append(cls)
                for other in cls.requires:
                    if not self.is_given(_load(other)):
                        add(_load(other))

        for cls in self.types:
            add(cls)
        return found

    def dependencies(self) -> dict[type[Step], list[type[Step]]]:
        """Return the step classes, each with those it comes after; none is made."""
        classes = self._with_required()
        return {cls: [other for other in classes if other is not cls] if cls.last else [*map(_load, cls.requires)]
                for cls in classes}

    def is_given(self, cls: type[Step]) -> bool:
        """Is a required step there without being one of ours?"""
        return False

    # -- life --------------------------------------------------------------------------------------

    def start(self, parent: Any) -> None:
        """Start the steps; what one raises passes through, and ``started`` tells how far it came."""
        self.state = RUN
        if self.on_start:
            self.on_start()
        for number, step in enumerate(parent.steps, 1):
            self._debug('Starting %s', step.alias)
            self.started = number
            step.start(parent)
            logger.debug('^-- substep ok')

    def close(self, parent: Any) -> None:
        """Tell all steps that the end is near."""
        if self.on_close:
            self.on_close()
        self.send_all(parent, 'close', 'closing', reverse=False)

    def stop(self, parent: Any, close: bool = True, terminate: bool = False) -> None:
        """Stop what was started, in reverse order; errors are logged."""
        if self.state in (CLOSE, TERMINATE):
            return
        if close:
            self.close(parent)
        self.state = TERMINATE if terminate else CLOSE
        self.restart(parent, 'terminate' if terminate else 'stop', 'terminating' if terminate else 'stopping')
        if self.on_stopped:
            self.on_stopped()
        self.state = TERMINATE
        self.shutdown_complete.set()

    def restart(self, parent: Any, method: str = 'stop', description: str = 'restarting') -> None:
        """Stop what was started, to be started again."""
        self.send_all(parent, method, description, steps=parent.steps[:self.started])
        self.started = 0

    def send_all(
        self, parent: Any, method: str, description: str | None = None, reverse: bool = True,
        propagate: bool = False, args: tuple[Any, ...] = (), steps: Iterable[Any] | None = None,
    ) -> None:
        """Call a method of all steps that have it.

        :param propagate: raise what a step raises, instead of logging it.
        :param steps: default: all of the parent's.
        """
        description = description or method
        chosen = list(parent.steps if steps is None else steps)
        for step in reversed(chosen) if reverse else chosen:
            function = getattr(step, method, None)
            if function is None:
                continue
            self._debug('%s %s...', description.capitalize(), step.alias)
            try:
                function(parent, *args)
            except Exception as exc:
                if propagate:
                    raise
                logger.exception('Error on %s %s: %r', description, step.alias, exc)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the blueprint has been stopped."""
        self.shutdown_complete.wait(timeout)

    def info(self, parent: Any) -> dict[str, Any]:
        """What the steps tell about themselves."""
        found: dict[str, Any] = {}
        for step in parent.steps:
            found.update(step.info(parent) or {})
        return found

    # -- looking -----------------------------------------------------------------------------------

    def human_state(self) -> str:
        """Return the state as a word."""
        return _STATES[self.state]

    @property
    def alias(self) -> str:
        """The short name."""
        return _short(self.name or '')

    def __getitem__(self, name: str) -> Step:
        return self.steps[name]

    def _debug(self, text: str, *args: Any) -> None:
        logger.debug(f'| {self.alias}: {text}', *args)


def _load(step: Any) -> type[Step]:
    try:
        cls = symbol_by_name(step) if isinstance(step, str) else step
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(f'There is no bootstep {step!r}: {exc}') from exc
    if not isinstance(cls, _StepType):
        raise ImproperlyConfigured(f'{step!r} is not a bootstep: derive its class from bootsteps.StartStopStep')
    return cls  # type: ignore[return-value]


def _name_of(step: Any) -> str:
    return step.name if isinstance(step, _StepType) else str(step)  # type: ignore[attr-defined]


def _short(name: str) -> str:
    return name.rpartition('.')[2]


def _make(cls: type[Step], parent: Any, options: Mapping[str, Any]) -> Step:
    """The guide's examples name the options they want, and take no others."""
    code = getattr(cls.__init__, '__code__', None)
    if code is not None and not code.co_flags & 0x08:  # has no **kwargs
        names = code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
        options = {name: value for name, value in options.items() if name in names}
    return cls(parent, **options)


def _in_order(types: list[type[Step]]) -> list[type[Step]]:
    """Sort by what they require; among those that could come next the first one does."""
    rank = {cls: (cls.last, number) for number, cls in enumerate(types)}
    sorter: TopologicalSorter[type[Step]] = TopologicalSorter()
    for cls in types:
        required = {_load(other) for other in cls.requires} & rank.keys()
        sorter.add(cls, *required)
    try:
        sorter.prepare()
    except CycleError as exc:
        raise ImproperlyConfigured(
            f'These bootsteps require each other: {" -> ".join(map(_name_of, exc.args[1]))}') from exc
    ready: list[tuple[tuple[bool, int], type[Step]]] = []
    found = []
    while sorter.is_active():
        for cls in sorter.get_ready():
            heapq.heappush(ready, (rank[cls], cls))
        _, first = heapq.heappop(ready)
        found.append(first)
        sorter.done(first)
    return found
