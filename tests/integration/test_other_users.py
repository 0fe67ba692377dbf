"""--uid and --gid: detached workers, multi and beat as another user than the superuser who starts them."""

from __future__ import annotations

import atexit
import functools
import grp
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import PROJECT, READY, ROOT, wait_until

NOBODY = pwd.getpwnam("nobody")
GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name
SUPERUSER = os.geteuid() == 0
REFUSED = "only the superuser can change to another user or group"


@pytest.fixture
def place() -> Iterator[Path]:
    """A project that everybody can read, unlike pytest's directories; nobody owns it."""
    path = Path(tempfile.mkdtemp(prefix="pyceleryc-user-"))
    path.chmod(0o755)
    (path / "proj.py").write_text(PROJECT)
    if SUPERUSER:
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    yield path
    for pidfile in path.rglob("*.pid"):
        os.kill(int(pidfile.read_text()), signal.SIGKILL)
    shutil.rmtree(path)


def is_public(path: Path) -> bool:
    """May others go there?"""
    return all(parent.stat().st_mode & stat.S_IXOTH for place in (path.absolute(), path.resolve()) for parent in (place, *place.parents))


def public_python() -> str:
    """An interpreter that others may run: this one, unless it is in a home directory."""
    for python in (sys.executable, "/usr/bin/python3"):
        if is_public(Path(python)):
            return python
    raise AssertionError("no interpreter that every user may run")


@functools.cache
def public_path() -> str:
    """From where others may import us: a copy, if this is in a home directory."""
    ours, packages = ROOT, Path(sysconfig.get_path("purelib"))
    if not (is_public(ours) and is_public(packages)):
        copies = Path(tempfile.mkdtemp(prefix="pyceleryc-public-"))
        atexit.register(shutil.rmtree, copies)
        copies.chmod(0o755)
        shutil.copytree(ours / "pyceleryc", copies / "ours" / "pyceleryc")
        shutil.copytree(packages, copies / "packages")
        ours, packages = copies / "ours", copies / "packages"
    return f"{ours}{os.pathsep}{packages}"


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = public_path()
    database = f"sqlite:///{place}/tasks.db"
    env = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "BROKER": database, "BACKEND": database}
    return subprocess.run([sys.executable, "-m", "pyceleryc", "-A", "proj", *arguments], cwd=place, env=env,
                          capture_output=True, text=True, timeout=50)


def started(done: subprocess.CompletedProcess[str]) -> bool:
    """Has it worked?  Who is not the superuser is refused."""
    if SUPERUSER:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode and REFUSED in done.stderr and "Traceback" not in done.stderr
    return SUPERUSER


def belongs(path: Path) -> bool:
    info = path.stat()
    return (info.st_uid, info.st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)


def ids(pid: int) -> tuple[set[str], set[str], list[str]]:
    """All user ids, all group ids, and the supplementary groups of a process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return set(lines["Uid"].split()), set(lines["Gid"].split()), lines["Groups"].split()


def is_nobody(pid: int) -> bool:
    users, groups, more = ids(pid)
    return users == {str(NOBODY.pw_uid)} and groups == {str(NOBODY.pw_gid)} and "0" not in more


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("options", [["--uid", "nobody", "--gid", GROUP], ["--uid", str(NOBODY.pw_uid)]])
def test_detached_worker(place: Path, options: list[str]) -> None:
    """Parent, child and all their files; after a restart, too."""
    done = run(place, "worker", "-D", "-c", "1", "-l", "INFO", "--pidfile", "%n.pid", "-f", "%n.log", "--statedb", "%n.state",
               "--executable", public_python(), *options)
    if not started(done):
        return
    log, pidfile = place / "celery.log", place / "celery.pid"
    wait_until(lambda: READY in log.read_text())
    pid = int(pidfile.read_text())
    assert all(map(is_nobody, [pid, *children(pid)])) and children(pid)
    assert belongs(log) and belongs(pidfile)
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: log.read_text().count(READY) == 2)
    assert is_nobody(pid)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not pidfile.exists())
    assert all(belongs(path) for path in place.iterdir() if path.name not in ("proj.py", "__pycache__"))


def test_multi(place: Path) -> None:
    """The directories that it makes are the user's, and stopping works for who has started them."""
    files = ["--pidfile=run/%n.pid", "--logfile=log/%n.log"]
    done = run(place, "multi", "start", "2", "-c", "1", "-l", "INFO", "--uid=nobody", f"--gid={GROUP}",
               f"--executable={public_python()}", *files)
    if not started(done):
        return
    logs = [place / f"log/celery{n}.log" for n in (1, 2)]
    wait_until(lambda: all(READY in log.read_text() for log in logs))
    pidfiles = [place / f"run/celery{n}.pid" for n in (1, 2)]
    assert all(is_nobody(int(path.read_text())) for path in pidfiles)
    assert all(map(belongs, [*logs, *pidfiles, place / "run", place / "log"]))
    assert run(place, "multi", "stopwait", "2", *files).returncode == 0
    assert not any(path.exists() for path in pidfiles)


def test_detached_beat(place: Path) -> None:
    done = run(place, "beat", "--detach", "--uid", "nobody", "--pidfile", "beat.pid", "-f", "beat.log", "-l", "INFO",
               "--executable", public_python())
    if not started(done):
        return
    log, pidfile = place / "beat.log", place / "beat.pid"
    wait_until(lambda: "beat: Starting..." in log.read_text())
    pid = int(pidfile.read_text())
    assert is_nobody(pid) and belongs(log) and belongs(pidfile)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not pidfile.exists())


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_in_the_foreground(place: Path, command: str) -> None:
    """It only takes the ids that are there: the log and the pidfile are made by the new user. The program itself, who may not be able
    to read it, was loaded before."""
    done = run(place, command, "--uid", "nobody", "--pidfile", "/var/run/of-nobody.pid", "-f", "w.log")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert ("cannot write pidfile" if SUPERUSER else REFUSED) in done.stderr


@pytest.mark.parametrize("option, what, command", [
    ("--uid", "User", ["worker", "-D"]), ("--gid", "Group", ["beat", "--detach"]), ("--gid", "Group", ["worker"]), ("--uid", "User", ["beat"]),
])
def test_there_is_none_of_that_name(place: Path, option: str, what: str, command: list[str]) -> None:
    done = run(place, *command, option, "of-that-name")
    assert done.returncode in (1, 2)
    assert f" {what} does not exist: of-that-name\n" in done.stderr
