"""``pyceleryc amqp``: declare, look at and empty exchanges and queues, one command at a time or in a shell.

It works with every broker, as far as that broker has such things.
"""
from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pprint import pformat
from typing import Any

import click
from kombu.exceptions import KombuError

from pyceleryc.bin.base import CeleryCommand, CeleryOption, CLIContext, handle_preload_options

__all__ = ('amqp',)

PROMPT = '> '
_LEAVE = ('exit', 'quit')


class Session:
    """A connection that is made when it is needed, and again after an error."""

    def __init__(self, context: CLIContext) -> None:
        self.context = context
        self.connection: Any = None

    @property
    def channel(self) -> Any:
        """The channel.  :raises ClickException: there is no broker."""
        if self.connection is None:
            connection = self.context.app.connection_for_write()
            self._tell(f'-> connecting to {connection.as_uri()}.')
            connection.ensure_connection(max_retries=1, timeout=5)
            self.connection = connection
            self._tell('-> connected.')
        return self.connection.default_channel

    def _tell(self, text: str) -> None:
        # Not on stdout: that is for those who script.
        if not self.context.quiet:
            self.context.error(text)

    def run(self, call: Callable[[Any], Any]) -> Any:
        """Call *call* with the channel.  :raises ClickException: the broker refuses, or is not there."""
        try:
            return call(self.channel)
        except Exception as exc:
            if not isinstance(exc, self._errors()):
                raise
            # A channel on which something failed is closed.
            self.close()
            raise click.ClickException(str(exc)) from exc

    def _errors(self) -> tuple[type[BaseException], ...]:
        known = self.context.app.connection_for_write()
        return (*known.connection_errors, *known.channel_errors, KombuError, OSError, NotImplementedError)

    def close(self) -> None:
        """Close the connection; what was got and not acknowledged goes back."""
        if self.connection is not None:
            self.connection.release()
            self.connection = None


@click.group('amqp', invoke_without_command=True)
@click.pass_context
@handle_preload_options
def amqp(ctx: click.Context) -> None:
    """Administer exchanges and queues; without a COMMAND, in a shell."""
    ctx.obj.session = session = getattr(ctx.obj, 'session', None) or Session(ctx.obj)
    ctx.call_on_close(session.close)
    if ctx.invoked_subcommand is None:
        ctx.invoke(repl)


def _said(ctx: click.Context, found: str | None = None) -> None:
    if found is not None:
        ctx.obj.echo(found)
    if not ctx.obj.quiet:
        ctx.obj.secho('OK', fg='green', bold=True)


def _command(name: str) -> Callable[[Any], click.Command]:
    def declare(function: Any) -> click.Command:
        return amqp.command(name, cls=CeleryCommand)(click.pass_context(function))

    return declare


def _flag(name: str) -> Callable[[Any], Any]:
    return click.argument(name, type=click.BOOL, default=False)


# -- exchanges and queues ---------------------------------------------------------------------

@_command('exchange.declare')
@click.argument('exchange')
@click.argument('type')
@_flag('passive')
@_flag('durable')
@_flag('auto_delete')
def exchange_declare(ctx: click.Context, exchange: str, type: str, passive: bool, durable: bool, auto_delete: bool) -> None:
    """Make an exchange; with PASSIVE, only look whether it is there."""
    ctx.obj.session.run(lambda channel: channel.exchange_declare(
        exchange=exchange, type=type, passive=passive, durable=durable, auto_delete=auto_delete))
    _said(ctx)


@_command('exchange.delete')
@click.argument('exchange')
@_flag('if_unused')
def exchange_delete(ctx: click.Context, exchange: str, if_unused: bool) -> None:
    """Delete an exchange."""
    ctx.obj.session.run(lambda channel: channel.exchange_delete(exchange=exchange, if_unused=if_unused))
    _said(ctx)


@_command('queue.declare')
@click.argument('queue')
@_flag('passive')
@_flag('durable')
@_flag('auto_delete')
def queue_declare(ctx: click.Context, queue: str, passive: bool, durable: bool, auto_delete: bool) -> None:
    """Make a queue and tell its size; with PASSIVE, only tell that."""
    made = ctx.obj.session.run(lambda channel: channel.queue_declare(
        queue=queue, passive=passive, durable=durable, auto_delete=auto_delete))
    _said(ctx, f'queue:{made[0]} messages:{made[1]} consumers:{made[2]}')


@_command('queue.bind')
@click.argument('queue')
@click.argument('exchange')
@click.argument('routing_key')
def queue_bind(ctx: click.Context, queue: str, exchange: str, routing_key: str) -> None:
    """Let an exchange put messages with this key in a queue."""
    ctx.obj.session.run(lambda channel: channel.queue_bind(queue=queue, exchange=exchange, routing_key=routing_key))
    _said(ctx)


@_command('queue.delete')
@click.argument('queue')
@_flag('if_unused')
@_flag('if_empty')
def queue_delete(ctx: click.Context, queue: str, if_unused: bool, if_empty: bool) -> None:
    """Delete a queue and its messages."""
    count = ctx.obj.session.run(
        lambda channel: channel.queue_delete(queue=queue, if_unused=if_unused, if_empty=if_empty))
    _said(ctx, f'{count or 0} messages deleted.')


@_command('queue.purge')
@click.argument('queue')
def queue_purge(ctx: click.Context, queue: str) -> None:
    """Delete the messages of a queue."""
    count = ctx.obj.session.run(lambda channel: channel.queue_purge(queue=queue))
    _said(ctx, f'{count or 0} messages deleted.')


# -- messages -----------------------------------------------------------------------------------

@_command('basic.get')
@click.argument('queue')
@_flag('no_ack')
@click.option('-j', '--json', 'as_json', cls=CeleryOption, is_flag=True, help='Print JSON; null if the queue is empty.')
def basic_get(ctx: click.Context, queue: str, no_ack: bool, as_json: bool) -> None:
    """Take a message out of a queue. It goes back at the end unless it is acknowledged, or NO_ACK is true."""
    message = ctx.obj.session.run(lambda channel: _get(channel, queue, no_ack))
    if as_json:
        from kombu.utils.json import dumps

        ctx.obj.echo(dumps(message))
        return
    _said(ctx, 'The queue is empty.' if message is None else pformat(message))


def _get(channel: Any, queue: str, no_ack: bool) -> dict[str, Any] | None:
    message = channel.basic_get(queue, no_ack=no_ack)
    if message is None:
        return None
    if hasattr(channel, 'message_to_python'):
        message = channel.message_to_python(message)
    body = message.body
    return {
        'body': body.decode(errors='backslashreplace') if isinstance(body, bytes) else body,
        'delivery_info': {**message.delivery_info, 'delivery_tag': message.delivery_tag},
        'properties': {**message.properties, 'content_type': message.content_type,
                       'content_encoding': message.content_encoding, 'headers': message.headers},
    }


@_command('basic.publish')
@click.argument('msg')
@click.argument('exchange')
@click.argument('routing_key')
@_flag('mandatory')
@_flag('immediate')
def basic_publish(
    ctx: click.Context, msg: str, exchange: str, routing_key: str, mandatory: bool, immediate: bool,
) -> None:
    """Send a text."""
    if immediate:
        raise click.UsageError('immediate: no broker has this any more (RabbitMQ dropped it in 3.0)', ctx)

    def publish(channel: Any) -> None:
        message = channel.prepare_message(msg, content_type='text/plain', content_encoding='utf-8')
        channel.basic_publish(message, exchange=exchange, routing_key=routing_key, mandatory=mandatory)

    ctx.obj.session.run(publish)
    _said(ctx)


@_command('basic.ack')
@click.argument('delivery_tag')
def basic_ack(ctx: click.Context, delivery_tag: str) -> None:
    """Acknowledge a message that basic.get took, in the same shell."""
    tag: Any = int(delivery_tag) if delivery_tag.isdigit() else delivery_tag
    ctx.obj.session.run(lambda channel: channel.basic_ack(tag))
    _said(ctx)


# -- the shell ----------------------------------------------------------------------------------

@amqp.command('repl', cls=CeleryCommand)
@click.pass_context
def repl(ctx: click.Context) -> None:
    """Read commands from the terminal, or from what is piped in."""
    asks = sys.stdin.isatty()
    if asks:
        _complete()
        ctx.obj.echo('Commands: ' + ', '.join(amqp.commands) + '; help, help COMMAND, exit')
    failed = False
    for line in _lines(asks):
        try:
            words = shlex.split(line)
            if words and words[0] in _LEAVE:
                break
            failed |= bool(words) and not _run_one(ctx, words)
        except ValueError as exc:  # quotes that do not end
            ctx.obj.error(f'ERROR: {exc}', fg='red')
            failed = True
    # Who types sees what went wrong; a script learns it from the exit code.
    ctx.exit(int(failed and not asks))


def _lines(asks: bool) -> Any:
    while True:
        try:
            yield input(PROMPT if asks else '')
        except EOFError:
            return
        except KeyboardInterrupt:
            click.echo()


def _run_one(ctx: click.Context, words: list[str]) -> bool:
    words = [*words[1:], '--help'] if words[0] == 'help' else words
    command = amqp.get_command(ctx, words[0])
    try:
        if words[0] == '--help':
            ctx.obj.echo('\n'.join(f'{name:<18} {command.get_short_help_str()}' for name, command in amqp.commands.items()))
            return True
        if command is None or command is repl:
            raise click.UsageError(f'No such command {words[0]!r}; "help" lists them.')
        with command.make_context(words[0], words[1:], parent=ctx.parent) as inner:
            command.invoke(inner)
    except click.exceptions.Exit:
        return True
    except click.ClickException as exc:
        exc.show()
        return False
    return True


def _complete() -> None:
    """Complete the names of commands with the tabulator, where Python has readline."""
    try:
        import readline
    except ImportError:
        return
    names = [*amqp.commands, 'help', *_LEAVE]
    readline.set_completer_delims(' ')
    readline.set_completer(lambda text, state: [*(name for name in names if name.startswith(text)), None][state])
    readline.parse_and_bind('tab: complete')
