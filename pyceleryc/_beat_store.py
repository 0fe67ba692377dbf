"""The file of the persistent scheduler: Celery's format, and whole at every moment (PROTOCOL 3.10).

It is a dbm file with pickles, which no dbm writes in one step.  So the content goes to
``<file>-journal`` first, which appears at once or not at all, and is removed when the dbm file
is complete.  A journal that is found is what counts.
"""
from __future__ import annotations

import dbm
import io
import os
import pickle
from collections.abc import Iterator
from typing import Any

from kombu.utils.imports import symbol_by_name

__all__ = ('ScheduleFile', 'SUFFIXES')

#: What the kinds of dbm add to the name of the file.
SUFFIXES = ('', '.db', '.dat', '.bak', '.dir')
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


class ScheduleFile:
    """The file at *path*, a name to which dbm may add ``.db`` or others of :data:`SUFFIXES`."""

    def __init__(self, path: str) -> None:
        self.path = os.fspath(path)
        self.journal = f'{self.path}-journal'

    def check(self) -> None:
        """Find out at the start what no waiting will mend.  :raises OSError: it can never be written."""
        if os.path.isdir(self.path):
            raise IsADirectoryError(f'the schedule file {self.path!r} is a directory: name a file with --schedule')
        directory = os.path.dirname(os.path.abspath(self.path))
        for path in (directory, *self._files()):
            if not os.path.exists(path):
                raise FileNotFoundError(f'no directory {path!r} for the schedule file: make it, or name another file with --schedule')
            if not os.access(path, os.R_OK | os.W_OK):
                raise PermissionError(f'{path!r} cannot be written by this user: name another schedule file with --schedule')

    def load(self) -> dict[str, Any]:
        """Return the content; empty if there is no file.

        :raises Exception: of many kinds, the file is damaged.
        """
        data = self._read_journal() if os.path.exists(self.journal) else self._read()
        return {key: _loads(value) for key, value in data.items()}

    def _read_journal(self) -> dict[str, bytes]:
        with open(self.journal, 'rb') as file:
            data: dict[str, bytes] = pickle.load(file)
        return data

    def _read(self) -> dict[str, bytes]:
        if not any(self._files()):
            return {}
        with dbm.open(self.path, 'r') as db:
            return {key.decode(): db[key] for key in db.keys()}

    def save(self, content: dict[str, Any]) -> None:
        """Write *content*.  :raises OSError: it cannot be written; what was there stays."""
        data = {key: _dumps(value) for key, value in content.items()}
        self._write_journal(data)
        with dbm.open(self.path, 'n') as db:
            for key, value in data.items():
                db[key] = value
        for path in self._files():
            _sync(path)
        os.unlink(self.journal)

    def _write_journal(self, data: dict[str, bytes]) -> None:
        part = f'{self.journal}.tmp'
        try:
            with open(part, 'wb') as file:
                pickle.dump(data, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.journal)
        except OSError:
            if os.path.exists(part):
                os.unlink(part)
            raise
        _sync(os.path.dirname(os.path.abspath(self.path)))

    def remove(self) -> None:
        """Remove the file, damaged as it is."""
        for path in [*self._files(), self.journal]:
            if os.path.exists(path):
                os.unlink(path)

    def _files(self) -> Iterator[str]:
        return (self.path + suffix for suffix in SUFFIXES if os.path.isfile(self.path + suffix))


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
