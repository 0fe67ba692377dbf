"""What operators try on the command line: options, variables, and what is said when something is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import READY, Start, project, start, wait_until  # noqa: F401  fixtures

#: In the place of a package that is not installed.
MISSING = "raise ModuleNotFoundError(\"No module named 'redis'\", name='redis')\n"


@pytest.mark.parametrize("arguments", [["worker"], ["status"], ["events", "--dump"], ["list", "bindings"]])
def test_redis_without_its_client(start: Start, project: Path, arguments: list[str]) -> None:
    (project / "redis.py").write_text(MISSING)
    command = start("-A", "proj", *arguments, BROKER="redis://127.0.0.1:1/0", BACKEND="disabled://")
    assert command.end() in (1, 69)
    assert 'pip install "pyceleryc[redis]"' in command.output and "Traceback" not in command.output


@pytest.mark.parametrize("arguments", [["status"], ["inspect", "ping"], ["control", "enable_events"], ["ping"]])
@pytest.mark.parametrize("broker, says", [
    ("amqp://127.0.0.1:1//", "Connection refused"), ("nonesuch://x", "There is no broker transport 'nonesuch'"),
])
def test_workers_that_cannot_be_reached(start: Start, arguments: list[str], broker: str, says: str) -> None:
    command = start("-A", "proj", *arguments, BROKER=broker, BACKEND="disabled://")
    assert command.end() == 69
    assert says in command.output and "Traceback" not in command.output


def test_list_bindings_of_a_virtual_transport(start: Start, redis_url: str, unique: Callable[[str], str]) -> None:
    queue = unique("queue")
    command = start("-A", "proj", "list", "bindings", "--json", BROKER=redis_url, QUEUE=queue)
    assert command.end() == 0
    found = [row for row in json.loads(command.output) if row["destination"] == queue]
    assert found == [{"destination": queue, "source": queue, "routing_key": queue}]


# ---- finding the project ------------------------------------------------------------------------------------------------

LATE = """
import sys
from celery import Celery

app = Celery("late", broker="memory://")


@app.task
def late():
    import beside
    return beside.VALUE
"""


@pytest.mark.parametrize("options", [[], ["--workdir", "."]])
def test_tasks_import_modules_beside_the_app_when_they_run(project: Path, options: list[str]) -> None:
    """The program's own directory is where Python looks first, not the working directory; that one has to stay on the path."""
    (project / "late.py").write_text(LATE)
    (project / "beside.py").write_text("VALUE = 'found it'\n")
    program = Path(sysconfig.get_path("scripts")) / "pyceleryc"
    done = subprocess.run([str(program), *options, "-A", "late", "shell", "--python"], input="print(late())\n", cwd=project,
                          capture_output=True, text=True, timeout=30)
    assert "found it" in done.stdout, done.stderr


@pytest.mark.parametrize("options, says", [
    (["-A", "proj:nonesuch"], "Module 'proj' has no attribute 'nonesuch'"),
    (["-A", "broken"], "AttributeError(\"module 'os' has no attribute 'nonesuch'\")"),
    (["-A", "os:getcwd"], "is no app, but <built-in function"),
    (["--config", "nonesuch", "-A", "proj"], "--config nonesuch: No module named 'nonesuch'"),
    (["--loader", "nonesuch.Loader", "-A", "proj"], "--loader nonesuch.Loader: No module named 'nonesuch'"),
    (["--loader", "pyceleryc.loaders.app:Nonesuch", "-A", "proj"], "has no attribute 'Nonesuch'"),
])
def test_what_is_wrong_with_the_project_is_said(start: Start, project: Path, options: list[str], says: str) -> None:
    (project / "broken.py").write_text("import os\nos.nonesuch\n")
    command = start(*options, "report")
    assert command.end() == 2
    assert says in command.output
    assert ("Traceback" in command.output) == ("broken" in options)  # where it is broken is what helps


# ---- settings and variables ---------------------------------------------------------------------------------------------

def test_a_setting_without_effect_is_named(start: Start) -> None:
    command = start("-A", "proj", "worker", "-c", "1", "worker.timer=proj:Mine")
    command.wait_for("The setting worker_timer has no effect in this worker.")


def test_process_that_hangs_at_its_start(start: Start, project: Path) -> None:
    """worker_proc_alive_timeout: another takes its place."""
    (project / "hangs.py").write_text("""
import os, time
from celery.signals import worker_process_init
from proj import app

@worker_process_init.connect
def hang(**kwargs):
    if not os.path.exists("hung"):
        open("hung", "w").close()
        time.sleep(600)
""")
    command = start("-A", "hangs", "worker", "-c", "1", "-l", "INFO", "worker.proc_alive_timeout=0.5")
    command.wait_for("did not come up in time and is killed")
    assert start("-A", "proj", "call", "proj.add", "--args=[1, 2]").end() == 0
    command.wait_for("succeeded")


def test_files_of_the_settings(start: Start, project: Path) -> None:
    """<command>_logfile and so on; the command line wins."""
    (project / "daemons.py").write_text(
        "from proj import app\napp.conf.update(worker_logfile='w.log', worker_pidfile='%n.pid', worker_umask='077', beat_logfile='b.log')\n")
    command = start("-A", "daemons", "worker", "-c", "1", "-l", "INFO", "--pidfile", "other.pid")
    wait_until(lambda: (project / "w.log").exists() and READY in (project / "w.log").read_text())
    assert (project / "w.log").stat().st_mode & 0o777 == 0o600
    assert (project / "other.pid").exists() and not (project / "celery.pid").exists()
    command.send(signal.SIGTERM)
    assert command.end() == 0
    command = start("-A", "daemons", "beat", "-l", "INFO")
    wait_until(lambda: (project / "b.log").exists() and "beat: Starting..." in (project / "b.log").read_text())


def test_disable_prefetch_with_another_broker(start: Start) -> None:
    command = start("-A", "proj", "worker", "-c", "1", "--disable-prefetch", BROKER="filesystem://", BACKEND="disabled://")
    command.wait_for("--disable-prefetch: with this broker")


def test_how_many_revoked_ids_are_kept(project: Path) -> None:
    code = "from pyceleryc.worker.state import revoked; print(revoked.maxlen, revoked.expires)"
    for variables, says in (({}, "50000 10800.0"), ({"CELERY_WORKER_REVOKES_MAX": "7", "CELERY_WORKER_REVOKE_EXPIRES": "1.5"}, "7 1.5")):
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True)
        assert done.stdout.strip() == says, done.stderr


# ---- what cannot be done ------------------------------------------------------------------------------------------------

STRICT = """
from celery import Celery

app = Celery("strict", broker="memory://")
app.conf.task_create_missing_queues = False
"""


@pytest.mark.parametrize("arguments, code, says", [
    (["-A", "proj", "call", "proj.add", "--serializer", "nonesuch"], 1, "there is no serializer 'nonesuch'"),
    (["-A", "strict", "call", "proj.add", "--queue", "nonesuch"], 1, "Queue 'nonesuch' missing from task_queues"),
    (["-A", "strict", "purge", "-f", "-Q", "nonesuch"], 2, "There is no queue 'nonesuch'"),
    (["-A", "strict", "result", "some-id"], 1, "No result backend is configured"),
    (["-A", "proj", "worker", "--statedb", "proj.py"], 1, "'proj.py' cannot be read as a file of revoked tasks"),
    (["-A", "proj", "beat", "-s", "nowhere/schedule"], 1, "nowhere' for the schedule file"),
    (["-A", "proj", "events", "-c", "celery.events.snapshot:Polaroid", "--maxrate", "1/x"], 2, "--maxrate 1/x is no rate"),
])
def test_what_is_told_in_one_line(start: Start, project: Path, arguments: list[str], code: int, says: str) -> None:
    (project / "strict.py").write_text(STRICT)
    command = start(*arguments)
    assert command.end() == code
    assert says in command.output and "Traceback" not in command.output
