"""Results of many tasks; all names are public as those of ``pyceleryc.result``."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kombu.utils.uuid import uuid

from pyceleryc import states
from pyceleryc._state import app_or_default, joining, task_join_will_block
from pyceleryc.exceptions import ImproperlyConfigured, TimeoutError

__all__ = (
    'ResultBase', 'ResultSet', 'GroupResult', 'assert_will_not_block', 'allow_join_result',
    'denied_join_result',
)

WOULD_BLOCK = """\
Never call result.get() within a task!
It holds a slot of the worker while it waits for another slot: when all are held by tasks that
wait, nothing goes on. Let a chain, group or chord do it, or pass disable_sync_subtasks=False
where you know better.\
"""


def assert_will_not_block() -> None:
    """Raise RuntimeError inside a task, where waiting may block the worker (T-341)."""
    if task_join_will_block():
        raise RuntimeError(WOULD_BLOCK)


def allow_join_result() -> Any:
    """Return a context manager in which ``get()`` works inside a task."""
    return joining(False)


def denied_join_result() -> Any:
    """Return a context manager in which ``get()`` raises RuntimeError."""
    return joining(True)


class ResultBase:
    """Base of all results."""

    #: The result of the task that caused this one, if it is known.
    parent: Any = None


class ResultSet(ResultBase):
    """Results in an order.

    :param results: AsyncResult and the like.
    """

    app: Any = None
    results: list[Any]

    def __init__(self, results: Iterable[Any], app: Any = None, **kwargs: Any) -> None:
        if app is not None:
            self.app = app
        self.results = list(results)

    # -- the set --------------------------------------------------------------------------------

    def add(self, result: Any) -> None:
        """Append *result* unless it is there."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Remove *result*, which may be an id.

        :raises KeyError: it is not there.
        """
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Remove *result* if it is there."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Append those that are not there."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Remove all."""
        self.results[:] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ResultSet):
            return other.results == self.results
        return NotImplemented

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        ids = ', '.join(str(result.id) for result in self.results)
        return f'<{type(self).__name__}: [{ids}]>'

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        # Classes of an app (app.ResultSet) are found through the app, and given these.
        return (self.results,)

    # -- states ---------------------------------------------------------------------------------

    def successful(self) -> bool:
        """Tell whether all are done, and well."""
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Tell whether any has failed."""
        return any(result.failed() for result in self.results)

    def waiting(self) -> bool:
        """Tell whether any is not done."""
        return any(not result.ready() for result in self.results)

    def ready(self) -> bool:
        """Tell whether all are done."""
        return all(result.ready() for result in self.results)

    def _failed_join_report(self) -> Iterator[Any]:
        # Named by stores of other projects, when a chord could not be joined.
        return (result for result in self.results if result.state in states.PROPAGATE_STATES)

    def completed_count(self) -> int:
        """Return how many are done, and well."""
        return sum(int(result.successful()) for result in self.results)

    def maybe_throw(self, callback: Any = None, propagate: bool = True) -> None:
        """Raise the error of the first that has failed."""
        for result in self.results:
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    # -- doing something about them ---------------------------------------------------------------

    def forget(self) -> None:
        """Delete the stored results."""
        for result in self.results:
            result.forget()

    def revoke(
        self, connection: Any = None, terminate: bool = False, signal: Any = None,
        wait: bool = False, timeout: float | None = None,
    ) -> None:
        """Tell all workers not to run the tasks; see :meth:`AsyncResult.revoke`."""
        app_or_default(self.app).control.revoke(
            [result.id for result in self.results], connection=connection,
            terminate=terminate, signal=signal, reply=wait, timeout=timeout)

    def then(self, callback: Callable[[Any], Any], on_error: Any = None, weak: bool = False) -> Any:
        """Call ``callback(self)`` once all results have been fetched."""
        left = {id(result) for result in self.results}

        def one_done(result: Any) -> None:
            left.discard(id(result))
            if not left:
                callback(self)

        for result in self.results:
            result.then(one_done, on_error, weak)
        return self

    # -- waiting ------------------------------------------------------------------------------------

    @property
    def backend(self) -> Any:
        """The backend of the results."""
        if self.results:
            return self.results[0].backend
        return app_or_default(self.app).backend

    @property
    def supports_native_join(self) -> bool:
        """Can the backend get all results at once?"""
        return bool(self.results) and all(
            not isinstance(result, ResultSet) and result.supports_native_join
            for result in self.results)

    def get(
        self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5,
        callback: Any = None, no_ack: bool = True, on_message: Any = None,
        disable_sync_subtasks: bool = True, on_interval: Any = None, **kwargs: Any,
    ) -> Any:
        """Wait for all; return their values in order.

        The arguments are those of :meth:`AsyncResult.get`.  With a *callback*, which is called
        with (id, value), the list is empty.

        :raises pyceleryc.exceptions.TimeoutError: not all were done in time.
        """
        join = self.join_native if self.supports_native_join else self.join
        return join(
            timeout=timeout, propagate=propagate, interval=interval, callback=callback,
            no_ack=no_ack, on_message=on_message, on_interval=on_interval,
            disable_sync_subtasks=disable_sync_subtasks)

    def join(
        self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5,
        callback: Any = None, no_ack: bool = True, on_message: Any = None,
        disable_sync_subtasks: bool = True, on_interval: Any = None,
    ) -> list[Any]:
        """Do what :meth:`get` does, one result after the other."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if on_message is not None:
            raise ImproperlyConfigured('Backend does not support on_message callback')
        deadline = None if timeout is None else time.monotonic() + timeout
        values = []
        for result in self.results:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0 and not result.ready():
                raise TimeoutError('join operation timed out')
            value = result.get(
                timeout=left, propagate=propagate, interval=interval, no_ack=no_ack,
                on_interval=on_interval, disable_sync_subtasks=disable_sync_subtasks)
            if callback is None:
                values.append(value)
            else:
                callback(result.id, value)
        return values

    def join_native(
        self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5,
        callback: Any = None, no_ack: bool = True, on_message: Any = None,
        on_interval: Any = None, disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """Do what :meth:`get` does, in the order in which the tasks end."""
        if disable_sync_subtasks:
            assert_will_not_block()
        places: dict[str, list[int]] = {}
        for index, result in enumerate(self.results):
            places.setdefault(result.id, []).append(index)
        values: list[Any] = [] if callback is not None else [None] * len(self.results)
        for task_id, meta in self.iter_native(
                timeout, interval, no_ack, on_message, on_interval):
            value = meta['result']
            if propagate and meta['status'] in states.PROPAGATE_STATES:
                raise value if isinstance(value, BaseException) else Exception(value)
            if callback is not None:
                callback(task_id, value)
                continue
            for index in places[task_id]:
                values[index] = value
        return values

    def iter_native(
        self, timeout: float | None = None, interval: float = 0.5, no_ack: bool = True,
        on_message: Any = None, on_interval: Any = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta dict) of each task when it is done."""
        return self.backend.iter_native(
            self, timeout=timeout, interval=interval, no_ack=no_ack, on_message=on_message,
            on_interval=on_interval)


class GroupResult(ResultSet):
    """The results of a group.

    :param id: of the group.
    :param parent: result of the task before the group in a chain.
    """

    id: str | None = None

    def __init__(
        self, id: str | None = None, results: Iterable[Any] | None = None,  # noqa: A002
        parent: Any = None, **kwargs: Any,
    ) -> None:
        self.id = uuid() if id is None else id
        self.parent = parent
        super().__init__(results or (), **kwargs)

    @property
    def children(self) -> list[Any]:
        """The results."""
        return self.results

    def save(self, backend: Any = None) -> Any:
        """Store the ids of the group and its members, so that they can be restored."""
        return (backend or self.backend).save_group(self.id, self)

    def delete(self, backend: Any = None) -> None:
        """Delete what :meth:`save` has stored."""
        (backend or self.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> Any:  # noqa: A002
        """Return the saved group, or None."""
        backend = backend or app_or_default(app or cls.app).backend
        return backend.restore_group(id)

    def as_tuple(self) -> tuple[Any, Any]:
        """Return what :func:`result_from_tuple` takes; it can be serialized."""
        own = self.id, self.parent and self.parent.as_tuple()
        return own, [result.as_tuple() for result in self.results]

    def as_list(self) -> list[Any]:
        """Return the id and those of all parents."""
        return [self.id, *(self.parent.as_list() if self.parent else ())]

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return (other.id == self.id and other.results == self.results
                    and other.parent == self.parent)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        ids = ', '.join(str(result.id) for result in self.results)
        return f'<{type(self).__name__}: {self.id} [{ids}]>'

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self.results, self.parent
