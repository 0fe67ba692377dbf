"""A distributed task queue with Celery's API and wire formats, and a worker in C."""
from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kombu.utils.uuid import uuid

    from pyceleryc._compat import install_as_celery
    from pyceleryc._state import current_app, current_task
    from pyceleryc.app import bugreport, shared_task
    from pyceleryc.app.base import Celery
    from pyceleryc.app.task import Task
    from pyceleryc.canvas import (
        Signature,
        chain,
        chord,
        chunks,
        group,
        maybe_signature,
        signature,
        subtask,
        xmap,
        xstarmap,
    )

#: The release of Celery whose API and protocol this is; the distribution has its own version.
__version__ = '5.6.3'
SERIES = 'pyceleryc'
VERSION_BANNER = f'{__version__} ({SERIES})'


class version_info_t(NamedTuple):  # noqa: N801  the public name
    """The parts of a version."""

    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: str


version_info = version_info_t(5, 6, 3, '', '')
VERSION = version_info

#: Public names and the modules that have them; imported when they are asked for.
_LAZY = {
    'Celery': 'pyceleryc.app.base',
    'shared_task': 'pyceleryc.app',
    'bugreport': 'pyceleryc.app',
    'Task': 'pyceleryc.app.task',
    'current_app': 'pyceleryc._state',
    'current_task': 'pyceleryc._state',
    'uuid': 'kombu.utils.uuid',
    'install_as_celery': 'pyceleryc._compat',
    **dict.fromkeys((
        'Signature', 'chain', 'chord', 'chunks', 'group', 'maybe_signature', 'signature',
        'subtask', 'xmap', 'xstarmap',
    ), 'pyceleryc.canvas'),
}

__all__ = (
    'Celery', 'shared_task', 'Task', 'current_app', 'current_task', 'bugreport',
    'signature', 'subtask', 'maybe_signature', 'Signature', 'chain', 'group', 'chord', 'chunks',
    'xmap', 'xstarmap', 'uuid',
    'install_as_celery',
    '__version__', 'VERSION', 'version_info',
)


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is not None:
        value = getattr(importlib.import_module(module), name)
    elif not name.startswith('_') and importlib.util.find_spec(f'{__name__}.{name}'):
        # "celery.signals" after "import celery" alone: Celery has imported it by then.
        value = importlib.import_module(f'{__name__}.{name}')
    else:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
