"""/livez while a task holds the GIL for ten seconds: answered within 50 ms, in every pool; and what a probe costs.

    python tests/soak/soak_livez.py

Each question is asked by a connection of its own, as probes do. On a machine that does other work as well its own delays count, too.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE), str(Path(__file__).resolve().parent)]

from brokers import free_port  # noqa: E402
from soak_flower import wait_for  # noqa: E402

SECONDS, LIMIT_MS = 10.0, 50.0
SEND = "import sys, probe_tasks; probe_tasks.hold_gil.delay(float(sys.argv[1]), sys.argv[2])"


def ask(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int) -> list[float]:
    """Milliseconds of each answer while the task runs."""
    found = []
    end = time.monotonic() + SECONDS - 1
    while time.monotonic() < end:
        begin = time.monotonic()
        assert ask(port, "/livez").startswith(b"HTTP/1.1 200 ")
        found.append((time.monotonic() - begin) * 1e3)
        time.sleep(0.05)
    return sorted(found)


def price(port: int, pid: int, path: str, times: int = 2000) -> float:
    """Microseconds of the worker's processor per answer."""
    before = processor_seconds(pid)
    for _ in range(times):
        ask(port, path)
    return (processor_seconds(pid) - before) / times * 1e6


def run(pool: str, directory: Path) -> bool:
    env = {**os.environ, "PYTHONPATH": str(HERE), "PROBE_BROKER": f"sqlite:///{directory}/broker.db", "C_FORCE_ROOT": "1"}
    port, mark = free_port(), directory / "mark"
    worker = subprocess.Popen([sys.executable, "-m", "pyceleryc", "-A", "probe_tasks", "worker", "-P", pool, "-c", "1", "-l", "ERROR",
                               "--http-address", f"127.0.0.1:{port}"], env=env, stdout=subprocess.DEVNULL)
    try:
        wait_for(f"{pool}: ready", lambda: ask(port, "/readyz").startswith(b"HTTP/1.1 200 "))
        subprocess.run([sys.executable, "-c", SEND, str(SECONDS), str(mark)], env=env, check=True)
        wait_for(f"{pool}: the task runs", mark.exists)
        times = measure(port)
        assert b'state="STARTED"} 1\n' in ask(port, "/metrics") and b'state="SUCCESS"} 0\n' in ask(port, "/metrics")
        costs = [f"{price(port, worker.pid, path):.0f} µs for {path}" for path in ("/livez", "/metrics")]
        print(f"{pool}: {len(times)} answers, median {times[len(times) // 2]:.1f} ms, slowest {times[-1]:.1f} ms; "
              f"processor time of the worker: {', '.join(costs)}", flush=True)
        return times[-1] <= LIMIT_MS
    finally:
        worker.kill()
        worker.wait()


def main() -> None:
    slow = []
    for pool in ("prefork", "threads", "solo"):
        with tempfile.TemporaryDirectory() as directory:
            if not run(pool, Path(directory)):
                slow.append(pool)
    if slow:
        raise SystemExit(f"slower than {LIMIT_MS} ms: {', '.join(slow)}")


if __name__ == "__main__":
    main()
