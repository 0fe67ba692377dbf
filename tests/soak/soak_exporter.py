"""An exporter for Prometheus from PyPI watches our worker by its events; its numbers and those of --http-address are the same.

    python tests/soak/soak_exporter.py [--venv DIR] [--exporter COMMAND]

The exporter is celery-prometheus-exporter (what PyPI has under celery-exporter does not build any more). --exporter: another one's command, with
{broker} and {port} for what it needs, e.g. "celery-exporter --broker-url={broker} --port={port}"; the worker sends events anyway.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from brokers import free_port, private_rabbitmq  # noqa: E402
from soak_flower import SEND, TASKS, wait_for  # noqa: E402

PACKAGES = ["celery-prometheus-exporter", "celery", "setuptools<81"]
COMMAND = "{bin}/celery-prometheus-exporter --broker={broker} --addr=127.0.0.1:{port} --enable-events"
#: What both exporters call it, and how often it must have happened by then.
WANTED = {
    "SUCCESS": r'(?:celery_tasks_by_name\{name="shop\.add",state="SUCCESS"\}|celery_task_succeeded_total\{[^}]*name="shop\.add"[^}]*\}) 20\.0',
    "FAILURE": r'(?:celery_tasks_by_name\{name="shop\.fail",state="FAILURE"\}|celery_task_failed_total\{[^}]*name="shop\.fail"[^}]*\}) 1\.0',
    "worker": r"(?:celery_workers|celery_worker_up\{[^}]*\}) 1\.0",
}


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def prepare(venv: Path) -> None:
    if not (venv / "bin" / "celery-prometheus-exporter").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", *PACKAGES], check=True)


def check(port: int, own: int) -> None:
    for what, pattern in WANTED.items():
        wait_for(f"the exporter knows: {what}", lambda pattern=pattern: re.search(pattern, scrape(port)), 90)
    ours = scrape(own)
    assert '\npyceleryc_tasks_total{task="shop.add",state="SUCCESS"} 20\n' in ours, ours
    assert '\npyceleryc_tasks_total{task="shop.fail",state="FAILURE"} 1\n' in ours, ours
    assert '\npyceleryc_tasks_total{task="shop.again",state="RETRY"} 1\n' in ours, ours
    assert "\npyceleryc_pool_busy 1\n" in ours, ours
    print("ok: our own metrics say the same", flush=True)


def run(arguments: argparse.Namespace, broker: str, directory: Path) -> None:
    (directory / "shop.py").write_text(TASKS)
    env = {**os.environ, "PYTHONPATH": str(directory), "SOAK_BROKER": broker, "C_FORCE_ROOT": "1"}
    port, own = free_port(), free_port()
    ours = subprocess.Popen([sys.executable, "-m", "pyceleryc", "-A", "shop", "worker", "-c", "2", "-E", "-n", "shop@here",
                             "--http-address", f"127.0.0.1:{own}"], env=env, cwd=directory)
    command = (arguments.exporter or COMMAND).format(bin=arguments.venv / "bin", broker=broker, port=port)
    exporter = subprocess.Popen(shlex.split(command), cwd=directory)
    try:
        wait_for("the worker is ready", lambda: "\npyceleryc_consuming 1\n" in scrape(own))
        wait_for("the exporter answers", lambda: scrape(port))
        wait_for("the exporter knows the worker", lambda: re.search(WANTED["worker"], scrape(port)))
        subprocess.run([sys.executable, "-c", SEND], env=env, check=True)
        check(port, own)
    finally:
        for process in (exporter, ours):
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "pyceleryc-exporter")
    parser.add_argument("--exporter", default="")
    arguments = parser.parse_args()
    if not arguments.exporter:
        prepare(arguments.venv)
    with private_rabbitmq() as server, tempfile.TemporaryDirectory() as directory:
        run(arguments, server.url, Path(directory))


if __name__ == "__main__":
    main()
