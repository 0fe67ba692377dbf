"""``pyceleryc purge``."""
from __future__ import annotations

import sys
from typing import Any

import click
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps

from pyceleryc.app.publisher import NO_RETRY
from pyceleryc.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, handle_preload_options
from pyceleryc.utils.text import pluralize

__all__ = ('purge',)


@click.command('purge', cls=CeleryCommand)
@click.option('-f', '--force', cls=CeleryOption, is_flag=True, help='Do not ask.')
@click.option('-Q', '--queues', cls=CeleryOption, type=COMMA_SEPARATED_LIST, help='Queues to purge; default: all known.')
@click.option('-X', '--exclude-queues', cls=CeleryOption, type=COMMA_SEPARATED_LIST, help='Queues to leave alone.')
@click.option('-j', '--json', 'as_json', cls=CeleryOption, is_flag=True, help='Print the numbers as JSON, by queue.')
@click.pass_context
@handle_preload_options
def purge(ctx: click.Context, force: bool, queues: list[str] | None, exclude_queues: list[str] | None, as_json: bool) -> None:
    """Delete all messages in the task queues. There is no way back."""
    app = ctx.obj.app
    chosen = [name for name in queues or sorted(app.amqp.queues) if name not in (exclude_queues or ())]
    _check(ctx, chosen)
    if not chosen:
        ctx.obj.echo('{}' if as_json else 'There is no queue to purge.')
        return
    if not force:
        _ask(ctx, chosen)
    counts = _purge_all(ctx, chosen)
    if as_json:
        ctx.obj.echo(dumps(counts))
        return
    count = sum(counts.values())
    many = pluralize(len(chosen), 'known task queue')
    if count:
        ctx.obj.echo(f'Purged {count} {pluralize(count, "message")} from {len(chosen)} {many}.')
    else:
        ctx.obj.echo(f'No messages purged from {len(chosen)} {pluralize(len(chosen), "queue")}.')


def _check(ctx: click.Context, chosen: list[str]) -> None:
    """:raises UsageError: one of the queues is not known, and may not be made."""
    queues = ctx.obj.app.amqp.queues
    for name in chosen:
        try:
            queues[name]
        except KeyError as exc:
            raise click.UsageError(f'There is no queue {name!r} in the setting task_queues, and task_create_missing_queues '
                                   'lets none be made.', ctx) from exc


def _ask(ctx: click.Context, chosen: list[str]) -> None:
    ctx.obj.secho(f'WARNING: this deletes all messages in {pluralize(len(chosen), "queue")}: {", ".join(chosen)}.\n'
                  '         There is no way back. (Option -f skips this question.)', fg='yellow', err=True)
    click.confirm('Are you sure you want to delete all tasks?', abort=True, err=True)


def _purge_all(ctx: click.Context, chosen: list[str]) -> dict[str, int]:
    """Purge; tell on a terminal how far it is."""
    counts: dict[str, int] = {}
    shows = sys.stderr.isatty() and not ctx.obj.quiet and len(chosen) > 1
    try:
        for name in chosen:
            counts[name] = _purge_one(ctx.obj.app, name)
            if shows:
                click.echo(f'{len(counts)}/{len(chosen)} {name}: {counts[name]}', err=True)
    except (OperationalError, OSError) as exc:
        done = f' ({", ".join(counts)} are empty already)' if counts else ''
        raise click.ClickException(f'cannot purge: {exc}{done}') from exc
    return counts


def _purge_one(app: Any, name: str) -> int:
    """Delete the messages of one queue, which is declared in case it does not exist yet."""
    queue, publisher = app.amqp.queues[name], app.amqp.publisher
    if publisher is None:
        return _purge_by_kombu(app, queue)
    publisher.call(lambda core: publisher.declare(queue), NO_RETRY)
    return int(publisher.call(lambda core: core.purge(name, None), NO_RETRY))


def _purge_by_kombu(app: Any, queue: Any) -> int:
    with app.connection_for_write() as connection:
        bound = queue(connection.default_channel)
        bound.declare()
        return int(bound.purge() or 0)
