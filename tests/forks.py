"""Python programs without the time that their imports take: forked from an interpreter that has them imported already.

What runs is a process of its own, with its own environment, arguments and exit code; only the modules of the implementation
(not those of the project) are there before. Not for workers: how these start and what they leave is what many tests are about.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import selectors
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
PRELOAD = {
    "pyceleryc": "import pyceleryc; pyceleryc.install_as_celery()\n"
                 "import pyceleryc.bin.celery, pyceleryc.bin.control, pyceleryc.app.amqp, pyceleryc.app.control, pyceleryc.backends.redis, kombu.pidbox",
    "celery": "import celery.bin.celery, celery.app.amqp, celery.app.control, celery.backends.redis, celery.backends.rpc\n"
              "import kombu.pidbox, kombu.transport.pyamqp, kombu.transport.redis",
}


# ---- in the tests -------------------------------------------------------------------------------------------------------

class Template:
    """The interpreter that is forked. It ends with the process that has made it."""

    made: dict[tuple[str, str], Template] = {}

    def __init__(self, python: str, implementation: str) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen([python, str(HERE), str(theirs.fileno()), PRELOAD[implementation]],
                                            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        atexit.register(self.end)

    @classmethod
    def of(cls, python: str, implementation: str) -> Template:
        found = cls.made.get((python, implementation))
        if found is None:
            found = cls.made[python, implementation] = cls(python, implementation)
        return found

    def end(self) -> None:
        self.control.close()
        self.process.wait()


def run(python: str, implementation: str, arguments: list[str], env: Mapping[str, str],
        timeout: float = 60, merged: bool = False, cwd: str | Path | None = None) -> subprocess.CompletedProcess[str]:
    """As subprocess.run([python, *arguments]) where these are `-c CODE` or `-m MODULE ARGUMENT…`: output as text, with that for
    the user among the other when `merged`. Raises subprocess.TimeoutExpired after `timeout` seconds."""
    if is_read_at_import(env):
        return subprocess.run([python, *arguments], env=dict(env), cwd=cwd, timeout=timeout, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT if merged else subprocess.PIPE)
    reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # pid and code must not run into one
    with reply, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        request = json.dumps([arguments, dict(env), str(cwd or os.getcwd())]).encode()
        with theirs:
            fds = [theirs.fileno(), out.fileno(), (out if merged else err).fileno()]
            socket.send_fds(Template.of(python, implementation).control, [request], fds)
        reply.settimeout(timeout)
        pid = int(reply.recv(64))
        try:
            code = int(reply.recv(64))
        except TimeoutError:
            os.kill(pid, 9)
            reply.recv(64)
            raise subprocess.TimeoutExpired(arguments, timeout, _text(out), _text(err)) from None
        return subprocess.CompletedProcess(arguments, code, _text(out), _text(err))


def is_read_at_import(env: Mapping[str, str]) -> bool:
    """Whether variables differ that count before or while the implementation is imported: too late for a template."""
    names = {name for name in {*env, *os.environ} if name.startswith(("MP_", "PYTHON")) and name != "PYTHONPATH"}
    return any(env.get(name) != os.environ.get(name) for name in names)


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


# ---- in the template ----------------------------------------------------------------------------------------------------

def serve(control: socket.socket) -> list[Any]:
    """Forks a process per request and tells its pid, later its exit code; returns in that process only."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is control:
                request, fds, _, _ = socket.recv_fds(control, 1 << 20, 3)
                if not request:
                    os._exit(0)
                pid = os.fork()
                if not pid:
                    selector.close()
                    control.close()
                    become(fds)
                    return list(json.loads(request))
                reply = socket.socket(fileno=fds[0])
                for fd in fds[1:]:
                    os.close(fd)
                reply.send(b"%d" % pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, reply))
            else:
                pid, reply = key.data
                selector.unregister(key.fileobj)
                os.close(key.fd)
                with reply:
                    reply.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def become(fds: list[int]) -> None:
    os.dup2(fds[1], 1)
    os.dup2(fds[2], 2)
    for fd in fds:
        os.close(fd)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    sys.path.pop(0)  # of this file
    exec(sys.argv[2], {})
    gc.freeze()
    arguments, env, directory = serve(control)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = ["" if arguments[0] == "-c" else directory, *paths]
    sys.argv = [arguments[0], *arguments[2:]]
    if arguments[0] == "-c":
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
