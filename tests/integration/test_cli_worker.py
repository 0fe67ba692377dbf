"""The worker's command line as real processes: starting, stopping, exit codes, and what it says when it can't start."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import brokers
from commands import READY, Python, Start, project, python, start, wait_until, worker  # noqa: F401  fixtures

Unique = Callable[[str], str]


# ---- starting and stopping ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("signum, code, says", [
    (signal.SIGTERM, 0, "worker: Warm shutdown (MainProcess)"),
    (signal.SIGINT, 1, "worker: Warm shutdown (MainProcess)"),
    (signal.SIGQUIT, 1, "worker: Cold shutdown (MainProcess)"),
])
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "asyncio"])
def test_signal_ends_idle_worker(worker: Start, pool: str, signum: int, code: int, says: str) -> None:
    command = worker("-P", pool)
    command.wait_for(READY)
    command.send(signum)
    assert command.end() == code
    assert says in command.output
    assert "Traceback" not in command.output


def test_first_log_line_has_the_format(worker: Start) -> None:
    command = worker()
    line = command.wait_for(READY)
    assert re.match(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: INFO/MainProcess\] celery@\S+ ready\.", line)
    assert "[config]" in command.output and "[queues]" in command.output and ". proj.add" in command.output


def test_term_lets_the_running_task_finish(worker: Start, python: Python) -> None:
    command = worker()
    command.wait_for(READY)
    task_id = python("print(proj.slow.delay(1.5).id)")
    command.wait_for("slow begins")
    command.send(signal.SIGTERM)
    command.wait_for("Warm shutdown")
    command.send(signal.SIGTERM)  # changes nothing
    assert command.end() == 0
    assert python(f"print(proj.app.AsyncResult('{task_id}').state)") == "SUCCESS"


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGQUIT), (signal.SIGQUIT,)])
def test_cold_shutdown_does_not_wait_for_the_task(worker: Start, python: Python, signals: tuple[int, ...]) -> None:
    command = worker()
    command.wait_for(READY)
    task_id = python("print(proj.slow.delay(60).id)")
    command.wait_for("slow begins")
    for signum in signals:
        command.send(signum)
        command.wait_for("shutdown (MainProcess)")
    assert command.end() == 1
    assert "Cold shutdown" in command.output
    assert python(f"print(proj.app.AsyncResult('{task_id}').state)") == "RETRY"


def test_third_interrupt_ends_a_pool_that_cannot_kill(worker: Start, python: Python) -> None:
    command = worker("-P", "threads")
    command.wait_for(READY)
    python("proj.slow.delay(60)")
    command.wait_for("slow begins")
    for how in ("Warm", "Cold", "Hard"):
        command.send(signal.SIGINT)
        command.wait_for(f"{how} shutdown")
    assert command.end() == 1
    assert "Traceback" not in command.output


def test_remapped_term_is_cold(worker: Start, python: Python) -> None:
    command = worker(REMAP_SIGTERM="SIGQUIT")
    command.wait_for(READY)
    python("proj.slow.delay(60)")
    command.wait_for("slow begins")
    command.send(signal.SIGTERM)
    assert command.end() == 1
    assert "Cold shutdown" in command.output


def test_soft_shutdown_gives_tasks_time(worker: Start, python: Python) -> None:
    command = worker("worker.soft_shutdown_timeout=10")
    command.wait_for(READY)
    task_id = python("print(proj.slow.delay(1).id)")
    command.wait_for("slow begins")
    command.send(signal.SIGQUIT)
    assert command.end() == 1
    assert python(f"print(proj.app.AsyncResult('{task_id}').state)") == "SUCCESS"


def test_hangup_without_terminal_starts_anew(worker: Start) -> None:
    command = worker("--pidfile", "w.pid")
    command.wait_for(READY)
    command.send(signal.SIGHUP)
    command.wait_for(READY)
    command.send(signal.SIGTERM)
    assert command.end() == 0
    assert "already exists" not in command.output


def test_usr1_prints_the_stacks(worker: Start) -> None:
    command = worker()
    command.wait_for(READY)
    command.send(signal.SIGUSR1)
    command.wait_for("MainThread")
    command.wait_for("machine.py")
    command.send(signal.SIGTERM)
    assert command.end() == 0


# ---- tasks ----------------------------------------------------------------------------------------------------------

def test_life_of_a_task_is_logged(worker: Start, python: Python) -> None:
    command = worker()
    command.wait_for(READY)
    assert python("print(proj.add.delay(2, 3).get(timeout=30))") == "5"
    assert re.search(r"INFO/MainProcess\] Task proj\.add\[[0-9a-f-]{36}\] received", command.wait_for("received"))
    assert re.search(r"INFO/ForkPoolWorker-1\] Task proj\.add\[[0-9a-f-]{36}\] succeeded in [\d.e-]+s: 5",
                     command.wait_for("succeeded"))
    python("proj.wrong.delay()")
    assert "raised unexpected: KeyError('b')" in command.wait_for("raised")
    python("proj.slow.delay(0)")
    assert "WARNING/ForkPoolWorker-1] slow begins" in command.wait_for("slow begins")


def test_chosen_queues_are_consumed_and_others_not(worker: Start, python: Python) -> None:
    command = worker("-Q", "celery,high,low", "-X", "low")
    command.wait_for(READY)
    assert python("print(proj.add.apply_async((1, 1), queue='high').get(timeout=30))") == "2"
    assert python("r = proj.add.apply_async((1, 1), queue='low'); import time; time.sleep(1); print(r.state)") == "PENDING"
    assert "high " in command.output and "low " not in command.output


def test_purge_deletes_what_waits(worker: Start, python: Python) -> None:
    task_id = python("[proj.add.delay(1, 1) for _ in range(2)]; print(proj.add.delay(1, 1).id)")
    command = worker("--purge")
    command.wait_for("3 messages removed")
    command.wait_for(READY)
    assert python("print(proj.add.delay(2, 2).get(timeout=30))") == "4"
    assert python(f"print(proj.app.AsyncResult('{task_id}').state)") == "PENDING"


def test_included_modules_are_imported(worker: Start, project: Path) -> None:
    (project / "more.py").write_text("from proj import app\n@app.task\ndef extra(): return 'more'\n")
    command = worker("-I", "more")
    command.wait_for(READY)
    assert ". more.extra" in command.output


def test_missing_included_module(worker: Start) -> None:
    command = worker("-I", "not_there")
    assert command.end() == 1
    assert "No module named 'not_there'" in command.output


def test_unknown_queue_where_missing_ones_are_not_made(worker: Start) -> None:
    command = worker("-Q", "nope", "task.create_missing_queues=0")
    assert command.end() == 1
    assert "queue 'nope' isn't defined" in command.output and "Traceback" not in command.output


def test_worker_main(project: Path, python: Python) -> None:
    stop = "threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()"
    shown = python(f"import os, signal, sys, threading; {stop}; "
                   "code = proj.app.worker_main(['worker', '-l', 'INFO', '-P', 'solo']); print('code', code, file=sys.__stdout__)")
    assert "Warm shutdown" in shown and shown.endswith("code 0")


def test_settings_on_the_command_line(worker: Start, python: Python) -> None:
    command = worker("task.default_queue=other")
    command.wait_for(READY)
    assert "other " in command.output


# ---- files ----------------------------------------------------------------------------------------------------------

def test_pidfile_is_held_and_released(worker: Start, project: Path) -> None:
    first = worker("--pidfile", "%n.pid", "-n", "w1@%h")
    first.wait_for(READY)
    assert (project / "w1.pid").read_text() == f"{first.process.pid}\n"
    second = worker("--pidfile", "w1.pid")
    assert second.end() == 73
    assert "ERROR: Pidfile (w1.pid) already exists." in second.output
    first.send(signal.SIGTERM)
    assert first.end() == 0
    assert not (project / "w1.pid").exists()


def test_log_files_per_process(worker: Start, project: Path, python: Python) -> None:
    command = worker("-f", "%n%I.log")
    wait_until(lambda: (project / "celery.log").exists() and READY in (project / "celery.log").read_text())
    python("proj.add.delay(2, 3).get(timeout=30)")
    wait_until(lambda: "succeeded" in (project / "celery-1.log").read_text())
    assert "succeeded" not in (project / "celery.log").read_text()
    command.send(signal.SIGTERM)
    assert command.end() == 0


def test_detached_worker_runs_until_term(start: Start, project: Path, python: Python) -> None:
    (project / "run").mkdir()
    command = start("-A", "proj", "worker", "-c", "1", "-l", "INFO", "-D", "--pidfile", "run/%n.pid", "-f", "run/%n.log")
    assert command.end() == 0
    log = project / "run/celery.log"
    wait_until(lambda: log.exists() and READY in log.read_text())
    pid = int((project / "run/celery.pid").read_text())
    assert os.getsid(pid) != os.getsid(0)
    assert python("print(proj.add.delay(2, 3).get(timeout=30))") == "5"
    log.write_text("")
    os.kill(pid, signal.SIGHUP)  # it reads everything anew, in the same process
    wait_until(lambda: READY in log.read_text())
    assert int((project / "run/celery.pid").read_text()) == pid
    assert start("-A", "proj", "worker", "-D", "--pidfile", "run/%n.pid").end() == 73
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (project / "run/celery.pid").exists())


@pytest.mark.parametrize("arguments, says", [
    (["-f", "nowhere/w.log"], "nowhere/w.log"),
    (["--pidfile", "nowhere/w.pid"], "nowhere/w.pid"),
    (["--uid", "nobody-of-that-name"], "nobody-of-that-name"),
    (["--executable", "/no/python"], "/no/python"),
])
def test_what_would_go_wrong_in_the_background_is_said_before(start: Start, arguments: list[str], says: str) -> None:
    command = start("-A", "proj", "worker", "-D", *arguments)
    assert command.end() == 1
    assert says in command.output and "Traceback" not in command.output


def test_files_that_cannot_be_written(start: Start) -> None:
    for option in ("--pidfile", "--logfile"):
        command = start("-A", "proj", "worker", option, "nowhere/file")
        assert command.end() == 1
        assert "nowhere/file" in command.output and "Traceback" not in command.output


# ---- what does not work, and says so ----------------------------------------------------------------------------------

def test_broker_down_is_tried_again_until_term(worker: Start) -> None:
    command = worker(BROKER=f"amqp://guest:guest@127.0.0.1:{brokers.free_port()}//", BACKEND="rpc://")
    line = command.wait_for("Cannot connect to amqp://guest:**@127.0.0.1")
    assert "ERROR/MainProcess" in line
    assert re.match(r"Trying again in \d\.\d\d seconds\.\.\. \(1/800\)", command.wait_for("Trying again"))
    command.wait_for("(2/800)")
    command.send(signal.SIGTERM)
    assert command.end() == 0
    assert "Traceback" not in command.output


def test_broker_down_without_retries(worker: Start) -> None:
    command = worker("broker.connection_retry_on_startup=0", BROKER=f"amqp://127.0.0.1:{brokers.free_port()}//", BACKEND="rpc://")
    assert command.end() == 1
    assert "Cannot connect to amqp://" in command.output and "Traceback" not in command.output


def test_wrong_password(worker: Start, amqp_url: str) -> None:
    url = re.sub(r"//[^@]*@", "//guest:not-the-password@", amqp_url)
    command = worker(BROKER=url, BACKEND="rpc://")
    assert command.end() == 1
    assert "access refused for user 'guest'" in command.output and "Traceback" not in command.output
    assert "not-the-password" not in command.output


def test_missing_vhost(worker: Start, amqp_url: str, unique: Unique) -> None:
    url = re.sub(r"(//[^/]+)/.*", rf"\1/{unique('vhost')}", amqp_url)
    command = worker(BROKER=url, BACKEND="rpc://")
    assert command.end() == 1
    assert "not found" in command.output and "Traceback" not in command.output


def test_database_in_a_missing_directory(worker: Start, project: Path, python: Python) -> None:
    """Tried again, as a broker that is down: the disk may be mounted a moment later."""
    database = f"sqlite:///{project}/later/tasks.db"
    command = worker(BROKER=database, BACKEND=database)
    assert "the directory must exist and be writable" in command.wait_for("Cannot connect to sqlite:///")
    (project / "later").mkdir()
    command.wait_for(READY)
    command.send(signal.SIGTERM)
    assert command.end() == 0
    assert "Traceback" not in command.output


@pytest.mark.parametrize("name, source, says", [
    ("missing", None, "The module missing was not found."),
    ("noapp", "x = 1\n", "Module 'noapp' has no attribute 'celery'"),
    ("proj:nothing", None, "nothing"),
    ("broken", "import not_there_either\n", "No module named 'not_there_either'"),
])
def test_app_that_cannot_be_loaded(start: Start, project: Path, name: str, source: str | None, says: str) -> None:
    if source is not None:
        (project / f"{name}.py").write_text(source)
    command = start("-A", name, "worker")
    assert command.end() == 2
    assert "Unable to load celery application." in command.output and says in command.output
    assert ("Traceback" in command.output) == (name == "broken")


@pytest.mark.parametrize("arguments, says", [
    (["worker", "-A", "proj"], "-A is a global option"),
    (["wrker"], "Did you mean worker"),
    (["worker", "-l", "LOUD"], "LOUD"),
    (["worker", "-P", "gevent"], "gevent"),
    (["worker", "--autoscale", "3,10"], "there is no pool of 10 to 3 processes"),
    (["worker", "nonsense"], "nonsense"),
    (["worker", "no.such_setting=1"], "no_such_setting"),
    (["worker", "-n", "w@%x"], "%x"),
    (["worker", "--umask", "99"], "no octal number"),
])
def test_wrong_usage(start: Start, arguments: list[str], says: str) -> None:
    command = start("-A", "proj", *arguments)
    assert command.end() == 2
    assert says in command.output and "Traceback" not in command.output


def test_pickle_and_root(worker: Start) -> None:
    if os.getuid():
        pytest.fail("run the tests as root, or leave this one out: it is about root")
    command = worker('accept_content=["json", "pickle"]')
    assert command.end() == 1
    assert "C_FORCE_ROOT" in command.output and "Traceback" not in command.output
    forced = worker('accept_content=["json", "pickle"]', C_FORCE_ROOT="1")
    forced.wait_for(READY)


def test_options_come_from_the_environment(start: Start, project: Path) -> None:
    (project / "bare.py").write_text("from celery import Celery\napp = Celery('bare')\n")
    urls = {"CELERY_BROKER_URL": f"sqlite:///{project}/env.db", "CELERY_RESULT_BACKEND": f"sqlite:///{project}/results.db"}
    command = start("worker", CELERY_APP="bare", CELERY_WORKER_LOGLEVEL="info", CELERY_WORKER_CONCURRENCY="3",
                    CELERY_WORKER_QUEUES="a,b", CELERY_WORKER_PIDFILE="env.pid", **urls)
    command.wait_for(READY)
    assert re.search(r"concurrency:\s+3 \(prefork\)", command.output)
    assert "a  " in command.output and "b  " in command.output and (project / "env.pid").exists()
    assert "env.db" in command.output and "results.db" in command.output


OPTIONS = '''
from click import Option
from celery import signals
from proj import app

app.user_options["preload"].add(Option(["-Z", "--zone"], default="dev"))
app.user_options["worker"].add(Option(["--extra"], is_flag=True))


@signals.user_preload_options.connect
def preload(app, options, **kwargs):
    print("preload:", options["zone"], flush=True)


@signals.celeryd_init.connect
def init(sender, instance, conf, options, **kwargs):
    print("init:", sender, options["extra"], flush=True)
    conf.worker_prefetch_multiplier = 7


@signals.worker_shutting_down.connect
def shutting_down(sender, sig, how, exitcode, **kwargs):
    import os
    os.write(1, f"down: {sender} {sig} {how} {exitcode}\\n".encode())
'''


def test_options_of_the_app_and_signals(start: Start, project: Path) -> None:
    (project / "more.py").write_text(OPTIONS)
    command = start("-A", "more", "worker", "-Z", "prod", "--extra", "-l", "INFO", "-c", "1", "-n", "w7@%h")
    command.wait_for("preload: prod")
    name = command.wait_for("init: w7@").split()[1]
    command.wait_for(READY)
    command.send(signal.SIGTERM)
    assert command.end() == 0
    assert f"down: {name} SIGTERM Warm 0" in command.output


# ---- other commands -----------------------------------------------------------------------------------------------------

def test_version(start: Start) -> None:
    command = start("--version")
    assert command.end() == 0
    assert re.fullmatch(r"5\.6\.3 \(pyceleryc( \d+\.\d+\.\d+)?\)\n", command.output)


def test_call_result_purge(start: Start, worker: Start) -> None:
    sent = start("-A", "proj", "call", "proj.add", "-a", "[40, 2]")
    assert sent.end() == 0
    first, task_id = worker(), sent.output.strip()
    first.wait_for("succeeded")
    first.send(signal.SIGTERM)
    assert first.end() == 0
    shown = start("-A", "proj", "result", task_id)
    assert shown.end() == 0 and shown.output == "42\n"
    assert start("-A", "proj", "call", "proj.add", "-k", '{"x": 1, "y": 1}', "--countdown", "60").end() == 0
    purged = start("-A", "proj", "purge", "-f")
    assert purged.end() == 0
    assert "Purged 1 message from 1 known task queue." in purged.output
    refused = start("-A", "proj", "purge")
    assert refused.end() == 1 and "Aborted" in refused.output


def test_call_refuses_what_is_no_json(start: Start) -> None:
    command = start("-A", "proj", "call", "proj.add", "-a", "[1")
    assert command.end() == 2 and "is not JSON" in command.output
    other = start("-A", "proj", "call", "proj.add", "-a", "{}")
    assert other.end() == 2 and "json array" in other.output


def test_report(start: Start) -> None:
    command = start("-A", "proj", "report")
    assert command.end() == 0
    assert "[versions]" in command.output and "broker_url" in command.output
