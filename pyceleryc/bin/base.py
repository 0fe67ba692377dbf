"""What all commands share: context, options that know their group in the help, errors."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from pprint import pformat
from typing import Any

import click
from click import ParamType

from pyceleryc.bin.types import (
    COMMA_SEPARATED_LIST,
    ISO8601,
    ISO8601_OR_FLOAT,
    JSON_ARRAY,
    JSON_OBJECT,
    LOG_LEVEL,
    OCTAL,
    CommaSeparatedList,
    ISO8601DateTime,
    ISO8601DateTimeOrFloat,
    JsonArray,
    JsonObject,
    LogLevel,
)
from pyceleryc.platforms import EX_FAILURE, EX_OK, EX_UNAVAILABLE, signals
from pyceleryc.signals import user_preload_options

__all__ = (
    'COMMA_SEPARATED_LIST', 'ISO8601', 'ISO8601_OR_FLOAT', 'JSON_ARRAY', 'JSON_OBJECT', 'LOG_LEVEL',
    'CLIContext', 'CeleryCommand', 'CeleryDaemonCommand', 'CeleryOption', 'CommaSeparatedList',
    'ISO8601DateTime', 'ISO8601DateTimeOrFloat', 'JsonArray', 'JsonObject', 'LogLevel', 'ParamType', 'Unreachable',
    'handle_preload_options', 'not_yet',
)


class CLIContext:
    """The global options, found at ``ctx.obj``.

    :param argv: arguments of the whole command line.
    :param directory: where the program was started, before ``--workdir``.
    :param app: used unless ``-A`` names another.
    """

    def __init__(self, argv: list[str], directory: str, app: Any = None) -> None:
        self.argv = argv
        self.directory = directory
        self.app = app
        self.no_color = False
        self.quiet = False
        self.workdir: str | None = None

    def style(self, text: Any, **styles: Any) -> str:
        """Return *text* with colours, unless they are off."""
        return str(text) if self.no_color else click.style(str(text), **styles)

    def echo(self, message: Any = None, **kwargs: Any) -> None:
        """Print a line."""
        click.echo(message, color=False if self.no_color else None, **kwargs)

    def secho(self, message: Any = None, **kwargs: Any) -> None:
        """Print a line with colours."""
        if self.no_color:
            kwargs['color'] = False
        click.secho(message, **kwargs)

    def error(self, message: Any = None, **kwargs: Any) -> None:
        """Print a line to stderr."""
        self.secho(message, err=True, **kwargs)

    def pretty(self, value: Any) -> str:
        """Return *value* as it is shown to people."""
        return value if isinstance(value, str) else pformat(value)


class CeleryOption(click.Option):
    """An option that is shown under *help_group* in the help."""

    def __init__(self, *args: Any, help_group: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help_group = help_group


class CeleryCommand(click.Command):
    """A command whose help shows the options by group; an app may add options to it."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, with those in ``app.user_options``."""
        given = getattr(getattr(ctx.obj, 'app', None), 'user_options', None) or {}
        return [*given.get('preload', ()), *given.get(self.name, ()), *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section per group of options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                group = getattr(param, 'help_group', None) or 'Options'
                groups.setdefault(group, []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; a global option in the wrong place is explained."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            if exc.option_name in _global_options(ctx):
                raise _misplaced(ctx, exc.option_name) from exc
            raise


def _global_options(ctx: click.Context) -> set[str]:
    params = ctx.find_root().command.params
    return {name for param in params for name in (*param.opts, *param.secondary_opts)}


def _misplaced(ctx: click.Context, option: str) -> click.UsageError:
    program = ctx.find_root().info_name
    value = ' proj' if option in ('-A', '--app') else ''
    return click.UsageError(
        f'{option} is a global option: it comes before the command, not after it.\n\n'
        f'    {program} {option}{value} {ctx.info_name} ...', ctx)


class CeleryDaemonCommand(CeleryCommand):
    """A command that may run in the background."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(CeleryOption(names, help_group='Daemonization Options', callback=_or_setting, **options)
                           for names, options in _DAEMON_OPTIONS)


def _or_setting(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """What the option says, else a setting such as ``worker_logfile`` or ``beat_uid``."""
    if value is not None or ctx.resilient_parsing:
        return value
    found = getattr(ctx.obj.app.conf, f'{ctx.command.name}_{param.name}', None)
    return None if found is None else param.type_cast_value(ctx, found)


_DAEMON_OPTIONS: tuple[tuple[list[str], dict[str, Any]], ...] = (
    (['-f', '--logfile'], {'help': 'Write the log to this file; %n, %h, %p, %i and %I are replaced.  Default: stderr.'}),
    (['--pidfile'], {'help': 'Keep the process id in this file, and refuse to start if another process holds it.'}),
    (['--uid'], {'help': 'Become this user (name or number).'}),
    (['--gid'], {'help': 'Become a member of this group (name or number).'}),
    (['--umask'], {'type': OCTAL, 'help': 'Permissions to take away from new files, in octal.'}),
    (['--executable'], {'help': 'Python to run a detached worker with.'}),
)


def not_yet(names: list[str], why: str, **attributes: Any) -> Callable[[Any], Any]:
    """Declare an option of Celery that has no effect in this release, to refuse it with a reason."""

    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            raise click.UsageError(f'{names[0]} is not available in this release: {why}.', ctx)

    return click.option(*names, cls=CeleryOption, hidden=True, expose_value=False, callback=refuse, **attributes)


class Unreachable(click.ClickException):
    """The workers cannot be reached: exit code 69, for whoever waits for them."""

    exit_code = EX_UNAVAILABLE


def handle_preload_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of commands: takes the options in ``app.user_options['preload']`` off the
    arguments and sends them with the signal ``user_preload_options``."""

    @wraps(function)
    def command(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
        app = ctx.obj.app
        own = getattr(app, 'user_options', {}).get('preload', ())
        names = {option.name for option in own}
        preload = {name: kwargs.pop(name) for name in names if name in kwargs}
        user_preload_options.send(sender=command, app=app, options=preload)
        return function(ctx, *args, **kwargs)

    return command


def end_on_signals() -> None:
    """Until the program has handlers of its own: SIGTERM and SIGQUIT end it as they do later, with exit handlers run."""
    signals.update(SIGTERM=lambda *_: sys.exit(EX_OK), SIGQUIT=lambda *_: sys.exit(EX_FAILURE))


def working_directory() -> str:
    """Return where the program runs; a directory that was removed does no harm."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return '/'
