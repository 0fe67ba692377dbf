"""Abstract classes: what can be called as a task, and what is a signature."""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

__all__ = ('CallableTask', 'CallableSignature')


def _has_all(cls: type, names: frozenset[str]) -> bool:
    return all(any(name in node.__dict__ for node in cls.__mro__) for name in names)


class CallableTask(Callable):  # type: ignore[misc,type-arg]
    """Anything with the calling methods of a task."""

    __required_attributes__ = frozenset({'delay', 'apply_async', 'apply', '__call__'})

    @abstractmethod
    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send the task with these arguments."""

    @abstractmethod
    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send the task, with options."""

    @abstractmethod
    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task here."""

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        required = cls.__dict__.get('__required_attributes__')
        return True if required and _has_all(other, required) else NotImplemented


class CallableSignature(CallableTask):
    """Anything with the attributes of a signature."""

    __required_attributes__ = frozenset({
        'clone', 'freeze', 'set', 'link', 'link_error', '__or__', '__invert__',
    })

    @property
    @abstractmethod
    def name(self) -> Any:
        """Name of the task."""

    @abstractmethod
    def clone(self, args: Any = None, kwargs: Any = None) -> Any:
        """Return a copy with more arguments."""

    @abstractmethod
    def freeze(
        self, id: Any = None, group_id: Any = None, chord: Any = None, root_id: Any = None,
        group_index: Any = None,
    ) -> Any:
        """Give it its task id."""

    @abstractmethod
    def set(self, immutable: Any = None, **options: Any) -> Any:
        """Set options."""

    @abstractmethod
    def link(self, callback: Any) -> Any:
        """Add a callback."""

    @abstractmethod
    def link_error(self, errback: Any) -> Any:
        """Add an error callback."""

    @abstractmethod
    def __or__(self, rhs: Any) -> Any:
        """Chain."""

    @abstractmethod
    def __invert__(self) -> Any:
        """Send and wait for the result."""
