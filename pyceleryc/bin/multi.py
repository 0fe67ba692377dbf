"""``pyceleryc multi``: start, stop and restart several workers of this host."""
from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from pyceleryc import VERSION_BANNER
from pyceleryc.apps.multi import Arguments, Cluster, Node, parse, signal_of
from pyceleryc.bin.base import CeleryCommand, CLIContext, handle_preload_options
from pyceleryc.bin.worker import worker
from pyceleryc.platforms import EX_CANTCREAT, EX_FAILURE, EX_OK, signal_name

__all__ = ('multi',)

USAGE = """\
usage: multi start NODES [worker options]         start them in the background
       multi stop NODES [-SIG]                    send TERM, or another signal
       multi stopwait NODES [-SIG]                stop, and wait until they have ended
       multi restart NODES [-SIG] [worker options]
       multi kill NODES                           send KILL: their tasks are cut off

       multi show NODES [worker options]          print the commands that start would run
       multi get NAME NODES [worker options]      print the one of a single node
       multi names NODES                          print the names
       multi expand TEMPLATE NODES                replace %n, %h, %p, %d for each node
       multi help

NODES are names, or a number: 3 is celery1, celery2 and celery3.

options, after the command:
    --nosplash      do not print the version
    -q, --quiet     print errors only
    --verbose       print the commands that are run
    --no-color      print without colours
"""
HELP = f"""\
{USAGE}
Each node is a worker with a name of its own, which runs in the background. multi stop and restart find it
by its pidfile, so give them the same --pidfile as start, and restart all other options, too.

  --pidfile=FILE        default /var/run/celery/%n.pid
  --logfile=FILE        default /var/log/celery/%n%I.log
  -n, --hostname=HOST   host part of the names; default: this host
  --range-prefix=TEXT   names of numbered nodes begin with this instead of celery
  --executable=PYTHON   the interpreter
  --cmd=COMMAND         run this with the interpreter, instead of -m pyceleryc worker --detach
  --append=TEXT         more words at the end of every command

An option goes to all nodes. With :WHICH it goes to some, by number or name; it wins over that for all:

  pyceleryc multi start 10 -A proj -l INFO -c 4 -Q:1-3 images,video -Q:4,5 data -Q default -l:4-5 DEBUG
  pyceleryc multi start image video data -A proj -c:image 10 --time-limit:data,video=60
  pyceleryc multi restart 10 -A proj -l INFO -c 4 --pidfile=run/%n.pid --logfile=log/%n%I.log

Exit code: 0; 2 for a wrong command line; that of a node that could not be started (73: its pidfile is held), 1 if
several failed in different ways.
"""
COMMANDS = ('start', 'stop', 'stopwait', 'restart', 'kill', 'show', 'get', 'names', 'expand', 'help')
#: Options of our own.
OWN_VALUES = frozenset({'--range-prefix', '--cmd', '--append'})
OWN_FLAGS = ('--nosplash', '--quiet', '-q', '--verbose', '--no-color')


class _Raw(CeleryCommand):
    """Leaves its arguments as they are: options may name nodes, and most belong to the workers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep all."""
        ctx.args = list(args)
        return []

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the first word."""
        return [] if ctx.args else [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help."""
        formatter.write(HELP)


def _spelled(parameters: Iterable[click.Parameter]) -> dict[str, click.Option]:
    return {name: option for option in parameters if isinstance(option, click.Option)
            for name in (*option.opts, *option.secondary_opts)}


@click.command('multi', cls=_Raw)
@click.pass_context
@handle_preload_options
def multi(ctx: click.Context) -> None:
    """Start and stop several workers of this host."""
    given = ctx.args
    if not given or given[0] in ('help', '--help'):
        ctx.obj.echo(HELP if given else USAGE, nl=False)
        return
    command = getattr(_Multi, f'do_{given[0].replace("_verify", "wait")}', None)
    if command is None:
        raise click.UsageError(f'multi has no command {given[0]!r}.\n\n{USAGE}', ctx)
    try:
        code = command(_Multi(ctx), given[1:])
    except ValueError as exc:
        raise click.UsageError(str(exc), ctx) from exc
    except OSError as exc:
        ctx.obj.error(f'multi: {exc}')
        code = EX_CANTCREAT
    ctx.exit(code)


class _Multi:
    """The commands; each gets the arguments that follow its name and returns the exit code."""

    def __init__(self, ctx: click.Context) -> None:
        self.ctx = ctx
        self.out: CLIContext = ctx.obj
        self.quiet = self.out.quiet
        self.verbose = False
        root = ctx.find_root()
        self.root_options = _spelled(root.command.params)
        self.known = {**_spelled(worker.params), **self.root_options}
        self.leading = self._global_options(root)

    def _global_options(self, root: click.Context) -> dict[str, str | None]:
        """Options before the word multi are meant for the workers as well."""
        found: dict[str, str | None] = {}
        for option in root.command.params:
            source = root.get_parameter_source(option.name or '')
            if isinstance(option, click.Option) and source is click.core.ParameterSource.COMMANDLINE:
                found[option.opts[-1]] = None if option.is_flag else str(root.params[str(option.name)])
        return found

    # -- looking -----------------------------------------------------------------------------

    def do_show(self, argv: list[str]) -> int:
        """Print the commands."""
        for node in self._cluster(argv):
            self.out.echo(shlex.join(node.argv))
        return EX_OK

    def do_get(self, argv: list[str]) -> int:
        """Print the command of one node."""
        if not argv:
            raise ValueError('multi get needs the name of a node first')
        cluster = self._cluster(argv[1:])
        node = cluster.find(argv[0])
        if node is None:
            raise ValueError(f'there is no node {argv[0]!r}, only {", ".join(map(str, cluster))}')
        self.out.echo(shlex.join(node.argv[1:]))
        return EX_OK

    def do_names(self, argv: list[str]) -> int:
        """Print the names."""
        for node in self._cluster(argv):
            self.out.echo(node.name)
        return EX_OK

    def do_expand(self, argv: list[str]) -> int:
        """Print a template for each node."""
        if not argv:
            raise ValueError('multi expand needs a template first, such as %n.pid')
        for node in self._cluster(argv[1:]):
            self.out.echo(node.expand(argv[0]))
        return EX_OK

    # -- starting and stopping -----------------------------------------------------------------

    def do_start(self, argv: list[str]) -> int:
        """Start all."""
        cluster = self._cluster(argv)
        self._say('> Starting nodes...')
        return _exit_code([self._start(node, f'\t> {node}: ') for node in cluster])

    def do_stop(self, argv: list[str]) -> int:
        """Send a signal to all."""
        self._stop(*self._signalled(argv))
        return EX_OK

    def do_stopwait(self, argv: list[str]) -> int:
        """Stop, and wait."""
        cluster, signum = self._signalled(argv)
        self._await(cluster, self._stop(cluster, signum), lambda node: EX_OK)
        return EX_OK

    def do_restart(self, argv: list[str]) -> int:
        """Stop each, and start it when it has ended; those that are down are started."""
        cluster, signum = self._signalled(argv)
        stopped = self._stop(cluster, signum)
        codes = [self._restart(node) for node in cluster if node not in stopped]
        return _exit_code(codes + self._await(cluster, stopped, self._restart))

    def do_kill(self, argv: list[str]) -> int:
        """Send KILL to all."""
        self._stop(self._cluster(argv), signal.SIGKILL, 'Killing')
        return EX_OK

    def _start(self, node: Node, title: str) -> int:
        self._say(title, nl=False)
        if self.verbose:
            self._say(shlex.join(node.argv))
        code = node.start()
        if code:
            self.out.error(f'{node}: FAILED (exit code {code})', fg='red')
        else:
            self._say('OK', fg='green', bold=True)
        return code

    def _restart(self, node: Node) -> int:
        return self._start(node, f'> Restarting node {node}: ')

    def _stop(self, cluster: Cluster, signum: int, doing: str = 'Stopping') -> dict[Node, int]:
        """Signal those that run; return their process ids."""
        pids = {node: pid for node in cluster if (pid := node.pid) is not None}
        if pids:
            self._say(f'> {doing} nodes...', fg='blue', bold=True)
        for node in cluster:
            if node in pids and self._send(node, signum):
                self._say(f'\t> {node}: {signal_name(signum)} -> {pids[node]}')
            else:
                pids.pop(node, None)
                self._say(f'> {node}: ', nl=False)
                self._say('DOWN', fg='magenta', bold=True)
        return pids

    def _send(self, node: Node, signum: int) -> bool:
        try:
            return node.send(signum)
        except PermissionError as exc:
            raise click.ClickException(f'{node} belongs to another user: {exc}') from exc

    def _await(self, cluster: Cluster, pids: dict[Node, int], then: Callable[[Node], int]) -> list[int]:
        if not pids:
            return []
        listed = ', '.join(map(str, pids.values()))
        self._say(f'> Waiting for {len(pids)} node{"s" * (len(pids) > 1)} -> {listed}...', fg='blue', bold=True, nl=False)
        codes = []
        for node in cluster.wait(pids, lambda: self._say('.', nl=False)):
            self._say(f'\n\t> {node}: ', nl=False)
            self._say('OK', fg='green', bold=True)
            codes.append(then(node))
        return codes

    # -- command line ---------------------------------------------------------------------------

    def _signalled(self, argv: list[str]) -> tuple[Cluster, int]:
        found = [signum for word in argv if (signum := signal_of(word)) is not None]
        return self._cluster([word for word in argv if signal_of(word) is None]), (found or [signal.SIGTERM])[-1]

    def _cluster(self, argv: list[str]) -> Cluster:
        arguments = parse(argv, self._takes_value)
        self._take_flags(arguments)
        command, append = arguments.take('--cmd'), arguments.take('--append')
        arguments.rest += shlex.split(append or '')
        words = shlex.split(command) if command else None
        return Cluster.of(arguments, self.root_options.__contains__, self.leading, words)

    def _take_flags(self, arguments: Arguments) -> None:
        flags = {name: arguments.take(name) is not None for name in OWN_FLAGS}
        self.quiet = self.quiet or flags['--quiet'] or flags['-q']
        self.verbose = flags['--verbose']
        self.out.no_color = self.out.no_color or flags['--no-color']
        splash = self.ctx.args[0] in ('start', 'stop', 'stopwait', 'stop_verify', 'restart', 'kill')
        if splash and not flags['--nosplash']:
            self._say(f'celery multi v{VERSION_BANNER}', fg='cyan')

    def _takes_value(self, name: str) -> bool | None:
        if name in OWN_VALUES:
            return True
        if name in OWN_FLAGS:
            return False
        option = self.known.get(name)
        return None if option is None else not option.is_flag

    def _say(self, text: str, **style: Any) -> None:
        if not self.quiet:
            self.out.secho(text, **style)


def _exit_code(codes: list[int]) -> int:
    """All went well, or all that failed failed alike, or just a failure."""
    failed = {code if code > 0 else EX_FAILURE for code in codes if code}
    return failed.pop() if len(failed) == 1 else EX_FAILURE if failed else EX_OK
