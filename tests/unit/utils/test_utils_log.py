from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pyceleryc.utils import log


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger('celery.test_utils_log')
    found.propagate = False
    yield found
    found.handlers.clear()


def capture(logger: logging.Logger, fmt: str = '%(levelname)s:%(message)s') -> io.StringIO:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(fmt))
    logger.addHandler(handler)
    return stream


def test_task_logger_hierarchy() -> None:
    assert log.get_task_logger('some.tasks').parent is log.task_logger
    assert log.logger_isa(log.get_task_logger('some.tasks.deeper'), log.task_logger)
    assert log.get_logger('my_module').parent is logging.root
    assert log.get_logger('my_module.part').parent is log.base_logger
    assert log.get_logger('celery.worker').parent is log.base_logger
    assert log.logger_isa(log.get_task_logger('some.tasks'), log.base_logger)
    for name in ('celery', 'celery.task'):
        with pytest.raises(RuntimeError, match='reserved'):
            log.get_task_logger(name)


def test_levels() -> None:
    assert log.mlevel('info') == logging.INFO == log.mlevel(20)
    assert log.mlevel(None) is None and log.LOG_LEVELS['CRITICAL'] == 50
    with pytest.raises(KeyError):
        log.mlevel('loud')


def test_proxy_logs_what_is_written(logger: logging.Logger) -> None:
    stream = capture(logger)
    proxy = log.LoggingProxy(logger, 'WARNING')
    assert proxy.write('one\ntwo  \n') == 10
    assert proxy.write(b'three') == 5
    assert proxy.write('\n') == 1
    proxy.writelines(['four', 'five'])
    proxy.flush()
    assert stream.getvalue() == ''.join(
        f'WARNING:{text}\n' for text in ('one\ntwo  ', 'three', 'four', 'five'))
    assert not proxy.isatty()
    proxy.close()
    assert proxy.write('six') == 0 and 'six' not in stream.getvalue()


def test_proxy_does_not_recurse(logger: logging.Logger) -> None:
    proxy = log.LoggingProxy(logger)
    seen: list[str] = []

    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            proxy.write('again')

    logger.addHandler(Printing())
    proxy.write('once')
    assert seen == ['once']


def test_proxy_in_a_signal_handler_does_not_log(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = capture(logger)
    proxy = log.LoggingProxy(logger)
    monkeypatch.setattr(sys, '__stderr__', sys.stderr)
    with log.in_sighandler():
        proxy.write('urgent')
    assert stream.getvalue() == '' and 'urgent' in capfd.readouterr().err
    proxy.write('later')
    assert 'later' in stream.getvalue()


def record(level: int, message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord('n', level, 'p', 1, message, args, None)


def test_color_formatter() -> None:
    formatter = log.ColorFormatter('[%(levelname)s] %(message)s')
    line = formatter.format(record(logging.ERROR, 'a %s', 'b'))
    assert line == '\033[1;31m[ERROR] a b\033[0m'
    assert formatter.format(record(logging.INFO, 'plain')) == '[INFO] plain'
    plain = log.ColorFormatter('%(message)s', use_color=False)
    assert plain.format(record(logging.ERROR, 'a')) == 'a'


def test_color_formatter_leaves_the_record_and_survives_bad_arguments() -> None:
    formatter = log.ColorFormatter('%(message)s')
    entry = record(logging.ERROR, 'a %d', 'x')
    assert 'Unrepresentable' in formatter.format(entry)
    assert (entry.msg, entry.args) == ('a %d', ('x',))


def test_open_log_files(logger: logging.Logger) -> None:
    stream = capture(logger)
    assert stream in list(log.iter_open_logger_fds())


def test_multiprocessing_logger() -> None:
    found = log.get_multiprocessing_logger()
    found.addHandler(logging.NullHandler())
    log.reset_multiprocessing_logger()
    assert found.name == 'multiprocessing' and found.handlers == []
    assert log.current_process_index() is None


def test_silent_where_logging_is_not_set_up() -> None:
    """A library must not write to the stderr of programs that did not ask for it."""
    code = "import sys, logging; from pyceleryc.utils import log; logging.getLogger('celery.app.trace').error('x'); log.get_task_logger('a.b').error('y')"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
