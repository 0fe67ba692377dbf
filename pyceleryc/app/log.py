"""Logging of worker and beat: handlers, formats, redirection (T-090..T-103)."""
from __future__ import annotations

import logging
import os
import sys
from logging.handlers import WatchedFileHandler
from typing import Any

from pyceleryc import signals
from pyceleryc._state import get_current_task
from pyceleryc.platforms import isatty
from pyceleryc.utils.log import (
    ColorFormatter,
    LoggingProxy,
    get_logger,
    get_multiprocessing_logger,
    mlevel,
    reset_multiprocessing_logger,
)
from pyceleryc.utils.nodenames import node_format
from pyceleryc.utils.term import colored

__all__ = ('TaskFormatter', 'Logging')


class TaskFormatter(ColorFormatter):
    """Adds ``task_name`` and ``task_id`` of the running task to each line (T-092)."""

    def format(self, record: logging.LogRecord) -> str:
        task = get_current_task()
        if task and task.request:
            record.__dict__.update(task_id=task.request.id, task_name=task.name)
        else:
            record.__dict__.setdefault('task_name', '???')
            record.__dict__.setdefault('task_id', '???')
        return super().format(record)


class Logging:
    """Configures logging for *app*; reachable as ``app.log``.

    Logging belongs to the process, so :attr:`already_setup` is shared by all apps.
    """

    _process: dict[str, bool] = {'already_setup': False}

    def __init__(self, app: Any) -> None:
        self.app = app
        self.loglevel = mlevel(logging.WARNING)
        self.format = app.conf.worker_log_format
        self.task_format = app.conf.worker_task_log_format
        self.colorize = app.conf.worker_log_color

    @property
    def already_setup(self) -> bool:
        """Whether logging was configured in this process."""
        return self._process['already_setup']

    @already_setup.setter
    def already_setup(self, value: bool) -> None:
        self._process['already_setup'] = value

    def setup(
        self, loglevel: Any = None, logfile: Any = None, redirect_stdouts: bool = False,
        redirect_level: Any = 'WARNING', colorize: bool | None = None,
        hostname: str | None = None,
    ) -> bool:
        """Configure logging and, if asked to, redirect stdout and stderr.

        :return: True if logging was configured here, False if that was done before
            or a ``setup_logging`` receiver did it.
        """
        loglevel = mlevel(loglevel)
        handled = self.setup_logging_subsystem(
            loglevel, logfile, colorize=colorize, hostname=hostname)
        if not handled and redirect_stdouts:
            self.redirect_stdouts(redirect_level)
        # Children that are started anew rather than forked learn it from these.
        os.environ.update(
            CELERY_LOG_LEVEL=str(loglevel) if loglevel else '',
            CELERY_LOG_FILE=str(logfile) if logfile else '',
        )
        return not handled

    def redirect_stdouts(self, loglevel: Any = None, name: str = 'celery.redirected') -> None:
        """Log what is written to stdout and stderr (T-095)."""
        self.redirect_stdouts_to_logger(get_logger(name), loglevel=loglevel)
        os.environ.update(
            CELERY_LOG_REDIRECT='1', CELERY_LOG_REDIRECT_LEVEL=str(loglevel or ''))

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: Any = None, stdout: bool = True,
        stderr: bool = True,
    ) -> LoggingProxy:
        """Replace ``sys.stdout`` and ``sys.stderr`` by a writer to *logger* (T-097)."""
        proxy: Any = LoggingProxy(logger, loglevel)
        if stdout:
            sys.stdout = proxy
        if stderr:
            sys.stderr = proxy
        return proxy

    def setup_logging_subsystem(
        self, loglevel: Any = None, logfile: Any = None, format: Any = None,
        colorize: bool | None = None, hostname: str | None = None, **kwargs: Any,
    ) -> Any:
        """Configure the root logger and the task logger, once per process.

        :return: what the ``setup_logging`` receivers answered if there are any, True if
            it was done before, else None.
        """
        if self.already_setup:
            return True
        if logfile and hostname:
            logfile = node_format(logfile, hostname)
        self.already_setup = True
        loglevel = mlevel(loglevel or self.loglevel)
        format = format or self.format
        colorize = self.supports_color(colorize, logfile)
        reset_multiprocessing_logger()
        responses = signals.setup_logging.send(
            sender=None, loglevel=loglevel, logfile=logfile, format=format, colorize=colorize)
        if not responses:
            self._setup_root(loglevel, logfile, format, colorize, **kwargs)
            self.setup_task_loggers(loglevel, logfile, colorize=colorize)
        return responses or None

    def _setup_root(
        self, loglevel: int, logfile: Any, fmt: str, colorize: bool, **kwargs: Any,
    ) -> None:
        root = logging.getLogger()
        if self.app.conf.worker_hijack_root_logger:
            root.handlers.clear()
            get_logger('celery').handlers.clear()
            get_logger('celery.task').handlers.clear()
            get_logger('celery.redirected').handlers.clear()
        self._configure_logger(root, logfile, loglevel, fmt, colorize, **kwargs)
        self._configure_logger(
            get_multiprocessing_logger(), logfile,
            loglevel if os.environ.get('MP_LOG') else logging.ERROR, fmt, colorize, **kwargs)
        signals.after_setup_logger.send(
            sender=None, logger=root, loglevel=loglevel, logfile=logfile, format=fmt,
            colorize=colorize)
        logging.captureWarnings(True)

    def setup_task_loggers(
        self, loglevel: Any = None, logfile: Any = None, format: Any = None,
        colorize: bool | None = None, propagate: bool = False, **kwargs: Any,
    ) -> logging.Logger:
        """Configure the parent of all task loggers, ``celery.task``."""
        loglevel = mlevel(loglevel or self.loglevel)
        format = format or self.task_format
        colorize = self.supports_color(colorize, logfile)
        logger = self.setup_handlers(
            get_logger('celery.task'), logfile, format, colorize, formatter=TaskFormatter,
            **kwargs)
        logger.setLevel(loglevel)
        # An int, because some programs inspect it and that is what it always was.
        logger.propagate = int(propagate)  # type: ignore[assignment]
        signals.after_setup_task_logger.send(
            sender=None, logger=logger, loglevel=loglevel, logfile=logfile, format=format,
            colorize=colorize)
        return logger

    def supports_color(self, colorize: bool | None = None, logfile: Any = None) -> bool:
        """Tell whether to use colours: unless refused, on a terminal without logfile (T-103)."""
        wanted = self.colorize if colorize is None else colorize
        if wanted is None:
            wanted = not os.environ.get('NO_COLOR')
        return bool(wanted) and not logfile and isatty(sys.stderr)

    def colored(self, logfile: Any = None, enabled: bool | None = None) -> colored:
        """Return a painter for text that goes where the log goes."""
        return colored(enabled=self.supports_color(enabled, logfile))

    def setup_handlers(
        self, logger: logging.Logger, logfile: Any, format: str,
        colorize: bool, formatter: Any = ColorFormatter, **kwargs: Any,
    ) -> logging.Logger:
        """Give *logger* a handler for *logfile* unless it has handlers already."""
        if not self._is_configured(logger):
            handler = self._detect_handler(logfile)
            handler.setFormatter(formatter(format, use_color=colorize))
            logger.addHandler(handler)
        return logger

    def _detect_handler(self, logfile: Any = None) -> logging.Handler:
        if logfile is None:
            logfile = sys.__stderr__
        if hasattr(logfile, 'write'):
            return logging.StreamHandler(logfile)
        # Opens the file again when logrotate has moved it.
        return WatchedFileHandler(logfile, encoding='utf-8')

    def _configure_logger(
        self, logger: logging.Logger | None, logfile: Any, loglevel: int, format: str,
        colorize: bool, **kwargs: Any,
    ) -> None:
        if logger is not None:
            self.setup_handlers(logger, logfile, format, colorize, **kwargs)
            if loglevel:
                logger.setLevel(loglevel)

    def _has_handler(self, logger: logging.Logger) -> bool:
        return any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)

    def _is_configured(self, logger: logging.Logger) -> bool:
        return self._has_handler(logger) and not getattr(logger, '_rudimentary_setup', False)

    def get_default_logger(self, name: str = 'celery', **kwargs: Any) -> logging.Logger:
        """Return the logger called *name*."""
        return get_logger(name)
