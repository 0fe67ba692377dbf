"""Helpers; the names here are those that user code imports.

They are loaded when they are used: importing any module of this package must
not bring in kombu's connections.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kombu.utils.objects import cached_property
    from kombu.utils.uuid import uuid
    from kombu.utils.uuid import uuid as gen_unique_id

    from pyceleryc.utils.functional import chunks, memoize, noop
    from pyceleryc.utils.imports import gen_task_name, import_from_cwd, instantiate
    from pyceleryc.utils.imports import qualname as get_full_cls_name
    from pyceleryc.utils.imports import symbol_by_name as get_cls_by_name
    from pyceleryc.utils.log import LOG_LEVELS
    from pyceleryc.utils.nodenames import (
        anon_nodename,
        default_nodename,
        nodename,
        nodesplit,
        worker_direct,
    )

__all__ = (
    'LOG_LEVELS', 'anon_nodename', 'cached_property', 'chunks', 'default_nodename',
    'gen_task_name', 'gen_unique_id',
    'get_cls_by_name', 'get_full_cls_name', 'import_from_cwd', 'instantiate', 'memoize',
    'nodename', 'nodesplit', 'noop', 'uuid', 'worker_direct',
)

_ORIGINS = {
    'cached_property': 'kombu.utils.objects:cached_property',
    'uuid': 'kombu.utils.uuid:uuid',
    'gen_unique_id': 'kombu.utils.uuid:uuid',
    'chunks': 'pyceleryc.utils.functional:chunks',
    'memoize': 'pyceleryc.utils.functional:memoize',
    'noop': 'pyceleryc.utils.functional:noop',
    'gen_task_name': 'pyceleryc.utils.imports:gen_task_name',
    'import_from_cwd': 'pyceleryc.utils.imports:import_from_cwd',
    'instantiate': 'pyceleryc.utils.imports:instantiate',
    'get_full_cls_name': 'pyceleryc.utils.imports:qualname',
    'get_cls_by_name': 'pyceleryc.utils.imports:symbol_by_name',
    'LOG_LEVELS': 'pyceleryc.utils.log:LOG_LEVELS',
    'nodename': 'pyceleryc.utils.nodenames:nodename',
    'nodesplit': 'pyceleryc.utils.nodenames:nodesplit',
    'anon_nodename': 'pyceleryc.utils.nodenames:anon_nodename',
    'default_nodename': 'pyceleryc.utils.nodenames:default_nodename',
    'worker_direct': 'pyceleryc.utils.nodenames:worker_direct',
}


# The future statement leaves a name behind that would hide the submodule "annotations".
del annotations


def __getattr__(name: str) -> Any:
    try:
        module, _, attribute = _ORIGINS[name].partition(':')
    except KeyError:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}') from None
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ORIGINS})
