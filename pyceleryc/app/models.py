"""Tasks with pydantic models as arguments and results (T-188, ``pydantic=True``)."""
from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.annotations import annotation_issubclass, get_optional_arg

__all__ = ('take_models',)


def take_models(
    fun: Callable[..., Any], app: Any, name: str, options: dict[str, Any],
) -> Callable[..., Any]:
    """Return *fun*, or what runs it with models if the *options* of the task, from which those
    of pydantic are taken out, say so.

    :raises ImproperlyConfigured: pydantic is not installed.
    """
    wanted = options.pop('pydantic', False)
    strict = options.pop('pydantic_strict', False)
    context = options.pop('pydantic_context', None) or {}
    dumped = options.pop('pydantic_dump_kwargs', None) or {}
    if not wanted:
        return fun
    return _with_models(fun, name, {'mode': 'json', **dumped}, {
        'strict': strict, 'context': {'celery_app': app, 'celery_task_name': name, **context}})


def _with_models(
    fun: Callable[..., Any], name: str, dumped: dict[str, Any], validated: dict[str, Any],
) -> Callable[..., Any]:
    """Return *fun* for serialized data: dicts become the models that its annotations ask for, a
    model that it returns becomes a dict.

    Arguments annotated with a model or ``Optional`` of one are validated; all others, and models
    given as such (calls in this process), are passed as they are.

    :param dumped: arguments of ``BaseModel.model_dump()``.
    :param validated: arguments of ``BaseModel.model_validate()``.
    """
    try:
        from pydantic import BaseModel
    except ImportError as exc:
        raise ImproperlyConfigured(
            f'task {name!r} has pydantic=True: install it with: pip install "pyceleryc[pydantic]"',
        ) from exc
    signature = inspect.signature(fun)

    @functools.cache
    def models() -> dict[str, Any]:
        # Not at the definition: an annotation may name a class that comes later in its module.
        hints = typing.get_type_hints(fun)
        return {key: model for key in signature.parameters
                if (model := _model(hints.get(key), BaseModel))}

    def validate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        given = signature.bind(*args, **kwargs)
        for key, model in models().items():
            if isinstance(given.arguments.get(key), dict):
                given.arguments[key] = model.model_validate(given.arguments[key], **validated)
        return given

    def dump(result: Any) -> Any:
        return result.model_dump(**dumped) if isinstance(result, BaseModel) else result

    @functools.wraps(fun)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = validate(args, kwargs)
        return dump(fun(*given.args, **given.kwargs))

    @functools.wraps(fun)
    async def await_run(*args: Any, **kwargs: Any) -> Any:
        given = validate(args, kwargs)
        return dump(await fun(*given.args, **given.kwargs))

    return await_run if inspect.iscoroutinefunction(fun) else run


def _model(annotation: Any, base: type) -> Any:
    """Return the model that *annotation* names, if it does."""
    annotation = get_optional_arg(annotation) or annotation
    return annotation if annotation_issubclass(annotation, base) else None
