"""Results in files, one for each document: ``file:///directory`` (PROTOCOL §3.5.5)."""
from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from kombu.utils.uuid import uuid

from pyceleryc.backends.remote import RemoteStore
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('FilesystemBackend',)

ADVICE = ('The result store {0} needs a directory that exists and that this process may write to: '
          'file:///absolute/path')
#: Files in the making; readers never look at them.
PARTS = '.fs-backend-'


class FilesystemBackend(RemoteStore):
    """A directory, which all hosts that share results must see; for small systems.

    A document is written aside and renamed, so that a reader sees all of it or nothing.

    :param url: ``file:///directory``.
    :raises ImproperlyConfigured: it is no directory that can be written to.
    """

    thread_safe = True
    unreachable = (OSError,)

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        self.path = _path(url or '')
        if not self.path.is_dir() or not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise ImproperlyConfigured(ADVICE.format(url))

    def _file(self, key: Any) -> Path:
        if '/' in key or '\0' in key or len(os.fsencode(key)) > 255:
            raise ValueError(f'{key!r} cannot be the name of a file: use other ids of tasks, without "/"')
        return self.path / key

    def get(self, key: Any) -> bytes | None:
        """Return the value of *key*, or None."""
        return self.reach(_content, self._file(key))

    def set(self, key: Any, value: Any) -> None:
        """Store *value* under *key*."""
        data = value.encode() if isinstance(value, str) else value
        self.reach(_replace, self._file(key), data)

    def delete(self, key: Any) -> None:
        """Delete *key*."""
        self.reach(self._file(key).unlink, missing_ok=True)

    def cleanup(self) -> None:
        """Delete what is older than ``result_expires`` (T-217)."""
        if not self.expires:
            return
        oldest = time.time() - self.expires
        prefixes = tuple(f'{self.global_keyprefix}{prefix}' for prefix in (
            self.task_keyprefix, self.group_keyprefix, self.chord_keyprefix))
        for entry in self.reach(lambda: list(os.scandir(self.path))):
            if entry.name.startswith((*prefixes, PARTS)) and _changed(entry) < oldest:
                Path(entry.path).unlink(missing_ok=True)


def _path(url: str) -> Path:
    scheme, _, rest = url.partition('://')
    path = unquote(rest.removeprefix('localhost'))
    if scheme != 'file' or not path.startswith('/'):
        raise ImproperlyConfigured(ADVICE.format(url))
    return Path(path)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return None


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f'{PARTS}{uuid()}')
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _changed(entry: Any) -> float:
    try:
        return float(entry.stat().st_mtime)
    except FileNotFoundError:
        return time.time()
