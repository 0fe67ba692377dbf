"""What callers hold of tasks that they have sent: states, results and families."""
from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from pyceleryc import states
from pyceleryc._resultset import (
    GroupResult,
    ResultBase,
    ResultSet,
    allow_join_result,
    assert_will_not_block,
    denied_join_result,
)
from pyceleryc._state import app_or_default, get_current_app
from pyceleryc.exceptions import IncompleteStream, TimeoutError
from pyceleryc.utils.graph import DependencyGraph, GraphFormatter
from pyceleryc.utils.iso8601 import parse_iso8601

__all__ = (
    'ResultBase', 'AsyncResult', 'ResultSet', 'GroupResult', 'EagerResult',
    'result_from_tuple', 'assert_will_not_block', 'allow_join_result', 'denied_join_result',
)

class AsyncResult(ResultBase):
    """The state and result of a task, which are asked of the result backend when needed.

    :param id: of the task.
    :param backend: default: the app's.
    :param task_name: of the task, if known.
    :param parent: result of the task before it in a chain, or of the header of its chord.
    :raises ValueError: *id* is None.
    """

    # Results are made for each task that is sent: what is not given stays here.
    app: Any = None
    TimeoutError = TimeoutError
    task_name: str | None = None
    #: The task's result is not stored: get() returns None at once.
    ignored = False
    _cache: Any = None
    _children: Any = None
    _callbacks: list[tuple[Any, Any]] | None = None

    def __init__(
        self, id: str, backend: Any = None, task_name: str | None = None,  # noqa: A002
        app: Any = None, parent: Any = None,
    ) -> None:
        if id is None:
            raise ValueError(f'{type(self).__name__} needs the id of a task, not None')
        self.id = id
        if app is not None:
            self.app = app
        elif self.app is None:
            self.app = get_current_app() if backend is None else backend.app
        self.backend = self.app.backend if backend is None else backend
        if task_name is not None:
            self.task_name = task_name
        if parent is not None:
            self.parent = parent

    def __del__(self) -> None:
        # Sending a task whose result is wanted made the backend listen for it.
        backend = self.__dict__.get('backend')
        if backend is not None and backend.wants_task_call:
            backend.remove_pending_result(self)

    # -- waiting ------------------------------------------------------------------------------

    def get(
        self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5,
        no_ack: bool = True, follow_parents: bool = True, callback: Any = None,
        on_message: Any = None, on_interval: Any = None, disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: Any = states.EXCEPTION_STATES,  # noqa: N803
        PROPAGATE_STATES: Any = states.PROPAGATE_STATES,  # noqa: N803
    ) -> Any:
        """Wait until the task is done; return its result (FEATURES 2.4).

        :param timeout: seconds; None for ever.
        :param propagate: raise what the task raised, else return it.
        :param interval: seconds between two looks, for stores that do not notify.
        :param follow_parents: raise what a task before this one raised, too.
        :param callback: called with (id, value).
        :param on_message: called with the meta dict of every state that arrives (C-040).
        :param on_interval: called every *interval* seconds while waiting.
        :param disable_sync_subtasks: raise RuntimeError inside a task.
        :raises pyceleryc.exceptions.TimeoutError: it was not done in time.
        """
        if self.ignored:
            return None
        if disable_sync_subtasks:
            assert_will_not_block()
        if not (propagate and follow_parents and self.parent is not None):
            return self._wait(timeout, interval, no_ack, propagate, callback, on_message,
                              on_interval)
        self._maybe_reraise_parent_error()
        try:
            return self._wait(timeout, interval, no_ack, propagate, callback, on_message,
                              _both(self._maybe_reraise_parent_error, on_interval))
        except Exception:
            # What went wrong first says more than what followed from it (C-031).
            if self._cache is not None:
                self._maybe_reraise_parent_error()
            raise

    wait = get

    def _wait(
        self, timeout: Any, interval: float, no_ack: bool, propagate: bool, callback: Any,
        on_message: Any, on_interval: Any,
    ) -> Any:
        if self._cache is not None:
            return self.maybe_throw(propagate=propagate, callback=callback)
        return self.backend.wait_for_pending(
            self, timeout=timeout, interval=interval, on_interval=on_interval, no_ack=no_ack,
            propagate=propagate, callback=callback, on_message=on_message)

    def _maybe_reraise_parent_error(self) -> None:
        parents = list(self._parents())
        pending = self._read_at_once(parents)
        for node in reversed(parents):
            if node.id not in pending:
                node.maybe_throw()

    def _read_at_once(self, nodes: list[Any]) -> set[str]:
        """Fetch results of *nodes*, if the store can read many; return the ids of those that are not ready."""
        unknown = {node.id: node for node in nodes
                   if isinstance(node, AsyncResult) and node._cache is None and node.backend is self.backend}
        metas = self.backend.ready_metas(list(unknown)) if len(unknown) > 1 else None
        if metas is None:
            return set()
        for task_id, meta in metas.items():
            unknown.pop(task_id)._maybe_set_cache(meta)
        return set(unknown)

    def _parents(self) -> Iterator[Any]:
        node = self.parent
        while node:
            yield node
            node = node.parent

    def maybe_throw(self, propagate: bool = True, callback: Any = None) -> Any:
        """Return the result; if the task failed and *propagate* is true, raise its error."""
        meta = self._get_task_meta()
        value = meta.get('result')
        if propagate and meta['status'] in states.PROPAGATE_STATES:
            raise self._with_remote_traceback(_as_exception(value), meta.get('traceback'))
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def _with_remote_traceback(self, exc: BaseException, text: str | None) -> BaseException:
        """Give *exc* the worker's traceback, with ``task_remote_tracebacks`` and tblib."""
        if text and self.app.conf.task_remote_tracebacks:
            tblib = importlib.import_module('tblib')
            return exc.with_traceback(tblib.Traceback.from_string(text).as_traceback())
        # Raised a second time it would drag the frames of the first along.
        return exc.with_traceback(None)

    def then(self, callback: Callable[[Any], Any], on_error: Any = None, weak: bool = False) -> Any:
        """Call ``callback(result)`` once the result has been fetched; *on_error* on failure."""
        self._callbacks = [*(self._callbacks or ()), (callback, on_error)]
        if self._cache is not None:
            self._fulfil()
        else:
            self.backend.add_pending_result(self, weak=weak)
        return self

    def _fulfil(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        failed = self._cache['status'] in states.PROPAGATE_STATES
        for callback, on_error in callbacks or ():
            if not failed or on_error is None:
                callback(self)
            else:
                on_error(self._cache['result'])

    def throw(self, exc: BaseException) -> None:
        """Tell those who called :meth:`then` that there is an error: *exc*."""
        callbacks, self._callbacks = self._callbacks, None
        for _, on_error in callbacks or ():
            if on_error is not None:
                on_error(exc)

    # -- the stored document --------------------------------------------------------------------

    def _get_task_meta(self) -> Any:
        if self._cache is None:
            return self._maybe_set_cache(self.backend.get_task_meta(self.id))
        return self._cache

    def _maybe_set_cache(self, meta: Any) -> Any:
        if meta and meta['status'] in states.READY_STATES:
            self._cache = meta
            if self._callbacks:
                self._fulfil()
        return meta

    def _set_cache(self, meta: Any) -> Any:
        self._cache = meta
        return meta

    @property
    def state(self) -> str:
        """Name of the state; PENDING also if the task is unknown (T-220)."""
        return self._get_task_meta()['status']

    status = state

    @property
    def result(self) -> Any:
        """Return value; exception of a task that failed; meta of a custom state."""
        return self._get_task_meta()['result']

    info = result

    @property
    def traceback(self) -> str | None:
        """Text of the traceback of a task that failed."""
        return self._get_task_meta().get('traceback')

    @property
    def children(self) -> Any:
        """Results of the tasks that this one has sent; None if it is not known yet."""
        if self._children is None:
            stored = self._get_task_meta().get('children')
            if stored is None or self._cache is None:
                return stored and [result_from_tuple(child, self.app) for child in stored]
            self._children = [result_from_tuple(child, self.app) for child in stored]
        return self._children

    @property
    def date_done(self) -> datetime | None:
        """When the task was done."""
        done = self._get_task_meta().get('date_done')
        return parse_iso8601(done) if isinstance(done, str) else done

    @property
    def name(self) -> str | None:
        """Name of the task; like the next ones known with ``result_extended``."""
        return self._get_task_meta().get('name')

    @property
    def args(self) -> Any:
        """Positional arguments."""
        return self._get_task_meta().get('args')

    @property
    def kwargs(self) -> Any:
        """Keyword arguments."""
        return self._get_task_meta().get('kwargs')

    @property
    def worker(self) -> str | None:
        """Name of the node that ran the task."""
        return self._get_task_meta().get('worker')

    @property
    def retries(self) -> int | None:
        """How often it was retried."""
        return self._get_task_meta().get('retries')

    @property
    def queue(self) -> str | None:
        """Routing key with which the task came."""
        return self._get_task_meta().get('queue')

    @property
    def task_id(self) -> str:
        """The same as :attr:`id`."""
        return self.id

    @task_id.setter
    def task_id(self, value: str) -> None:
        self.id = value

    @property
    def supports_native_join(self) -> bool:
        """Can the backend get many results at once?"""
        return self.backend.supports_native_join

    def ready(self) -> bool:
        """Tell whether the task is done."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Tell whether the task is done, and well."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Tell whether the task raised an exception."""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Tell whether anything is stored for the id."""
        return bool(self.backend.task_result_exists(self.id))

    # -- doing something about it -----------------------------------------------------------------

    def forget(self) -> None:
        """Delete the stored result, and those of its parents (T-216)."""
        self._cache = self._children = None
        if self.parent:
            self.parent.forget()
        self.backend.forget(self.id)

    def revoke(
        self, connection: Any = None, terminate: bool = False, signal: Any = None,
        wait: bool = False, timeout: float | None = None,
    ) -> None:
        """Tell all workers not to run the task.

        :param terminate: end it if it runs already, with *signal* (default TERM).
        :param wait: wait *timeout* seconds for their answers.
        """
        self.app.control.revoke(
            self.id, connection=connection, terminate=terminate, signal=signal, reply=wait,
            timeout=timeout)

    def revoke_by_stamped_headers(
        self, headers: Any, connection: Any = None, terminate: bool = False, signal: Any = None,
        wait: bool = False, timeout: float | None = None,
    ) -> None:
        """Tell all workers not to run tasks that have the stamps *headers*."""
        self.app.control.revoke_by_stamped_headers(
            headers, connection=connection, terminate=terminate, signal=signal, reply=wait,
            timeout=timeout)

    # -- the family ---------------------------------------------------------------------------------

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """Yield (result, value) of this task, its children, their children and so on.

        *kwargs* are those of :meth:`get`.
        """
        for _, result in self.iterdeps(intermediate=intermediate):
            yield result, result.get(**kwargs)

    def get_leaf(self) -> Any:
        """Return the value of the last of :meth:`collect`."""
        value = None
        for _, value in self.collect():
            continue
        return value

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield (parent, result) for this result and all below it, level by level.

        :param intermediate: skip what is below tasks that are not done.
        :raises IncompleteStream: a task is not done, and *intermediate* is false.
        """
        waiting: deque[tuple[Any, Any]] = deque([(None, self)])
        while waiting:
            parent, node = waiting.popleft()
            yield parent, node
            if node.ready():
                waiting.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream(f'{node!r} is not done, so its children are not known')

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> DependencyGraph:
        """Return the graph of this result and all below it."""
        graph = DependencyGraph(
            formatter=formatter or GraphFormatter(root=self.id, shape='oval'))
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent:
                graph.add_edge(parent, node)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        """:meth:`build_graph`."""
        return self.build_graph()

    def as_list(self) -> list[str]:
        """Return the id and those of all parents."""
        return [self.id, *(self.parent.as_list() if self.parent else ())]

    def as_tuple(self) -> tuple[Any, Any]:
        """Return what :func:`result_from_tuple` takes; it can be serialized."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    # -- the object -----------------------------------------------------------------------------------

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f'<{type(self).__name__}: {self.id}>'

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return other.id == self.id
        return other == self.id if isinstance(other, str) else NotImplemented

    def __copy__(self) -> Any:
        made = type(self)(*self.__reduce_args__())
        made.ignored = self.ignored
        return made

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self.backend, self.task_name, self.__dict__.get('app'), self.parent


class EagerResult(AsyncResult):
    """The result of a task that was run here: ``task.apply()``.

    :param ret_value: return value or exception.
    """

    supports_native_join = False
    backend: Any = None

    def __init__(
        self, id: str, ret_value: Any, state: str, traceback: str | None = None,  # noqa: A002
        name: str | None = None,
    ) -> None:
        self.id = id
        self._result = ret_value
        self._name = self.task_name = name
        self._cache = {
            'task_id': id, 'status': state, 'result': ret_value, 'traceback': traceback,
            'name': name,
        }

    def get(  # type: ignore[override]
        self, timeout: float | None = None, propagate: bool = True,
        disable_sync_subtasks: bool = True, **kwargs: Any,
    ) -> Any:
        """Return the value, or raise the exception of a failed task if *propagate* is true."""
        if disable_sync_subtasks:
            assert_will_not_block()
        value = self.maybe_throw(propagate=propagate)
        # What was ignored or rejected has no value; the exception says how the task asked for that.
        return value if self.state == states.SUCCESS or self.state in states.PROPAGATE_STATES else None

    def ready(self) -> bool:
        """Tell that the task is done, whatever it has asked for: there will be no other result."""
        return True

    wait = get  # type: ignore[assignment]

    def maybe_throw(self, propagate: bool = True, callback: Any = None) -> Any:
        """Return the value, or raise the exception."""
        if propagate and self.state in states.PROPAGATE_STATES:
            raise _as_exception(self._result)
        if callback is not None:
            callback(self.id, self._result)
        return self._result

    maybe_reraise = maybe_throw

    def forget(self) -> None:
        """Do nothing: nothing is stored."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Say that the task is revoked, though it has been run."""
        self._cache['status'] = states.REVOKED

    @property
    def children(self) -> Any:
        """None: the tasks that it sent are not known."""
        return None

    def __reduce_args__(self) -> tuple[Any, ...]:
        cache = self._cache
        return self.id, self._result, cache['status'], cache['traceback'], cache['name']

    def __repr__(self) -> str:
        return f'<EagerResult: {self.id}>'


def _as_exception(value: Any) -> BaseException:
    return value if isinstance(value, BaseException) else Exception(value)


def _both(first: Callable[[], Any], second: Callable[[], Any] | None) -> Callable[[], Any]:
    if second is None:
        return first

    def call() -> None:
        first()
        second()

    return call


def result_from_tuple(r: Any, app: Any = None) -> Any:
    """Return the result of which ``as_tuple()`` gave *r*."""
    if isinstance(r, ResultBase):
        return r
    app = app_or_default(app)
    own, nodes = r
    id, parent = own if isinstance(own, (list, tuple)) else (own, None)  # noqa: A001
    if parent:
        parent = result_from_tuple(parent, app)
    if nodes is None:
        return app.AsyncResult(id, parent=parent or None)
    members = [result_from_tuple(node, app) for node in nodes]
    return app.GroupResult(id, members, parent=parent or None)
