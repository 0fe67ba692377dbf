"""``pyceleryc report``."""
from __future__ import annotations

import click

from pyceleryc.bin.base import CeleryCommand, handle_preload_options

__all__ = ('report',)


@click.command('report', cls=CeleryCommand)
@click.pass_context
@handle_preload_options
def report(ctx: click.Context) -> None:
    """Print what a bug report should tell: versions, platform, settings without secrets."""
    ctx.obj.app.loader.import_default_modules()
    ctx.obj.echo(ctx.obj.app.bugreport())
