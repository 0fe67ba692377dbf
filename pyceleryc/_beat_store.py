"""The file of the persistent scheduler: Celery's format, a dbm file with pickles (PROTOCOL 3.10)."""
from __future__ import annotations

import io
import pickle
from typing import Any

from kombu.utils.imports import symbol_by_name

from pyceleryc._dbm_file import SUFFIXES, DbmFile

__all__ = ('ScheduleFile', 'SUFFIXES')

_OURS, _CELERY = 'pyceleryc', 'celery'


def _renamed(module: str, old: str, new: str) -> str:
    package, dot, rest = module.partition('.')
    return f'{new}{dot}{rest}' if package == old else module


def _find(name: str) -> Any:
    """Return the class that a pickle of ours calls ``celery.module:Class``."""
    return symbol_by_name(_renamed(name, _CELERY, _OURS))


class _Pickler(pickle.Pickler):
    """Writes our classes under Celery's names, so that a schedule may move between the two."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and obj.__module__.partition('.')[0] == _OURS:
            return symbol_by_name, (f'{_renamed(obj.__module__, _OURS, _CELERY)}:{obj.__qualname__}',)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Reads Celery's classes as ours."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (symbol_by_name.__module__, symbol_by_name.__name__):
            return _find
        return super().find_class(_renamed(module, _CELERY, _OURS), name)


def _dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()


def _loads(data: bytes) -> Any:
    return _Unpickler(io.BytesIO(data)).load()


class ScheduleFile(DbmFile):
    """The schedule: pickles by name."""

    noun, option = 'schedule file', '--schedule'

    def load(self) -> dict[str, Any]:
        """Return the content; empty if there is no file.

        :raises Exception: of many kinds, the file is damaged.
        """
        return {key: _loads(value) for key, value in self.read().items()}

    def save(self, content: dict[str, Any]) -> None:
        """Write *content*.  :raises OSError: it cannot be written; what was there stays."""
        self.write({key: _dumps(value) for key, value in content.items()})
