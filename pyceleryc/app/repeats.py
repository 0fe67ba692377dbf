"""Messages that a broker delivers again although their task has succeeded: ``worker_deduplicate_successful_tasks``."""
from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pyceleryc import states
from pyceleryc.backends.base import DisabledBackend
from pyceleryc.exceptions import SoftTimeLimitExceeded

if TYPE_CHECKING:
    from pyceleryc.app.base import Celery
    from pyceleryc.app.task import Task

logger = logging.getLogger('celery.app.trace')


def knows_states(backend: Any) -> bool:
    """Tell whether *backend* can be asked for the state of a task that another process has run."""
    # Of the class: a reply that RabbitMQ writes to its disk (result_persistent) is read once, too.
    return bool(type(backend).persistent) and not isinstance(backend, DisabledBackend)


def runs_once(app: Celery, task: Task) -> bool:
    """Tell whether *task* is to be left out when it has succeeded and its message comes again."""
    return bool(app.conf.worker_deduplicate_successful_tasks and task.acks_late and knows_states(task.backend))


def stored_success(task: Task, task_id: str) -> dict[str, Any] | None:
    """Return the meta dict of a task that has succeeded; None: it has not, or the store does not say.

    Then it runs: a late acknowledgement promises at least once.
    """
    try:
        meta: dict[str, Any] = task.backend.get_task_meta(task_id, cache=False)
    except SoftTimeLimitExceeded:
        raise
    except Exception as exc:  # of any backend
        logger.warning('Task %s[%s] came again and may run for the second time: whether it has succeeded cannot be read: %s',
                       task.name, task_id, exc)
        return None
    return meta if meta['status'] == states.SUCCESS else None
