"""The pools of workers, by name."""
from __future__ import annotations

from typing import Any, cast

from kombu.utils.imports import symbol_by_name

from pyceleryc.concurrency.base import BasePool
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('ALIASES', 'OTHER_POOLS', 'get_available_pool_names', 'get_implementation')

ALIASES = {
    'asyncio': 'pyceleryc.concurrency.asyncio:TaskPool',
    'prefork': 'pyceleryc.concurrency.prefork:TaskPool',
    'processes': 'pyceleryc.concurrency.prefork:TaskPool',
    'solo': 'pyceleryc.concurrency.solo:TaskPool',
    'threads': 'pyceleryc.concurrency.thread:TaskPool',
}
#: Pools of Celery's that are none here, and what serves instead.
OTHER_POOLS = {
    **dict.fromkeys(('gevent', 'eventlet'), 'use threads (-P threads -c 100) for tasks that wait, or asyncio (-P asyncio) for async def tasks'),
    'custom': 'use prefork, threads, asyncio or solo: the pool is a part of the core, CELERY_CUSTOM_WORKER_POOL cannot replace it',
}


def get_implementation(cls: Any) -> type[BasePool]:
    """Return the class of a pool, given its name.

    :raises ImproperlyConfigured: there is no such pool; it says what to use instead.
    """
    if getattr(cls, 'core_name', ''):
        return cast('type[BasePool]', cls)
    if cls in OTHER_POOLS:
        raise ImproperlyConfigured(f'There is no pool {cls!r} in this worker: {OTHER_POOLS[cls]}.')
    known = {**ALIASES, **{path: path for path in ALIASES.values()},
             **{path.replace('pyceleryc.', 'celery.', 1): path for path in ALIASES.values()}}
    if cls not in known:
        raise ImproperlyConfigured(f"There is no pool {cls!r}; choose one of {', '.join(sorted(ALIASES))}.")
    return cast('type[BasePool]', symbol_by_name(known[cls]))


def get_available_pool_names() -> tuple[str, ...]:
    """Return the names of the pools."""
    return tuple(ALIASES)
