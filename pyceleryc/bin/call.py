"""``pyceleryc call``."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from kombu.exceptions import EncodeError, OperationalError

from pyceleryc.bin.base import (
    ISO8601,
    ISO8601_OR_FLOAT,
    JSON_ARRAY,
    JSON_OBJECT,
    CeleryCommand,
    CeleryOption,
    handle_preload_options,
)

__all__ = ('call',)


def _option(group: str, *names: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=CeleryOption, help_group=f'{group} Options', **attributes)


@click.command('call', cls=CeleryCommand)
@click.argument('name')
@_option('Calling', '-a', '--args', type=JSON_ARRAY, default='[]', help='Positional arguments, a list in JSON.')
@_option('Calling', '-k', '--kwargs', type=JSON_OBJECT, default='{}', help='Keyword arguments, an object in JSON.')
@_option('Calling', '--eta', type=ISO8601, help='Run it at this time (ISO-8601).')
@_option('Calling', '--countdown', type=float, help='Run it in so many seconds.')
@_option('Calling', '--expires', type=ISO8601_OR_FLOAT, help='Do not run it after this time, or so many seconds.')
@_option('Calling', '--serializer', default='json', help='How arguments are encoded; default json.')
@_option('Routing', '--queue', help='Send it to this queue.')
@_option('Routing', '--exchange', help='Send it to this exchange.')
@_option('Routing', '--routing-key', help='Send it with this routing key.')
@click.pass_context
@handle_preload_options
def call(ctx: click.Context, name: str, args: list[Any], kwargs: dict[str, Any], **options: Any) -> None:
    """Send the task NAME and print its id."""
    given = {key: value for key, value in options.items() if value is not None}
    try:
        sent = ctx.obj.app.send_task(name, args=args, kwargs=kwargs, **given)
    except (OperationalError, EncodeError) as exc:
        raise click.ClickException(f'cannot send {name}: {exc}') from exc
    ctx.obj.echo(sent.id)
