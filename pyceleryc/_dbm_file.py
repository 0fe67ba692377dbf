"""A dbm file that is whole at every moment: those of beat's schedule and of revoked tasks (PROTOCOL 3.10).

No dbm is written in one step.  So the content goes to ``<file>-journal`` first, which appears at once or not at
all, and is removed when the dbm file is complete.  A journal that is found is what counts.
"""
from __future__ import annotations

import dbm
import os
import pickle
from collections.abc import Iterator

__all__ = ('DbmFile', 'SUFFIXES')

#: What the kinds of dbm add to the name of the file.
SUFFIXES = ('', '.db', '.dat', '.bak', '.dir')


class DbmFile:
    """The file at *path*, a name to which dbm may add ``.db`` or others of :data:`SUFFIXES`."""

    #: What it is for people, and the option that names another.
    noun, option = 'file', ''

    def __init__(self, path: str) -> None:
        self.path = os.fspath(path)
        self.journal = f'{self.path}-journal'

    def check(self) -> None:
        """Find out at the start what no waiting will mend.  :raises OSError: it can never be written."""
        other = f'name another file with {self.option}'
        if os.path.isdir(self.path):
            raise IsADirectoryError(f'the {self.noun} {self.path!r} is a directory: {other}')
        directory = os.path.dirname(os.path.abspath(self.path))
        for path in (directory, *self._files()):
            if not os.path.exists(path):
                raise FileNotFoundError(f'no directory {path!r} for the {self.noun}: make it, or {other}')
            if not os.access(path, os.R_OK | os.W_OK):
                raise PermissionError(f'{path!r} cannot be written by this user: {other} for the {self.noun}')

    def read(self) -> dict[str, bytes]:
        """Return the content; empty if there is no file.

        :raises Exception: of many kinds, the file is damaged.
        """
        if os.path.exists(self.journal):
            with open(self.journal, 'rb') as file:
                data: dict[str, bytes] = pickle.load(file)
            return data
        if not any(self._files()):
            return {}
        with dbm.open(self.path, 'r') as db:
            return {key.decode(): db[key] for key in db.keys() if isinstance(key, bytes)}

    def write(self, data: dict[str, bytes]) -> None:
        """Write *data*.  :raises OSError: it cannot be written; what was there stays."""
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
