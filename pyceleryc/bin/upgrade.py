"""``pyceleryc upgrade``: old names of settings become the new ones."""
from __future__ import annotations

import io
import os
import re
import shutil
import tokenize
from collections.abc import Callable, Iterable, Iterator

from typing import Any

import click

from pyceleryc.app.defaults import _TO_NEW_KEY
from pyceleryc.bin.base import CeleryCommand, CeleryOption, handle_preload_options

__all__ = ('mentions', 'renamed', 'upgrade')

#: f-strings are taken apart from Python 3.12 on.
_TEXTS = (tokenize.STRING, getattr(tokenize, 'FSTRING_MIDDLE', tokenize.STRING))


@click.group('upgrade')
@click.pass_context
@handle_preload_options
def upgrade(ctx: click.Context) -> None:
    """Bring a project up to date."""


def _option(*names: str, text: str) -> Callable[[Any], Any]:
    return click.option(*names, cls=CeleryOption, is_flag=True, help_group='Upgrading Options', help=text)


@upgrade.command(cls=CeleryCommand)
@click.argument('filename', type=click.Path(exists=True, dir_okay=False, writable=True))
@_option('--django', text="The settings are Django's: use upper case and the prefix CELERY_.")
@_option('--compat', text='The same, so that an old Celery can read them, too.')
@_option('--no-backup', text='Do not keep the old file as FILENAME.orig.')
@click.pass_context
@handle_preload_options
def settings(ctx: click.Context, filename: str, django: bool, compat: bool, no_backup: bool) -> None:
    """Rename the settings in the Python file FILENAME: CELERYD_CONCURRENCY becomes worker_concurrency.

    Only names in the code are changed, no texts and no comments.
    """
    ctx.obj.echo(f'processing {filename}...')
    names = {old: f'CELERY_{new.upper()}' if django or compat else new for old, new in _TO_NEW_KEY.items()}
    try:
        with tokenize.open(filename) as file:
            source, encoding = file.read(), file.encoding
        text, changed = renamed(source, names)
        if not changed:
            ctx.obj.echo('There is nothing to rename.')
            return
        if not no_backup:
            ctx.obj.echo(f'writing backup to {filename}.orig...')
            shutil.copy2(filename, f'{filename}.orig')
        _replace(filename, text, encoding)
    except (SyntaxError, tokenize.TokenError) as exc:
        raise click.ClickException(f'{filename} is no Python: {exc}') from exc
    except OSError as exc:
        raise click.ClickException(f'cannot upgrade {filename}: {exc}') from exc
    for old, new in changed.items():
        ctx.obj.echo(f'  {old} -> {new}')
    for line, old in mentions(text, changed):
        ctx.obj.secho(f'{filename}:{line}: a text mentions {old}, and was left as it is.', fg='yellow')


def renamed(source: str, names: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return Python *source* with names exchanged, and those that were.

    :raises SyntaxError: it is no Python; tokenize.TokenError, it ends too early.
    """
    lines, changed = source.splitlines(keepends=True), {}
    # From the end, so that positions stay true.
    for token in reversed(list(_names(source))):
        new = names.get(token.string)
        if new and new != token.string:
            row, column = token.start[0] - 1, token.start[1]
            lines[row] = lines[row][:column] + new + lines[row][column + len(token.string):]
            changed[token.string] = new
    return ''.join(lines), dict(reversed(changed.items()))


def mentions(source: str, names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of texts with one of *names*: f-strings, or keys that somebody looks up."""
    wanted = re.compile('|'.join(rf'\b{re.escape(name)}\b' for name in names))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _TEXTS and (found := wanted.search(token.string)):
            yield token.start[0], found[0]


def _names(source: str) -> Iterator[tokenize.TokenInfo]:
    """Yield names that are no attributes of something."""
    after_dot = False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and not after_dot:
            yield token
        after_dot = token.string == '.'


def _replace(filename: str, text: str, encoding: str) -> None:
    """Write the file so that it is whole at every moment."""
    draft = f'{filename}.new'
    try:
        with open(draft, 'w', encoding=encoding, newline='') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(filename, draft)
        os.replace(draft, filename)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
