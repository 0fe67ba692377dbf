"""The HTTP address of a worker, and ``pyceleryc ping`` (FEATURES 2.14)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from brokers import free_port
from commands import wait_until
from pyceleryc import Celery, _ping

HERE = Path(__file__).parents[1]
HELD = 40.0  # seconds; the worker is killed long before


def make_env(tmp_path: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE), "PROBE_BROKER": f"sqlite:///{tmp_path}/broker.db", "C_FORCE_ROOT": "1", **more}


def run(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pyceleryc", *arguments], env=env, capture_output=True, text=True, timeout=50)


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def is_ready(port: int) -> bool:
    try:
        return get(port, "/readyz")[0] == 200
    except OSError:
        return False


@contextmanager
def running(env: dict[str, str], tmp_path: Path, *options: str) -> Iterator[int]:
    """A worker with one process or thread; its port."""
    found = free_port()
    command = [sys.executable, "-m", "pyceleryc", "-A", "probe_tasks", "worker", "-c", "1",
               "--http-address", f"127.0.0.1:{found}", *options]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: is_ready(found) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(params=["prefork", "threads", "solo", "asyncio"])
def pool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def port(pool: str, tmp_path: Path) -> Iterator[int]:
    with running(make_env(tmp_path), tmp_path, "-P", pool) as found:
        yield found


SEND = "import sys, probe_tasks; probe_tasks.hold_gil.delay(float(sys.argv[1]), sys.argv[2])"


def test_answers_while_a_task_holds_the_gil(pool: str, port: int, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    subprocess.run([sys.executable, "-c", SEND, str(HELD), str(mark)], env=make_env(tmp_path), check=True)
    wait_until(mark.exists)
    begin = time.monotonic()
    assert [get(port, path)[0] for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
    assert run(make_env(tmp_path, CELERY_WORKER_HTTP_ADDRESS=f":{port}"), "ping").returncode == 0
    metrics = get(port, "/metrics")[1]
    # Nobody would have got an answer before the end otherwise.
    assert time.monotonic() - begin < HELD, "too slow to tell"
    assert '\npyceleryc_tasks_total{task="probe_tasks.hold_gil",state="SUCCESS"} 0\n' in metrics
    if pool in ("prefork", "solo"):  # in threads beside the loop's the task may hold the GIL before the loop has seen it start
        assert '\npyceleryc_tasks_total{task="probe_tasks.hold_gil",state="STARTED"} 1\n' in metrics
        assert "\npyceleryc_pool_busy 1\n" in metrics


@pytest.mark.parametrize("kind", ["amqp", "redis"])
def test_depth_of_the_queue(kind: str, request: pytest.FixtureRequest, unique: Callable[[str], str], tmp_path: Path) -> None:
    """One runs and is acknowledged, two are held, two wait."""
    queue, url = unique("depth"), request.getfixturevalue(f"{kind}_url")
    env = make_env(tmp_path, PROBE_BROKER=url, PROBE_QUEUE=queue)
    send = f"import probe_tasks\nfor n in range(5): probe_tasks.hold_gil.delay(50, {str(tmp_path / 'mark')!r})"
    subprocess.run([sys.executable, "-c", send], env=env, check=True)
    try:
        with running(env, tmp_path, "--prefetch-multiplier", "2") as port:
            line = f'\npyceleryc_queue_messages{{queue="{queue}"}} 2\n'
            wait_until(lambda: line in get(port, "/metrics")[1])
    finally:
        app = Celery(broker=url, set_as_current=False)
        app.amqp.producer.purge(queue, 5.0)
        app.amqp.producer.remove(queue, 5.0)
        app.close()


def test_the_address_is_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = "127.0.0.1:{}".format(other.getsockname()[1])
        done = run(make_env(tmp_path), "-A", "probe_tasks", "worker", "--http-address", address)
    assert done.returncode == 1
    assert f"cannot listen for HTTP on {address}: Address already in use" in done.stderr
    assert "--http-address" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("address", ["here", "1.2.3.4:x", "1.2.3.4:70000", "::1:80", "host:"])
def test_a_malformed_address(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        _ping.parse_address(address)
    assert run(make_env(tmp_path), "ping", "--http-address", address).returncode == 69


def test_addresses() -> None:
    assert _ping.parse_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert _ping.parse_address("[::1]:8080") == ("::1", 8080)
    assert _ping.parse_address(":8080") == _ping.parse_address("8080") == ("", 8080)


def test_ping_when_nobody_is_there(tmp_path: Path) -> None:
    done = run(make_env(tmp_path), "ping", "--http-address", f"127.0.0.1:{free_port()}", "-t", "2")
    assert done.returncode == 69
    assert "Connection refused" in done.stderr


def test_a_probe_imports_little(tmp_path: Path) -> None:
    """Its price is that of starting Python: what the program loads beyond that is named here."""
    program = Path(sysconfig.get_path("scripts")) / "pyceleryc"
    found = imported(tmp_path, "-I", str(program), "ping", "--http-address", ":1")
    assert [name for name in found[found.index("site") + 1:] if name != "__future__"] == ["pyceleryc", "_socket", "pyceleryc._ping", "pyceleryc.__main__"]


def test_a_command_imports_no_other(tmp_path: Path) -> None:
    code = "import sys; from pyceleryc.bin.celery import main; main(['ping', '--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=make_env(tmp_path), capture_output=True, text=True, check=True)
    names = set(done.stdout.splitlines()[-1].split())
    assert "pyceleryc.bin.ping" in names
    assert not {"pyceleryc.bin.worker", "pyceleryc.bin.control", "pyceleryc.worker.machine"} & names


def imported(tmp_path: Path, *arguments: str) -> list[str]:
    """What a program imports, in the order in which it is done."""
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], env=make_env(tmp_path), capture_output=True, text=True)
    return [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]


def test_ping_by_broker(amqp_url: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """A broker without remote control, a node that is not there."""
    env = make_env(tmp_path, PROBE_BROKER=amqp_url)
    done = run(env, "-A", "probe_tasks", "ping", "-d", unique("nobody"), "-t", "0.3")
    assert done.returncode == 69 and "No reply within 0.3 s: nobody" in done.stderr
    done = run(env, "-A", "probe_tasks", "ping", "--ready")
    assert done.returncode == 2 and "--http-address" in done.stderr
