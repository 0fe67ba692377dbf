"""The tasks of an app, by name."""
from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from pyceleryc._state import get_current_app
from pyceleryc.exceptions import InvalidTaskError, NotRegistered

__all__ = ('TaskRegistry',)


class TaskRegistry(dict[str, Any]):
    """Dict of tasks that knows how to add one, and names what is missing."""

    NotRegistered = NotRegistered

    def __missing__(self, key: str) -> Any:
        raise self.NotRegistered(key)

    def register(self, task: Any) -> None:
        """Add a task; a task class is instantiated.

        :raises InvalidTaskError: it has no name.
        """
        if getattr(task, 'name', None) is None:
            raise InvalidTaskError(
                f'Task class {type(task).__name__!r} must specify .name attribute')
        task = task() if inspect.isclass(task) else task
        self[task.name] = task

    def unregister(self, name: Any) -> None:
        """Remove a task, given itself or its name.  :raises NotRegistered: it is not there."""
        try:
            self.pop(getattr(name, 'name', name))
        except KeyError:
            raise self.NotRegistered(name) from None

    def regular(self) -> dict[str, Any]:
        """Return the ordinary tasks."""
        return self.filter_types('regular')

    def periodic(self) -> dict[str, Any]:
        """Return the tasks of type ``periodic``."""
        return self.filter_types('periodic')

    def filter_types(self, type: str) -> dict[str, Any]:  # the public name
        """Return the tasks of this type."""
        return {
            name: task for name, task in self.items()
            if getattr(task, 'type', 'regular') == type
        }


def _unpickle_task(name: str) -> Any:
    return get_current_app().tasks[name]


def _unpickle_task_v2(name: str, module: str | None = None) -> Any:
    if module:
        # The task is registered by importing the module that defines it.
        import_module(module)
    return get_current_app().tasks[name]
