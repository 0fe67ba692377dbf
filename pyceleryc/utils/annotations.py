"""What a type annotation says about an argument (used by pydantic tasks)."""
from __future__ import annotations

import inspect
import types
import typing
from typing import Any

__all__ = ('is_none_type', 'get_optional_arg', 'annotation_is_class', 'annotation_issubclass')


def is_none_type(value: Any) -> bool:
    """Tell whether *value* is None or its type."""
    return value is None or value is type(None)


def get_optional_arg(annotation: Any) -> Any:
    """Return ``X`` if *annotation* is ``Optional[X]`` or ``X | None``, else None."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return None
    args = [arg for arg in typing.get_args(annotation) if not is_none_type(arg)]
    return args[0] if len(args) == 1 and len(typing.get_args(annotation)) == 2 else None


def annotation_is_class(annotation: Any) -> bool:
    """Tell whether *annotation* is a class, not ``list[int]`` or the like."""
    return inspect.isclass(annotation) and not isinstance(annotation, types.GenericAlias)


def annotation_issubclass(annotation: Any, cls: type) -> bool:
    """Tell whether *annotation* is a subclass of *cls*."""
    return annotation_is_class(annotation) and issubclass(annotation, cls)
