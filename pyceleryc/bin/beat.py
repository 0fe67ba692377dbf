"""``pyceleryc beat``."""
from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from pyceleryc.bin.base import LOG_LEVEL, CeleryDaemonCommand, CeleryOption, handle_preload_options
from pyceleryc.bin.detaching import become, start_detached, was_detached
from pyceleryc.platforms import EX_FAILURE, EX_OK
from pyceleryc.utils.nodenames import default_nodename

__all__ = ('beat',)


def _option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=CeleryOption, help_group='Beat Options', **attributes)


@click.command('beat', cls=CeleryDaemonCommand, context_settings={'allow_extra_args': True})
@_option('--detach', is_flag=True, help='Run in the background.')
@_option('-s', '--schedule', help="File of the schedule's last runs; default: the setting beat_schedule_filename.  "
                                  'A suffix such as .db may be added.')
@_option('-S', '--scheduler', help='Class of the scheduler, or its short name.')
@_option('--lease', metavar='NAME', help='Of all beats with this name one sends, the others stand by; default: the setting beat_lease.')
@_option('--max-interval', type=float, help='Seconds to sleep at most; default 300.')
@_option('-l', '--loglevel', type=LOG_LEVEL, default='WARNING', help='Log from this level on; default WARNING.')
@click.pass_context
@handle_preload_options
def beat(ctx: click.Context, detach: bool, uid: str | None, gid: str | None, umask: int | None,
         executable: str | None, lease: str | None, **options: Any) -> None:
    """Send periodic tasks when they are due.

    One beat must run, not more: each sends every task.  Unless they have a lease.
    """
    app = ctx.obj.app
    try:
        app.config_from_cmdline(ctx.args, namespace='beat')
    except (KeyError, ValueError) as exc:
        raise click.UsageError(f'Unable to parse extra configuration from command line.\nReason: {exc}', ctx) from exc
    if lease:
        app.conf.beat_lease = lease
    if not was_detached() and detach:
        start_detached(ctx.obj, default_nodename(None), uid, gid, umask, executable, options)
    cls = app.Beat  # loaded by who starts it: the user it becomes may not be able to read it
    become(ctx, uid, gid, umask)
    ctx.exit(_run(ctx, cls, options))


def _run(ctx: click.Context, cls: Any, options: dict[str, Any]) -> int:
    from pyceleryc.apps.beat import PLAIN  # slow to load: the list of commands goes without

    try:
        cls(app=ctx.obj.app, no_color=ctx.obj.no_color, quiet=ctx.obj.quiet, **options).run()
    except PLAIN as exc:
        # The log may be a file that nobody looks at while the terminal says nothing.
        click.secho(f'pyceleryc beat: {exc}', fg='red', file=sys.__stderr__)
        return EX_FAILURE
    except Exception:
        traceback.print_exc(file=sys.__stderr__)
        return EX_FAILURE
    return EX_OK
