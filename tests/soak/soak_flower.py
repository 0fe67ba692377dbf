"""Flower from PyPI looks at our worker: lists, arguments, states, pool grow, revoke; by its API, and in headless Chromium.

    python tests/soak/soak_flower.py [--venv DIR] [--shots DIR] [--chromium PROGRAM]

--venv: an environment with Flower; made (and Flower downloaded) when it has none.  --shots: where the screenshots go.  Without Chromium
("apt-get install chromium") there are none, and the script says so and fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE))

from brokers import free_port, private_rabbitmq  # noqa: E402

TASKS = """
import os, time
from celery import Celery
app = Celery("shop", broker=os.environ["SOAK_BROKER"], backend="rpc://")
app.conf.task_default_queue = "shop"

@app.task(name="shop.add")
def add(x, y):
    return x + y

@app.task(name="shop.fail")
def fail(order):
    raise KeyError(order)

@app.task(name="shop.again", bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=30)

@app.task(name="shop.nap")
def nap(seconds):
    time.sleep(seconds)
"""
SEND = """
import pyceleryc; pyceleryc.install_as_celery()
import shop
for n in range(20): shop.add.apply_async((n,), {"y": 2}, task_id=f"add-{n}")
shop.fail.apply_async(("order 7",), task_id="fail-1")
shop.again.apply_async(task_id="again-1")
shop.nap.apply_async((600,), task_id="nap-1")
shop.add.apply_async((1, 1), task_id="later-1", countdown=600)
shop.app.amqp.producer.flush(10)
"""
CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--window-size=1500,900", "--virtual-time-budget=9000"]


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := attempt(condition)):
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds} s in vain for: {what}")
        time.sleep(0.3)
    print(f"ok: {what}", flush=True)
    return found


def attempt(condition: Callable[[], Any]) -> Any:
    try:
        return condition()
    except OSError:
        return None


class Flower:
    """Its API."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def call(self, path: str, **post: str) -> Any:
        data = urllib.parse.urlencode(post).encode() if post else None
        with urllib.request.urlopen(self.base + path, data, timeout=30) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) else text


def prepare(venv: Path) -> Path:
    program, python = venv / "bin" / "celery", venv / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", "import flower"], stderr=subprocess.DEVNULL).returncode:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", "flower"], check=True)
    return program


def check(flower: Flower, node: str) -> None:
    worker = wait_for("the worker is in the list, with its numbers",
                      lambda: flower.call("/api/workers?refresh=1").get(node))
    assert worker["stats"]["pool"]["max-concurrency"] == 2, worker
    assert worker["active_queues"][0]["name"] == "shop", worker
    assert {name.split()[0] for name in worker["registered"]} >= {"shop.add", "shop.nap"}, worker
    states = {"add-0": "SUCCESS", "add-19": "SUCCESS", "fail-1": "FAILURE", "again-1": "RETRY", "nap-1": "STARTED", "later-1": "RECEIVED"}
    wait_for("tasks have their states", lambda: {
        name: flower.call("/api/tasks").get(name, {}).get("state") for name in states} == states or
        (flower.call("/api/tasks").get("again-1", {}).get("state") == "RECEIVED" and states.update({"again-1": "RECEIVED"})))
    task = flower.call("/api/task/info/add-3")
    assert (task["name"], task["args"], task["kwargs"], task["result"], task["worker"]) == (
        "shop.add", "(3,)", "{'y': 2}", "5", node), task
    failed = flower.call("/api/task/info/fail-1")
    assert failed["exception"] == "KeyError('order 7')" and "raise KeyError" in failed["traceback"], failed
    print("ok: arguments, results, exceptions, tracebacks", flush=True)
    flower.call(f"/api/worker/pool/grow/{node}", n="1")
    wait_for("the pool grew", lambda: flower.call("/api/workers?refresh=1")[node]["stats"]["pool"]["max-concurrency"] == 3)
    flower.call(f"/api/worker/pool/shrink/{node}", n="1")
    wait_for("the pool shrank", lambda: flower.call("/api/workers?refresh=1")[node]["stats"]["pool"]["max-concurrency"] == 2)
    flower.call("/api/task/rate-limit/shop.add", workername=node, ratelimit="100/s")
    flower.call("/api/task/timeout/shop.add", workername=node, soft="10", hard="20")
    flower.call(f"/api/worker/queue/add-consumer/{node}", queue="more")
    wait_for("it consumes from another queue", lambda: len(
        flower.call("/api/workers?refresh=1")[node]["active_queues"]) == 2)
    flower.call(f"/api/worker/queue/cancel-consumer/{node}", queue="more")
    flower.call("/api/task/revoke/nap-1?terminate=true", terminate="true")
    wait_for("the running task is revoked", lambda: flower.call("/api/task/info/nap-1")["state"] == "REVOKED")
    flower.call("/api/task/revoke/later-1", terminate="false")


def shoot(program: str, base: str, node: str, directory: Path) -> None:
    pages = {"workers": "/", "worker": f"/worker/{node}", "tasks": "/tasks", "task": "/task/fail-1", "revoked": "/task/nap-1"}
    for name, path in pages.items():
        with tempfile.TemporaryDirectory() as profile:
            subprocess.run([program, *CHROMIUM, f"--user-data-dir={profile}", f"--screenshot={directory}/flower-{name}.png",
                            base + path], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120, check=True)
        print(f"screenshot: {directory}/flower-{name}.png", flush=True)


def run(arguments: argparse.Namespace, broker: str, directory: Path) -> None:
    (directory / "shop.py").write_text(TASKS)
    env = {**os.environ, "PYTHONPATH": str(directory), "SOAK_BROKER": broker, "C_FORCE_ROOT": "1", "FLOWER_UNAUTHENTICATED_API": "1"}
    port = free_port()
    ours = subprocess.Popen([sys.executable, "-m", "pyceleryc", "-A", "shop", "worker", "-c", "2", "-E", "-l", "INFO", "-n", "shop@here"],
                            env=env, cwd=directory)
    flower = subprocess.Popen([prepare(arguments.venv), "-A", "shop", "flower", f"--port={port}", "--address=127.0.0.1"],
                              env=env, cwd=directory)
    try:
        api = Flower(port)
        wait_for("Flower knows the worker", lambda: "shop@here" in api.call("/api/workers?status=1"))
        subprocess.run([sys.executable, "-c", SEND], env=env, check=True)
        check(api, "shop@here")
        shoot(arguments.chromium, api.base, "shop@here", arguments.shots)
        api.call("/api/worker/shutdown/shop@here", now="1")
        assert ours.wait(30) == 0
        print("ok: shut down by Flower", flush=True)
    finally:
        for process in (flower, ours):
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "pyceleryc-flower")
    parser.add_argument("--shots", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    arguments = parser.parse_args()
    if arguments.chromium is None:
        raise SystemExit("there is no Chromium: apt-get install chromium, or --chromium PROGRAM")
    with private_rabbitmq() as server, tempfile.TemporaryDirectory() as directory:
        run(arguments, server.url, Path(directory))


if __name__ == "__main__":
    main()
