"""Messages that are collected in a block and published together when it ends (D17)."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kombu.exceptions import OperationalError

__all__ = ('Batch', 'Batching')


class Batch:
    """What one thread has collected; made by :meth:`Batching.collect`.

    :param publisher: publishes it.
    """

    def __init__(self, publisher: Any) -> None:
        self.publisher = publisher
        #: The ``_core.Batch`` with the messages.
        self.core = publisher.new_core_batch()
        self._policy: Any = None
        self._expected: list[tuple[Any, str]] = []
        self._notes: list[tuple[int, Callable[[], None]]] = []

    def __len__(self) -> int:
        return len(self.core)

    # -- collecting -----------------------------------------------------------------------------

    def add(
        self, body: bytes | str, exchange: str, routing_key: str, headers: Mapping[str, Any],
        properties: Mapping[str, Any], mandatory: bool, due: float | None, policy: Any,
    ) -> None:
        """Collect one message; the first of them brings the retry policy for all."""
        self.core.publish(exchange, routing_key, body, headers, properties, mandatory, due)
        self._policy = self._policy or policy

    def expect(self, backend: Any, task_id: str) -> None:
        """Let *backend* listen for a result before anything is sent."""
        self._expected.append((backend, task_id))

    def expect_all(self, backend: Any, task_ids: list[str]) -> None:
        """Do the same for many."""
        self._expected += [(backend, task_id) for task_id in task_ids]

    def afterwards(self, note: Callable[[], None]) -> None:
        """Call *note* when the last message collected so far has been published."""
        self._notes.append((len(self), note))

    def mark(self) -> tuple[int, int, int]:
        """Return what :meth:`reset` goes back to."""
        return len(self.core), len(self._expected), len(self._notes)

    def reset(self, mark: tuple[int, int, int]) -> None:
        """Forget everything collected after *mark*."""
        messages, expected, notes = mark
        self.core.truncate(messages)
        del self._expected[expected:]
        del self._notes[notes:]

    # -- publishing -----------------------------------------------------------------------------

    def publish(self) -> None:
        """Publish all, in order, then do what was to be done afterwards.

        :raises OperationalError: the broker cannot be reached; it says how many messages were
            sent before, usually none.
        """
        self._listen()
        try:
            if len(self):
                self.publisher.call(
                    lambda core: core.publish_batch(self.core, None), self._policy)
        except OperationalError as exc:
            raise self._explained(exc) from exc.__cause__
        finally:
            self._tell(len(self) - self.core.unsent())

    def _listen(self) -> None:
        by_backend: dict[int, tuple[Any, list[str]]] = {}
        for backend, task_id in self._expected:
            by_backend.setdefault(id(backend), (backend, []))[1].append(task_id)
        for backend, task_ids in by_backend.values():
            backend.on_tasks_call(task_ids)

    def _explained(self, exc: OperationalError) -> OperationalError:
        sent = len(self) - self.core.unsent()
        return OperationalError(f'{exc} ({sent} of {len(self)} messages were sent)') if sent else exc

    def _tell(self, sent: int) -> None:
        for count, note in self._notes:
            if count <= sent:
                note()


class Batching:
    """The part of a publisher that collects.  Each thread has a batch of its own."""

    def _start_batching(self) -> None:
        self._batches = threading.local()
        self._batching_lock = threading.Lock()
        #: How many threads collect now.
        self.collecting = 0

    def new_core_batch(self) -> Any:
        """Make a ``_core.Batch``; the publisher does that."""
        raise NotImplementedError(f'{type(self).__name__} must define new_core_batch()')

    @property
    def batch(self) -> Batch | None:
        """The batch that this thread is collecting, or None."""
        return getattr(self._batches, 'current', None) if self.collecting else None

    @contextmanager
    def collect(self) -> Iterator[Batch]:
        """Collect what this thread publishes in the block; publish it at its end.

        When the block raises nothing of it is published.  An inner block becomes part of the
        outer one.
        """
        outer = self.batch
        if outer is not None:
            mark = outer.mark()
            try:
                yield outer
            except BaseException:
                outer.reset(mark)
                raise
            return
        batch = Batch(self)
        self._batches.current = batch
        self._count(1)
        try:
            yield batch
        finally:
            self._batches.current = None
            self._count(-1)
        batch.publish()

    def _count(self, change: int) -> None:
        with self._batching_lock:
            self.collecting += change
