"""Tasks that can be asked to give up (T-233): the state ABORTED is a message to the running task.

The task has to look, so it decides where it is safe to stop::

    @app.task(bind=True, base=AbortableTask)
    def long_running(self):
        for part in parts:
            if self.is_aborted():
                return
            do(part)

    result = long_running.delay()
    result.abort()

Aborting is seen by tasks whose results are kept by a backend that both sides can read.
"""
from __future__ import annotations

from typing import Any

from pyceleryc.app.task import Task
from pyceleryc.result import AsyncResult

__all__ = ('ABORTED', 'AbortableAsyncResult', 'AbortableTask')

ABORTED = 'ABORTED'


class AbortableAsyncResult(AsyncResult):
    """The result of an :class:`AbortableTask`."""

    def is_aborted(self) -> bool:
        """Tell whether the task was asked to give up."""
        return bool(self.state == ABORTED)

    def abort(self) -> Any:
        """Ask the task to give up."""
        return self.backend.store_result(self.id, None, ABORTED, traceback=None)


class AbortableTask(Task):
    """Base class of tasks that look whether they are to give up."""

    abstract = True

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AbortableAsyncResult:  # noqa: N802
        """Return the result of a run of this task."""
        return AbortableAsyncResult(
            task_id, backend=self.backend, app=self.app, **kwargs)

    def is_aborted(self, **kwargs: Any) -> bool:
        """Tell whether this run is to give up.

        :param task_id: another run of the task.
        """
        task_id = kwargs.get('task_id', self.request.id)
        return self.AsyncResult(task_id).is_aborted()
