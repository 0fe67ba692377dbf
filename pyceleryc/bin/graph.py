"""``pyceleryc graph``: pictures for Graphviz, ``pyceleryc -A proj graph workers | dot -Tsvg >workers.svg``."""
from __future__ import annotations

import sys
from typing import Any

import click
from kombu.exceptions import OperationalError

from pyceleryc.app.drivers import broker_urls
from pyceleryc.bin.base import CeleryCommand, handle_preload_options
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.platforms import EX_UNAVAILABLE
from pyceleryc.utils.graph import DependencyGraph, GraphFormatter
from pyceleryc.utils.imports import symbol_by_name
from pyceleryc.utils.url import hide_password

__all__ = ('graph',)

#: Imported when they are drawn: they are slow to load.
BLUEPRINTS = {'worker': 'pyceleryc.worker.components:Blueprint', 'consumer': 'pyceleryc.worker.consumer.consumer:Blueprint'}
#: So many processes of a worker get a node each.
MOST_THREADS = 6


@click.group('graph')
@click.pass_context
@handle_preload_options
def graph(ctx: click.Context) -> None:
    """Draw bootsteps or workers, in the language of Graphviz."""


# -- bootsteps ----------------------------------------------------------------------------------

class _Steps(GraphFormatter):
    """A step is shown by its short name."""

    def label(self, obj: Any) -> str:
        """Return the short name."""
        return str(obj.label or obj.__name__)

    def draw_node(self, obj: Any, scheme: Any = None, attrs: Any = None) -> str:
        """Give special steps a shape of their own."""
        shape: dict[str, Any] = {'shape': 'parallelogram'} if obj.last else {'style': 'filled,dashed'} if obj.conditional else {}
        return super().draw_node(obj, scheme, {**shape, **(attrs or {})})


@graph.command(cls=CeleryCommand)
@click.argument('which', nargs=-1, type=click.Choice(sorted(BLUEPRINTS)))
@click.pass_context
def bootsteps(ctx: click.Context, which: tuple[str, ...]) -> None:
    """Draw the steps of the worker, of its consumer, or of both: each comes after those it points to."""
    drawn = DependencyGraph(formatter=_Steps())
    try:
        for kind in which or ('worker', 'consumer'):
            blueprint = symbol_by_name(BLUEPRINTS[kind])(steps=ctx.obj.app.steps[kind])
            for cls, required in blueprint.dependencies().items():
                for step in (cls, *required):
                    drawn.add_arc(step)
                for step in required:
                    drawn.add_edge(cls, step)
    except ImproperlyConfigured as exc:
        raise click.ClickException(str(exc)) from exc
    drawn.to_dot(sys.stdout)


# -- workers ------------------------------------------------------------------------------------

class _Fleet(GraphFormatter):
    """Nodes are (kind, name)."""

    styles: dict[str, dict[str, Any]] = {
        'broker': {'shape': 'cylinder', 'fillcolor': 'khaki'},
        'backend': {'shape': 'folder', 'fillcolor': 'wheat'},
        'worker': {'fillcolor': 'lightblue'},
        'process': {'shape': 'ellipse', 'fillcolor': 'whitesmoke', 'fontsize': 10},
    }

    def label(self, obj: tuple[str, str]) -> str:
        """Return the name."""
        return obj[1].replace('"', "'")

    def draw_node(self, obj: Any, scheme: Any = None, attrs: Any = None) -> str:
        """Draw it as its kind."""
        return super().draw_node(obj, scheme, {**self.styles[obj[0]], **(attrs or {})})


@graph.command(cls=CeleryCommand)
@click.argument('what', nargs=-1, metavar='[nodes:A,B] [threads:3,4]')
@click.option('-t', '--timeout', type=float, default=1.0, show_default=True, help='Seconds to wait for the workers.')
@click.pass_context
def workers(ctx: click.Context, what: tuple[str, ...], timeout: float) -> None:
    """Draw the workers that answer, with broker and result backend; or those named, without asking anybody."""
    given = dict(_given(ctx, part) for part in what)
    fleet = _drawn_fleet(ctx, given) if 'nodes' in given else _asked_fleet(ctx, timeout)
    conf = ctx.obj.app.conf
    broker = ('broker', given.get('broker', [_shown(broker_urls(conf.broker_read_url)[0])])[0])
    backend = ('backend', given.get('backend', [_shown(conf.result_backend)])[0])
    drawn = DependencyGraph(formatter=_Fleet())
    drawn.add_arc(broker)
    for name, processes in fleet.items():
        node = ('worker', name)
        drawn.update([(node, [broker, backend] if backend[1] else [broker])])
        for process in processes:
            drawn.update([(('process', f'{name} {process}'), [node])])
    if backend[1]:
        drawn.add_arc(backend)
    drawn.to_dot(sys.stdout)


def _given(ctx: click.Context, part: str) -> tuple[str, list[str]]:
    name, colon, values = part.partition(':')
    if not colon or name not in ('nodes', 'threads', 'broker', 'backend'):
        raise click.UsageError(f'{part!r} is none of nodes:…, threads:…, broker:…, backend:…', ctx)
    return name, [values] if name in ('broker', 'backend') else [value.strip() for value in values.split(',') if value.strip()]


def _drawn_fleet(ctx: click.Context, given: dict[str, list[str]]) -> dict[str, list[str]]:
    counts = given.get('threads', [])
    if not all(count.isdigit() for count in counts) or len(counts) > len(given['nodes']):
        raise click.UsageError('threads: is a number for each of nodes:', ctx)
    return {name: _shortened([f'#{number}' for number in range(1, int(count) + 1)])
            for name, count in zip(given['nodes'], [*counts, *('0' for _ in given['nodes'])])}


def _asked_fleet(ctx: click.Context, timeout: float) -> dict[str, list[str]]:
    try:
        stats = ctx.obj.app.control.inspect(timeout=timeout).stats()
    except (OperationalError, OSError, ImproperlyConfigured) as exc:
        raise click.ClickException(f'cannot reach the workers: {exc}') from exc
    if not stats:
        ctx.obj.error('No nodes replied within time constraint', fg='red')
        ctx.exit(EX_UNAVAILABLE)
    return {name: _shortened([f'pid {pid}' for pid in (found.get('pool') or {}).get('processes') or ()])
            for name, found in sorted(stats.items())}


def _shortened(processes: list[str]) -> list[str]:
    if len(processes) <= MOST_THREADS:
        return processes
    return [*processes[:MOST_THREADS - 1], f'and {len(processes) - MOST_THREADS + 1} more']


def _shown(url: Any) -> str:
    return hide_password(url) if url else ''
