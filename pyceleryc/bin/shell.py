"""``pyceleryc shell``."""
from __future__ import annotations

import code
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import click

from pyceleryc.bin.base import CeleryCommand, CeleryOption, handle_preload_options, not_yet

__all__ = ('shell',)

_CANVAS = ('AsyncResult', 'chain', 'chord', 'chunks', 'group', 'signature', 'xmap', 'xstarmap')


@click.command('shell', cls=CeleryCommand)
@click.option('-I', '--ipython', cls=CeleryOption, is_flag=True, help='Use IPython.')
@click.option('-B', '--bpython', cls=CeleryOption, is_flag=True, help='Use bpython.')
@click.option('--python', cls=CeleryOption, is_flag=True, help='Use the shell of Python.')
@click.option('-T', '--without-tasks', cls=CeleryOption, is_flag=True, help='Do not add the tasks to the names.')
@not_yet(['--eventlet'], 'there are no such pools yet', is_flag=True)
@not_yet(['--gevent'], 'there are no such pools yet', is_flag=True)
@click.pass_context
@handle_preload_options
def shell(ctx: click.Context, ipython: bool, bpython: bool, python: bool, without_tasks: bool) -> None:
    """Start an interactive Python with the app, its tasks and the canvas at hand."""
    app = ctx.obj.app
    app.loader.import_default_modules()
    names = _names(app, not without_tasks)
    asked = 'ipython' if ipython else 'bpython' if bpython else 'python' if python else None
    _start(asked or _best())(names)


def _names(app: Any, tasks: bool) -> dict[str, Any]:
    package = importlib.import_module('pyceleryc')
    result = importlib.import_module('pyceleryc.result')
    found = {name: getattr(package, name, None) or getattr(result, name) for name in _CANVAS}
    found.update(app=app, celery=app, Task=app.Task)
    if tasks:
        found.update((task.__name__, task) for task in app.tasks.values() if not task.name.startswith('celery.'))
    return found


def _best() -> str:
    return next((name for name, module in (('ipython', 'IPython'), ('bpython', 'bpython')) if find_spec(module)),
                'python')


def _start(name: str) -> Callable[[dict[str, Any]], None]:
    try:
        return {'ipython': _ipython, 'bpython': _bpython, 'python': _python}[name]()
    except ModuleNotFoundError as exc:
        raise click.UsageError(f'{exc.name} is not installed') from exc


def _ipython() -> Callable[[dict[str, Any]], None]:
    start = importlib.import_module('IPython').start_ipython
    return lambda names: start(argv=[], user_ns=names)


def _bpython() -> Callable[[dict[str, Any]], None]:
    embed = importlib.import_module('bpython').embed
    return lambda names: embed(locals_=names)


def _python() -> Callable[[dict[str, Any]], None]:
    return lambda names: code.interact(local=names, banner='Names: ' + ', '.join(sorted(names)))
