"""The file with the id of a running program, which only one program can hold."""
from __future__ import annotations

import atexit
import errno
import os
import sys

__all__ = ('LockFailed', 'Pidfile', 'create_pidlock', 'hold_pidfile')

EX_CANTCREAT = 73
TAKEN = 'ERROR: Pidfile ({path}) already exists.\nProcess {pid} holds it: stop that one first.'
#: What file systems without hard links say when they are asked for one.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LockFailed(Exception):  # the public name
    """The pidfile belongs to another process, or cannot be written."""


class Pidfile:
    """The file *path*: whoever makes it holds it.

    Others see it complete or not at all, on a full disk too.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def acquire(self) -> Pidfile:
        """Make the file.  :raises LockFailed: it is there, or cannot be written."""
        try:
            self.write_pid()
        except FileExistsError as exc:
            raise LockFailed(f'pidfile {self.path!r} is there already') from exc
        except OSError as exc:
            raise LockFailed(f'cannot write pidfile {self.path!r}: {exc.strerror}') from exc
        return self

    def release(self, *args: object) -> None:
        """Remove the file."""
        self.remove()

    __enter__ = acquire
    __exit__ = release

    def is_locked(self) -> bool:
        """Tell whether the file is there."""
        return os.path.lexists(self.path)

    def write_pid(self) -> None:
        """Make the file, with the id of this process.  :raises FileExistsError: it is there."""
        draft = f'{self.path}.{os.getpid()}'
        try:
            with open(draft, 'w') as file:
                file.write(f'{os.getpid()}\n')
                file.flush()
                os.fsync(file.fileno())
            self._publish(draft)
        finally:
            _unlink(draft)

    def _publish(self, draft: str) -> None:
        try:
            os.link(draft, self.path)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            # Not atomic, but the best such a file system has.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(draft, self.path)

    def read_pid(self) -> int | None:
        """Return the process id in the file; None if there is no file.

        :raises ValueError: its first line is something else.
        """
        try:
            with open(self.path, errors='replace') as file:
                line = file.readline(32)
        except FileNotFoundError:
            return None
        if line[-1:] == '\n' and line.strip().isdigit():
            return int(line)
        raise ValueError(f'{self.path} holds no process id, but {line!r}')

    def holder(self) -> int | None:
        """Return the id of the living process that the file names, None if there is none or it is this one."""
        pid = self.read_pid()
        if not pid or pid == os.getpid():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:  # it lives, and is somebody else's
            return pid
        return pid

    def remove(self) -> None:
        """Remove the file if it is there and may be removed."""
        _unlink(self.path)

    def remove_if_stale(self) -> bool:
        """Remove the file, and say so, if its process is gone; tell whether the way is free."""
        try:
            if self.holder() is not None:
                return False
            why = 'its process is gone'
        except ValueError as exc:
            why = str(exc)
        if self.is_locked():
            print(f'Removing the old pidfile {self.path}: {why}.', file=sys.stderr)
            self.remove()
        return True


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, PermissionError):
        # Gone, or not ours any more after the user was changed: it is stale and will be seen to be.
        return


def hold_pidfile(path: str) -> Pidfile:
    """Make the pidfile; one whose process is gone is removed first.

    :raises SystemExit: 73 (EX_CANTCREAT), a living process holds it.
    :raises LockFailed: it cannot be written.
    """
    lock = Pidfile(path)
    if lock.is_locked() and not lock.remove_if_stale():
        print(TAKEN.format(path=path, pid=lock.holder()), file=sys.stderr)
        raise SystemExit(EX_CANTCREAT)
    return lock.acquire()


def create_pidlock(pidfile: str) -> Pidfile:
    """Make the pidfile, see :func:`hold_pidfile`, and remove it when this process exits."""
    lock, owner = hold_pidfile(pidfile), os.getpid()
    # Forked children inherit the exit handler, but not the pidfile.
    atexit.register(lambda: lock.release() if os.getpid() == owner else None)
    return lock
