"""Going to the background, for the commands that have the daemon options."""
from __future__ import annotations

import os
import sys
from typing import Any

import click

from pyceleryc.bin.base import CLIContext
from pyceleryc.exceptions import SecurityError
from pyceleryc.platforms import LockFailed, create_pidlock, detached, maybe_drop_privileges
from pyceleryc.utils.nodenames import node_format

__all__ = ('become', 'mark_detached', 'start_detached', 'was_detached')

#: Tells the process that a detached command becomes that it is one already.
_DETACHED = '_PYCELERYC_DETACHED'


def was_detached() -> bool:
    """Tell, once, whether this process is the one in the background."""
    return os.environ.pop(_DETACHED, None) is not None


def mark_detached() -> None:
    """Let the program that this process becomes stay where it is."""
    os.environ[_DETACHED] = '1'


def become(ctx: click.Context, uid: str | None, gid: str | None, umask: int | None) -> None:
    """Take user, group and umask of the daemon options.  :raises UsageError: that is not possible."""
    try:
        if umask is not None:
            os.umask(umask)
        maybe_drop_privileges(uid=uid, gid=gid)
    except (KeyError, ValueError, SecurityError) as exc:
        raise click.UsageError(str(exc.args[0]), ctx) from exc


def start_detached(context: CLIContext, hostname: str, uid: str | None, gid: str | None, umask: int | None,
                   executable: str | None, options: dict[str, Any]) -> None:
    """Go to the background and start anew there: threads and connections of imports do not survive a fork."""
    logfile, pidfile = (_absolute(options[name], hostname) for name in ('logfile', 'pidfile'))
    python = executable or sys.executable
    umask = 0o022 if umask is None else umask
    os.umask(umask)  # the check makes the log
    _check_detached(python, uid, gid, logfile, pidfile)
    with detached(logfile, pidfile, uid, gid, umask, context.directory,
                  fake=bool(os.environ.get('C_FAKEFORK'))):
        mark_detached()
        os.execv(python, [python, '-m', 'pyceleryc', *context.argv])


def _check_detached(python: str, uid: str | None, gid: str | None, logfile: str | None, pidfile: str | None) -> None:
    """Find out what would go wrong in the background, while somebody can see it."""
    try:
        maybe_drop_privileges(uid=uid, gid=gid)
        if logfile:
            open(logfile, 'a').close()
        if pidfile:
            create_pidlock(pidfile).release()
    except (KeyError, OSError, LockFailed, SecurityError) as exc:
        # A KeyError would show its text in quotes.
        raise click.ClickException(f'cannot detach: {exc.args[0] if isinstance(exc, KeyError) else exc}') from exc
    if not os.access(python, os.X_OK):
        raise click.ClickException(f'cannot detach: {python} cannot be run by this user; name another with --executable')


def _absolute(path: str | None, hostname: str) -> str | None:
    return None if path is None else os.path.abspath(str(node_format(path, hostname)))
