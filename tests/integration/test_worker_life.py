"""From start to end of a worker: signals in every state, what becomes of messages, files, systemd, several at once.

Each test counts messages at the end: what was sent has run or is in the queue.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import brokers
from commands import READY, Command, Start, start, wait_until  # noqa: F401  fixtures
from pyceleryc import Celery
from pyceleryc.utils.nodenames import gethostname, worker_direct

Unique = Callable[[str], str]

LIFE = '''
import os, time
from celery import Celery

app = Celery("life", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.task_default_queue = os.environ["QUEUE"]
app.conf.worker_direct = True


@app.task(acks_late=True)
def late(seconds):
    print("late begins")
    time.sleep(seconds)
    return os.getpid()


@app.task(acks_late=True)
def hold(path):
    print("late begins")
    while not os.path.exists(path):
        time.sleep(0.02)
    return os.getpid()


@app.task
def grow(mib):
    kept.append(bytearray(mib * 2**20))
    return os.getpid()


kept = []
'''
ENDS = [pytest.param(signal.SIGTERM, 0, id="TERM"), pytest.param(signal.SIGINT, 1, id="INT"),
        pytest.param(signal.SIGQUIT, 1, id="QUIT")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "life.py").write_text(LIFE)
    (tmp_path / "slow_import.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(300)\n")
    return tmp_path


class Place:
    """A queue of its own on some broker; results go to a file."""

    def __init__(self, project: Path, broker: str, queue: str, start: Start) -> None:
        self.broker, self.queue, self.begin = broker, queue, start
        self.backend = f"sqlite:///{project}/results.db"
        self.app = Celery("sender", broker=broker, backend=self.backend, set_as_current=False)
        self.app.conf.task_default_queue = queue

    def send(self, argument: object = 0, name: str = "life.late", **options: object) -> str:
        return str(self.app.send_task(name, (argument,), **options).id)

    def worker(self, *arguments: str, **environment: str) -> Command:
        return self.command("worker", "-c", "1", "-l", "INFO", *arguments, **environment)

    def command(self, *arguments: str, **environment: str) -> Command:
        return self.begin("-A", "life", *arguments, BROKER=self.broker, BACKEND=self.backend, QUEUE=self.queue, **environment)

    def left(self) -> int:
        """How many messages are in the queue; it is empty then."""
        return int(self.app.control.purge())

    def result(self, task_id: str) -> object:
        return self.app.AsyncResult(task_id).get(timeout=30)


@pytest.fixture
def place(request: pytest.FixtureRequest, project: Path, start: Start, unique: Unique) -> Iterator[Place]:
    kind = getattr(request, "param", "sqlite")
    url = f"sqlite:///{project}/queue.db" if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    found = Place(project, url, unique("life"), start)
    yield found
    if kind == "sqlite":
        return
    with found.app.connection() as connection:
        for name in (found.queue, f"celery@{gethostname()}.dq2"):
            connection.default_channel.queue_delete(name)
    found.app.close()


# ---- signals in every state (an idle one: test_cli_worker.py) ---------------------------------------------------------

@pytest.mark.parametrize("signum, code", ENDS)
def test_signal_at_start(place: Place, project: Path, signum: int, code: int) -> None:
    place.send()
    command = place.worker("-I", "slow_import", "--pidfile", "w.pid")
    command.wait_for("importing")
    assert (project / "w.pid").exists()
    command.send(signum)
    assert command.end() == code
    assert not (project / "w.pid").exists() and "Traceback" not in command.output
    assert place.left() == 1


@pytest.mark.parametrize("place, signum, code", [
    ("sqlite", signal.SIGTERM, 0), ("sqlite", signal.SIGQUIT, 1),
    ("amqp", signal.SIGTERM, 0), ("amqp", signal.SIGINT, 1), ("amqp", signal.SIGQUIT, 1),
    ("redis", signal.SIGTERM, 0), ("redis", signal.SIGQUIT, 1),
], indirect=["place"])
def test_signal_while_busy(place: Place, project: Path, signum: int, code: int) -> None:
    first, *_ = [place.send(str(project / "end"), "life.hold"), *(place.send() for _ in range(3))]
    command = place.worker()
    command.wait_for("late begins")
    command.send(signum)
    cold = signum == signal.SIGQUIT
    if not cold:
        command.wait_for("Warm shutdown")
        (project / "end").touch()
    assert command.end() == code
    assert "Traceback" not in command.output
    assert place.left() == 3 + cold  # a late ack: what was cut off runs again
    assert cold or isinstance(place.result(first), int)


@pytest.mark.parametrize("place, signum, code", [
    ("amqp", signal.SIGTERM, 0), ("amqp", signal.SIGQUIT, 1), ("redis", signal.SIGTERM, 0), ("redis", signal.SIGINT, 1),
], indirect=["place"])
def test_signal_with_an_eta_held(place: Place, signum: int, code: int) -> None:
    place.send(countdown=20)
    command = place.worker()
    command.wait_for("received")
    command.send(signum)
    assert command.end() == code
    assert "late begins" not in command.output and "Traceback" not in command.output
    assert place.left() == 1


@pytest.mark.parametrize("signum, code", ENDS)
def test_signal_while_the_broker_is_down(place: Place, signum: int, code: int) -> None:
    place.broker = f"amqp://127.0.0.1:{brokers.free_port()}//"
    command = place.worker()
    command.wait_for("Trying again")
    command.send(signum)
    assert command.end() == code and "Traceback" not in command.output


def test_broker_goes_down_under_a_running_task(place: Place) -> None:
    """The task finishes during a warm shutdown without a broker; its message could not be acknowledged and stays."""
    with brokers.private_redis() as server:
        place.broker = place.app.conf.broker_url = server.url
        task_id = place.send(2)
        command = place.worker()
        command.wait_for("late begins")
        server.kill()
        command.wait_for("Connection to broker lost")
        command.send(signal.SIGTERM)
        assert command.end() == 0 and isinstance(place.result(task_id), int)
        server.start()
        assert place.app.amqp.queues and _redis_messages(place) == 1


def _redis_messages(place: Place) -> int:
    """Waiting, or claimed by a worker that is gone: given back after the visibility timeout."""
    with place.app.connection() as connection:
        client = connection.default_channel.client
        return int(client.llen(place.queue) + client.hlen("unacked"))


# ---- files and the system ---------------------------------------------------------------------------------------------

def test_log_is_reopened_after_rotation(place: Place, project: Path) -> None:
    command, log = place.worker("-f", "w.log"), project / "w.log"
    wait_until(lambda: log.exists() and READY in log.read_text())
    log.rename(project / "w.log.1")
    task_id = place.send()
    place.result(task_id)
    wait_until(lambda: log.exists() and "received" in log.read_text() and "succeeded" in log.read_text())
    assert "received" not in (project / "w.log.1").read_text()
    command.send(signal.SIGTERM)
    assert command.end() == 0


def test_umask_and_workdir(place: Place, project: Path) -> None:
    (project / "inside").mkdir()
    shutil.copy(project / "life.py", project / "inside/life.py")
    command = place.begin("--workdir", "inside", "-A", "life", "worker", "-c", "1", "-D", "--umask", "027",
                          "--pidfile", "w.pid", "-f", "w.log", "-l", "INFO", BROKER=place.broker, BACKEND=place.backend, QUEUE="q")
    assert command.end() == 0
    log, pidfile = project / "inside/w.log", project / "inside/w.pid"
    wait_until(lambda: log.exists() and READY in log.read_text())
    assert stat.S_IMODE(log.stat().st_mode) == 0o640
    os.kill(int(pidfile.read_text()), signal.SIGTERM)
    wait_until(lambda: not pidfile.exists())


def test_process_that_grew_too_big_is_replaced(place: Place) -> None:
    command = place.worker("--max-memory-per-child", "200000")
    small, big, after = [place.result(place.send(mib, "life.grow")) for mib in (1, 300, 1)]
    assert small == big != after
    command.send(signal.SIGTERM)
    assert command.end() == 0 and place.left() == 0


@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_revoked_ids_outlive_a_kill(place: Place, project: Path, unique: Unique) -> None:
    name, task_id = f"{unique('w')}@here", unique("task")
    command = place.worker("-n", name, "-S", "w.state")
    command.wait_for(READY)
    wait_until(lambda: bool(place.app.control.revoke(task_id, destination=[name], reply=True, timeout=5)))
    # First there is a journal, in place at once; then the file is written, and when that is done the journal goes.
    wait_until(lambda: any("-journal" not in path.name for path in project.glob("w.state*")))
    wait_until(lambda: not (project / "w.state-journal").exists())
    command.kill()
    place.send(task_id=task_id)
    second = place.worker("-S", "w.state")
    second.wait_for(f"Discarding revoked task: life.late[{task_id}]")
    second.send(signal.SIGTERM)
    assert second.end() == 0 and place.left() == 0


def test_systemd_is_told(place: Place, project: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(project / "notify"))
        manager.settimeout(20)

        def wait_for(line: str) -> list[str]:
            while line not in (lines := manager.recv(4096).decode().split("\n")):
                assert lines == ["WATCHDOG=1"], lines
            return lines

        command = place.worker(NOTIFY_SOCKET=str(project / "notify"), WATCHDOG_USEC="200000")
        main = f"MAINPID={command.process.pid}"
        assert main in wait_for("READY=1")
        for _ in range(3):
            wait_for("WATCHDOG=1")
        command.send(signal.SIGHUP)
        assert re.search(r"MONOTONIC_USEC=\d+", " ".join(wait_for("RELOADING=1")))
        assert main in wait_for("READY=1")
        command.send(signal.SIGTERM)
        wait_for("STOPPING=1")
        assert command.end() == 0


@pytest.mark.parametrize("place", ["sqlite", "amqp"], indirect=True)
def test_queue_of_one_worker(place: Place) -> None:
    node = f"celery@{gethostname()}"
    command = place.worker("-Q", "nobody-sends-here")
    command.wait_for(READY)
    assert f"{node}.dq2" in command.output and "exchange=C.dq2(direct)" in command.output
    ids = [place.send(queue=worker_direct(node)), place.send(exchange="C.dq2", routing_key=node), place.send(queue=f"{node}.dq2")]
    assert all(isinstance(place.result(task_id), int) for task_id in ids)
    command.send(signal.SIGTERM)
    assert command.end() == 0


# ---- several at once ----------------------------------------------------------------------------------------------------

FILES = ("--pidfile=run/%n.pid", "--logfile=log/%n%I.log")


def test_multi(place: Place, project: Path) -> None:
    nodes = ("2", "-l", "INFO", "-c", "1", "--range-prefix=w", *FILES)
    names = [f"{name}@{gethostname()}" for name in ("w1", "w2")]
    ids = [place.send(0.05) for _ in range(10)]
    started = place.command("multi", "start", *nodes)
    assert started.end() == 0 and [f"> {name}: OK" in started.output for name in names] == [True, True]
    wait_until(lambda: all(READY in (project / f"log/{name}.log").read_text() for name in ("w1", "w2")))
    pids = _pids(project)
    again = place.command("multi", "start", "w1", *nodes[1:])
    assert again.end() == 73 and again.output.count("already exists") == 1
    ids += [place.send(0.05) for _ in range(10)]
    restarted = place.command("multi", "restart", *nodes)
    assert restarted.end(30) == 0 and restarted.output.count("Restarting node w") == 2
    ids += [place.send(0.05) for _ in range(10)]
    assert all(isinstance(place.result(task_id), int) for task_id in ids)
    assert not set(pids) & set(_pids(project))
    stopped = place.command("multi", "stopwait", "2", "--range-prefix=w", *FILES)
    assert stopped.end(30) == 0 and stopped.output.count("TERM -> ") == 2
    assert not list((project / "run").iterdir())
    down = place.command("multi", "stop", "2", "--range-prefix=w", *FILES, "--nosplash")
    assert down.end() == 0 and down.output == "".join(f"> {name}: DOWN\n" for name in names)
    assert place.left() == 0


def _pids(project: Path) -> list[int]:
    wait_until(lambda: len(list((project / "run").glob("*.pid"))) == 2)
    return [int(path.read_text()) for path in sorted((project / "run").glob("*.pid"))]


def test_multi_that_cannot_start(place: Place, project: Path) -> None:
    (project / "run").write_text("a file, no directory")
    command = place.command("multi", "start", "w1", *FILES)
    assert command.end() == 73 and "run" in command.output and "Traceback" not in command.output
    unknown = place.begin("multi", "start", "w1", "-A", "not_there", "--pidfile=%n.pid", "--logfile=%n.log")
    assert unknown.end() == 2 and "FAILED (exit code 2)" in unknown.output and "not_there was not found" in unknown.output
    wrong = place.command("multi", "show", "w1", "-c:2", "1")
    assert wrong.end() == 2 and "there is no node 2" in wrong.output


# ---- development --------------------------------------------------------------------------------------------------------

def test_reload(place: Place, project: Path) -> None:
    command = place.worker("--reload")
    command.wait_for(READY)
    running, waiting = place.send(2.5), place.send(0)
    command.wait_for("late begins")
    (project / "life.py").write_text(LIFE.replace("os.getpid()", "'half-writ"))
    command.wait_for("cannot be used")
    assert "SyntaxError" in command.wait_for("SyntaxError")
    (project / "life.py").write_text(LIFE.replace("return os.getpid()", "return 'new'"))
    command.wait_for("Warm shutdown")
    command.wait_for(READY)
    assert isinstance(place.result(running), int) and place.result(waiting)  # of the old or the new code
    assert place.result(place.send()) == "new"
    command.send(signal.SIGTERM)
    assert command.end() == 0 and place.left() == 0
