"""Several workers of one host: which there are, how each is started, what became of it (FEATURES 2.14, multi)."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pyceleryc.platforms import Pidfile, parse_gid, parse_uid
from pyceleryc.utils.nodenames import gethostname, host_format, nodename, nodesplit
from pyceleryc.utils.text import simple_format

__all__ = ('Arguments', 'Cluster', 'Node', 'parse')

PIDFILE = '/var/run/celery/%n.pid'
LOGFILE = '/var/log/celery/%n%I.log'
PREFIX = 'celery'
#: Seconds between looks at processes that are to end.
POLL = 0.1


@dataclass
class Arguments:
    """A command line: names of nodes, options of all of them and of some, what follows ``--``."""

    names: list[str] = field(default_factory=list)
    options: dict[str, str | None] = field(default_factory=dict)
    #: (which nodes, option, value), in the order given.
    some: list[tuple[str, str, str | None]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)

    def take(self, *names: str) -> str | None:
        """Remove an option, which may have several names; return its value, '' for a flag, None if it is not there."""
        found = [self.options.pop(name) for name in names if name in self.options]
        return None if not found else found[-1] or ''

    def peek(self, *names: str) -> str | None:
        """Return the value of an option that stays, or None."""
        return next((self.options[name] for name in reversed(names) if name in self.options), None)


def parse(argv: Iterable[str], takes_value: Callable[[str], bool | None]) -> Arguments:
    """Take a command line apart.

    :param takes_value: tells of an option whether a value follows; None if it does not know that option: then one
        follows a short option, unless it looks like an option itself.
    :raises ValueError: an option lacks its value.
    """
    found, left = Arguments(), list(argv)
    while left:
        argument = left.pop(0)
        if argument == '--':
            found.rest = left
            break
        if not argument.startswith('-') or argument == '-':
            found.names.append(argument)
            continue
        name, which, value = _split(argument, takes_value)
        if value is None and _value_follows(name, left, takes_value(name)):
            if not left:
                raise ValueError(f'option {name} needs a value')
            value = left.pop(0)
        if which is None:
            found.options[name] = value
        else:
            found.some.append((which, name, value))
    return found


def _split(argument: str, takes_value: Callable[[str], bool | None]) -> tuple[str, str | None, str | None]:
    """Return (option, for which nodes, value) of ``-c:1-3``, ``--queues:1=a``, ``-c3`` or ``-E``."""
    if not argument.startswith('--') and len(argument) > 2 and argument[2] != ':' and takes_value(argument[:2]):
        return argument[:2], None, argument[2:]
    head, equals, value = argument.partition('=')
    name, colon, which = head.partition(':')
    return name, which if colon else None, value if equals else None


def _value_follows(name: str, left: list[str], known: bool | None) -> bool:
    if known is None:
        return not name.startswith('--') and bool(left) and not left[0].startswith('-')
    return known


class Node:
    """One worker: how it is started, and its process.

    :param name: ``name@host``.
    :param options: those of the worker; *leading* come before the word ``worker``, *rest* at the end.
    :param command: words between the interpreter and the options; ``{leading}`` stands for those options.
    """

    def __init__(self, name: str, options: dict[str, str | None], leading: dict[str, str | None] | None = None,
                 rest: Iterable[str] = (), command: list[str] | None = None) -> None:
        self.name = name
        self.shortname = nodesplit(name)[0] or name
        options = dict(options)
        options.setdefault('--pidfile', PIDFILE)
        if '-f' not in options:
            options.setdefault('--logfile', LOGFILE)
        self.executable = options.pop('--executable', None) or sys.executable
        self.options = {key: value and self._expand_path(key, value) for key, value in options.items()}
        self.leading = dict(leading or {})
        self.rest = list(rest)
        self.command = command or ['-m', 'pyceleryc', '{leading}', 'worker', '--detach']

    def _expand_path(self, option: str, value: str) -> str:
        return self.expand(value) if option in ('--pidfile', '--logfile', '-f') else value

    def expand(self, template: str) -> str:
        """Replace ``%n %N`` (name), ``%h %p`` (whole name) and ``%d`` (domain); ``%i %I`` stay for the worker."""
        host = nodesplit(self.name)[1]
        keys = {'n': self.shortname, 'N': self.shortname, 'h': self.name, 'p': self.name,
                'd': host.partition('.')[2] or host, 'i': '%i', 'I': '%I'}
        return str(simple_format(template, keys))

    @property
    def argv(self) -> list[str]:
        """The command line of the worker."""
        words: list[str] = [self.executable]
        for word in self.command:
            words += _spell(self.leading) if word == '{leading}' else [word]
        words += [*_spell(self.options), '-n', self.name, f'--executable={self.executable}']
        return [*words, '--', *self.rest] if self.rest else words

    def start(self) -> int:
        """Start it in the background; return the exit code of the attempt, 0 if it runs.

        :raises OSError: there is no such program, or a directory cannot be made.
        """
        self._make_directories()
        return subprocess.call(self.argv)

    def _make_directories(self) -> None:
        for option in ('--pidfile', '--logfile', '-f'):
            directory = os.path.dirname(self.path(self.options.get(option) or ''))
            if directory and not os.path.isdir(directory):
                os.makedirs(directory)
                self._give_away(directory)

    def _give_away(self, directory: str) -> None:
        """The worker writes there as the user that it becomes."""
        uid, gid = self.options.get('--uid'), self.options.get('--gid')
        if os.geteuid() == 0 and (uid or gid):
            os.chown(directory, parse_uid(uid) if uid else -1, parse_gid(gid) if gid else -1)

    def path(self, name: str) -> str:
        """Return *name* as the worker sees it, from its working directory."""
        return os.path.join(self.leading.get('--workdir') or '', name) if name else ''

    @property
    def pid(self) -> int | None:
        """Process id in the pidfile if that process is there, or None."""
        try:
            pid = Pidfile(self.path(self.options['--pidfile'] or '')).read_pid()
        except (ValueError, OSError):
            return None
        return pid if pid and is_running(pid) else None

    def send(self, signum: int) -> bool:
        """Send a signal; tell whether there was somebody to get it.  :raises PermissionError: it is another user's."""
        pid = self.pid
        try:
            if pid:
                os.kill(pid, signum)
        except ProcessLookupError:
            return False
        return pid is not None

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f'<Node: {self.name}>'


def _spell(options: dict[str, str | None]) -> Iterator[str]:
    for name, value in options.items():
        if value is None:
            yield name
        elif name.startswith('--'):
            yield f'{name}={value}'
        else:
            yield from (name, value)


def is_running(pid: int) -> bool:
    """Tell whether a process is there and has not ended: in a container nobody may bury the dead."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f'/proc/{pid}/stat', 'rb') as file:
            return file.read().rpartition(b')')[2].split()[0] not in (b'Z', b'X')
    except OSError:
        return True


class Cluster(list[Node]):
    """The nodes of one command line."""

    @classmethod
    def of(cls, arguments: Arguments, is_leading: Callable[[str], bool],
           leading: dict[str, str | None] | None = None, command: list[str] | None = None) -> Cluster:
        """Make the nodes that *arguments* name, a number standing for so many.

        :param is_leading: whether an option belongs before the word ``worker``; *leading* are further ones.
        :raises ValueError: there is no node, or an option is for one that does not exist.
        """
        prefix = arguments.take('--range-prefix') or PREFIX
        suffix = arguments.take('-n', '--hostname')
        given = _node_range(arguments.names, prefix)
        if not given:
            raise ValueError('name the nodes, or say how many: pyceleryc multi start w1 w2, pyceleryc multi start 3')
        names = [_full_name(name, suffix) for name in given]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f'{", ".join(doubled)}: every node needs a name of its own')
        own: list[dict[str, str | None]] = [dict(arguments.options) for _ in names]
        for which, option, value in arguments.some:
            for index in _select(which, names):
                own[index][option] = value
        nodes = cls()
        for name, options in zip(names, own):
            before = {key: options.pop(key) for key in list(options) if is_leading(key)}
            nodes.append(Node(name, options, {**(leading or {}), **before}, arguments.rest, command))
        return nodes

    def find(self, name: str) -> Node | None:
        """Return the node with this short or whole name."""
        return next((node for node in self if name in (node.name, node.shortname)), None)

    def wait(self, pids: dict[Node, int], tick: Callable[[], None]) -> Iterator[Node]:
        """Yield each node when its process has ended; call *tick* about every second."""
        waiting, next_tick = dict(pids), time.monotonic() + 1
        while waiting:
            for node in [node for node, pid in waiting.items() if not is_running(pid)]:
                del waiting[node]
                yield node
            if waiting:
                time.sleep(POLL)
            if time.monotonic() >= next_tick:
                next_tick += 1
                tick()


def _node_range(names: list[str], prefix: str) -> list[str]:
    if len(names) == 1 and names[0].isdigit():
        return [f'{prefix}{number}' for number in range(1, int(names[0]) + 1)]
    return names


def _full_name(name: str, suffix: str | None) -> str:
    short, host = nodesplit(name)
    if short is None:
        short, host = name, nodesplit(suffix)[1] if suffix else gethostname()
    return str(host_format(nodename(short, host)))


def _select(which: str, names: list[str]) -> list[int]:
    """Return the indexes that ``1,3-5,image`` means; ``3-`` goes to the end."""
    found: list[int] = []
    for part in filter(None, (part.strip() for part in which.split(','))):
        first, dash, last = part.partition('-')
        by_name = [index for index, name in enumerate(names) if part in (name, nodesplit(name)[0])]
        if by_name:
            found += by_name
        elif first.isdigit() and (not dash or not last or last.isdigit()):
            low, high = int(first), int(last or len(names)) if dash else int(first)
            if not 1 <= low <= high <= len(names):
                raise ValueError(f'there is no node {part}: they are numbered from 1 to {len(names)}')
            found += range(low - 1, high)
        else:
            known = ', '.join(nodesplit(name)[0] or name for name in names)
            raise ValueError(f'there is no node {part!r}, only {known}')
    return found


def signal_of(argument: str) -> int | None:
    """Return the signal that ``-9``, ``-TERM`` or ``-SIGTERM`` means, or None."""
    word = argument[1:]
    if not argument.startswith('-') or not word:
        return None
    if word.isdigit():
        return int(word) if int(word) in signal.valid_signals() else None
    name = word if word.startswith('SIG') else f'SIG{word}'
    found = getattr(signal, name, None) if '_' not in name else None
    return int(found) if isinstance(found, signal.Signals) else None
