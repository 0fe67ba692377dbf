"""``pyceleryc migrate``: bring messages from one broker to another."""
from __future__ import annotations

import sys
from typing import Any

import click
from kombu.exceptions import KombuError

from pyceleryc.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, handle_preload_options
from pyceleryc.contrib.migrate import State, connect, migrate_tasks
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.text import pluralize

__all__ = ('migrate',)


def _option(*names: str, **attributes: Any) -> Any:
    return click.option(*names, cls=CeleryOption, help_group='Migration Options', **attributes)


@click.command('migrate', cls=CeleryCommand)
@click.argument('source')
@click.argument('destination')
@_option('-n', '--limit', type=click.IntRange(min=1), help='Stop after so many messages.')
@_option('-t', '--timeout', type=click.FloatRange(min=0), default=1.0, show_default=True,
         help='Stop when there was no message for so many seconds.')
@_option('-a', '--ack-messages', is_flag=True, help='Take the messages off SOURCE.  Without it they are copied.')
@_option('-T', '--tasks', type=COMMA_SEPARATED_LIST, help='Only these tasks, by name.')
@_option('-Q', '--queues', type=COMMA_SEPARATED_LIST, help='Queues, default all known; a:b puts those of a into b.')
@_option('-F', '--forever', is_flag=True, help='Go on until interrupted.')
@click.pass_context
@handle_preload_options
def migrate(ctx: click.Context, source: str, destination: str, forever: bool, **options: Any) -> None:
    """Bring the messages of the task queues from the broker SOURCE to the broker DESTINATION (URLs).

    A message is taken off its queue after DESTINATION has it.  Stop the workers of SOURCE before: what they hold is not seen.
    """
    state = State()
    try:
        with connect(source) as read, connect(destination) as write:
            migrate_tasks(read, write, app=ctx.obj.app, forever=forever, state=state, callback=_progress(ctx), **options)
    except KeyboardInterrupt:
        # What was brought over stays there; the sum is told below.
        if not forever:
            _tell(ctx, state)
            raise
    except ImproperlyConfigured as exc:
        raise click.UsageError(str(exc), ctx) from exc
    except KeyError as exc:
        raise click.UsageError(f'there is no queue {exc.args[0]}', ctx) from exc
    except Exception as exc:
        if not isinstance(exc, (KombuError, OSError, *read.channel_errors, *write.channel_errors)):
            raise
        _tell(ctx, state)
        raise click.ClickException(f'cannot migrate: {exc}') from exc
    _tell(ctx, state)


def _progress(ctx: click.Context) -> Any:
    """Return what shows how far it got, where somebody looks."""
    if ctx.obj.quiet or not sys.stderr.isatty():
        return None
    return lambda state, body, message: click.echo(f'\rMigrating message {state.count}/{state.strtotal}', nl=False, err=True)


def _tell(ctx: click.Context, state: State) -> None:
    if sys.stderr.isatty() and state.count:
        click.echo(err=True)
    skipped = f', passed over {state.filtered}' if state.filtered else ''
    ctx.obj.echo(f'Migrated {state.count} {pluralize(state.count, "message")}{skipped}.')
