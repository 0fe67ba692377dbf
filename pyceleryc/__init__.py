"""A distributed task queue with Celery's API and wire formats, and a worker in C."""
from __future__ import annotations

# As typing has it, but probes that run every few seconds (pyceleryc ping) import this package and nothing else.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from kombu.utils.uuid import uuid

    from pyceleryc._compat import install_as_celery
    from pyceleryc._state import current_app, current_task
    from pyceleryc.app import bugreport, shared_task
    from pyceleryc.app.base import Celery
    from pyceleryc.app.task import Task
    from pyceleryc.canvas import (  # type: ignore[no-redef]
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

    class version_info_t(NamedTuple):
        major: int
        minor: int
        micro: int
        releaselevel: str
        serial: str

    VERSION = version_info = version_info_t(5, 6, 3, '', '')

#: The release of Celery whose API and protocol this is; the distribution has its own version.
__version__ = '5.6.3'
SERIES = 'pyceleryc'
VERSION_BANNER = f'{__version__} ({SERIES})'

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
    import importlib.util  # when it is needed: see above

    module = _LAZY.get(name)
    if module is not None:
        value = getattr(importlib.import_module(module), name)
    elif name in ('version_info_t', 'version_info', 'VERSION'):
        _name_the_version()
        return globals()[name]
    elif not name.startswith('_') and importlib.util.find_spec(f'{__name__}.{name}'):
        # "celery.signals" after "import celery" alone: Celery has imported it by then.
        value = importlib.import_module(f'{__name__}.{name}')
    else:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    globals()[name] = value
    return value


def _name_the_version() -> None:
    from collections import namedtuple  # when it is needed: see above

    version_info_t = namedtuple('version_info_t', 'major minor micro releaselevel serial')  # noqa: PYI024  as Celery's
    major, minor, micro = map(int, __version__.split('.'))
    version = version_info_t(major, minor, micro, '', '')
    globals().update(version_info_t=version_info_t, version_info=version, VERSION=version)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
