"""The tasks of fleet_tasks.py, and autoscalers as projects write them (setting worker_autoscaler)."""

from __future__ import annotations

from celery.worker.autoscale import AUTOSCALE_KEEPALIVE, Autoscaler

from fleet_tasks import app, hold  # noqa: F401  for clients


class Decides(Autoscaler):
    """Its own rule, with the means of the base class."""

    def __init__(self, pool, max_concurrency, min_concurrency=0, worker=None, keepalive=AUTOSCALE_KEEPALIVE, mutex=None):
        super().__init__(pool, max_concurrency, min_concurrency, worker, keepalive, mutex)
        print(f"made for {self.min_concurrency} to {self.max_concurrency}, keepalive {self.keepalive:g}, on {worker.hostname}")

    def _maybe_scale(self, req=None):
        if req is not None:
            print(f"looks because of {req.name}")
        wanted = max(self.min_concurrency, min(self.qty, self.max_concurrency))
        if wanted > self.processes:
            self.scale_up(wanted - self.processes)
            return True
        if wanted < self.processes:
            self.scale_down(self.processes - wanted)
            return True
        return None


class Counts(Autoscaler):
    """The rule of the base class, for something else than the worker's own messages."""

    @property
    def qty(self):
        return 3


class Steps(Autoscaler):
    """Nothing of the base class but what it knows."""

    def maybe_scale(self, req=None):
        if self.processes < self.max_concurrency:
            self.pool.grow(1)
            self.pool.maintain_pool()
            print(f"one more: {self.info()['current']}")


class Fails(Autoscaler):
    def maybe_scale(self, req=None):
        raise RuntimeError("no idea")


def not_a_class(*args, **kwargs):
    raise AssertionError
