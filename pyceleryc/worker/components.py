"""The steps of a worker, in Celery's order; user steps require them by name (FEATURES 2.10)."""
from __future__ import annotations

from typing import Any

from pyceleryc import bootsteps
from pyceleryc.concurrency import get_implementation
from pyceleryc.worker.facade import Hub as _Hub
from pyceleryc.worker.facade import Timer as _Timer

__all__ = ('Timer', 'Hub', 'Pool', 'Beat', 'StateDB', 'Statedb', 'Consumer', 'Blueprint')


class Timer(bootsteps.Step):
    """``worker.timer``: calls later."""

    def create(self, w: Any) -> None:
        w.timer = _Timer(w)


class Hub(bootsteps.Step):
    """``worker.hub``: the loop."""

    requires = (Timer,)

    def create(self, w: Any) -> None:
        w.hub = _Hub(w)


class Pool(bootsteps.Step):
    """``worker.pool``; its processes are started by the machine."""

    requires = (Hub,)

    def create(self, w: Any) -> None:
        w.pool = get_implementation(w.pool_name)(w)


class StateDB(bootsteps.StartStopStep):
    """The file of revoked ids; the worker writes it when the last task has ended."""

    def start(self, w: Any) -> None:
        if w.statedb:
            w.open_statedb()
        w.apply_revoked()


#: As the guide writes it.
Statedb = StateDB


class Beat(bootsteps.StartStopStep):
    """``worker -B``: beat, in a process of its own.

    Started before the pool has processes: a fork from it would copy the worker's connections and handlers.
    """

    def include_if(self, w: Any) -> bool:
        return bool(getattr(w, 'beat', False))

    def create(self, w: Any) -> Any:
        return w.embedded_beat()


class Consumer(bootsteps.StartStopStep):
    """Runs the machine; the last step, for its start() lasts as long as the worker."""

    last = True

    def create(self, w: Any) -> Any:
        w.consumer = self.instantiate(w.app.conf.worker_consumer, w)
        return w.consumer


class Blueprint(bootsteps.Blueprint):
    """The worker's steps."""

    name = 'Worker'
    default_steps = (Timer, Hub, Pool, 'pyceleryc.worker.autoscale:WorkerComponent', StateDB, Beat, Consumer)
