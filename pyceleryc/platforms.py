"""What the operating system offers: pidfiles, signals, privileges, process titles."""
from __future__ import annotations

import errno
import grp
import importlib
import math
import os
import platform as _platform
import pwd
import signal as _signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyceleryc._detach import DaemonContext, close_open_fds, fd_by_path, get_fdmax
from pyceleryc._pidfile import EX_CANTCREAT, LockFailed, Pidfile, create_pidlock, hold_pidfile
from pyceleryc.exceptions import SecurityError, SecurityWarning
from pyceleryc.local import try_import
from pyceleryc.utils.processes import current_process

__all__ = (
    'EX_OK', 'EX_FAILURE', 'EX_UNAVAILABLE', 'EX_USAGE', 'EX_CANTCREAT', 'SYSTEM', 'IS_macOS',
    'IS_WINDOWS', 'SIGMAP', 'pyimplementation', 'LockFailed', 'get_fdmax', 'Pidfile',
    'create_pidlock', 'close_open_fds', 'fd_by_path', 'DaemonContext', 'detached', 'parse_uid',
    'parse_gid', 'setgroups', 'initgroups', 'setgid', 'setuid', 'maybe_drop_privileges',
    'signals', 'signal_name', 'set_process_title', 'set_mp_process_title', 'set_pdeathsig',
    'get_errno_name', 'ignore_errno', 'isatty', 'check_privileges', 'strargv',
)

EX_OK = 0
EX_FAILURE = 1
EX_USAGE = 64
EX_UNAVAILABLE = 69

SYSTEM = _platform.system()
IS_macOS = SYSTEM == 'Darwin'
IS_WINDOWS = SYSTEM == 'Windows'

#: Its older name.
PIDFile = Pidfile

ROOT_DISALLOWED = """\
The worker is run by the superuser and accepts pickle, so whoever can send it a message can do
anything on this machine.  Start it as another user (--uid), or take pickle out of accept_content.
If it has to be, set the environment variable C_FORCE_ROOT.  ({ids})
"""
ROOT_DISCOURAGED = """\
The worker is run by the superuser, and so is every task.  Start it as another user, or name one
with --uid.  ({ids})
"""

SIGNAMES = {name for name in dir(_signal) if name.startswith('SIG') and '_' not in name}
SIGMAP = {getattr(_signal, name): name for name in SIGNAMES}
_PR_SET_PDEATHSIG = 1


def isatty(fh: Any) -> bool:
    """Tell whether the file *fh* is a terminal."""
    try:
        return bool(fh.isatty())
    except AttributeError:
        return False


def pyimplementation() -> str:
    """Return the name of the Python implementation."""
    return _platform.python_implementation()


# -- daemon ------------------------------------------------------------------------------------

def detached(
    logfile: str | None = None, pidfile: str | None = None, uid: Any = None, gid: Any = None,
    umask: Any = 0, workdir: str | None = None, fake: bool = False, **opts: Any,
) -> DaemonContext:
    """Return a context that makes this process a daemon.

    Drops privileges first, then checks that log and pidfile can be written, while an
    error can still be shown.

    :param umask: number, or text in octal.
    :param fake: do everything but detach (``C_FAKEFORK``).
    """
    workdir = os.getcwd() if workdir is None else workdir
    _signals_reset_for_daemon()
    maybe_drop_privileges(uid=uid, gid=gid)

    def after_chdir() -> None:
        if logfile:
            open(logfile, 'a').close()
        if pidfile:
            hold_pidfile(pidfile).release()

    return DaemonContext(umask=umask, workdir=workdir, fake=fake, after_chdir=after_chdir)


def _signals_reset_for_daemon() -> None:
    # A child that ends while detaching must be reaped by whoever waits for it.
    signals.reset('SIGCLD' if 'SIGCLD' in SIGNAMES else 'SIGCHLD')


# -- users and groups -------------------------------------------------------------------------

def parse_uid(uid: Any) -> int:
    """Return the user id of a number or name.  :raises KeyError: there is no such user."""
    try:
        return int(uid)
    except ValueError:
        try:
            return pwd.getpwnam(uid).pw_uid
        except KeyError:
            raise KeyError(f'User does not exist: {uid}') from None


def parse_gid(gid: Any) -> int:
    """Return the group id of a number or name.  :raises KeyError: there is no such group."""
    try:
        return int(gid)
    except ValueError:
        try:
            return grp.getgrnam(gid).gr_gid
        except KeyError:
            raise KeyError(f'Group does not exist: {gid}') from None


def setgroups(groups: Sequence[int]) -> None:
    """Set the supplementary groups, as many as the system allows."""
    limit = os.sysconf('SC_NGROUPS_MAX')
    os.setgroups(list(groups)[:limit] if limit > 0 else list(groups))


def initgroups(uid: int, gid: int) -> None:
    """Set the supplementary groups to those of the user."""
    os.initgroups(pwd.getpwuid(uid).pw_name, gid)


def setgid(gid: Any) -> None:
    """Become a member of the group *gid* (name or number) only."""
    os.setgid(parse_gid(gid))


def setuid(uid: Any) -> None:
    """Become the user *uid* (name or number)."""
    os.setuid(parse_uid(uid))


def maybe_drop_privileges(uid: Any = None, gid: Any = None) -> None:
    """Become another user and group for good, if they are given.

    With *uid* alone the group is the user's own.

    :raises SecurityError: the privileges could be taken back.
    """
    uid = None if uid in (None, '') else parse_uid(uid)
    gid = None if gid in (None, '') else parse_gid(gid)
    if os.geteuid():
        if uid not in (None, os.geteuid()) or gid not in (None, os.getegid()):
            raise SecurityError('only the superuser can change to another user or group')
    elif uid is not None:
        _drop_to_user(uid, gid)
    elif gid is not None:
        setgid(gid)


def _drop_to_user(uid: int, gid: int | None) -> None:
    group = pwd.getpwuid(uid).pw_gid if gid is None else gid
    # The order matters: a user without privileges cannot change its groups.
    setgid(group)
    initgroups(uid, group)
    setuid(uid)
    if uid == 0:
        return
    try:
        os.setuid(0)
    except OSError as exc:
        if exc.errno != errno.EPERM:
            raise
    else:
        raise SecurityError('privileges were dropped, but can be taken back by setuid(0)')


def check_privileges(accept_content: Iterable[str] | None) -> None:
    """Refuse to run as root where pickle is accepted, warn where it is not (C-105).

    :raises SecurityError: root, pickle, and ``C_FORCE_ROOT`` is not set.
    """
    if os.getuid() and os.geteuid():
        return
    ids = f'user {os.getuid()}, effective {os.geteuid()}; group {os.getgid()}, effective {os.getegid()}'
    risky = {'pickle', 'application/x-python-serialize'}.intersection(accept_content or ())
    if risky and not os.environ.get('C_FORCE_ROOT'):
        raise SecurityError(ROOT_DISALLOWED.format(ids=ids))
    warnings.warn(ROOT_DISCOURAGED.format(ids=ids), SecurityWarning, stacklevel=2)


# -- signals ------------------------------------------------------------------------------------

class Signals:
    """Handlers of the system's signals: ``signals['INT'] = handler``.

    Names may lack the ``SIG``; one that the system does not have is ignored.
    """

    ignored = _signal.SIG_IGN
    default = _signal.SIG_DFL

    def supported(self, name: Any) -> bool:
        """Tell whether the system has this signal."""
        try:
            self.signum(name)
        except AttributeError:
            return False
        return True

    def signum(self, name: Any) -> int:
        """Return the number of a signal.

        :raises AttributeError: there is none of that name.
        :raises TypeError: *name* is neither number nor text.
        """
        if isinstance(name, int):
            return name
        if not isinstance(name, str) or not name.isupper():
            raise TypeError(f'{name!r} is no signal: give its number, or its name in capitals')
        return int(getattr(_signal, name if name.startswith('SIG') else f'SIG{name}'))

    def arm_alarm(self, seconds: float) -> None:
        """Have SIGALRM sent in *seconds*, rounded up."""
        _signal.alarm(math.ceil(seconds))

    def reset_alarm(self) -> int:
        """Cancel :meth:`arm_alarm`."""
        return _signal.alarm(0)

    def reset(self, *signal_names: Any) -> None:
        """Give these signals their default action."""
        self.update((name, self.default) for name in signal_names)

    def ignore(self, *names: Any) -> None:
        """Ignore these signals."""
        self.update((name, self.ignored) for name in names)

    def update(self, _d_: Any = None, **sigmap: Any) -> None:
        """Set several handlers."""
        for name, handler in dict(_d_ or {}, **sigmap).items():
            self[name] = handler

    def __getitem__(self, name: Any) -> Any:
        return _signal.getsignal(self.signum(name))

    def __setitem__(self, name: Any, handler: Any) -> None:
        try:
            _signal.signal(self.signum(name), handler)
        except (AttributeError, ValueError):
            # Not on this system, or not in the main thread: the process goes on without.
            return


signals = Signals()
get_signal = signals.signum
install_signal_handler = signals.__setitem__
reset_signal = signals.reset
ignore_signal = signals.ignore


def signal_name(signum: int) -> str:
    """Return the name of a signal without ``SIG``."""
    return SIGMAP[signum][3:]


def set_pdeathsig(name: Any) -> None:
    """Have signal *name* sent to this process when its parent ends (Linux)."""
    if SYSTEM == 'Linux':
        libc = importlib.import_module('ctypes').CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signals.signum(name), 0, 0, 0)


# -- process title ----------------------------------------------------------------------------

def strargv(argv: Sequence[str]) -> str:
    """Return the arguments of the command line as text."""
    start = 2 if argv and 'manage' in argv[0] else 1
    return ' '.join(argv[start:])


def set_process_title(progname: str, info: str | None = None) -> str:
    """Show ``[progname] info`` in ``ps``, if setproctitle is installed; return that text."""
    title = f'[{progname}]'
    if info:
        title = f'{title} {info}'
    setproctitle = try_import('setproctitle')
    if setproctitle is not None:
        setproctitle.setproctitle(title)
    return title


def set_mp_process_title(
    progname: str, info: str | None = None, hostname: str | None = None,
) -> str:
    """Like :func:`set_process_title`, with host and name of the pool process added."""
    if hostname:
        progname = f'{progname}: {hostname}'
    name = current_process().name
    return set_process_title(f'{progname}:{name}', info=info)


# -- errno --------------------------------------------------------------------------------------

def get_errno_name(n: int | str) -> int:
    """Return the error number of a name such as ``ENOENT``."""
    return int(getattr(errno, n)) if isinstance(n, str) else n


@contextmanager
def ignore_errno(*errnos: int | str, **kwargs: Any) -> Iterator[None]:
    """Ignore errors with these numbers or names inside the block.

    :param types: the exceptions that are looked at (default: OSError and such).
    """
    types = kwargs.get('types') or (OSError,)
    numbers = {get_errno_name(number) for number in errnos}
    try:
        yield
    except types as exc:
        if getattr(exc, 'errno', None) not in numbers:
            raise
