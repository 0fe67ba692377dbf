"""Warnings about what will go away."""
from __future__ import annotations

import functools
import warnings
from collections.abc import Callable as AnyCallable
from typing import Any

from pyceleryc.exceptions import CDeprecationWarning, CPendingDeprecationWarning

__all__ = ('Callable', 'Property', 'warn')


def warn(
    description: str | None = None, deprecation: str | None = None, removal: str | None = None,
    alternative: str | None = None, stacklevel: int = 2,
) -> None:
    """Warn that *description* is deprecated.

    :param deprecation: version that will deprecate it; then the warning is a pending one.
    :param removal: version that will remove it.
    :param alternative: a sentence on what to use instead.
    """
    text = f'{description} is scheduled for removal in version {removal}.'
    kind: type[Warning] = CDeprecationWarning
    if deprecation is not None:
        text = (f'{description} is scheduled for deprecation in version {deprecation} '
                f'and removal in version {removal}.')
        kind = CPendingDeprecationWarning
    warnings.warn(' '.join(filter(None, (text, alternative))), kind, stacklevel=stacklevel + 1)


def Callable(  # the public name
    deprecation: str | None = None, removal: str | None = None,
    alternative: str | None = None, description: str | None = None,
) -> AnyCallable[[AnyCallable[..., Any]], AnyCallable[..., Any]]:
    """Decorator for a deprecated function; see :func:`warn` for the arguments."""

    def decorate(fun: AnyCallable[..., Any]) -> AnyCallable[..., Any]:
        @functools.wraps(fun)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            warn(description or f'{fun.__module__}.{fun.__qualname__}',
                 deprecation, removal, alternative)
            return fun(*args, **kwargs)
        return wrapper

    return decorate


def Property(  # the public name
    deprecation: str | None = None, removal: str | None = None,
    alternative: str | None = None, description: str | None = None,
) -> AnyCallable[[AnyCallable[..., Any]], property]:
    """Decorator for a deprecated property; see :func:`warn` for the arguments."""
    mark = Callable(deprecation, removal, alternative, description)
    return lambda fun: property(mark(fun), doc=fun.__doc__)
