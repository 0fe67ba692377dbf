"""``pyceleryc status``, ``inspect`` and ``control``: remote control from the command line (FEATURES 2.14)."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps

from pyceleryc.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, Unreachable, handle_preload_options
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils import text
from pyceleryc.worker.control import CommandInfo, Panel

__all__ = ('status', 'inspect', 'control')

NO_REPLY = 'No nodes replied within time constraint'
INDENT, WIDTH = 4, 76


def _options(function: Any) -> Any:
    """Decorator: the options that all three commands have."""
    for option in (
        click.option('-j', '--json', cls=CeleryOption, is_flag=True, help_group='Remote Control Options',
                     help='Print JSON.'),
        click.option('-d', '--destination', cls=CeleryOption, type=COMMA_SEPARATED_LIST,
                     help_group='Remote Control Options', help='Only these nodes; separated by commas.'),
        click.option('-t', '--timeout', cls=CeleryOption, type=float, default=1.0, show_default=True,
                     help_group='Remote Control Options', help='Seconds to wait for replies.'),
    ):
        function = option(function)
    return function


def _list_option(kind: str) -> Any:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            # Commands of the app are known when it is loaded, its modules included.
            ctx.obj.app.loader.import_default_modules()
            click.echo(f'{kind.capitalize()} Commands:')
            formatter = click.HelpFormatter(width=WIDTH + INDENT)
            with formatter.indentation():
                formatter.write_dl(list(_help_rows(kind)))
            click.echo(formatter.getvalue(), nl=False)
            ctx.exit()

    return click.option('--list', is_flag=True, expose_value=False, callback=show, cls=CeleryOption,
                        help='List the commands.', help_group='Remote Control Options')


def _commands(kind: str) -> list[CommandInfo]:
    return sorted((info for info in Panel.meta.values() if info.type == kind and info.visible),
                  key=lambda info: str(info.name))


def _help_rows(kind: str) -> Iterator[tuple[str, str]]:
    for info in _commands(kind):
        yield ' '.join(filter(None, (info.name, info.signature))), info.help


def _completion(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    return lambda ctx, param, begun: [info.name for info in _commands(kind) if info.name.startswith(begun)]


# -- the commands --------------------------------------------------------------------------

@click.command('status', cls=CeleryCommand)
@_options
@click.pass_context
@handle_preload_options
def status(ctx: click.Context, timeout: float, destination: list[str] | None, json: bool) -> None:
    """Show the workers that are online."""
    shown = _Printer(ctx, json)
    replies = _ask(ctx, 'ping', {}, timeout, destination, None if json else shown.node)
    shown.end(replies)


@click.command('inspect', cls=CeleryCommand, context_settings={'allow_extra_args': True})
@click.argument('command', shell_complete=_completion('inspect'))
@_options
@_list_option('inspect')
@click.pass_context
@handle_preload_options
def inspect(ctx: click.Context, command: str, timeout: float, destination: list[str] | None, json: bool) -> None:
    """Ask workers about themselves; --list shows the commands."""
    info = _find(ctx, command, 'inspect')
    shown = _Printer(ctx, json)
    replies = _ask(ctx, info.name, _arguments(ctx, info), timeout, destination, None if json else shown.reply)
    shown.end(replies)


@click.command('control', cls=CeleryCommand, context_settings={'allow_extra_args': True})
@click.argument('command', shell_complete=_completion('control'))
@_options
@_list_option('control')
@click.pass_context
@handle_preload_options
def control(ctx: click.Context, command: str, timeout: float, destination: list[str] | None, json: bool) -> None:
    """Tell workers what to do; --list shows the commands."""
    info = _find(ctx, command, 'control')
    shown = _Printer(ctx, json)
    replies = _ask(ctx, info.name, _arguments(ctx, info), timeout, destination, None if json else shown.reply)
    if json:
        ctx.obj.echo(dumps(replies))


# -- asking ----------------------------------------------------------------------------------

def _find(ctx: click.Context, name: str, kind: str) -> CommandInfo:
    ctx.obj.app.loader.import_default_modules()
    for info in Panel.meta.values():
        if info.type == kind and name in (info.name, info.alias):
            found: CommandInfo = info
            return found
    known = ', '.join(info.name for info in _commands(kind))
    raise click.UsageError(f'Command {name} not recognized. Available {kind} commands: {known}', ctx)


def _arguments(ctx: click.Context, info: CommandInfo) -> dict[str, Any]:
    """Return the arguments of the command line by name.

    :raises click.UsageError: one is too much, or of the wrong type.
    """
    given = list(ctx.args)
    found: dict[str, Any] = {}
    for name, kind in info.args or ():
        if name == info.variadic or not given:
            break
        found[name] = _convert(ctx, name, kind, given.pop(0))
    if info.variadic:
        found[info.variadic] = given
    elif given:
        raise click.UsageError(f'{info.name} takes no argument {given[0]!r}', ctx)
    return found


def _convert(ctx: click.Context, name: str, kind: Any, value: str) -> Any:
    try:
        return value if kind is None else kind(value)
    except ValueError as exc:
        raise click.UsageError(f'{name}: {exc}', ctx) from exc


def _ask(
    ctx: click.Context, command: str, arguments: dict[str, Any], timeout: float,
    destination: list[str] | None, callback: Any,
) -> Any:
    """Broadcast and wait.

    :raises Unreachable: nobody answers, or the broker does not (exit code 69).
    """
    try:
        replies = ctx.obj.app.control.broadcast(
            command, arguments=arguments, destination=destination, reply=True, timeout=timeout,
            callback=callback)
    except (OperationalError, OSError, ImproperlyConfigured) as exc:
        raise Unreachable(f'cannot reach the workers: {exc}') from exc
    if not replies:
        raise Unreachable(NO_REPLY)
    answered = {name for body in replies for name in body}
    silent = [name for name in destination or () if name not in answered]
    if silent:
        ctx.obj.error(f'No reply from {", ".join(silent)}: not running, not connected, or too busy (--timeout).', fg='yellow')
    return replies


# -- showing ---------------------------------------------------------------------------------

class _Printer:
    """Prints replies when they come; with *json* all of them, at the end."""

    def __init__(self, ctx: click.Context, json: bool) -> None:
        self.context, self.json = ctx.obj, json

    def node(self, body: dict[str, Any]) -> None:
        """Print that the nodes are there."""
        for name, said in body.items():
            self._head(name, said)

    def reply(self, body: dict[str, Any]) -> None:
        """Print what the nodes said."""
        for name, said in body.items():
            self._head(name, said)
            self.context.echo(_body(said))

    def _head(self, name: str, said: Any) -> None:
        failed = isinstance(said, dict) and 'error' in said
        mark = click.style('ERROR', fg='red', bold=True) if failed else click.style('OK', fg='green', bold=True)
        arrow = '' if self.context.quiet else click.style('->', fg='cyan', bold=True) + ' '
        self.context.echo(f'{arrow} {name}: {mark}')

    def end(self, replies: Iterable[dict[str, Any]]) -> None:
        """Print how many nodes there are."""
        nodes: dict[str, Any] = {}
        for body in replies:
            nodes.update(body)
        if self.json:
            self.context.echo(dumps(nodes))
        elif not self.context.quiet:
            self.context.echo(f'\n{len(nodes)} {text.pluralize(len(nodes), "node")} online.')


def _body(said: Any) -> str:
    """Return a reply as it is printed: a line, a list with a mark per item, or JSON."""
    if isinstance(said, dict):
        for key in ('error', 'ok'):
            if key in said:
                return text.indent(_line(said[key]), 2 * INDENT)
        return text.indent(dumps(said, indent=4, sort_keys=True), INDENT)
    if isinstance(said, list):
        if not said:
            return ' ' * INDENT + '- empty -'
        return '\n'.join(text.indent(f'* {_line(item)}', INDENT) for item in said)
    return text.indent(_line(said), INDENT)


def _line(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
