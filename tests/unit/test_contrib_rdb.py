"""The debugger for tasks, used as by telnet."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import brokers

TASK = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from pyceleryc.contrib import rdb

def task(x):
    y = x + 1
    rdb.set_trace()
    z = y * 10
    return z

print("result", task(4), flush=True)
"""


def debug(port: int, *commands: str) -> tuple[str, str]:
    """What the debugger said, and what the program printed after."""
    env = {**os.environ, "CELERY_RDB_PORT": str(port), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-c", TASK], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        where = process.stdout.readline().split()
        with socket.create_connection((where[-2], int(where[-1])), 20) as line:
            line.sendall("".join(f"{command}\n" for command in commands).encode())
            said = b""
            while part := line.recv(4096):
                said += part
        return said.decode(), process.communicate(timeout=20)[0]


def test_look_and_go_on() -> None:
    said, printed = debug(brokers.free_port(), "p x, y", "!y = 7", "next", "p z", "continue")
    assert "(4, 5)" in said and "70" in said
    assert "used from 127.0.0.1" in printed and printed.endswith("result 70\n")


def test_quit_lets_the_task_go_on() -> None:
    assert debug(brokers.free_port(), "quit")[1].endswith("result 50\n")


def test_next_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert debug(taken.getsockname()[1], "continue")[1].endswith("result 50\n")
