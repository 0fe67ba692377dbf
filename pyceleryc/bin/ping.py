"""``pyceleryc ping``: is a worker alive?  For health checks, which run often."""
from __future__ import annotations

import click
from kombu.exceptions import OperationalError

from pyceleryc._ping import TIMEOUT, VARIABLES, report
from pyceleryc.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, Unreachable, handle_preload_options
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.platforms import EX_UNAVAILABLE

__all__ = ('ping',)


@click.command('ping', cls=CeleryCommand)
@click.option('--http-address', cls=CeleryOption, envvar=list(VARIABLES), metavar='HOST:PORT', help_group='Ping Options',
              help="The worker's; default: the environment's, or the setting worker_http_address.")
@click.option('--ready', cls=CeleryOption, is_flag=True, help_group='Ping Options',
              help='Ask whether it consumes from its broker, too.')
@click.option('-t', '--timeout', cls=CeleryOption, type=float, default=TIMEOUT, show_default=True, help_group='Ping Options',
              help='Seconds to wait for the answer.')
@click.option('-d', '--destination', cls=CeleryOption, type=COMMA_SEPARATED_LIST, help_group='Ping Options',
              help='Ask these nodes through the broker; without an HTTP address all are asked.')
@click.pass_context
@handle_preload_options
def ping(ctx: click.Context, http_address: str | None, ready: bool, timeout: float,
         destination: list[str] | None) -> None:
    """Tell whether a worker is alive; exit code 69 if not.

    With an HTTP address this takes no more than starting Python does; by the broker the app has to be loaded.
    """
    address = None if destination else http_address or ctx.obj.app.conf.worker_http_address
    if address:
        ctx.exit(report(address, ready, timeout))
    if ready:
        raise click.UsageError('--ready needs the HTTP address of the worker (--http-address)', ctx)
    ctx.exit(_by_broker(ctx, timeout, destination))


def _by_broker(ctx: click.Context, timeout: float, destination: list[str] | None) -> int:
    try:
        # The first answer will do, unless several nodes are asked.
        replies = ctx.obj.app.control.ping(destination=destination, timeout=timeout, limit=len(destination or (None,)))
    except (OperationalError, OSError, ImproperlyConfigured) as exc:
        raise Unreachable(f'cannot reach the workers: {exc}') from exc
    answered = sorted(name for reply in replies or () for name in reply)
    for name in answered:
        ctx.obj.echo(f'{name}: ok')
    missing = sorted(set(destination or ()) - set(answered))
    if answered and not missing:
        return 0
    ctx.obj.error(f'No reply within {timeout:g} s' + (f': {", ".join(missing)}' if missing else ''))
    return int(EX_UNAVAILABLE)
