"""The worker as a program: logging, banner, pidfile, signals, exit codes (FEATURES §2.10)."""
from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from types import FrameType
from typing import Any

from pyceleryc import __version__, signals
from pyceleryc.app.utils import appstr
from pyceleryc.beat import EmbeddedService
from pyceleryc.exceptions import WorkerTerminate
from pyceleryc.platforms import (
    Pidfile,
    check_privileges,
    create_pidlock,
    isatty,
    set_mp_process_title,
    signal_name,
    strargv,
)
from pyceleryc.utils import systemd
from pyceleryc.utils.debug import cry
from pyceleryc.utils.log import in_sighandler, mlevel
from pyceleryc.utils.nodenames import node_format
from pyceleryc.worker.brokers import Brokers
from pyceleryc.worker.machine import WARM
from pyceleryc.worker.worker import EX_FAILURE, EX_OK, WorkController

__all__ = ('Worker',)

logger = logging.getLogger('celery.apps.worker')

AGAIN_COLD = 'worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!'
AGAIN_HARD = 'worker: Hitting Ctrl+C again will terminate all running tasks!'


def say(text: str, stream: Any = None) -> None:
    """Print *text* where the terminal is, from a signal handler too.

    The stream's buffer may be in use by the very code that the signal interrupted, so it is passed by.
    """
    stream = sys.__stdout__ if stream is None else stream
    try:
        os.write(stream.fileno(), f'\n{text}\n'.encode(errors='replace'))
    except (AttributeError, OSError, ValueError):
        # Nobody is there to read it, and a shutdown must not fail for that.
        return


class Worker(WorkController):
    """A worker that owns its process.

    :param loglevel: name or number; *logfile*: None is stderr; templates such as ``%n`` are replaced.
    :param pidfile: held while the worker runs; SystemExit(73) if another process holds it.
    :param redirect_stdouts: whether prints are logged, at *redirect_stdouts_level* (settings ``worker_redirect_*``).
    :param no_color: True leaves colours out; None decides by terminal.
    :param quiet: True leaves the banner out.
    :param beat: run beat in a process of its own, with *schedule_filename* and *scheduler*.

    The other parameters are those of WorkController.

    :raises SecurityError: it is run by root and accepts pickle (C-105).
    """

    def __init__(
        self, app: Any = None, hostname: str | None = None, *, loglevel: Any = 'WARNING',
        logfile: str | None = None, pidfile: str | None = None, redirect_stdouts: bool | None = None,
        redirect_stdouts_level: Any = None, no_color: bool | None = None, quiet: bool = False,
        beat: bool = False, schedule_filename: str | None = None, scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        self.loglevel = mlevel(loglevel)
        self._logfile, self._pidfile = logfile, pidfile
        self.pidlock: Pidfile | None = None
        self._redirect = (redirect_stdouts, redirect_stdouts_level)
        self.colorize = False if no_color else None
        self.quiet = quiet
        self.beat = beat
        self.schedule_filename, self.scheduler = schedule_filename, scheduler
        #: Set by SIGHUP: the program is to be started again after the shutdown.
        self.restart = False
        self._cold = False
        self._interrupted = False
        self._actions: dict[int, Callable[[int], None]] = {}
        self._arrived: list[int] = []
        self._handling = False
        self._options = {'loglevel': loglevel, 'logfile': logfile, 'pidfile': pidfile, 'beat': beat,
                         'schedule_filename': schedule_filename, 'scheduler': scheduler, 'no_color': no_color,
                         'quiet': quiet, **kwargs}
        super().__init__(app, hostname, **kwargs)
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=self.app.conf)

    # -- preparing ------------------------------------------------------------------------

    def on_before_init(self, **kwargs: Any) -> None:
        """Before anything is imported: settings may still be changed by receivers.

        :raises SystemExit: 73, another process holds the pidfile.
        """
        self.logfile = node_format(self._logfile, self.hostname)
        self.pidfile = node_format(self._pidfile, self.hostname)
        if self.pidfile:
            self.pidlock = create_pidlock(self.pidfile)
        signals.celeryd_init.send(
            sender=self.hostname, instance=self, conf=self.app.conf, options=self._options)
        check_privileges(self.app.conf.accept_content)

    def on_init_blueprint(self) -> None:
        """The steps may log."""
        self.setup_logging()

    def embedded_beat(self) -> Any:
        """For the step of ``-B``: beat, not started yet."""
        return EmbeddedService(
            self.app, schedule_filename=self.schedule_filename,
            scheduler_cls=self.scheduler or self.app.conf.beat_scheduler)

    def setup_logging(self) -> None:
        """Configure the loggers (T-090..T-096), unless a receiver of ``setup_logging`` does."""
        conf = self.app.conf
        redirect, level = self._redirect
        self.app.log.setup(
            self.loglevel, self._logfile, colorize=self.colorize, hostname=self.hostname,
            redirect_stdouts=conf.worker_redirect_stdouts if redirect is None else redirect,
            redirect_level=level or conf.worker_redirect_stdouts_level)

    def on_start(self) -> None:
        """Just before the machine runs."""
        if self.purge:
            say(f'purge: {self.purged} messages removed from the queues.')
        if not self.quiet:
            print(self.banner(), file=sys.__stdout__, flush=True)
        set_mp_process_title('celeryd', info=strargv(sys.argv), hostname=self.hostname)
        signals.worker_process_init.connect(self._child_log)
        self.install_signal_handlers()
        self._feed_watchdog()

    def _child_log(self, **kwargs: Any) -> None:
        """In a process of the pool: a log file named after the process is its own (``%i``, ``%I``)."""
        if self._logfile and ('%i' in self._logfile or '%I' in self._logfile):
            self.app.log.already_setup = False
            self.setup_logging()

    # -- systemd ----------------------------------------------------------------------------

    def _ready(self) -> None:
        systemd.ready(f'{self.hostname} is ready')
        super()._ready()

    def _feed_watchdog(self) -> None:
        """From the machine's loop: when that hangs, systemd may start the worker anew."""
        interval = systemd.watchdog_interval()
        if interval is not None and self.machine is not None:
            systemd.watchdog()
            self.machine.core.call_later(interval, self._feed_watchdog)

    def _ask(self, how: int, exitcode: int | None, timeout: float | None) -> None:
        if self.restart:
            systemd.reloading()
        else:
            systemd.stopping('Waiting for running tasks' if how == WARM else 'Shutting down')
        super()._ask(how, exitcode, timeout)

    # -- banner -----------------------------------------------------------------------------

    def banner(self) -> str:
        """Return what is printed at the start."""
        lines = [
            '', f'{self.hostname} v{__version__}',
            f'{platform.platform()} {datetime.now():%Y-%m-%d %H:%M:%S}', '',
            *self._section('config', self._config_lines()),
            *self._section('queues', map(_queue_line, self.app.amqp.queues.consume_from.values())),
        ]
        if self.loglevel <= logging.INFO:
            lines += self._section('tasks', self._task_names(), mark='.')
        return '\n'.join(lines)

    def _section(self, title: str, rows: Any, mark: str = '.>') -> list[str]:
        return [f'[{title}]', *(f'  {mark} {row}' for row in rows), '']

    def _config_lines(self) -> list[str]:
        backend = self.app.backend
        main = appstr(self.app).replace(' at ', ':')
        return [
            f'{name + ":":<14}{value}' for name, value in (
                ('app', main),
                ('transport', Brokers(self.app).uri()),
                ('results', backend.as_uri() or 'disabled://'),
                ('concurrency', self._concurrency()),
                ('task events', 'ON' if self._events_on() else 'OFF (enable -E to monitor tasks in this worker)'),
            )]

    def _concurrency(self) -> str:
        bounds = self.autoscale
        size = f'{{min={bounds[1]}, max={bounds[0]}}}' if bounds else str(self.concurrency)
        return f'{size} ({self.pool_name})'

    def _events_on(self) -> bool:
        return self.machine is not None and self.machine.events.enabled

    def _task_names(self) -> list[str]:
        names = sorted(self.app.tasks)
        if self.loglevel <= logging.DEBUG:
            return names
        return [name for name in names if not name.startswith('celery.')]

    # -- signals ----------------------------------------------------------------------------

    def install_signal_handlers(self) -> None:
        """Take over the signals of the process; other threads than the main one cannot."""
        if threading.current_thread() is not threading.main_thread():
            return
        cold_term = os.environ.get('REMAP_SIGTERM') == 'SIGQUIT'
        self._actions = {
            signal.SIGINT: self._on_interrupt,
            signal.SIGTERM: self._on_quit if cold_term else self._on_term,
            signal.SIGQUIT: self._on_quit,
            signal.SIGHUP: self._on_hangup,
            signal.SIGUSR1: self._on_dump,
        }
        if os.environ.get('CELERY_RDBSIG'):
            signal.signal(signal.SIGUSR2, _debug)
        for signum in self._actions:
            signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        """A signal may come while another is handled; they take effect one after the other."""
        self._arrived.append(signum)
        while self._arrived and not self._handling:
            self._handling = True
            try:
                while self._arrived:
                    first = self._arrived.pop(0)
                    self._actions[first](first)
            finally:
                self._handling = False

    def _on_term(self, signum: int) -> None:
        if self._stop_asked is None:
            self._warm(signum, EX_OK)

    def _on_interrupt(self, signum: int) -> None:
        if self._interrupted or self._cold:
            self._on_quit(signum)
            return
        self._interrupted = True
        say(AGAIN_COLD)
        self._warm(signum, EX_FAILURE)

    def _on_quit(self, signum: int) -> None:
        if self._cold:
            self._announce(signum, 'Hard', EX_FAILURE)
            raise WorkerTerminate(EX_FAILURE)
        self._cold = True
        say(AGAIN_HARD)
        self._announce(signum, 'Cold', EX_FAILURE)
        grace = self.app.conf.worker_soft_shutdown_timeout
        if grace:
            say(f'worker: Running tasks have {grace} seconds to finish')
            self.stop(in_sighandler=True, exitcode=EX_FAILURE, timeout=float(grace))
        else:
            self.terminate(in_sighandler=True, exitcode=EX_FAILURE)

    def _on_hangup(self, signum: int) -> None:
        """The terminal is gone; or, without one, the configuration is to be read again."""
        if self._stop_asked is None:
            self.restart = not isatty(sys.__stdin__)
            self._warm(signum, EX_OK)

    def start_anew(self) -> None:
        """As SIGHUP without a terminal: a warm shutdown, then the same program in the same process."""
        if self._stop_asked is None:
            self.restart = True
            self._warm(signal.SIGHUP, EX_OK)

    def _on_dump(self, signum: int) -> None:
        say(cry() or '', sys.__stderr__)

    def _warm(self, signum: int, exitcode: int) -> None:
        self._announce(signum, 'Warm', exitcode)
        self.stop(in_sighandler=True, exitcode=exitcode)

    def _announce(self, signum: int, how: str, exitcode: int) -> None:
        with in_sighandler():
            say(f'worker: {how} shutdown ({multiprocessing.current_process().name})')
            signals.worker_shutting_down.send(
                sender=self.hostname, sig=f'SIG{signal_name(signum)}', how=how, exitcode=exitcode)


def _debug(signum: int, frame: FrameType | None) -> None:
    """Imported when it is wanted: pdb is slow to load."""
    from pyceleryc.contrib import rdb

    rdb.set_trace(frame)


def _queue_line(queue: Any) -> str:
    exchange = queue.exchange
    return f'{queue.name:<16} exchange={exchange.name}({exchange.type}) key={queue.routing_key}'
