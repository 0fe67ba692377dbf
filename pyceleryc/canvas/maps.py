"""One message for many calls: map, starmap and chunks (FEATURES 2.3)."""
from __future__ import annotations

from typing import Any

from pyceleryc.canvas.group import group
from pyceleryc.canvas.signature import Signature
from pyceleryc.utils.functional import chunks as split
from pyceleryc.utils.functional import regen

__all__ = ('xmap', 'xstarmap', 'chunks')


class _basemap(Signature):  # noqa: N801  the public name
    """Base of the two: the task and the items are keyword arguments."""

    _task_name = ''

    @classmethod
    def from_dict(cls, d: Any, app: Any = None) -> Any:
        """Return the signature that *d* describes."""
        return cls(d['kwargs']['task'], d['kwargs']['it'], app=app, **d['options'])

    def __init__(self, task: Any, it: Any, **options: Any) -> None:
        super().__init__(
            self._task_name, (), {'task': task, 'it': regen(it)}, immutable=True, **options)

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, **opts: Any,
    ) -> Any:
        """Send it; routed like the task that it calls."""
        task, items = self.kwargs['task'], self.kwargs['it']
        return self.type.apply_async(
            (), {'task': task, 'it': list(items)},
            route_name=task.get('task') if isinstance(task, dict) else str(task),
            **{**self.options, **opts})


@Signature.register_type()
class xmap(_basemap):  # noqa: N801  the public name
    """Calls the task with each item, one after the other, in one worker."""

    _task_name = 'celery.map'

    def __repr__(self) -> str:
        return f"[{self.kwargs['task'].task}(x) for x in {list(self.kwargs['it'])!r}]"


@Signature.register_type()
class xstarmap(_basemap):  # noqa: N801  the public name
    """Calls the task with each item's arguments, one after the other, in one worker."""

    _task_name = 'celery.starmap'

    def __repr__(self) -> str:
        return f"[{self.kwargs['task'].task}(*x) for x in {list(self.kwargs['it'])!r}]"


@Signature.register_type()
class chunks(Signature):  # noqa: N801  the public name
    """Calls the task for every item, *n* items per message."""

    @classmethod
    def from_dict(cls, d: Any, app: Any = None) -> Any:
        """Return the signature that *d* describes."""
        arguments = d['kwargs']
        return cls(arguments['task'], arguments['it'], arguments['n'], app=app, **d['options'])

    def __init__(self, task: Any, it: Any, n: int, **options: Any) -> None:
        super().__init__(
            'celery.chunks', (), {'task': task, 'it': regen(it), 'n': n}, immutable=True,
            **options)

    def __call__(self, **options: Any) -> Any:
        return self.apply_async(**options)

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, **opts: Any,
    ) -> Any:
        """Send the messages; return their GroupResult."""
        return self.group().apply_async(args, kwargs, **opts)

    def group(self) -> Any:
        """Return the group of star maps that does the work."""
        task, app = self.kwargs['task'], self._app
        return group((
            xstarmap(task, part, app=app)
            for part in split(iter(self.kwargs['it']), self.kwargs['n'])), app=app)

    @classmethod
    def apply_chunks(cls, task: Any, it: Any, n: int, app: Any = None) -> Any:
        """Send the messages for these arguments."""
        return cls(task, it, n, app=app)()
