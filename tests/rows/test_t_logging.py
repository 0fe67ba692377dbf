"""Tasks guide, logging (T-090..T-103)."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.utils.log import LoggingProxy, get_logger, get_task_logger

STAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: "


@pytest.fixture(scope="module")
def own(running: Any, side: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A worker for rows_logging.py: no redirection, and a handler that keeps the data of log records in `own.data`."""
    queue, data = f"{running.queue}-logging", tmp_path_factory.mktemp("logging") / "data"
    env = {**running.env, "FLEET_APP": "rows_logging", "FLEET_QUEUE": queue, "FLEET_LOGLEVEL": "INFO", "ROWS_DATA": str(data)}
    with side.worker(env, "-c", "1", "-n", f"{queue}@here") as worker:
        worker.data, worker.env = data, env
        yield worker
    with running.tasks.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(queue)


def call(side: Any, own: Any, task: str, *args: Any) -> Any:
    """Runs a task of rows_logging.py; returns [id, result or the name of the exception]."""
    script = (f"r = tasks.{task}.delay(*{args!r})\n"
              "try:\n    result = [r.id, r.get(timeout=20)]\nexcept Exception as exc:\n    result = [r.id, type(exc).__name__]")
    return side.client(script, own.env)


def has_line(worker: Any, pattern: str, timeout: float = 30) -> re.Match[str]:
    """Waits for a line of the worker's log that matches from its start to its end."""
    deadline = time.monotonic() + timeout
    while (found := re.search(f"^{pattern}$", worker.text(), re.MULTILINE)) is None:
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.02)
    return found


def records(path: Path, task_id: str) -> dict[str, dict[str, Any]]:
    """Data of the log records about a run, by the last word of the logger's name."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["logger"].rpartition(".")[2]: line for line in lines if line["data"].get("id") == task_id}


def run(side: Any, running: Any, script: str) -> Any:
    """Runs the script in a process of its own: what it does to logging is done to it alone."""
    prelude = "import logging, sys\nfrom celery import Celery, signals\napp = Celery('x', broker='memory://')\nroot = logging.getLogger()\n" \
        "def handlers(logger): return [one for one in logger.handlers if not isinstance(one, logging.NullHandler)]\n"
    return side.client(prelude + script, {**running.env, "FLEET_APP": "json"})


def test_t090_format_of_lines(running: Any) -> None:
    has_line(running.worker, STAMP + r"INFO/MainProcess\] Connected to amqp://.*")
    result = running.tasks.add.delay(1, 2)
    assert result.get(timeout=20) == 3
    has_line(running.worker, STAMP + rf"INFO/ForkPoolWorker-\d+\] Task rows_tasks.add\[{result.id}\] succeeded in [\d.e-]+s: 3")


@pytest.mark.parametrize(("hijack", "left"), [(True, ["StreamHandler"]), (False, ["MemoryHandler"])])
def test_t090_root_logger_is_taken_over(side: Any, running: Any, hijack: bool, left: list[str]) -> None:
    script = ("from logging.handlers import MemoryHandler\nroot.addHandler(MemoryHandler(10))\n"
              f"app.conf.worker_hijack_root_logger = {hijack}\napp.log.setup('INFO')\n"
              "result = [[type(one).__name__ for one in root.handlers], root.level]")
    assert run(side, running, script) == [left, logging.INFO]


def test_t090_logfile(side: Any, running: Any, tmp_path: Path) -> None:
    file = tmp_path / "celery.log"
    script = f"app.log.setup('INFO', logfile={str(file)!r})\nlogging.getLogger('own').info('Hello')\nresult = 1"
    run(side, running, script)
    assert re.search("^" + STAMP + r"INFO/MainProcess\] Hello$", file.read_text(), re.MULTILINE)


def test_t091_setup_logging_receiver_does_it_all(side: Any, running: Any) -> None:
    script = ("seen = []\n@signals.setup_logging.connect\ndef mine(loglevel, logfile, format, colorize, **kwargs):\n"
              "    seen.append([loglevel, logfile, colorize])\n"
              "done = app.log.setup('INFO')\n"
              "result = [seen, len(root.handlers), len(handlers(logging.getLogger('celery.task'))), root.level]")
    assert run(side, running, script) == [[[logging.INFO, None, False]], 0, 0, logging.WARNING]


def test_t091_after_setup_signals(side: Any, running: Any) -> None:
    script = ("seen = []\n@signals.after_setup_logger.connect\ndef one(logger, loglevel, logfile, format, colorize, **kwargs):\n"
              "    seen.append([logger.name, loglevel, len(handlers(logger)), format])\n"
              "@signals.after_setup_task_logger.connect\ndef two(logger, loglevel, logfile, format, colorize, **kwargs):\n"
              "    seen.append([logger.name, loglevel, len(handlers(logger)), format])\n"
              "app.log.setup('INFO')\nresult = seen")
    assert run(side, running, script) == [
        ["root", logging.INFO, 1, "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"],
        ["celery.task", logging.INFO, 1, "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"]]


def test_t091_once_for_each_process(side: Any, running: Any) -> None:
    assert run(side, running, "app.log.setup('INFO')\napp.log.setup('DEBUG')\nresult = [app.log.already_setup, root.level, len(root.handlers)]") \
        == [True, logging.INFO, 1]


def test_t092_t093_task_logger_names_the_task(running: Any, own: Any) -> None:
    result = running.tasks.logging_logs.delay("hi")
    assert result.get(timeout=20) == ["rows_tasks", "celery.task"]
    has_line(running.worker, STAMP + rf"INFO/ForkPoolWorker-\d+\] rows_tasks.logging_logs\[{result.id}\]: Says hi")
    has_line(own, STAMP + r"WARNING/MainProcess\] \?\?\?\[\?\?\?\]: task logger is celery.task, propagates: False")


@pytest.mark.parametrize("name", ["celery", "celery.task"])
def test_t093_reserved_names(name: str) -> None:
    with pytest.raises(RuntimeError):
        get_task_logger(name)


def test_t093_child_of_the_task_logger() -> None:
    logger = get_task_logger("t093.somewhere")
    assert (logger.name, logger.parent.name) == ("t093.somewhere", "celery.task")
    assert get_task_logger("t093.somewhere") is logger
    assert get_task_logger("celery.task.t093").parent.name == "celery.task"


def test_t094_get_logger(running: Any) -> None:
    assert get_logger("t094").parent.name == "root" and get_logger("t094.below").parent.name == "celery"
    assert get_logger("celery.t094").parent.name == "celery" and get_logger("celery").parent.name == "root"
    running.tasks.logging_logs_of_the_library.delay("said").get(timeout=20)
    has_line(running.worker, STAMP + r"WARNING/ForkPoolWorker-\d+\] Plainly said")


def test_t095_print_becomes_warnings(running: Any) -> None:
    result = running.tasks.logging_prints.delay("Hello, redirected")
    assert result.get(timeout=20) == [False, False, [True, True, True]]
    has_line(running.worker, STAMP + r"WARNING/ForkPoolWorker-\d+\] Hello, redirected")
    has_line(running.worker, STAMP + r"WARNING/ForkPoolWorker-\d+\] stderr Hello, redirected")


def test_t095_proxy() -> None:
    logger, seen = logging.getLogger("t095"), []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.propagate = False
    proxy = LoggingProxy(logger, logging.ERROR)
    proxy.write("one\n")
    proxy.write("\n")
    proxy.writelines(["  two", "three\n"])
    proxy.flush()
    assert [(record.levelname, record.getMessage()) for record in seen] == [("ERROR", "one"), ("ERROR", "  two"), ("ERROR", "three")]
    proxy.write("several\nlines\n")
    assert seen[-1].getMessage() == "several\nlines"
    assert proxy.isatty() is False and not proxy.closed
    proxy.close()
    proxy.write("four\n")
    assert proxy.closed and len(seen) == 4


def test_t096_no_redirection(side: Any, own: Any) -> None:
    call(side, own, "prints", "Hello, raw")
    has_line(own, "Hello, raw")


def test_t097_t098_example_of_the_guide(running: Any) -> None:
    result = running.tasks.logging_redirects.delay(2, 3)
    assert result.get(timeout=20) == [5, "WARNING"]
    has_line(running.worker, STAMP + rf"WARNING/ForkPoolWorker-\d+\] rows_tasks.logging_redirects\[{result.id}\]: Adding 2 \+ 3")


def test_t097_stdout_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("t097", broker="memory://", set_as_current=False)
    out, err = sys.stdout, sys.stderr
    monkeypatch.setattr(sys, "stdout", out)  # puts it back
    proxy = app.log.redirect_stdouts_to_logger(logging.getLogger("t097"), "ERROR", stderr=False)
    assert sys.stdout is proxy and sys.stderr is err and proxy.loglevel == logging.ERROR


def test_t099_own_loggers_are_left_alone(side: Any, own: Any) -> None:
    assert call(side, own, "own_logger")[1] == [["StreamHandler"], logging.ERROR, False]


LIFE = {
    "logging_retries": [r"INFO/ForkPoolWorker-\d+\] Task {0} retry: Retry in 0\.1s: ValueError\('a'\)"],
    "logging_raises": [r"ERROR/ForkPoolWorker-\d+\] Task {0} raised unexpected: KeyError\('b'\)\nTraceback .*"],
    "logging_raises_expected": [r"INFO/ForkPoolWorker-\d+\] Task {0} raised expected: Out\('c'\)"],
    "logging_ignores": [r"INFO/ForkPoolWorker-\d+\] Task {0} ignored"],
    "logging_rejects": [r"WARNING/ForkPoolWorker-\d+\] Task {0} reject requeue=False: why"],
}


@pytest.mark.parametrize("task", LIFE)
def test_t100_lines_about_a_run(running: Any, task: str) -> None:
    result = getattr(running.tasks, task).delay()
    name = re.escape(f"rows_tasks.{task}[{result.id}]")
    has_line(running.worker, STAMP + rf"INFO/MainProcess\] Task {name} received")
    for line in LIFE[task]:
        has_line(running.worker, STAMP + line.format(name))


def test_t100_acceptance_is_logged_with_the_process(running: Any) -> None:
    result = running.tasks.add.delay(1, 1)
    has_line(running.worker, STAMP + rf"DEBUG/MainProcess\] Task accepted: rows_tasks\.add\[{result.id}\] pid:\d+")


def test_t100_traceback_only_for_unexpected_errors(running: Any) -> None:
    result = running.tasks.logging_raises_expected.delay()
    with pytest.raises(Exception, match="c"):
        result.get(timeout=20)
    line = has_line(running.worker, rf".*{result.id}\] raised expected.*\n.*")
    assert "Traceback" not in line[0].splitlines()[-1]


def test_t100_expired_run_is_discarded(running: Any) -> None:
    result = running.tasks.add.apply_async((1, 1), countdown=0.5, expires=0.2, expiration=None)
    has_line(running.worker, STAMP + rf"INFO/MainProcess\] Discarding revoked task: rows_tasks\.add\[{result.id}\]")


def test_t101_data_of_the_records(side: Any, own: Any) -> None:
    task_id, result = call(side, own, "charge", "acc", "1234")
    assert result == 4
    deadline = time.monotonic() + 30
    while len(found := records(own.data, task_id)) < 2:
        assert time.monotonic() < deadline, own.data.read_text()
        time.sleep(0.02)
    received, done = found["strategy"]["data"], found["trace"]["data"]
    assert (received["name"], received["args"], received["kwargs"]) == ("rows_logging.charge", "('acc', '1234')", "{}")
    assert (done["name"], done["return_value"], done["args"], done["kwargs"]) == ("rows_logging.charge", "4", "('acc', '1234')", "{}")
    assert 0 <= done["runtime"] < 5


def test_t101_data_of_a_failure(side: Any, own: Any) -> None:
    task_id, result = call(side, own, "fails", "lost")
    assert result == "KeyError"
    deadline = time.monotonic() + 30
    while "trace" not in (found := records(own.data, task_id)):
        assert time.monotonic() < deadline, own.data.read_text()
        time.sleep(0.02)
    data = found["trace"]["data"]
    assert (data["name"], data["exc"], data["args"], data["internal"]) == ("rows_logging.fails", "KeyError('lost')", "('lost',)", False)
    assert "KeyError: 'lost'" in data["traceback"] and data["description"] == "raised unexpected"


def test_t102_logger_of_a_task() -> None:
    app = Celery("t102", broker="memory://", set_as_current=False)

    @app.task(name="t102.spam_filter")
    def spam_filter() -> None:
        """A body."""

    assert spam_filter.get_logger() is get_task_logger("t102.spam_filter")


def test_t103_colors_only_on_terminals(side: Any, running: Any) -> None:
    script = ("import os\nmaster, slave = os.openpty()\nbefore = app.log.supports_color()\nsys.stderr = os.fdopen(slave, 'w')\n"
              "log = app.log\nresult = [before, log.supports_color(), log.supports_color(None, '/tmp/x'), log.supports_color(False)]\n"
              "app2 = Celery('y', broker='memory://')\napp2.conf.worker_log_color = False\nresult.append(app2.log.colorize)\n"
              "from celery.utils.log import ColorFormatter\nrecord = logging.LogRecord('x', logging.ERROR, '', 1, 'hey', (), None)\n"
              "result += [ColorFormatter('%(message)s', use_color=c).format(record) for c in (False, True)]")
    assert run(side, running, script) == [False, True, False, False, False, "hey", "\x1b[1;31mhey\x1b[0m"]


@pytest.mark.parametrize(("options", "colored"), [((), True), (("--no-color",), False)])
def test_t103_worker_on_a_terminal(side: Any, running: Any, options: tuple[str, ...], colored: bool) -> None:
    queue = f"{running.queue}-tty"
    env = {**running.env, "FLEET_APP": "rows_logging", "FLEET_QUEUE": queue}
    command = [side.python, "-m", side.name, *options, "-A", "rows_logging", "worker", "-P", "solo", "-l", "DEBUG", "-n", f"{queue}@here",
               "--without-gossip", "--without-mingle", "--without-heartbeat"]
    master, slave = os.openpty()
    worker = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        text = b""
        while b" ready." not in text:
            text += os.read(master, 4096)
    finally:
        worker.kill()
        worker.wait()
        os.close(master)
        with running.tasks.app.connection_for_write() as connection:
            connection.default_channel.queue_delete(queue)
    assert (b"\x1b[1;33m[" in text) is colored  # the warning of rows_logging.py is yellow
