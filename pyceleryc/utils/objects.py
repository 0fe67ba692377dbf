"""Small helpers around attributes."""
from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

__all__ = ('Bunch', 'FallbackContext', 'getitem_property', 'mro_lookup')


class Bunch:
    """An object made of keyword arguments: ``Bunch(a=1).a == 1``."""

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)


def mro_lookup(
    cls: type, attr: str, stop: Any = None, monkey_patched: Any = None,
) -> type | None:
    """Return the first class in the MRO of *cls* that defines *attr* itself, or None.

    :param stop: classes whose definition does not count.
    :param monkey_patched: modules; a definition in a *stop* class counts after all
        if the value comes from another module than these.
    """
    stop = stop or ()
    for node in cls.mro():
        if node in stop:
            if monkey_patched and attr in node.__dict__:
                origin = getattr(node.__dict__[attr], '__module__', None)
                if origin not in monkey_patched:
                    return node
            continue
        if attr in node.__dict__:
            return node
    return None


class FallbackContext:
    """Context manager around *provided*, or around one that *fallback* makes.

    What was provided is left open at the end; what was made here is closed.
    """

    def __init__(
        self, provided: Any, fallback: Callable[..., Any], *fb_args: Any, **fb_kwargs: Any,
    ) -> None:
        self.provided = provided
        self.fallback = fallback
        self.fb_args = fb_args
        self.fb_kwargs = fb_kwargs
        self._context: Any = None

    def __enter__(self) -> Any:
        if self.provided is not None:
            return self.provided
        self._context = self.fallback(*self.fb_args, **self.fb_kwargs)
        return self._context.__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None,
        tb: TracebackType | None,
    ) -> Any:
        context, self._context = self._context, None
        return context.__exit__(exc_type, exc, tb) if context is not None else None


class getitem_property:  # the public name
    """Attribute that is an item: ``id = getitem_property('options.task_id')``.

    :param keypath: keys separated by dots; a missing last key reads as None.
    """

    def __init__(self, keypath: str, doc: str | None = None) -> None:
        path, _, self.key = keypath.rpartition('.')
        self.path = path.split('.') if path else []
        self.__doc__ = doc

    def _holder(self, obj: Any) -> Any:
        for key in self.path:
            obj = obj[key]
        return obj

    def __get__(self, obj: Any, type: type | None = None) -> Any:
        return type if obj is None else self._holder(obj).get(self.key)

    def __set__(self, obj: Any, value: Any) -> None:
        self._holder(obj)[self.key] = value
