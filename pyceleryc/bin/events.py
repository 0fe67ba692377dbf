"""``pyceleryc events``: watch the events of workers (FEATURES 2.14)."""
from __future__ import annotations

import os
import sys
from typing import Any

import click
from kombu.exceptions import OperationalError

from pyceleryc.app.drivers import has_fanout
from pyceleryc.bin.base import LOG_LEVEL, CeleryDaemonCommand, CeleryOption, handle_preload_options
from pyceleryc.platforms import detached, set_process_title, strargv
from pyceleryc.utils.imports import cwd_in_path, symbol_by_name
from pyceleryc.utils.time import rate

__all__ = ('events',)


@click.command('events', cls=CeleryDaemonCommand)
@click.option('-d', '--dump', cls=CeleryOption, is_flag=True, help_group='Dumper', help='Print each event.')
@click.option('-c', '--camera', cls=CeleryOption, help_group='Snapshot', metavar='CLASS',
              help='Take pictures of the cluster with this class.')
@click.option('--detach', cls=CeleryOption, is_flag=True, help_group='Snapshot', help='Run in the background.')
@click.option('-F', '--frequency', '--freq', cls=CeleryOption, type=float, default=1.0, show_default=True,
              help_group='Snapshot', help='Seconds between pictures.')
@click.option('-r', '--maxrate', cls=CeleryOption, help_group='Snapshot', help='Most pictures, such as 10/m.')
@click.option('-l', '--loglevel', cls=CeleryOption, type=LOG_LEVEL, default='WARNING', show_default=True,
              help_group='Snapshot', help='Log from this level on.')
@click.pass_context
@handle_preload_options
def events(ctx: click.Context, dump: bool, camera: str | None, detach: bool, frequency: float,
           maxrate: str | None, loglevel: int, **options: Any) -> None:
    """Watch events: in a full screen, printed (--dump), or as pictures (--camera)."""
    app = ctx.obj.app
    if not has_fanout(app.conf.broker_read_url):
        raise click.UsageError('There are no events with this broker; use RabbitMQ or Redis.', ctx)
    try:
        if dump:
            _dump(app)
        elif camera:
            _camera(app, camera, detach, frequency, maxrate, loglevel, ctx.obj.workdir, **options)
        else:
            _top(app)
    except (OperationalError, OSError) as exc:
        raise click.ClickException(f'cannot watch events: {exc}') from exc


def _title(name: str) -> None:
    set_process_title(f'celery events {name}', info=strargv(sys.argv))


def _dump(app: Any) -> None:
    # Imported when they are wanted: curses is not on every machine.
    from pyceleryc.events.dumper import evdump

    _title('dump')
    evdump(app=app)


def _top(app: Any) -> None:
    try:
        from pyceleryc.events.cursesmon import evtop
    except ImportError as exc:
        raise click.ClickException(f'the full screen needs curses: {exc}; try --dump') from exc
    _title('top')
    if not sys.stdout.isatty():
        raise click.ClickException('the full screen needs a terminal; try --dump')
    evtop(app=app)


def _camera(
    app: Any, camera: str, detach: bool, frequency: float, maxrate: str | None, loglevel: int,
    workdir: str | None, logfile: str | None, pidfile: str | None, uid: str | None,
    gid: str | None, umask: int | None, executable: str | None,
) -> None:
    from pyceleryc.events.snapshot import evcam

    try:
        with cwd_in_path():
            symbol_by_name(camera)
    except (ImportError, AttributeError, ValueError) as exc:
        raise click.UsageError(f'there is no camera {camera!r}: {exc}') from exc
    try:
        rate(maxrate)
    except (KeyError, ValueError) as exc:
        raise click.UsageError(f'--maxrate {maxrate} is no rate, such as 10/m') from exc
    _title('camera')

    def run(own_pidfile: str | None) -> None:
        evcam(camera, freq=frequency, maxrate=maxrate, loglevel=loglevel, logfile=logfile,
              pidfile=own_pidfile, app=app)

    if not detach:
        with cwd_in_path():
            run(pidfile)
        return
    with detached(logfile, pidfile, uid, gid, 0o022 if umask is None else umask, workdir,
                  fake=bool(os.environ.get('C_FAKEFORK'))):
        run(pidfile)
