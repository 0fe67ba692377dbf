"""What bootsteps and remote control commands know as ``worker.pool``; the work is done by the core (csrc/work/pool_*.c)."""
from __future__ import annotations

import os
import signal as signals
from typing import Any

__all__ = ('BasePool',)


class BasePool:
    """The pool of a worker.

    It may be used in the thread in which the worker runs, which is where steps and commands are called.
    """

    #: What the core calls it.
    core_name = ''
    #: Are the tasks run by green threads?
    is_green = False
    #: Is it an error to wait for a result in a task (T-341)?
    task_join_will_block = True

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    @classmethod
    def choose_limit(cls, conf: Any, wanted: int | None) -> int:
        """Return how many tasks a pool of this kind runs at once, where *wanted* (None: nothing) are asked for."""
        return wanted or conf.worker_concurrency or os.cpu_count() or 1

    @property
    def limit(self) -> int:
        """How many processes or threads there are to be."""
        machine = self.worker.machine
        return int(self.worker.concurrency if machine is None else machine.concurrency)

    num_processes = limit

    def grow(self, n: int = 1) -> None:
        """Add processes or threads."""
        self._machine().resize(self.limit + n)

    def shrink(self, n: int = 1) -> None:
        """Remove some, when they are free."""
        self._machine().resize(self.limit - n)

    @property
    def work(self) -> int:
        """How many tasks run or wait for a process or thread."""
        numbers = self._machine().core.stats()
        return int(numbers['in_pool'] + numbers['ready'])

    def maintain_pool(self) -> None:
        """Nothing: the core replaces at once what has ended."""

    def restart(self) -> None:
        """Replace the processes, each when its task is done."""
        self._machine().restart_pool()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Send a signal (default TERM) to a process of the pool.

        :raises ValueError: it is none of ours.
        """
        if pid == os.getpid() or pid not in self._machine().core.stats()['processes']:
            raise ValueError(f'{pid} is no process of this pool')
        os.kill(pid, signal or signals.SIGTERM)

    @property
    def info(self) -> dict[str, Any]:
        """What ``inspect stats`` shows."""
        machine = self._machine()
        return {'max-concurrency': self.limit, 'processes': machine.core.stats()['processes']}

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """:raises NotImplementedError: always; the pool runs tasks only."""
        raise NotImplementedError('The pool of this worker runs tasks and nothing else: send a task instead')

    def _machine(self) -> Any:
        if self.worker.machine is None:
            raise RuntimeError('The pool is not there yet: use it in start()')
        return self.worker.machine
