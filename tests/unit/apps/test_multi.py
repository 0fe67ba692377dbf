"""The command lines of `multi`: names of nodes, options for some of them, what is run for each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyceleryc.apps.multi import Cluster, Node, is_running, parse, signal_of
from pyceleryc.utils.nodenames import gethostname

HOST = gethostname()
VALUES = {"-A": True, "-c": True, "-Q": True, "-l": True, "-n": True, "--hostname": True, "-E": False, "--purge": False,
          "--pidfile": True, "--time-limit": True, "--range-prefix": True}
LEADING = {"-A", "--workdir"}


def cluster(line: str) -> Cluster:
    return Cluster.of(parse(line.split(), VALUES.get), LEADING.__contains__)


def names(line: str) -> list[str]:
    return [node.name for node in cluster(line)]


def options(line: str) -> list[list[str]]:
    """What is special about each node's command."""
    common = ("--pidfile", "--logfile", "--executable")
    return [[word for word in node.argv[5:] if not word.startswith(common)] for node in cluster(line + " -A proj")]


@pytest.mark.parametrize("line, expected", [
    ("3", [f"celery{n}@{HOST}" for n in (1, 2, 3)]),
    ("2 --range-prefix=w", [f"w1@{HOST}", f"w2@{HOST}"]),
    ("2 --range-prefix w", [f"w1@{HOST}", f"w2@{HOST}"]),
    ("1 2", [f"1@{HOST}", f"2@{HOST}"]),
    ("a b c@there -n here", ["a@here", "b@here", "c@there"]),
    ("a b@%h --hostname=here", ["a@here", f"b@{HOST}"]),
    ("--hostname here a", ["a@here"]),
    ("-E a b", [f"a@{HOST}", f"b@{HOST}"]),
])
def test_names(line: str, expected: list[str]) -> None:
    assert names(line) == expected


def test_options_of_some_nodes_win() -> None:
    assert options("3 -Q default -Q:1,3 images,video -c:2-3 9 --time-limit:1=30") == [
        ["worker", "--detach", "-Q", "images,video", "--time-limit=30", "-n", f"celery1@{HOST}"],
        ["worker", "--detach", "-Q", "default", "-c", "9", "-n", f"celery2@{HOST}"],
        ["worker", "--detach", "-Q", "images,video", "-c", "9", "-n", f"celery3@{HOST}"],
    ]


def test_open_range_names_and_flags() -> None:
    one, two, three = options("a b c -c:2- 4 -l:a DEBUG -E:c --purge -c:a@" + HOST + " 7")
    assert one == ["worker", "--detach", "--purge", "-l", "DEBUG", "-c", "7", "-n", f"a@{HOST}"]
    assert two == ["worker", "--detach", "--purge", "-c", "4", "-n", f"b@{HOST}"]
    assert three == ["worker", "--detach", "--purge", "-c", "4", "-E", "-n", f"c@{HOST}"]


def test_value_in_the_same_word_may_have_a_colon() -> None:
    node, = Cluster.of(parse(["a", "-Aproj:app", "-c3"], VALUES.get), LEADING.__contains__)
    assert node.argv[3:8] == ["-A", "proj:app", "worker", "--detach", "-c"] and node.argv[8] == "3"


def test_unknown_options_may_have_values() -> None:
    assert options("a -Z zone --extra -Y -l INFO")[0][2:8] == ["-Z", "zone", "--extra", "-Y", "-l", "INFO"]


def test_settings_come_last() -> None:
    node, = Cluster.of(parse("a -c 1 -- worker.x=3".split(), VALUES.get), LEADING.__contains__)
    assert node.argv[-2:] == ["--", "worker.x=3"]


@pytest.mark.parametrize("line, says", [
    ("", "name the nodes"),
    ("0", "name the nodes"),
    ("a a", "needs a name of its own"),
    ("3 -c:4 1", "numbered from 1 to 3"),
    ("3 -c:3-2 1", "numbered from 1 to 3"),
    ("3 -c:0 1", "numbered from 1 to 3"),
    ("a b -c:nobody 1", "there is no node 'nobody', only a, b"),
    ("a -c", "option -c needs a value"),
    ("a@%x", "%x"),
])
def test_wrong_command_line(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        cluster(line)


def test_templates() -> None:
    node = Node("w1@a.example.com", {"--pidfile": "%n-%h.pid", "-f": "%N%I.log"})
    assert node.expand("%n %N %h %p %d %i %I") == "w1 w1 w1@a.example.com w1@a.example.com example.com %i %I"
    assert node.options == {"--pidfile": "w1-w1@a.example.com.pid", "-f": "w1%I.log"}
    default = Node("w1@here", {})
    assert default.options == {"--pidfile": "/var/run/celery/w1.pid", "--logfile": "/var/log/celery/w1%I.log"}


def test_files_are_found_from_the_working_directory(tmp_path: Path) -> None:
    node = Node("w@h", {"--pidfile": "run/%n.pid", "--logfile": "log/%n.log"}, {"--workdir": str(tmp_path)},
                command=["-c", ""])
    assert node.start() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "run"]
    (tmp_path / "run/w.pid").write_text(f"{os.getpid()}\n")
    assert node.pid == os.getpid()


@pytest.mark.parametrize("content", ["", "what\n", "12", "4194305\n"])
def test_pidfile_without_a_process(tmp_path: Path, content: str) -> None:
    (tmp_path / "w.pid").write_text(content)
    node = Node("w@h", {"--pidfile": str(tmp_path / "w.pid")})
    assert node.pid is None and node.send(signal.SIGTERM) is False


def test_the_dead_do_not_run() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still listed
    assert not is_running(process.pid)
    process.wait()
    assert not is_running(process.pid) and is_running(os.getpid())


@pytest.mark.parametrize("word, signum", [
    ("-9", signal.SIGKILL), ("-TERM", signal.SIGTERM), ("-SIGINT", signal.SIGINT), ("-E", None), ("-c", None),
    ("-999", None), ("-", None), ("--purge", None), ("TERM", None), ("-SIG_DFL", None),
])
def test_signals(word: str, signum: int | None) -> None:
    assert signal_of(word) == signum
