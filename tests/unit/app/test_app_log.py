from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from logging.handlers import WatchedFileHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyceleryc import _state, signals
from pyceleryc.app.log import Logging, TaskFormatter
from pyceleryc.app.utils import detect_settings
from pyceleryc.utils.log import LoggingProxy, get_task_logger

LOGGERS = (None, 'celery', 'celery.task', 'celery.redirected', 'multiprocessing')


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    saved = [(lg, list(lg.handlers), lg.level, lg.propagate) for lg in loggers]
    streams, environment = (sys.stdout, sys.stderr), dict(os.environ)
    yield
    for logger, handlers, level, propagate in saved:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
    logging.captureWarnings(False)
    sys.stdout, sys.stderr = streams
    os.environ.clear()
    os.environ.update(environment)
    Logging._process['already_setup'] = False


def make(**conf: Any) -> Logging:
    return Logging(SimpleNamespace(conf=detect_settings(conf, {})))


def test_setup_writes_the_format_to_a_file(tmp_path: Path) -> None:
    log = make()
    path = tmp_path / '%n.log'
    assert log.setup('INFO', str(path), hostname='w1@h') is True
    logging.getLogger('anything').info('hello %s', 'you')
    text = (tmp_path / 'w1.log').read_text()
    assert text.rstrip().endswith(': INFO/MainProcess] hello you') and text.startswith('[')
    handler = logging.getLogger().handlers[-1]
    assert isinstance(handler, WatchedFileHandler)
    assert os.environ['CELERY_LOG_LEVEL'] == '20' and log.already_setup
    assert make().setup('DEBUG', str(path)) is False


def test_task_logger_names_the_task(tmp_path: Path) -> None:
    make().setup('INFO', str(tmp_path / 'log'))
    logger = get_task_logger('proj.tasks')
    logger.info('outside')
    task = SimpleNamespace(name='tasks.add', request=SimpleNamespace(id='some-id'))
    _state.push_current_task(task)
    try:
        logger.info('inside')
    finally:
        _state.pop_current_task()
    lines = (tmp_path / 'log').read_text().splitlines()
    assert lines[0].endswith('/MainProcess] ???[???]: outside')
    assert lines[1].endswith('/MainProcess] tasks.add[some-id]: inside')
    assert len(lines) == 2 and not logging.getLogger('celery.task').propagate


def test_hijack(tmp_path: Path) -> None:
    mine = logging.NullHandler()
    extra = logging.StreamHandler(io.StringIO())
    root = logging.getLogger()
    root.handlers[:] = [mine, extra]
    make(worker_hijack_root_logger=False).setup('INFO', str(tmp_path / 'log'))
    assert root.handlers == [mine, extra]
    Logging._process['already_setup'] = False
    make().setup('INFO', str(tmp_path / 'log'))
    assert extra not in root.handlers and len(root.handlers) == 1


def test_setup_logging_receiver_does_it_all() -> None:
    got: dict[str, Any] = {}
    before = list(logging.getLogger().handlers)

    def receiver(**kwargs: Any) -> None:
        got.update(kwargs)

    signals.setup_logging.connect(receiver)
    try:
        assert make().setup('ERROR', redirect_stdouts=True) is False
    finally:
        signals.setup_logging.disconnect(receiver)
    assert got['loglevel'] == logging.ERROR and {'logfile', 'format', 'colorize'} <= set(got)
    assert logging.getLogger().handlers == before
    assert not isinstance(sys.stdout, LoggingProxy)


def test_after_setup_signals(tmp_path: Path) -> None:
    got: list[str] = []

    def receiver(signal: Any, logger: logging.Logger, **kwargs: Any) -> None:
        got.append(f'{signal.name} {logger.name} {kwargs["loglevel"]}')

    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.connect(receiver)
    try:
        make().setup('INFO', str(tmp_path / 'log'))
    finally:
        for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
            signal.disconnect(receiver)
    assert got == ['after_setup_logger root 20', 'after_setup_task_logger celery.task 20']


def test_print_is_logged(tmp_path: Path) -> None:
    make().setup('INFO', str(tmp_path / 'log'), redirect_stdouts=True, redirect_level='WARNING')
    print('from print')
    text = (tmp_path / 'log').read_text()
    assert 'WARNING/MainProcess] from print' in text
    assert os.environ['CELERY_LOG_REDIRECT'] == '1'


def test_redirect_to_own_logger() -> None:
    logger = logging.getLogger('test_app_log.own')
    stream = io.StringIO()
    logger.addHandler(logging.StreamHandler(stream))
    err = sys.stderr
    proxy = make().redirect_stdouts_to_logger(logger, 'ERROR', stderr=False)
    print('one')
    assert sys.stdout is proxy and sys.stderr is err
    assert stream.getvalue() == 'one\n'


def test_colors_only_on_a_terminal_without_logfile(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv('NO_COLOR', raising=False)
    monkeypatch.setattr(sys, 'stderr', Terminal())
    log = make()
    assert log.supports_color() and not log.supports_color(False)
    assert not log.supports_color(logfile='x') and not make(worker_log_color=False).supports_color()
    assert '\033' in str(log.colored().red('x')) and str(log.colored('file').red('x')) == 'x'
    monkeypatch.setattr(sys, 'stderr', io.StringIO())
    assert not log.supports_color(True)


def test_task_formatter_keeps_given_fields() -> None:
    entry = logging.LogRecord('n', 20, 'p', 1, 'm', (), None)
    entry.__dict__.update(task_name='given', task_id='1')
    assert TaskFormatter('%(task_name)s[%(task_id)s]: %(message)s').format(entry) == 'given[1]: m'
