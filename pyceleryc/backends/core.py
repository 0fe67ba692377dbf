"""What the stores with a C driver have in common: one client per process, and waiting without
polling."""
from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kombu.exceptions import DecodeError, EncodeError, OperationalError
from kombu.utils.uuid import uuid

from pyceleryc import _core, _state, states
from pyceleryc.backends.base import Backend
from pyceleryc.backends.errors import StoreUnreachable
from pyceleryc.backends.remote import pauses
from pyceleryc.exceptions import BackendStoreError
from pyceleryc.result import result_from_tuple
from pyceleryc.utils.locks import shared_property

__all__ = ('Client', 'CoreBackend', 'DocumentGroups')

JSON = 'application/json'
#: Seconds after which a wait reads the store again.  What should have woken it may be lost:
#: another thread took it, or the server dropped it.
REREAD = 5.0
#: Seconds between looks at all of many results while waiting for one of them.
SWEEP = 0.05
#: Most seconds of rest between two reads of all results that are waited for.
REST_MAX = 0.1
#: A subclass that replaces one of these wants to be asked, not to be bypassed by the worker.
_WRITING = ('store_result', '_store_result', 'encode', '_encode', 'encode_result',
            '_get_result_meta', 'mark_as_done')


class Client:
    """The process's connections to one store; threads share it, children make their own.

    :param config: of ``_core.Results``.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._results: Any = None
        self._redis: Any = None
        #: Where results are sent to, for stores that send them: every process has its own.
        self.reply_queue = uuid()
        #: Ids that were announced and that nobody has waited for.
        self.announced: set[str] = set()
        #: Ids that somebody has waited for in vain, and may again.
        self.left: set[str] = set()

    @classmethod
    def shared(cls, config: dict[str, Any]) -> Client:
        """Return the client for *config*, which all backends with that configuration use."""
        key = repr(sorted(config.items()))
        with _state._lock:
            found = _state.result_clients.get(key)
            if found is None:
                found = _state.result_clients[key] = cls(config)
        return found

    @property
    def results(self) -> Any:
        """The ``_core.Results``; it connects when it is used."""
        if self._results is None:
            with self._lock:
                if self._results is None:
                    self._results = _core.Results(self.config | {'reply_queue': self.reply_queue})
        return self._results

    @property
    def redis(self) -> Any:
        """The ``_core.Redis``; it connects when it is used."""
        if self._redis is None:
            with self._lock:
                if self._redis is None:
                    self._redis = _core.Redis(self.config)
        return self._redis

    def announce(self, task_id: str) -> None:
        """Listen for the result of a task that will be sent."""
        self.results.watch(task_id)
        self.announced.add(task_id)

    def announce_all(self, task_ids: list[str]) -> None:
        """Listen for the results of tasks that will be sent together."""
        self.results.watch_many(task_ids)
        self.announced.update(task_ids)

    def renounce(self, task_id: str) -> None:
        """End :meth:`announce`.  Called by destructors, so it must not make anything."""
        if task_id in self.announced or task_id in self.left:
            self.announced.discard(task_id)
            self.left.discard(task_id)
            results = self._results
            if results is not None:
                results.unwatch(task_id)

    def close(self) -> None:
        """Disconnect, in order; it may be used again."""
        with self._lock:
            self._results = self._redis = None
            self.announced.clear()
            self.left.clear()

    def after_fork(self) -> None:
        """In the child: drop the parent's connections without touching them."""
        for core in (self._results, self._redis):
            if core is not None:
                core.abandon()
        self._start()


def _after_fork() -> None:
    for client in list(_state.result_clients.values()):
        client.after_fork()


def _at_exit() -> None:
    for client in list(_state.result_clients.values()):
        client.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


class CoreBackend(Backend):
    """A backend on a C driver; a subclass defines :meth:`client_config`."""

    thread_safe = True
    wants_task_call = False
    is_async = True
    #: :meth:`read_many` reads many documents at once.
    reads_many = False
    supports_native_join = True
    supports_autoexpire = True

    def client_config(self) -> dict[str, Any]:
        """Return the configuration of ``_core.Results``."""
        raise NotImplementedError(f'{type(self).__name__} must define client_config()')

    @shared_property
    def core(self) -> Client:
        """The process's client of the store."""
        return Client.shared(self.client_config())

    def core_config(self) -> dict[str, Any] | None:
        """Return the configuration with which a worker's machine writes documents itself.

        None if a subclass writes them in its own way.
        """
        return self.core.config if self._writes_plainly else None

    @shared_property
    def _writes_plainly(self) -> bool:
        cls = type(self)
        return all(getattr(cls, name) is getattr(CoreBackend, name) for name in _WRITING)

    # -- serialization: the common case is in C -----------------------------------------------

    def _encode(self, data: Any) -> tuple[str, str, Any]:
        if self.content_type != JSON:
            return super()._encode(data)
        try:
            return JSON, 'utf-8', _core.json_dumps(data)
        except Exception as exc:
            raise EncodeError(str(exc)) from exc

    def decode(self, payload: Any) -> Any:
        """Undo :meth:`encode`."""
        if payload is None or self.content_type != JSON or JSON not in self.accept:
            return super().decode(payload)
        try:
            return _core.json_loads(payload)
        except Exception as exc:
            raise DecodeError(str(exc)) from exc

    # -- the store ------------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], *args: Any, retry: bool = False) -> Any:
        """Return ``function(*args)``, with errors of the core as kombu's.

        :param retry: after a lost connection try again as :attr:`retry_policy` says.
        :raises OperationalError: the store cannot be reached.
        """
        waits = pauses(self.retry_policy) if retry else iter(())
        while True:
            try:
                return function(*args)
            except (_core.BadData, _core.Unsupported):
                raise
            except _core.CoreError as exc:
                pause = next(waits, None) if isinstance(exc, _core.ConnectionLost) else None
                if pause is None:
                    raise StoreUnreachable(str(exc)) from exc
            time.sleep(pause)

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Tell whether *exc* says that the connection is lost."""
        return isinstance(exc, (OperationalError, _core.ConnectionLost))

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None,
        request: Any = None, **kwargs: Any,
    ) -> Any:
        document = self._encode_document(task_id, result, state, traceback, request)
        reply_to = getattr(request, 'reply_to', None)
        correlation_id = getattr(request, 'correlation_id', None) or task_id
        try:
            self.call(self.core.results.set, task_id, state, document, self.content_type,
                      self.content_encoding, reply_to, correlation_id, None, retry=True)
        except _core.BadData as exc:
            raise BackendStoreError(str(exc), state=state, task_id=task_id) from exc
        return result

    def _get_task_meta_for(self, task_id: str) -> Any:
        document = self.call(self.core.results.get, task_id, None)
        return self.pending_meta() if document is None else self.decode_result(document)

    def _forget(self, task_id: str) -> None:
        self.call(self.core.results.forget, task_id, None)

    # -- waiting --------------------------------------------------------------------------------

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Listen for the result before the task is sent, so that no state is missed."""
        if self.wants_task_call:
            self.core.announce(task_id)

    def on_tasks_call(self, task_ids: list[str]) -> None:
        """Listen for many results, in one write."""
        if type(self).on_task_call is not CoreBackend.on_task_call:
            super().on_tasks_call(task_ids)
        elif self.wants_task_call:
            self.core.announce_all(task_ids)

    def remove_pending_result(self, result: Any) -> Any:
        """Stop to listen for the result: nobody holds it any more."""
        client = self.__dict__.get('core')
        if client is not None:
            client.renounce(result.id)
        return result

    def wait_for_pending(
        self, result: Any, timeout: float | None = None, interval: float = 0.5,
        no_ack: bool = True, on_message: Any = None, on_interval: Any = None,
        callback: Any = None, propagate: bool = True, **kwargs: Any,
    ) -> Any:
        """Wait for *result*; return its value or raise its error.

        :param timeout: seconds; None for ever.
        :param interval: seconds between calls of *on_interval*.
        :param on_message: called with the meta dict of each state that arrives.
        :raises pyceleryc.exceptions.TimeoutError: it did not get ready in time.
        :raises OperationalError: the store refuses us.
        """
        meta = self.wait_for(
            result.id, timeout=timeout, interval=interval, on_interval=on_interval,
            on_message=on_message)
        result._maybe_set_cache(meta)
        return result.maybe_throw(propagate=propagate, callback=callback)

    def wait_for(
        self, task_id: str, timeout: float | None = None, interval: float = 0.5,
        no_ack: bool = True, on_interval: Any = None, on_message: Any = None,
    ) -> Any:
        """Return the meta dict of a task when it is ready."""
        self._ensure_not_eager()
        deadline = None if timeout is None else time.monotonic() + timeout
        client = self.core
        if task_id in client.announced:
            # Nobody has waited for it, so the wait will see all.
            client.announced.discard(task_id)
        else:
            meta = self.get_task_meta(task_id)
            if meta['status'] in self.READY_STATES:
                return meta
        try:
            meta = self._await_ready(task_id, deadline, interval, on_interval, on_message)
        except BaseException:
            self._leave((task_id,))
            raise
        self._settle(task_id)
        return self._remember(task_id, meta)

    def _await_ready(
        self, task_id: str, deadline: float | None, interval: float, on_interval: Any, on_message: Any,
    ) -> Any:
        pause = REREAD if on_interval is None else interval
        while True:
            meta = self._next_meta(task_id, _left(deadline, pause), on_message)
            if meta['status'] in self.READY_STATES:
                return meta
            if deadline is not None and time.monotonic() >= deadline:
                raise self.TimeoutError('The operation timed out.')
            if on_interval is not None:
                on_interval()

    def _leave(self, task_ids: Iterable[str]) -> None:
        """Nobody waits for these any more, though they are not ready.

        Where results tell when nobody holds them, states that arrive until then are kept for who waits again.
        """
        client = self.core
        for task_id in task_ids:
            if not self.wants_task_call:
                client.results.unwatch(task_id)
            elif task_id not in client.announced:
                client.left.add(task_id)

    def _next_meta(self, task_id: str, seconds: float, on_message: Any) -> Any:
        """Return the next state that arrives, or the stored one if none does."""
        try:
            document = self.core.results.wait(task_id, seconds)
        except TimeoutError:
            return self.get_task_meta(task_id)
        except _core.CoreError as exc:
            raise OperationalError(str(exc)) from exc
        meta = self.decode_result(document)
        if on_message is not None:
            on_message(meta)
        return meta

    def iter_native(
        self, result: Any, timeout: float | None = None, interval: float = 0.5,
        no_ack: bool = True, on_message: Any = None, on_interval: Any = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta) of the members of the ResultSet *result* as they get ready."""
        members = {}
        for member in result.results:
            if member._cache is not None:
                yield member.id, member._cache
            else:
                members[member.id] = member
        for task_id, meta in self.get_many(
                members, timeout, interval, on_message=on_message, on_interval=on_interval):
            members[task_id]._maybe_set_cache(meta)
            yield task_id, meta

    def get_many(
        self, task_ids: Any, timeout: float | None = None, interval: float = 0.5,
        no_ack: bool = True, on_message: Any = None, on_interval: Any = None,
        max_iterations: int | None = None, **kwargs: Any,
    ) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta dict) of each task when it is ready.

        :raises pyceleryc.exceptions.TimeoutError: not all were ready within *timeout* seconds.
        """
        self._ensure_not_eager()
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = dict.fromkeys(task_ids)
        try:
            if self.reads_many and on_message is None:
                yield from self._read_as_they_come(waiting, deadline, interval, on_interval)
            else:
                yield from self._gather(waiting, deadline, interval, on_message, on_interval)
        finally:
            self._leave(waiting)

    def _gather(
        self, waiting: dict[str, Any], deadline: float | None, interval: float, on_message: Any, on_interval: Any,
    ) -> Iterator[tuple[str, Any]]:
        """Do the work of :meth:`get_many` where documents arrive one by one: look at all, again and again."""
        self.core.results.watch_many(waiting)
        reread = time.monotonic() + REREAD
        while waiting:
            ready = self._sweep(waiting, _left(deadline, SWEEP), on_message)
            if time.monotonic() >= reread:
                ready = {**self._stored(waiting), **ready}
                reread = time.monotonic() + REREAD
            for task_id, meta in ready.items():
                del waiting[task_id]
                yield task_id, meta
            if waiting and deadline is not None and time.monotonic() >= deadline:
                raise self.TimeoutError('The operation timed out.')
            if waiting and on_interval is not None:
                on_interval()

    def _read_as_they_come(
        self, waiting: dict[str, Any], deadline: float | None, interval: float, on_interval: Any,
    ) -> Iterator[tuple[str, Any]]:
        """Read all again whenever something arrives, and rest as long as that took.

        The rest makes one read of many small ones: waiting for n results takes few reads.
        """
        results, seen = self.core.results, 0
        results.watch_many(waiting)
        pause = REREAD if on_interval is None else interval
        while waiting:
            began = time.monotonic()
            for task_id, meta in self.read_many(list(waiting)):
                del waiting[task_id]
                self._settle(task_id)
                yield task_id, self._remember(task_id, meta)
            now = time.monotonic()
            if waiting and deadline is not None and now >= deadline:
                raise self.TimeoutError('The operation timed out.')
            if waiting:
                time.sleep(_left(deadline, min(REST_MAX, now - began)))
                seen = self._news(seen, _left(deadline, pause))
            if waiting and on_interval is not None:
                on_interval()

    def _news(self, seen: int, seconds: float) -> int:
        try:
            return self.core.results.news(seen, seconds)
        except _core.CoreError as exc:
            raise OperationalError(str(exc)) from exc

    def _settle(self, task_id: str) -> None:
        self.core.announced.discard(task_id)
        self.core.left.discard(task_id)
        self.core.results.unwatch(task_id)

    def read_many(self, task_ids: list[str]) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta dict) of those that are ready; for stores with :attr:`reads_many`."""
        raise NotImplementedError(f'{type(self).__name__} sets reads_many without read_many()')

    def _sweep(self, waiting: Any, seconds: float, on_message: Any) -> dict[str, Any]:
        """Wait a moment for the first, then look which of the others have arrived."""
        ready: dict[str, Any] = {}
        for task_id in waiting:
            meta = self._arrived(task_id, 0 if ready else seconds, on_message)
            seconds = 0
            if meta is not None:
                ready[task_id] = meta
        return ready

    def _stored(self, waiting: Any) -> dict[str, Any]:
        metas = {task_id: self.get_task_meta(task_id) for task_id in waiting}
        return {k: meta for k, meta in metas.items() if meta['status'] in self.READY_STATES}

    def _arrived(self, task_id: str, seconds: float, on_message: Any) -> Any:
        """Return the meta dict of a task that got ready within *seconds*, else None."""
        while True:
            try:
                document = self.core.results.wait(task_id, seconds)
            except TimeoutError:
                return None
            except _core.CoreError as exc:
                raise OperationalError(str(exc)) from exc
            meta = self.decode_result(document)
            if on_message is not None:
                on_message(meta)
            if meta['status'] in self.READY_STATES:
                self._settle(task_id)
                return self._remember(task_id, meta)


class DocumentGroups:
    """Saved groups as documents under ids that no task has; chords by looking."""

    app: Any
    core: Any
    call: Any
    encode: Any
    decode: Any
    content_type: str
    content_encoding: str
    group_prefix = 'celery-taskset-meta-'

    def _save_group(self, group_id: str, result: Any) -> Any:
        document = self.encode({'result': result.as_tuple()})
        self.call(self.core.results.set, self.group_prefix + group_id, states.SUCCESS,
                  document, self.content_type, self.content_encoding, None, None, None)
        return result

    def _restore_group(self, group_id: str) -> Any:
        document = self.call(self.core.results.get, self.group_prefix + group_id, None)
        if document is None:
            return None
        meta = self.decode(document)
        meta['result'] = result_from_tuple(meta['result'], self.app)
        return meta

    def _delete_group(self, group_id: str) -> None:
        self.call(self.core.results.forget, self.group_prefix + group_id, None)


def _left(deadline: float | None, most: float) -> float:
    return most if deadline is None else max(0.0, min(most, deadline - time.monotonic()))
