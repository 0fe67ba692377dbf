"""``pyceleryc worker``."""
from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from kombu.exceptions import OperationalError

from pyceleryc.bin.base import (
    COMMA_SEPARATED_LIST,
    LOG_LEVEL,
    CeleryDaemonCommand,
    CeleryOption,
    CLIContext,
    handle_preload_options,
)
from pyceleryc.bin.detaching import become, mark_detached, start_detached, was_detached
from pyceleryc.concurrency import ALIASES, OTHER_POOLS, get_implementation
from pyceleryc.exceptions import ImproperlyConfigured, SecurityError
from pyceleryc.platforms import EX_FAILURE, EX_OK, LockFailed
from pyceleryc.utils.nodenames import default_nodename, host_format
from pyceleryc.worker.autoscale import autoscale_bounds

if TYPE_CHECKING:
    from pyceleryc.apps.worker import Worker

__all__ = ('worker',)

#: In the environment of a process that is only to see whether the project can be imported (--reload).
_TRIAL = '_PYCELERYC_TRIAL'
COUNT = click.IntRange(min=0)
#: Errors that say it all: a traceback would only hide them.
_PLAIN = (ImproperlyConfigured, SecurityError, LockFailed, OSError)


def _option(group: str, *names: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=CeleryOption, help_group=f'{group} Options', **attributes)


def _node_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    try:
        return str(host_format(default_nodename(value)))
    except ValueError as exc:
        raise click.BadParameter(str(exc), ctx, param) from exc


def _autoscale(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    try:
        return autoscale_bounds(value)
    except ImproperlyConfigured as exc:
        raise click.BadParameter(str(exc), ctx, param) from exc


def _pool(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        get_implementation(value or 'prefork')
    except ImproperlyConfigured as exc:
        raise click.BadParameter(str(exc), ctx, param) from exc
    return value


def _loglevel(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    return LOG_LEVEL.convert('WARNING', param, ctx) if value is None else value


@click.command('worker', cls=CeleryDaemonCommand, context_settings={'allow_extra_args': True})
@_option('Worker', '-n', '--hostname', callback=_node_name, metavar='NAME',
         help="Name of this worker: 'w1@%h'; %h is the host, %n its name and %d its domain.")
@_option('Worker', '-D', '--detach', is_flag=True, help='Run in the background.')
@_option('Worker', '-l', '--loglevel', type=LOG_LEVEL, callback=_loglevel, help='Log from this level on; default WARNING.')
@_option('Worker', '-O', '--optimization', type=click.Choice(['default', 'fair']), default='fair', expose_value=False,
         help='Accepted for compatibility: a task is only ever given to a free process.')
@_option('Worker', '--prefetch-multiplier', type=COUNT, help='Messages to hold per process; 0 is no limit.')
@_option('Worker', '--disable-prefetch', is_flag=True, default=None,
         help='Take a message only when a process is free for it (Redis and SQLite brokers).')
@_option('Pool', '-c', '--concurrency', type=COUNT, help='Processes or threads, default: the CPUs; with -P asyncio tasks at once, default: 100.')
@_option('Pool', '-P', '--pool', type=click.Choice(sorted((*ALIASES, *OTHER_POOLS))), callback=_pool, metavar='NAME',
         help=f'What runs the tasks: {", ".join(sorted(ALIASES))}. asyncio is for async def tasks: many at once, on one event loop.')
@_option('Pool', '--time-limit', type=float, help='Seconds after which a task is killed.')
@_option('Pool', '--soft-time-limit', type=float, help='Seconds after which a task gets SoftTimeLimitExceeded.')
@_option('Pool', '--max-tasks-per-child', type=COUNT, help='Replace a process after so many tasks.')
@_option('Pool', '--max-memory-per-child', type=COUNT,
         help='Replace a process that has more than so many KiB in memory, after its task.')
@_option('Queue', '--purge', '--discard', is_flag=True, help='Delete all messages in the queues first.')
@_option('Queue', '-Q', '--queues', type=COMMA_SEPARATED_LIST, help='Queues to consume, separated by commas.')
@_option('Queue', '-X', '--exclude-queues', type=COMMA_SEPARATED_LIST, help='Queues not to consume.')
@_option('Queue', '-I', '--include', type=COMMA_SEPARATED_LIST, help='Further modules to import.')
@_option('Embedded Beat', '-B', '--beat', is_flag=True,
         help='Also run beat, in a process of its own.  Of all workers only one may.')
@_option('Embedded Beat', '-s', '--schedule-filename', '--schedule',
         help="File of the schedule's last runs; default: the setting beat_schedule_filename.")
@_option('Embedded Beat', '--scheduler', help='Class of the scheduler, or its short name.')
@_option('Cluster', '--without-gossip', is_flag=True, help='Do not listen to other workers.')
@_option('Cluster', '--without-mingle', is_flag=True, help='Do not ask other workers at the start which tasks are revoked.')
@_option('Cluster', '--without-heartbeat', is_flag=True, help='Send no heartbeat events.')
@_option('Cluster', '--heartbeat-interval', type=click.FloatRange(min=0), help='Seconds between heartbeat events; default 2.')
@_option('Worker', '-E', '--task-events', '--events', 'task_events', is_flag=True, default=None,
         help='Send events about tasks, for monitors; remote control switches them on and off, too.')
@_option('Worker', '-S', '--statedb', type=click.Path(), help='Keep the ids of revoked tasks in this file; %n, %h are replaced.')
@_option('Pool', '--autoscale', callback=_autoscale, metavar='MAX,MIN',
         help='Let the pool grow to MAX processes when there is work, and shrink to MIN.')
@_option('Worker', '--http-address', metavar='HOST:PORT',
         help='Answer /livez, /readyz and /metrics (Prometheus) there, even while tasks keep Python busy. See also: pyceleryc ping.')
@_option('Worker', '--reload', 'reload_', is_flag=True,
         help='For development: start anew, after the running tasks, when a source file of the project changes.')
@click.pass_context
@handle_preload_options
def worker(ctx: click.Context, hostname: str, detach: bool, uid: str | None, gid: str | None,
           umask: int | None, executable: str | None, reload_: bool, disable_prefetch: bool | None, **options: Any) -> None:
    """Run a worker.

    Settings may follow the options: worker.prefetch_multiplier=8

    \b
    Examples:
      pyceleryc -A proj worker -l INFO
      pyceleryc -A proj worker -Q high,low -c 4
      pyceleryc -A proj worker -P threads -c 50
      pyceleryc -A proj worker -P asyncio -c 1000
    """
    _apply_settings(ctx)
    if disable_prefetch is not None:
        ctx.obj.app.conf.worker_disable_prefetch = disable_prefetch
    _refuse_contradictions(ctx, detach, reload_, options)
    if os.environ.pop(_TRIAL, None):
        _import_all(ctx.obj.app, options['include'])
        return
    if reload_:
        from pyceleryc.apps.reloading import Reloader  # rare

        options['ready_callback'] = Reloader([sys.executable, *sys.orig_argv[1:]], {_TRIAL: '1'}).begin
    if not was_detached() and detach:
        start_detached(ctx.obj, hostname, uid, gid, umask, executable, options)
    cls = ctx.obj.app.Worker  # loaded by who starts it: the user it becomes may not be able to read it
    become(ctx, uid, gid, umask)
    ctx.exit(_run(ctx, cls, hostname, options))


def _refuse_contradictions(ctx: click.Context, detach: bool, reload_: bool, options: dict[str, Any]) -> None:
    both = sorted({*(options['queues'] or ())} & {*(options['exclude_queues'] or ())})
    hard, soft = options['time_limit'], options['soft_time_limit']
    if reload_ and detach:
        raise click.UsageError('--reload is for development: it does not go with --detach', ctx)
    if both and set(both) == set(options['queues']):
        raise click.UsageError(f'-Q and -X name the same queues, nothing is left to consume: {", ".join(both)}', ctx)
    if hard and soft and soft >= hard:
        raise click.UsageError(f'--soft-time-limit {soft:g} must be less than --time-limit {hard:g}: it would never be reached', ctx)


def _import_all(app: Any, include: list[str] | None) -> None:
    """What a worker imports: whether that works."""
    app.conf.include = (*app.conf.include, *(include or ()))
    app.loader.init_worker()
    app.finalize()


def _apply_settings(ctx: click.Context) -> None:
    """Use ``name=value`` arguments as settings."""
    app = ctx.obj.app
    try:
        app.config_from_cmdline(ctx.args, namespace='worker')
    except (KeyError, ValueError) as exc:
        raise click.UsageError(f'Unable to parse extra configuration from command line.\nReason: {exc}', ctx) from exc


def _run(ctx: click.Context, cls: type[Worker], hostname: str, options: dict[str, Any]) -> int:
    context: CLIContext = ctx.obj
    try:
        made = cls(context.app, hostname, no_color=context.no_color, quiet=context.quiet, **options)
        made.start()
    except OperationalError:
        # The log says why, and how often it was tried.
        return EX_FAILURE
    except _PLAIN as exc:
        # The worker's log may be a file that nobody looks at while the terminal says nothing.
        click.secho(f'pyceleryc worker: {exc}', fg='red', file=sys.__stderr__)
        return EX_FAILURE
    except Exception:
        traceback.print_exc(file=sys.__stderr__)
        return EX_FAILURE
    if made.restart:
        _start_again(context, made)
    return EX_OK if made.exitcode is None else made.exitcode


def _start_again(context: CLIContext, old: Worker) -> None:
    """Become a new worker with the same process id; exit handlers do not run in between."""
    context.app.close()
    if old.pidlock is not None:
        old.pidlock.release()
    if sys.__stdout__ is not None:
        sys.__stdout__.flush()
    os.chdir(context.directory)
    mark_detached()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
