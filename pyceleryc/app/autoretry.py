"""Automatic retry of tasks that raise certain exceptions (FEATURES 1.9)."""
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pyceleryc.exceptions import Ignore, Retry
from pyceleryc.utils.time import get_exponential_backoff_interval

__all__ = ('add_autoretry_behaviour',)

_DEFAULTS: dict[str, Any] = {
    'autoretry_for': (), 'dont_autoretry_for': (), 'retry_kwargs': {}, 'retry_backoff': False,
    'retry_backoff_max': 600, 'retry_jitter': True,
}


def _settings(task: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the six options: given, or attributes of the task's class, or defaults."""
    return {
        name: options.get(name, getattr(task, name, default))
        for name, default in _DEFAULTS.items()
    }


def add_autoretry_behaviour(task: Any, **options: Any) -> None:
    """Wrap ``task.run`` so that it retries, if the task asks for that (T-150).

    :param options: ``autoretry_for``, ``dont_autoretry_for``, ``retry_kwargs``,
        ``retry_backoff`` (a factor in seconds, or True for 1), ``retry_backoff_max`` (seconds)
        and ``retry_jitter``; default: the attributes of the task.
    """
    settings = _settings(task, options)
    if not settings['autoretry_for'] or hasattr(task, '_orig_run'):
        return
    task._orig_run = task.run
    task.run = _retrying(task, task.run, settings)


def _retrying(task: Any, run: Callable[..., Any], settings: dict[str, Any]) -> Callable[..., Any]:
    retried = tuple(settings['autoretry_for'])
    passed = (Ignore, Retry, *settings['dont_autoretry_for'])

    @functools.wraps(run)
    async def await_with_retry(*args: Any, **kwargs: Any) -> Any:
        try:
            return await run(*args, **kwargs)
        except passed:
            raise
        except retried as exc:
            raise _retry(task, exc, settings) from exc

    @functools.wraps(run)
    def run_with_retry(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except passed:
            raise
        except retried as exc:
            raise _retry(task, exc, settings) from exc

    return await_with_retry if inspect.iscoroutinefunction(inspect.unwrap(run)) else run_with_retry


def _retry(task: Any, exc: Exception, settings: dict[str, Any]) -> BaseException:
    """Return what ``task.retry`` raises for *exc*."""
    arguments = dict(settings['retry_kwargs'])
    if settings['retry_backoff']:
        arguments['countdown'] = get_exponential_backoff_interval(
            factor=int(max(1.0, settings['retry_backoff'])), retries=task.request.retries,
            maximum=settings['retry_backoff_max'], full_jitter=settings['retry_jitter'])
    # A retry() in the body may have set a limit of its own (T-157).
    override = getattr(task, 'override_max_retries', None)
    if override is not None:
        arguments['max_retries'] = override
    try:
        outcome = task.retry(exc=exc, **arguments)
    except Retry as retry:
        outcome = retry
    finally:
        if override is not None:
            del task.override_max_retries
    return outcome
