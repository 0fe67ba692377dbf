"""Beat as a program: logging, banner, pidfile, signals (FEATURES 2.7, 2.14)."""
from __future__ import annotations

import logging
import socket
import sys
from datetime import datetime
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils.imports import symbol_by_name

from pyceleryc import VERSION_BANNER, beat, platforms
from pyceleryc._state import app_or_default
from pyceleryc.app.drivers import broker_urls
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils import systemd
from pyceleryc.utils.imports import load_extension_class_names, qualname
from pyceleryc.utils.log import mlevel
from pyceleryc.utils.time import humanize_seconds
from pyceleryc.utils.url import hide_password

__all__ = ('Beat', 'PLAIN')

logger = logging.getLogger('celery.beat')

#: Errors that say it all: a traceback would only hide them.
PLAIN = (ImproperlyConfigured, platforms.LockFailed, OSError, OperationalError)

BANNER = """\
LocalTime -> {timestamp}
Configuration ->
    . broker -> {broker}
    . loader -> {loader}
    . scheduler -> {scheduler}
{info}
    . logfile -> {logfile}@%{loglevel}
    . maxinterval -> {human} ({seconds}s)"""


class Beat:
    """The program.

    :param max_interval: seconds to sleep at most.
    :param schedule: file of the schedule; *scheduler*, *scheduler_cls*: class or its name.
    :param socket_timeout: seconds that connections may take to answer.
    :param pidfile: held while it runs; SystemExit(73) if another process holds it.
    :param logfile: None is stderr; *loglevel*: name or number.
    """

    Service: Any = beat.Service
    app: Any = None

    def __init__(
        self, max_interval: float | None = None, app: Any = None, socket_timeout: float = 30,
        pidfile: str | None = None, no_color: bool | None = None, loglevel: Any = 'WARN',
        logfile: str | None = None, schedule: str | None = None, scheduler: Any = None,
        scheduler_cls: Any = None, redirect_stdouts: bool | None = None,
        redirect_stdouts_level: Any = None, quiet: bool = False, **kwargs: Any,
    ) -> None:
        self.app = app = app_or_default(app or self.app)
        conf = app.conf
        self.loglevel = mlevel(loglevel)
        self.logfile = logfile
        self.pidfile = pidfile
        self.schedule = schedule or conf.beat_schedule_filename
        self.scheduler_cls = scheduler or scheduler_cls or conf.beat_scheduler
        self.max_interval = max_interval or conf.beat_max_loop_interval
        self.socket_timeout = socket_timeout
        self.no_color = no_color
        self.colorize = False if no_color else None
        self.redirect_stdouts = conf.worker_redirect_stdouts if redirect_stdouts is None else redirect_stdouts
        self.redirect_stdouts_level = redirect_stdouts_level or conf.worker_redirect_stdouts_level
        self.quiet = quiet
        self._asked = 0

    def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        :raises SystemExit: 73, another process holds the pidfile.
        :raises ImproperlyConfigured: there is no such scheduler.
        """
        if not self.quiet:
            print(f'celery beat v{VERSION_BANNER} is starting.', flush=True)
        self.init_loader()
        self.set_process_title()
        self.start_scheduler()

    def init_loader(self) -> None:
        """Import what the settings name, so that tasks and their entries are known."""
        self.app.loader.init_worker()
        self.app.finalize()

    def set_process_title(self) -> None:
        """Show in ``ps`` what this is."""
        arguments = sys.argv[2 if 'manage' in sys.argv[0] else 1:]
        platforms.set_process_title('celery beat', info=' '.join(arguments))

    def setup_logging(self, colorize: bool | None = None) -> None:
        """Configure the loggers."""
        self.app.log.setup(
            self.loglevel, self.logfile, self.redirect_stdouts, self.redirect_stdouts_level,
            colorize=self.colorize if colorize is None else colorize)

    def start_scheduler(self) -> None:
        """Run the service."""
        if self.pidfile:
            platforms.create_pidlock(self.pidfile)
        service = self.Service(
            app=self.app, max_interval=self.max_interval, scheduler_cls=self._scheduler_class(),
            schedule_filename=self.schedule)
        if not self.quiet:
            print(self.banner(service), flush=True)
        self.setup_logging()
        if self.socket_timeout:
            logger.debug('Setting default socket timeout to %r', self.socket_timeout)
            socket.setdefaulttimeout(self.socket_timeout)
        self.install_sync_handler(service)
        systemd.ready('beat is running')
        try:
            service.start()
        except Exception as exc:
            logger.critical('beat raised exception %s: %r', type(exc), exc, exc_info=not isinstance(exc, PLAIN))
            raise

    def _scheduler_class(self) -> Any:
        try:
            return symbol_by_name(self.scheduler_cls, dict(load_extension_class_names(beat.ENTRY_POINTS)))
        except (ImportError, AttributeError, ValueError) as exc:
            raise ImproperlyConfigured(
                f'Unknown scheduler {self.scheduler_cls!r} ({exc}): write "package.module:Class", '
                'or the short name of an installed one, such as django') from exc

    def banner(self, service: Any) -> str:
        """Return what is printed at the start."""
        return f'__    -    ... __   -        _\n{self.startup_info(service)}'

    def startup_info(self, service: Any) -> str:
        """Return the configuration for people."""
        scheduler = service.get_scheduler(lazy=True)
        return BANNER.format(
            timestamp=datetime.now().replace(microsecond=0),
            broker=' '.join(hide_password(url) for url in broker_urls(self.app.conf.broker_write_url)),
            loader=qualname(self.app.loader),
            scheduler=qualname(scheduler),
            info=scheduler.info,
            logfile=self.logfile or '[stderr]',
            loglevel=logging.getLevelName(self.loglevel),
            human=humanize_seconds(scheduler.max_interval),
            seconds=scheduler.max_interval)

    def install_sync_handler(self, service: Any) -> None:
        """End on SIGTERM and SIGINT: after the task that is being sent, with the schedule stored."""

        def end(signum: int, frame: Any) -> None:
            self._asked += 1
            systemd.stopping('Storing the schedule')
            if self._asked > 1:
                # Sending hangs, and somebody insists; the schedule is stored on the way out.
                raise SystemExit(platforms.EX_OK)
            service.ask_stop()

        platforms.signals.update(SIGTERM=end, SIGINT=end)
