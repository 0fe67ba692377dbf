"""The base class of tasks in Django projects (T-348)."""
from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from pyceleryc.app.task import Task

__all__ = ('DjangoTask',)


def _on_commit(call: Any) -> None:
    # Not imported at the top: this module is looked at in programs without Django, too.
    importlib.import_module('django.db.transaction').on_commit(call)


class DjangoTask(Task):
    """Can be sent when the database transaction is committed, so that the worker finds in the
    database what the task is about.  It is not sent at all if the transaction is rolled back."""

    abstract = True

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """``delay()`` after the commit; at once, if there is no transaction."""
        _on_commit(partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """``apply_async()`` after the commit; at once, if there is no transaction."""
        _on_commit(partial(self.apply_async, *args, **kwargs))
