"""``pyceleryc result``."""
from __future__ import annotations

from typing import Any

import click
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps

from pyceleryc.bin.base import CeleryCommand, CeleryOption, handle_preload_options

__all__ = ('result',)


@click.command('result', cls=CeleryCommand)
@click.argument('task_id')
@click.option('-t', '--task', cls=CeleryOption, help='Name of the task: its own result backend is asked.')
@click.option('--traceback', cls=CeleryOption, is_flag=True, help='Print the traceback instead of the result.')
@click.option('-j', '--json', 'as_json', cls=CeleryOption, is_flag=True, help='Print id, state, result and traceback as JSON.')
@click.pass_context
@handle_preload_options
def result(ctx: click.Context, task_id: str, task: str | None, traceback: bool, as_json: bool) -> None:
    """Print what the task with this id returned."""
    app = ctx.obj.app
    backend = app.tasks[task].backend if task in app.tasks else app.backend
    if task and task not in app.tasks:
        raise click.UsageError(f'there is no task {task!r} in the app', ctx)
    found = app.AsyncResult(task_id, backend=backend)
    try:
        if as_json:
            ctx.obj.echo(dumps(_described(found)))
            return
        value = found.traceback if traceback else found.result
    except (OperationalError, OSError, NotImplementedError) as exc:  # the last: there is no result backend
        raise click.ClickException(f'cannot read the result: {exc}') from exc
    ctx.obj.echo(ctx.obj.pretty(value))


def _described(found: Any) -> dict[str, Any]:
    value = found.result
    return {'id': found.id, 'state': found.state, 'traceback': found.traceback,
            'result': repr(value) if isinstance(value, BaseException) else value}
