"""RabbitMQ and Redis servers for tests: the one that answers, or a private one.

A private server listens on a free port of 127.0.0.1, keeps its files in a temporary directory and
may be killed and started again on the same port with the same data:

    with private_rabbitmq() as server:
        publish(server.url)
        server.kill()           # SIGKILL, as a crash
        server.start()          # returns when it accepts connections again

As a program it runs a command that finds both servers in PYCELERYC_TEST_AMQP and
PYCELERYC_TEST_REDIS, and ends with the command's exit code:

    python tests/brokers.py make check
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from amqp.exceptions import AMQPError
from kombu import Connection

from freeze import freeze

START_TIMEOUT = 90.0  # seconds; RabbitMQ takes five on an idle machine
STOP_TIMEOUT = 30.0


class BrokerError(RuntimeError):
    """A server could not be started; the text says why and what to do."""


def answers(url: str, timeout: float = 2.0) -> bool:
    """Whether the server at `url` serves clients, asked for at most about `timeout` seconds."""
    try:
        return amqp_answers(url, timeout) if url.startswith("amqp") else redis_answers(url, timeout)
    except (OSError, AMQPError):
        return False


def amqp_answers(url: str, timeout: float) -> bool:
    connection = Connection(url, connect_timeout=timeout)
    try:
        connection.connect()
        return connection.connected
    finally:
        connection.release()


def redis_answers(url: str, timeout: float) -> bool:
    """A PING by hand: clients wait and try again, which is not what is asked here."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 6379), timeout) as probe:
        probe.sendall(b"PING\r\n")
        return probe.recv(64).startswith(b"+PONG")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on. Not one that the kernel gives to outgoing connections: one of those might
    have it before the caller binds it, or between stop() and start()."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return port


def find_program(name: str, *places: str, package: str = "") -> str:
    """The path of a server program, from `places` or PATH and the sbin directories; `package`: Debian's, if it is called something else."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
    for place in places:
        if os.access(place, os.X_OK):
            return place
    found = shutil.which(name, path=path)
    if not found:
        raise BrokerError(f"{name} is not installed; on Debian: apt-get install {package or name}")
    return found


class PrivateServer:
    """A server process with its directory; `url` is where clients connect."""

    name = "server"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    def command(self) -> list[str]:
        """Program and arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        return dict(os.environ)

    def user(self) -> str | None:
        """Whom the process runs as, if that is not who we are."""
        return None

    def answers(self) -> bool:
        """Whether the server serves clients."""
        return answers(self.url)

    @property
    def pid(self) -> int:
        """The process id of the server itself."""
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    def start(self) -> None:
        """Start, or start again on the same port and data; returns when clients can log in."""
        assert self.process is None, f"{self.name} is running already"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), env=self.environment(), cwd=self.directory, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, user=self.user())
        deadline = time.monotonic() + START_TIMEOUT
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise BrokerError(f"{self.name} did not start; its output:\n{self.log_tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Shut down in order, as an operator does; kill it when that takes too long."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the server and all that it started."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing answers."""
        freeze(self.pid)

    def resume(self) -> None:
        """Let a paused server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, signum: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signum)  # its helpers follow when it is done with them
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            print(f"{self.name} {process.pid} ignores signal {signum}", file=sys.stderr)
        send_group(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def log_path(self) -> Path:
        return self.directory / "output.log"

    def log_tail(self, size: int = 4000) -> str:
        """The end of what the server printed."""
        return self.log_path.read_text(errors="replace")[-size:]

    def close(self) -> None:
        """Kill the server and helpers that outlive it."""
        self.kill()


def send_group(pid: int, signum: int) -> None:
    """Signal the process group that `pid` leads, or led."""
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        return


class PrivateRabbitMQ(PrivateServer):
    """RabbitMQ with its own node name, port mapper (epmd) and cookie; login guest:guest.

    `config` adds lines to rabbitmq.conf, {"consumer_timeout": "2000"}.
    """

    name = "rabbitmq-server"

    def __init__(self, directory: Path, config: Mapping[str, str]) -> None:
        super().__init__(directory)
        self.epmd_port = free_port()
        self.dist_port = free_port()
        self.config = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "disk_free_limit.absolute": "1MB",  # a full disk of the test machine is no test
            "vm_memory_high_watermark.relative": "0.7",  # a message of 100 MB takes over 1 GB
            "log.console.level": "warning",
            **config,
        }
        self.epmd = subprocess.Popen(
            [find_program("epmd", package="erlang-base"), "-address", "127.0.0.1", "-port", str(self.epmd_port)],
            start_new_session=True, cwd=directory,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def command(self) -> list[str]:
        # Not the wrapper in /usr/sbin: that one changes to the user and files of the service.
        return [find_program("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")]

    def environment(self) -> dict[str, str]:
        home = self.directory
        lines = "".join(f"{key} = {value}\n" for key, value in self.config.items())
        (home / "rabbitmq.conf").write_text(lines)
        (home / "enabled_plugins").write_text("[].\n")
        inherited = {key: value for key, value in os.environ.items()
                     if not key.startswith(("RABBITMQ_", "ERL_"))}
        return inherited | {
            "HOME": str(home),  # the cookie is made here
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"pyceleryc{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "rabbitmq.pid"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RUNNING_UNDER_SYSTEMD": "1",  # the script becomes the server, no shell above it
            # Two schedulers that do not spin: the tests need the processors themselves.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def ctl(self, *arguments: str) -> str:
        """What rabbitmqctl says when it is called so for this node."""
        program = find_program("rabbitmqctl", "/usr/lib/rabbitmq/bin/rabbitmqctl", package="rabbitmq-server")
        command = [program, "-n", self.environment()["RABBITMQ_NODENAME"]]
        done = subprocess.run([*command, *arguments], env=self.environment(), user=self.user(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=START_TIMEOUT)
        if done.returncode != 0:
            raise BrokerError(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}")
        return done.stdout

    def close(self) -> None:
        super().close()
        self.epmd.kill()
        self.epmd.wait()


class PrivateRedis(PrivateServer):
    """Redis that has every answered write on file before the answer: kill() loses nothing.

    `options` are further command line options, {"maxmemory": "10mb"}.
    """

    name = "redis-server"

    def __init__(self, directory: Path, options: Mapping[str, str]) -> None:
        super().__init__(directory)
        self.options = {
            "bind": "127.0.0.1", "port": str(self.port), "dir": str(directory), "save": "",
            "appendonly": "yes", "appendfsync": "no", **options,
        }

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        arguments = [part for key, value in self.options.items() for part in (f"--{key}", value)]
        return [find_program("redis-server"), *arguments]


class PrivateSentinel(PrivateServer):
    """A Redis Sentinel that watches the server at `master_port` under the name "themaster" and decides alone."""

    name = "redis-sentinel"

    def __init__(self, directory: Path, master_port: int) -> None:
        super().__init__(directory)
        lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {directory}",
                 f"sentinel monitor themaster 127.0.0.1 {master_port} 1",
                 "sentinel down-after-milliseconds themaster 500", "sentinel failover-timeout themaster 3000"]
        (directory / "sentinel.conf").write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [find_program("redis-server"), str(self.directory / "sentinel.conf"), "--sentinel"]


@contextmanager
def running(server: PrivateServer) -> Iterator[None]:
    """Start the server; at the end nothing of it runs."""
    try:
        server.start()
        yield
    finally:
        server.close()


@contextmanager
def private_rabbitmq(config: Mapping[str, str] | None = None) -> Iterator[PrivateRabbitMQ]:
    """A RabbitMQ of one's own; `config` is described at PrivateRabbitMQ."""
    with tempfile.TemporaryDirectory(prefix="pyceleryc-rabbitmq-") as directory:
        server = PrivateRabbitMQ(Path(directory), config or {})
        with running(server):
            yield server


@contextmanager
def private_redis(options: Mapping[str, str] | None = None) -> Iterator[PrivateRedis]:
    """A Redis of one's own; `options` is described at PrivateRedis."""
    with tempfile.TemporaryDirectory(prefix="pyceleryc-redis-") as directory:
        server = PrivateRedis(Path(directory), options or {})
        with running(server):
            yield server


@contextmanager
def private_sentinel(master: PrivateRedis) -> Iterator[PrivateSentinel]:
    """A Sentinel of one's own, that watches `master`."""
    with tempfile.TemporaryDirectory(prefix="pyceleryc-sentinel-") as directory:
        server = PrivateSentinel(Path(directory), master.port)
        with running(server):
            yield server


@contextmanager
def amqp_server() -> Iterator[str]:
    """The URL of a RabbitMQ: PYCELERYC_TEST_AMQP, the one on the standard port, or a private one."""
    given = os.environ.get("PYCELERYC_TEST_AMQP")
    url = given or "amqp://guest:guest@127.0.0.1:5672//"
    if given or answers(url):
        yield url
        return
    with private_rabbitmq() as server:
        yield server.url


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of a Redis: PYCELERYC_TEST_REDIS, the one on the standard port, or a private one."""
    given = os.environ.get("PYCELERYC_TEST_REDIS")
    url = given or "redis://127.0.0.1:6379/0"
    if given or answers(url):
        yield url
        return
    with private_redis() as server:
        yield server.url


def run_with_servers(command: list[str]) -> int:
    """Run `command` with the URLs of both servers in its environment; its exit code."""
    with amqp_server() as amqp, redis_server() as redis:
        urls = {"PYCELERYC_TEST_AMQP": amqp, "PYCELERYC_TEST_REDIS": redis}
        # Make hands its job slots down in open files.
        with subprocess.Popen(command, env=os.environ | urls, close_fds=False) as process:
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            code = process.wait()
    return code if code >= 0 else 128 - code


def end(signum: int, frame: FrameType | None) -> None:
    """Leave as after an exception, so that private servers are stopped."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    try:
        sys.exit(run_with_servers(sys.argv[1:]))
    except BrokerError as error:
        sys.exit(f"pyceleryc: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
