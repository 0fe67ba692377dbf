"""Pictures of steps and workers, and what shells complete."""

from __future__ import annotations

import json

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from pyceleryc import Celery, bootsteps
from pyceleryc.bin.celery import main


class Mine(bootsteps.StartStopStep):
    """A step of the user's."""

    requires = ("pyceleryc.worker.components:Pool",)


def app() -> Celery:
    return Celery("drawn", broker="memory://", backend="cache+memory://", set_as_current=False)


def run(*arguments: str, given: Celery | None = None) -> Result:
    return CliRunner().invoke(main, ["graph", *arguments], obj=given or app())


def test_bootsteps() -> None:
    mine = app()
    mine.steps["worker"].add(Mine)
    both = run("bootsteps", given=mine)
    assert both.exit_code == 0, both.output
    lines = both.output.splitlines()
    assert lines[0].startswith("digraph ") and lines[-1] == "}"
    for edge in ('"Hub" -> "Timer"', '"Mine" -> "Pool"', '"Consumer" -> "Mine"', '"Heart" -> "Events"'):
        assert sum(line.strip().startswith(edge) for line in lines) == 1, edge
    assert '"Heart"' not in run("bootsteps", "worker").output
    assert run("bootsteps", "nothing").exit_code == 2


def test_step_that_is_not_there() -> None:
    mine = app()
    mine.steps["consumer"].add("no.such:Step")
    done = run("bootsteps", "consumer", given=mine)
    assert done.exit_code == 1 and "There is no bootstep" in done.output


def test_workers_that_are_named() -> None:
    done = run("workers", "nodes:a, b", "threads:2,9")
    assert done.exit_code == 0
    for text in ('"a" -> "memory://', '"b" -> "cache+memory', '"a #2" -> "a"', '"b #5" -> "b"', '"b and 4 more" -> "b"'):
        assert text in done.output
    assert "#6" not in done.output


@pytest.mark.parametrize("arguments", [["nodes:a", "threads:x"], ["nodes:a", "threads:1,2"], ["what"], ["colours:1"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert run("workers", *arguments).exit_code == 2


@pytest.mark.parametrize("words, expected", [
    (["mi"], {"migrate"}),
    (["multi", "sto"], {"stop", "stopwait"}),
    (["worker", "--rel"], {"--reload"}),
    (["inspect", "active"], {"active", "active_queues"}),
    (["control", "pool_"], {"pool_grow", "pool_restart", "pool_shrink"}),
    (["amqp", "basic."], {"basic.ack", "basic.get", "basic.publish"}),
])
def test_completion(words: list[str], expected: set[str]) -> None:
    found = ShellComplete(main, {}, "pyceleryc", "_PYCELERYC_COMPLETE").get_completions(words[:-1], words[-1])
    assert {item.value for item in found} == expected


def test_purge_and_result_as_json(unique) -> None:
    mine = app()
    mine.conf.task_default_queue = queue = unique("purged")
    sent = mine.send_task("nothing")
    done = CliRunner().invoke(main, ["purge", "-f", "--json"], obj=mine)
    assert done.exit_code == 0 and json.loads(done.output) == {queue: 1}
    mine.backend.store_result(sent.id, KeyError("x"), "FAILURE", traceback="Traceback…")
    done = CliRunner().invoke(main, ["result", sent.id, "--json"], obj=mine)
    assert json.loads(done.output) == {
        "id": sent.id, "state": "FAILURE", "result": "KeyError('x')", "traceback": "Traceback…"}
