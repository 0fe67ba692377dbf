"""Beat as a real process: tasks run on SQLite and RabbitMQ, last runs outlive kill -9, signals end it, Celery reads its file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from relay import Relay

ROOT = Path(__file__).parents[2]
PROJECT = '''
import os
from celery import Celery
from celery.schedules import crontab

app = Celery("proj", broker=os.environ["BROKER"])
app.conf.update(
    task_default_queue=os.environ.get("QUEUE", "celery"),
    result_expires=None,
    beat_schedule={
        "often": {"task": "proj.mark", "schedule": 0.5, "args": ["often"]},
        "rare": {"task": "proj.mark", "schedule": crontab("*"), "args": ["rare"]},
        "hours": {"task": "proj.mark", "schedule": 7200.0, "args": ["hours"]},
    },
)


@app.task(ignore_result=True)
def mark(text):
    with open(os.environ["MARKS"], "a") as file:
        file.write(text + "\\n")


@app.on_after_configure.connect
def periodic(sender, **kwargs):
    sender.add_periodic_task(1.0, mark.s("code"), name="code")
'''
READ = """
import sys
from pyceleryc._beat_store import ScheduleFile
print(sum(entry.total_run_count for entry in ScheduleFile("schedule").load()["entries"].values()))
"""


class Project:
    """A directory with a project in it, and the commands that run there."""

    def __init__(self, path: Path, broker: str, queue: str = "celery") -> None:
        self.path = path
        self.marks = path / "marks"
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1",
                    "BROKER": broker, "QUEUE": queue, "MARKS": str(self.marks), "C_FORCE_ROOT": "1"}
        self.started: list[subprocess.Popen[bytes]] = []
        (path / "proj.py").write_text(PROJECT)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.path / f"log{len(self.started)}").open("wb")
        command = [sys.executable, "-m", "pyceleryc", "-A", "proj", *arguments]
        self.started.append(subprocess.Popen(command, cwd=self.path, env=self.env, stdout=log, stderr=log, start_new_session=True))
        return self.started[-1]

    def beat(self, *arguments: str) -> subprocess.Popen[bytes]:
        return self.start("beat", "-s", "schedule", "-l", "INFO", *arguments)

    def log(self) -> str:
        return (self.path / f"log{len(self.started) - 1}").read_text()

    def wait_for(self, what: Callable[[], bool], timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not what():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def ran(self, text: str) -> int:
        return self.marks.read_text().split().count(text) if self.marks.exists() else 0

    def python(self, code: str, python: str = sys.executable) -> str:
        return subprocess.run([python, "-c", code], cwd=self.path, env=self.env, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path, f"sqlite:///{tmp_path}/tasks.db")
    yield made
    for process in made.started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


@pytest.mark.parametrize("broker", ["sqlite", "rabbitmq"])
def test_tasks_run(project: Project, broker: str, request: pytest.FixtureRequest, unique: Callable[[str], str]) -> None:
    if broker == "rabbitmq":
        project.env.update(BROKER=request.getfixturevalue("amqp_url"), QUEUE=unique("beat"))
    project.beat()
    worker = project.start("worker", "-c", "1", "-l", "INFO")
    try:
        project.wait_for(lambda: project.ran("often") >= 4 and project.ran("code") >= 2)
        assert project.ran("hours") == 0
    finally:
        worker.terminate()
        worker.wait(20)
        project.started[0].terminate()
        project.started[0].wait(20)
        if broker == "rabbitmq":
            project.python("import pyceleryc; pyceleryc.install_as_celery(); import proj\n"
                           "proj.app.amqp.producer.remove(proj.app.conf.task_default_queue, 5.0)")


def test_worker_with_beat(project: Project) -> None:
    worker = project.start("worker", "-B", "-c", "1", "-l", "INFO", "-s", "schedule")
    project.wait_for(lambda: project.ran("often") >= 3)
    children = project.python(f"print(open('/proc/{worker.pid}/task/{worker.pid}/children').read())").split()
    worker.terminate()
    assert worker.wait(20) == 0
    assert int(project.python(READ)) >= 3
    assert len(children) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_beat_of_a_killed_worker_ends(project: Project) -> None:
    worker = project.start("worker", "-B", "-c", "1", "-l", "INFO", "-s", "schedule")
    project.wait_for(lambda: project.ran("often") >= 1)
    children = project.python(f"print(open('/proc/{worker.pid}/task/{worker.pid}/children').read())").split()
    assert len(children) == 2 and all(_runs(child) for child in children)
    worker.kill()
    worker.wait()
    project.wait_for(lambda: not any(_runs(child) for child in children))


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_stores_the_schedule(project: Project, signum: int) -> None:
    beat = project.beat("--pidfile", "beat.pid")
    project.wait_for(lambda: project.log().count("Sending due task") >= 4)
    assert int((project.path / "beat.pid").read_text()) == beat.pid
    beat.send_signal(signum)
    assert beat.wait(20) == 0
    sent = project.log().count("Sending due task")
    assert int(project.python(READ)) in (sent - 1, sent)  # the signal may come between the line and the message
    assert not (project.path / "beat.pid").exists()
    assert not (project.path / "schedule-journal").exists()


@pytest.mark.limit(150)
def test_kill_keeps_the_last_run(project: Project) -> None:
    """A run of hours ago is made up once; killed right after it, beat does not send it again."""
    project.beat().terminate()
    project.started[-1].wait(20)
    project.beat()
    project.wait_for(lambda: "beat: Starting..." in project.log())
    project.started[-1].terminate()
    project.started[-1].wait(20)
    project.python("""
from datetime import timedelta
from pyceleryc._beat_store import ScheduleFile
file = ScheduleFile("schedule")
content = file.load()
content["entries"]["hours"].last_run_at -= timedelta(hours=9)
file.save(content)
""")
    beat = project.beat()
    project.wait_for(lambda: "Sending due task hours" in project.log())
    project.wait_for(lambda: project.log().count("Sending due task often") >= 3)
    beat.kill()
    beat.wait()
    project.beat()
    project.wait_for(lambda: project.log().count("Sending due task often") >= 3)
    assert "Sending due task hours" not in project.log()


def test_second_beat_with_the_same_pidfile(project: Project) -> None:
    project.beat("--pidfile", "beat.pid")
    project.wait_for(lambda: "beat: Starting..." in project.log())
    second = project.beat("--pidfile", "beat.pid")
    assert second.wait(20) == 73
    assert "already exists" in project.log()


@pytest.mark.parametrize(("arguments", "text"), [
    (["-S", "nowhere:Scheduler"], "Unknown scheduler 'nowhere:Scheduler'"), (["-s", "/nowhere/schedule"], "no directory '/nowhere'")])
def test_what_cannot_start(project: Project, arguments: list[str], text: str) -> None:
    assert project.start("beat", *arguments).wait(20) == 1
    assert text in project.log()


def test_detach(project: Project) -> None:
    assert project.beat("--detach", "--pidfile", "beat.pid", "-f", "beat.log").wait(20) == 0
    project.wait_for(lambda: (project.path / "beat.log").exists() and "Sending due" in (project.path / "beat.log").read_text())
    os.kill(int((project.path / "beat.pid").read_text()), signal.SIGTERM)
    project.wait_for(lambda: not (project.path / "beat.pid").exists())
    assert int(project.python(READ)) >= 1


def test_broker_that_comes_later(tmp_path: Path, redis_url: str, unique: Callable[[str], str]) -> None:
    """No run is lost: the entries wait with beat."""
    relay = Relay(redis_url)
    project = Project(tmp_path, relay.url, unique("queue"))
    beat = project.beat()
    try:
        project.wait_for(lambda: "beat: Connection error" in project.log())
        time.sleep(1)
        assert "Sending due task" not in project.log()
        relay.open()
        project.wait_for(lambda: "Sending due task often" in project.log())
        beat.terminate()
        assert beat.wait(20) == 0
        assert "Message Error" not in project.log() and "Traceback" not in project.log()
    finally:
        relay.cut()
        beat.kill()
        project.env["BROKER"] = redis_url
        project.python("import pyceleryc; pyceleryc.install_as_celery(); import proj; proj.app.amqp.producer.remove(proj.app.conf.task_default_queue, 5.0)")


def test_broker_that_does_not_come(tmp_path: Path) -> None:
    """SIGTERM ends the waiting, and so does broker_connection_max_retries."""
    project = Project(tmp_path, "amqp://127.0.0.1:1//")
    beat = project.beat()
    project.wait_for(lambda: "Trying again in 4.0 seconds" in project.log())
    beat.terminate()
    assert beat.wait(20) == 0
    assert project.beat("broker.connection_max_retries=1").wait(20) == 1
    assert "Connection refused" in project.log() and "Sending due task" not in project.log() and "Traceback" not in project.log()
