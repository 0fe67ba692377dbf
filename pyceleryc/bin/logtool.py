"""``pyceleryc logtool``: what the log files of workers tell about tasks."""
from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import click
from kombu.utils.json import dumps

from pyceleryc.bin.base import CeleryCommand, CeleryOption, handle_preload_options

__all__ = ('Audit', 'Record', 'logtool', 'records')

#: The worker's log format, of ours and of Celery's (T-090).
_HEAD = re.compile(r'^\[(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}): (?P<level>[A-Z]+)/(?P<process>[^\]]+)\] (?P<text>.*)')
_TASK = re.compile(r'Task (?P<name>\S+?)\[(?P<id>[^\]]+)\] (?P<what>\w+)(?: in (?P<seconds>[\d.e+-]+)s)?')
#: What became of a task, by the word after its id.
ENDS = {'succeeded': 'succeeded', 'raised': 'failed', 'INTERNAL': 'failed', 'retry': 'retried', 'ignored': 'ignored',
        'reject': 'rejected', 'rejected': 'rejected', 'cancelled': 'cancelled'}
#: Entries of the main process, about tasks that did not end in theirs.
_FATES = (
    ('revoked', re.compile(r'Discarding revoked task: (?P<name>\S+?)\[(?P<id>[^\]]+)\]')),
    ('failed', re.compile(r'Hard time limit \(\S+\) exceeded for (?P<name>\S+?)\[(?P<id>[^\]]+)\]')),
    ('failed', re.compile(r'Task handler raised error: (?P<name>\S+?)\[(?P<id>[^\]]+)\]')),
)
SEVERE = ('ERROR', 'CRITICAL', 'FATAL')


@dataclass
class Record:
    """One entry of a log: its first line, and those that belong to it."""

    lines: list[str]
    level: str = ''
    text: str = ''

    @property
    def known(self) -> bool:
        """Whether it is written in the worker's format."""
        return bool(self.level)


def records(lines: Iterable[str]) -> Iterator[Record]:
    """Split a log into its entries; what comes before the first one is an entry without level."""
    current: Record | None = None
    for line in lines:
        head = _HEAD.match(line)
        if head is None and current is not None:
            current.lines.append(line)
            continue
        if current is not None:
            yield current
        current = Record([line], head['level'], head['text']) if head else Record([line])
    if current is not None:
        yield current


def _about(record: Record) -> tuple[re.Match[str], str] | None:
    """Return (name, id …; what became of it) for an entry about a single task."""
    found = _TASK.match(record.text)
    if found is not None:
        return found, ENDS.get(found['what'], found['what'])
    for how, pattern in _FATES:
        found = pattern.match(record.text)
        if found is not None:
            return found, how
    return None


@dataclass
class _Life:
    """One task."""

    name: str
    received: int = 0
    retried: int = 0
    end: str = ''

    @property
    def incomplete(self) -> bool:
        return self.received > self.retried and not self.end


@dataclass
class Audit:
    """Counts over many entries, in whatever order they come: the files of one worker are several."""

    lives: dict[str, _Life] = field(default_factory=dict)
    #: (sum, number) of the run times by name.
    times: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Look at one entry."""
        about = _about(record)
        if about is None:
            return
        found, how = about
        life = self.lives.setdefault(found['id'], _Life(found['name']))
        if how == 'received':
            life.received += 1
        elif how == 'retried':
            life.retried += 1
        elif how in ENDS.values() or how == 'revoked':
            life.end = how
        if how == 'succeeded' and found['seconds']:
            total, number = self.times.get(life.name, (0.0, 0))
            self.times[life.name] = total + float(found['seconds']), number + 1

    @property
    def incomplete(self) -> list[str]:
        """Ids of the tasks that were received and did not come to an end."""
        return [task_id for task_id, life in self.lives.items() if life.incomplete]

    def report(self) -> dict[str, Any]:
        """Return all counts, of tasks and not of their attempts."""
        ends = Counter(life.end for life in self.lives.values() if life.end)
        names = Counter(life.name for life in self.lives.values())
        return {
            'total': len(self.lives), 'completed': sum(ends.values()), 'success': ends['succeeded'],
            'errors': ends['failed'], 'retried': sum(life.retried for life in self.lives.values()),
            'incomplete': len(self.incomplete),
            'tasks': {name: {'total': count, 'seconds': self._average(name)} for name, count in names.most_common()},
        }

    def _average(self, name: str) -> float | None:
        total, number = self.times.get(name, (0.0, 0))
        return round(total / number, 6) if number else None


@click.group('logtool')
@click.pass_context
@handle_preload_options
def logtool(ctx: click.Context) -> None:
    """Look into log files of workers, or into what is piped in."""


_FILES = click.argument('files', nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True))


def _read(files: tuple[str, ...]) -> Iterator[Record]:
    for name in files or ('-',):
        if name == '-':
            yield from records(sys.stdin)
            continue
        try:
            with open(name, encoding='utf-8', errors='replace') as file:
                yield from records(file)
        except OSError as exc:
            raise click.ClickException(f'cannot read {name}: {exc}') from exc


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line.rstrip('\n'))


@logtool.command(cls=CeleryCommand)
@_FILES
@click.option('-j', '--json', 'as_json', cls=CeleryOption, is_flag=True, help='Print JSON.')
@click.pass_context
def stats(ctx: click.Context, files: tuple[str, ...], as_json: bool) -> None:
    """Count the tasks."""
    audit = Audit()
    for record in _read(files):
        audit.add(record)
    report = audit.report()
    if as_json:
        ctx.obj.echo(dumps(report))
        return
    for title in ('total', 'completed', 'success', 'errors', 'retried', 'incomplete'):
        ctx.obj.echo(f'Task {title}: {report[title]}')
    ctx.obj.echo('\n   Tasks  Seconds each  Name')
    for name, row in report['tasks'].items():
        seconds = '' if row['seconds'] is None else f'{row["seconds"]:.6f}'
        ctx.obj.echo(f'{row["total"]:>8}  {seconds:>12}  {name}')


@logtool.command(cls=CeleryCommand)
@_FILES
def traces(files: tuple[str, ...]) -> None:
    """Print the errors that have a traceback."""
    for record in _read(files):
        if any(line.startswith('Traceback (') for line in record.lines):
            _show(record.lines)


@logtool.command(cls=CeleryCommand)
@_FILES
def errors(files: tuple[str, ...]) -> None:
    """Print the first line of every error."""
    _show(record.lines[0] for record in _read(files) if record.level in SEVERE)


@logtool.command(cls=CeleryCommand)
@_FILES
def incomplete(files: tuple[str, ...]) -> None:
    """Print the ids of tasks that were received and did not end."""
    audit = Audit()
    for record in _read(files):
        audit.add(record)
    _show(f'Did not complete: {task_id}' for task_id in audit.incomplete)


@logtool.command(cls=CeleryCommand)
@_FILES
def debug(files: tuple[str, ...]) -> None:
    """Print what is not about a single task: starts, connections, prints."""
    for record in _read(files):
        if _about(record) is None:
            _show(record.lines)
