"""``pyceleryc list``: what the broker knows."""
from __future__ import annotations

import click
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps

from pyceleryc.bin.base import CeleryCommand, CeleryOption, handle_preload_options

__all__ = ('list_',)

ROW = '{0:<28} {1:<28} {2}'


@click.group(name='list')
@click.pass_context
@handle_preload_options
def list_(ctx: click.Context) -> None:
    """Show what the broker knows."""


@list_.command(cls=CeleryCommand)
@click.option('-j', '--json', 'as_json', cls=CeleryOption, is_flag=True, help='Print JSON.')
@click.pass_context
def bindings(ctx: click.Context, as_json: bool) -> None:
    """Show the bindings of queues, if the broker tells (RabbitMQ: with the package pyrabbit)."""
    try:
        with ctx.obj.app.connection_for_read() as connection:
            for queue in ctx.obj.app.amqp.queues.values():
                queue(connection.default_channel).declare()  # kombu tells of those only that this connection has declared
            found = connection.manager.get_bindings()
    except (NotImplementedError, AttributeError) as exc:
        raise click.UsageError('Your transport cannot list bindings.') from exc
    except (ImportError, OperationalError, OSError) as exc:
        raise click.ClickException(f'cannot list bindings: {exc}') from exc
    if as_json:
        ctx.obj.echo(dumps(found))
        return
    _row(ctx, 'Queue', 'Exchange', 'Routing Key')
    _row(ctx, '-' * 16, '-' * 16, '-' * 16)
    for binding in found:
        _row(ctx, binding['destination'], binding['source'], binding['routing_key'])


def _row(ctx: click.Context, *cells: str) -> None:
    ctx.obj.echo(ROW.format(*cells))
