"""``pyceleryc purge``."""
from __future__ import annotations

from typing import Any

import click
from kombu.exceptions import OperationalError

from pyceleryc.app.publisher import NO_RETRY
from pyceleryc.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, handle_preload_options
from pyceleryc.utils.text import pluralize

__all__ = ('purge',)


@click.command('purge', cls=CeleryCommand)
@click.option('-f', '--force', cls=CeleryOption, is_flag=True, help='Do not ask.')
@click.option('-Q', '--queues', cls=CeleryOption, type=COMMA_SEPARATED_LIST, help='Queues to purge; default: all known.')
@click.option('-X', '--exclude-queues', cls=CeleryOption, type=COMMA_SEPARATED_LIST, help='Queues to leave alone.')
@click.pass_context
@handle_preload_options
def purge(ctx: click.Context, force: bool, queues: list[str] | None, exclude_queues: list[str] | None) -> None:
    """Delete all messages in the task queues. There is no way back."""
    app = ctx.obj.app
    chosen = [name for name in queues or sorted(app.amqp.queues) if name not in (exclude_queues or ())]
    if not chosen:
        ctx.obj.echo('There is no queue to purge.')
        return
    listed = ', '.join(chosen)
    if not force:
        ctx.obj.secho(f'WARNING: this deletes all messages in {pluralize(len(chosen), "queue")}: {listed}.\n'
                      '         There is no way back. (Option -f skips this question.)', fg='yellow')
        click.confirm('Are you sure you want to delete all tasks?', abort=True)
    try:
        count = sum(_purge_one(app, name) for name in chosen)
    except (OperationalError, OSError) as exc:
        raise click.ClickException(f'cannot purge: {exc}') from exc
    many = pluralize(len(chosen), 'known task queue')
    if count:
        ctx.obj.echo(f'Purged {count} {pluralize(count, "message")} from {len(chosen)} {many}.')
    else:
        ctx.obj.echo(f'No messages purged from {len(chosen)} {pluralize(len(chosen), "queue")}.')


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
