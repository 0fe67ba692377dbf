"""``celery.registry``, for libraries that look tasks up there: the tasks of the current app."""
from __future__ import annotations

from typing import Any

from pyceleryc._state import current_app

__all__ = ('tasks',)


def __getattr__(name: str) -> Any:
    if name == 'tasks':
        return current_app.tasks
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
