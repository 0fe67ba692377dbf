"""The command line itself: global options, and finding the app and the command."""
from __future__ import annotations

import os
import sys
import traceback
import warnings
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points
from importlib.metadata import version as package_version
from importlib.util import find_spec
from collections.abc import Callable
from typing import Any

import click
from kombu.exceptions import KombuError

from pyceleryc import SERIES, __version__
from pyceleryc._state import get_current_app
from pyceleryc.app.utils import find_app, find_app_error
from pyceleryc.bin.base import CeleryOption, CLIContext, end_on_signals, working_directory
from pyceleryc.exceptions import ImproperlyConfigured, QueueNotFound
from pyceleryc.loaders import get_loader_cls

__all__ = ('main', 'celery')

#: The commands, and the modules that have them: each is imported when it is wanted, for most of them are slow to load.
_COMMANDS = {
    'amqp': 'amqp', 'beat': 'beat', 'call': 'call', 'control': 'control', 'events': 'events', 'graph': 'graph', 'inspect': 'control',
    'list': 'list:list_', 'logtool': 'logtool', 'migrate': 'migrate', 'multi': 'multi', 'ping': 'ping', 'purge': 'purge',
    'report': 'report', 'result': 'result', 'shell': 'shell', 'status': 'control:status', 'upgrade': 'upgrade', 'worker': 'worker',
}
#: Other packages add commands under this name, Flower for example.
PLUGINS = 'celery.commands'
#: Global options that the settings read from the environment, children included.
_ENVIRONMENT = {
    'loader': 'CELERY_LOADER', 'broker': 'CELERY_BROKER_URL', 'result_backend': 'CELERY_RESULT_BACKEND',
    'config': 'CELERY_CONFIG_MODULE',
}


class CommandGroup(click.Group):
    """The commands, ours and those of other packages."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        """Keep the arguments, a detached worker is started with them again; *obj* is the app to use, if any."""
        context = CLIContext(list(args), working_directory(), extra.pop('obj', None))
        return super().make_context(info_name, args, parent, obj=context, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what settings lack, and what the broker or a queue is not fit for, is told without a traceback."""
        try:
            return super().invoke(ctx)
        except (ImproperlyConfigured, KombuError, QueueNotFound) as exc:
            raise click.ClickException(str(exc.args[0]) if exc.args else repr(exc)) from exc

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*_COMMANDS, *super().list_commands(ctx), *(plugin.name for plugin in _plugins())})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command called *cmd_name*, ours or another package's."""
        return super().get_command(ctx, cmd_name) or _own(cmd_name) or _plugin(cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command; suggest another if there is none of that name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            from difflib import get_close_matches  # slow to load

            close = get_close_matches(args[0], self.list_commands(ctx), 3, 0.6)
            if close:
                exc.message = f"No such command {args[0]!r}.\n\nDid you mean {' or '.join(close)}?"  # type: ignore[misc]
            raise


def _own(name: str) -> click.Command | None:
    if name not in _COMMANDS:
        return None
    module, _, attribute = _COMMANDS[name].partition(':')
    found: click.Command = getattr(import_module(f'pyceleryc.bin.{module}'), attribute or name)
    return found


def _plugins() -> list[EntryPoint]:
    return list(entry_points(group=PLUGINS))


def _plugin(name: str) -> click.Command | None:
    """Import the command of another package; one that is broken hides no other."""
    for plugin in _plugins():
        if plugin.name == name:
            try:
                found: click.Command = plugin.load()
            except Exception as exc:
                warnings.warn(f'Cannot load the command {name!r} from {plugin.value!r}: {exc!r}', stacklevel=2)
                return None
            return found
    return None


def _load_app(name: str, ctx: click.Context) -> Any:
    """Return the app that ``-A`` names; say what is wrong in a line unless it is inside the module."""
    try:
        found = find_app(name)
    except Exception as exc:
        reason = find_app_error(name, exc)
        if reason is None:
            traceback.print_exc()
            reason = f'\nUnable to load celery application.\nWhile importing {name}: {exc!r}'
        raise click.UsageError(reason, ctx) from exc
    if not hasattr(found, 'user_options'):
        raise click.UsageError(f'\nUnable to load celery application.\n{name} is no app, but {found!r}.', ctx)
    return found


def _look_for_modules(ctx: click.Context, config: str | None, loader: str | None) -> None:
    """What would be imported much later, from within the app, is looked for here.

    :raises UsageError: there is no such module, or it cannot be imported.
    """
    for option, name, look in (('--config', config, _find_module), ('--loader', loader, get_loader_cls)):
        try:
            if name:
                look(name)
        except (ImportError, AttributeError, ValueError) as exc:
            raise click.UsageError(f'{option} {name}: {exc}', ctx) from exc


def _find_module(name: str) -> None:
    if find_spec(name) is None:
        raise ModuleNotFoundError(f'No module named {name!r}')


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f'{__version__} ({_release()})')
        ctx.exit()


def _release() -> str:
    try:
        return f'{SERIES} {package_version(SERIES)}'
    except PackageNotFoundError:
        # Run from the sources, without being installed.
        return SERIES


def _option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=CeleryOption, help_group='Global Options', **attributes)


@click.group(name='celery', cls=CommandGroup, invoke_without_command=True,
             context_settings={'auto_envvar_prefix': 'CELERY', 'max_content_width': 100})
@_option('-A', '--app', envvar=['CELERY_APP', 'APP'], help='The app: module, package or module:attribute.')
@_option('-b', '--broker', envvar=['CELERY_BROKER', 'BROKER_URL'], help='URL of the broker.')
@_option('--result-backend', envvar=['CELERY_RESULT_BACKEND', 'RESULT_BACKEND'], help='URL of the result backend.')
@_option('--loader', envvar=['CELERY_LOADER', 'LOADER'], help='Loader class of the app.')
@_option('--config', envvar=['CELERY_CONFIG', 'CONFIG_MODULE'], help='Module with the settings.')
@_option('--workdir', type=click.Path(exists=True, file_okay=False), help='Change to this directory first.')
@_option('-C', '--no-color', is_flag=True, help='Print without colours.')
@_option('-q', '--quiet', is_flag=True, help='Print less.')
@_option('--version', is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
         help='Show the version and exit.')
@_option('--skip-checks', is_flag=True,
         help='Do not run the checks of Django at the start.')
@click.pass_context  # type: ignore[arg-type]
def main(ctx: click.Context, app: str | None, workdir: str | None, no_color: bool, quiet: bool,
         skip_checks: bool, **settings: str | None) -> None:
    """Run workers, and look after tasks and queues."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()
    if ctx.invoked_subcommand in ('worker', 'beat'):
        end_on_signals()
    if workdir:
        os.chdir(workdir)
    if (directory := working_directory()) not in sys.path:
        # For good: tasks may import modules of the project when they run.
        sys.path.insert(0, directory)
    _look_for_modules(ctx, settings['config'], settings['loader'])
    if skip_checks or os.environ.get('SKIP_CHECKS'):
        os.environ['CELERY_SKIP_CHECKS'] = 'true'
    # By the environment, so that it also reaches apps that are made later and child processes.
    os.environ.update((_ENVIRONMENT[key], value) for key, value in settings.items() if value)
    ctx.obj.workdir, ctx.obj.quiet = workdir, quiet
    # Any value of the variable counts (no-color.org), so it is no boolean option of click.
    ctx.obj.no_color = no_color or bool(os.environ.get('NO_COLOR'))
    ctx.obj.app = _load_app(app, ctx) if app else ctx.obj.app or get_current_app()


celery = main
