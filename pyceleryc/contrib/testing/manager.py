"""Waiting for real workers in tests that run against them."""
from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kombu.utils.functional import retry_over_time

from pyceleryc import states
from pyceleryc.exceptions import TimeoutError
from pyceleryc.result import ResultSet
from pyceleryc.utils.text import truncate

__all__ = ('Manager', 'ManagerMixin', 'Sentinel')

E_STILL_WAITING = 'Still waiting for {0}.  Trying again {when}: {exc!r}'


class Sentinel(Exception):
    """What is waited for is not the case yet."""


class ManagerMixin:
    """Ways to wait; a subclass has an attribute *app*."""

    app: Any
    Sentinel = Sentinel

    def _init_manager(
        self, block_timeout: float = 30 * 60.0, no_join: bool = False, stdout: Any = None, stderr: Any = None,
    ) -> None:
        self.stdout = sys.stdout if stdout is None else stdout
        self.stderr = sys.stderr if stderr is None else stderr
        self.connerrors: tuple[type[BaseException], ...] = self.app.connection().recoverable_connection_errors
        self.block_timeout = block_timeout
        self.no_join = no_join

    def remark(self, s: str, sep: str = '-') -> None:
        """Print a line about what goes on."""
        print(f'{sep}{s}', file=self.stdout)

    # -- waiting --------------------------------------------------------------------------------

    def wait_for(
        self, fun: Callable[..., Any], catch: Any, desc: str = 'thing', args: Any = (), kwargs: Any = None,
        errback: Any = None, max_retries: int | None = 10, interval_start: float = 0.1,
        interval_step: float = 0.5, interval_max: float = 5.0, emit_warning: bool = False, **options: Any,
    ) -> Any:
        """Return ``fun(*args)`` as soon as it does not raise one of *catch*."""
        def on_error(exc: BaseException, intervals: Iterator[float], retries: int) -> float:
            interval = next(intervals)
            if emit_warning:
                self.warn(E_STILL_WAITING.format(desc, when=f'in {interval:g}s', exc=exc))
            if errback is not None:
                errback(exc, interval, retries)
            return interval

        return self.retry_over_time(
            fun, catch, args=args, kwargs=kwargs or {}, errback=on_error, max_retries=max_retries,
            interval_start=interval_start, interval_step=interval_step, interval_max=interval_max, **options)

    def warn(self, text: str) -> None:
        """Print a warning."""
        print(text, file=self.stderr)

    def retry_over_time(self, *args: Any, **kwargs: Any) -> Any:
        """Do what kombu's function of that name does."""
        return retry_over_time(*args, **kwargs)

    def ensure_not_for_a_while(
        self, fun: Callable[[], Any], catch: Any, desc: str = 'thing', max_retries: int = 20,
        interval_start: float = 0.1, interval_step: float = 0.02, interval_max: float = 1.0,
        emit_warning: bool = False, **options: Any,
    ) -> None:
        """Raise AssertionError if *fun* returns instead of raising one of *catch* each time."""
        for count in range(max_retries):
            try:
                fun()
            except catch:
                time.sleep(min(interval_start + count * interval_step, interval_max))
            else:
                raise AssertionError(f'Should not have happened: {desc}')

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what *fun* returns if it is true, else raise :class:`Sentinel`."""
        found = fun(*args, **kwargs)
        if not found:
            raise self.Sentinel()
        return found

    # -- results --------------------------------------------------------------------------------

    def missing_results(self, r: Iterable[Any]) -> list[str]:
        """Return the ids of the results that are not there."""
        return [result.id for result in r if not result.ready()]

    def join(self, r: Any, propagate: bool = False, max_retries: int | None = 10, **kwargs: Any) -> Any:
        """Return the values of a result or of several.

        :raises AssertionError: they did not come.
        """
        if self.no_join:
            return None
        results = r if isinstance(r, ResultSet) else self.app.ResultSet([r])
        tries = 0
        while max_retries is None or tries <= max_retries:
            try:
                return results.get(propagate=propagate, **{'timeout': 1.0, **kwargs})
            except TimeoutError:
                missing = self.missing_results(results)
                self.remark(f'Still waiting for {len(missing)}/{len(results)}: [{truncate(", ".join(missing))}]', '!')
            except self.connerrors as exc:
                self.remark(f'join: connection lost: {exc!r}', '!')
            tries += 1
        raise AssertionError('Test failed: Missing task results')

    # -- workers --------------------------------------------------------------------------------

    def inspect(self, timeout: float = 3.0) -> Any:
        """Return an ``inspect`` of all workers."""
        return self.app.control.inspect(timeout=timeout)

    def query_tasks(self, ids: Any, timeout: float = 0.5) -> Iterator[Any]:
        """Yield (worker, what it knows of *ids*)."""
        yield from (self.app.control.inspect(timeout=timeout).query_task(*ids) or {}).items()

    def query_task_states(self, ids: Any, timeout: float = 0.5) -> dict[str, set[str]]:
        """Return the ids of each state: active, reserved, ready."""
        found: dict[str, set[str]] = {}
        for _, tasks in self.query_tasks(ids, timeout=timeout):
            for task_id, (state, _) in tasks.items():
                found.setdefault(state, set()).add(task_id)
        return found

    def _ids_matches_state(self, expected: Iterable[str], ids: Any, timeout: float = 0.5) -> bool:
        known = self.query_task_states(ids, timeout=timeout)
        return all(any(task_id in known.get(state, ()) for state in expected) for task_id in ids)

    def is_accepted(self, ids: Any, **kwargs: Any) -> bool:
        """Do all of *ids* run?"""
        return self._ids_matches_state(['active'], ids, **kwargs)

    def is_received(self, ids: Any, **kwargs: Any) -> bool:
        """Has a worker all of *ids*?"""
        return self._ids_matches_state(['reserved', 'active', 'ready'], ids, **kwargs)

    def assert_task_worker_state(self, fun: Callable[..., Any], ids: Any, interval: float = 0.5, **policy: Any) -> Any:
        """Wait until ``fun(ids)`` is true."""
        policy.setdefault('max_retries', 10)
        return self.wait_for(
            lambda: self.true_or_raise(fun, ids, timeout=interval), (self.Sentinel,), **policy)

    def assert_accepted(self, ids: Any, interval: float = 0.5, desc: str = 'waiting for tasks to be accepted', **policy: Any) -> Any:
        """Wait until all of *ids* run."""
        return self.assert_task_worker_state(self.is_accepted, ids, interval=interval, desc=desc, **policy)

    def assert_received(self, ids: Any, interval: float = 0.5, desc: str = 'waiting for tasks to be received', **policy: Any) -> Any:
        """Wait until workers have all of *ids*."""
        return self.assert_task_worker_state(self.is_received, ids, interval=interval, desc=desc, **policy)

    def assert_task_state_from_result(self, fun: Callable[..., Any], results: Any, interval: float = 0.5, **policy: Any) -> Any:
        """Wait until ``fun(results)`` is true."""
        policy.setdefault('max_retries', 10)
        return self.wait_for(
            lambda: self.true_or_raise(fun, results, timeout=interval), (self.Sentinel,), **policy)

    @staticmethod
    def is_result_task_in_progress(results: Any, **kwargs: Any) -> bool:
        """Has each of the tasks begun, or is it done?"""
        return all(result.state in (states.STARTED, states.SUCCESS) for result in results)

    def assert_result_tasks_in_progress_or_completed(
        self, async_results: Any, interval: float = 0.5,
        desc: str = 'waiting for tasks to be started or completed', **policy: Any,
    ) -> Any:
        """Wait until each of the tasks has begun, or is done."""
        return self.assert_task_state_from_result(
            self.is_result_task_in_progress, async_results, interval=interval, desc=desc, **policy)

    def wait_until_idle(self) -> None:
        """Empty the queues, and wait until no task runs."""
        self.app.control.purge()
        while any(tasks for tasks in (self.inspect(timeout=1.0).active() or {}).values()):
            time.sleep(0.1)


class Manager(ManagerMixin):
    """The ways to wait, for *app*."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self._init_manager(**kwargs)
