"""Tasks guide, concept (T-001..T-012): messages, acknowledgement, lost processes. T-001 is in test_t_basics.py, and
test_t_acks_matrix.py has all combinations of the options of T-005..T-008."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TimeLimitExceeded, WorkerLostError


@pytest.fixture(scope="module")
def own(running: Any, side: Any) -> Iterator[Any]:
    """A worker whose children may be killed; its queue is `own.queue`."""
    queue = f"{running.queue}-own"
    env = {**running.env, "FLEET_QUEUE": queue}
    node = f"own-{uuid.uuid4().hex[:8]}@here"
    with side.worker(env, "-c", "2", "-n", node) as worker:
        worker.queue, worker.node, worker.env = queue, node, env
        yield worker
    _delete(running, queue)


def _delete(running: Any, queue: str) -> None:
    with running.tasks.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(queue)


def waiting(running: Any, queue: str) -> int:
    """Messages in the queue that no worker holds."""
    with running.tasks.app.connection_for_write() as connection:
        return connection.default_channel.queue_declare(queue, passive=True).message_count


def active(running: Any, node: str, task_id: str, timeout: float = 30) -> dict[str, Any]:
    """What `inspect active` says about the run, as soon as it runs."""
    deadline = time.monotonic() + timeout
    while True:
        answer = running.tasks.app.control.inspect(destination=[node], timeout=5).active() or {}
        for one in answer.get(node, []):
            if one["id"] == task_id:
                return one
        assert time.monotonic() < deadline, f"{task_id} does not run: {answer}"
        time.sleep(0.02)


def marks(path: Path) -> list[int]:
    """The processes that ran the task, in order."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_for_marks(path: Path, count: int, timeout: float = 15) -> None:
    deadline = time.monotonic() + timeout
    while len(marks(path)) < count:
        assert time.monotonic() < deadline, f"only {marks(path)}"
        time.sleep(0.02)


@contextmanager
def holding(folder: Path) -> Iterator[Path]:
    """A file: the tasks concept_holds… run as long as it is there."""
    path = folder / "hold"
    path.touch()
    try:
        yield path
    finally:
        path.unlink()


def test_t002_name_in_the_message(outbox: Any) -> None:
    app = outbox.app()

    @app.task(name="t002.add")
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(2, 2)
    message = outbox.take()
    assert message.headers["task"] == add.name == "t002.add" and message.headers["id"] == result.id
    assert message.payload[0] == [2, 2]


@pytest.fixture
def queue(running: Any) -> Iterator[str]:
    """The name of a queue for one test."""
    name = f"{running.queue}-{uuid.uuid4().hex[:8]}"
    yield name
    _delete(running, name)


def test_t003_killed_worker_gives_its_messages_back(running: Any, side: Any, queue: str, tmp_path: Path) -> None:
    env, path = {**running.env, "FLEET_QUEUE": queue}, tmp_path / "runs"
    with side.worker(env, "-c", "1", "-n", f"{queue}@first") as first:
        result = running.tasks.concept_outlives.apply_async((str(path),), queue=queue)
        wait_for_marks(path, 1)
        first.kill_group()
    with side.worker(env, "-c", "1", "-n", f"{queue}@second"):
        assert result.get(timeout=20) is True
    assert len(marks(path)) == 2


def test_t004_prefetch_count(running: Any) -> None:
    inspect = running.tasks.app.control.inspect(destination=[running.node], timeout=5)
    held = len(inspect.scheduled()[running.node])  # of other rows: each raises the count by one (C-053)
    assert inspect.stats()[running.node]["prefetch_count"] == 4 * 2 + held


def test_t005_early_acknowledged_task_never_runs_again(running: Any, own: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    result = running.tasks.concept_dies_early.apply_async((str(path), "kill"), queue=own.queue)
    with pytest.raises(WorkerLostError):
        result.get(timeout=20)
    assert running.tasks.add.apply_async((1, 1), queue=own.queue).get(timeout=20) == 2
    assert len(marks(path)) == 1 and waiting(running, own.queue) == 0


@pytest.mark.parametrize(("task", "acknowledged"), [("concept_holds", True), ("concept_holds_late", False)])
def test_t006_t012_what_runs_and_whether_it_is_acknowledged(
        running: Any, own: Any, tmp_path: Path, task: str, acknowledged: bool) -> None:
    with holding(tmp_path) as path:
        result = getattr(running.tasks, task).apply_async((str(path),), queue=own.queue)
        one = active(running, own.node, result.id)
    pid = result.get(timeout=20)
    assert (one["name"], one["acknowledged"], one["worker_pid"], one["args"]) == (f"rows_tasks.{task}", acknowledged, pid, [str(path)])
    assert waiting(running, own.queue) == 0


def test_t007_killed_child_is_a_failure(running: Any, own: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    result = running.tasks.concept_dies_late.apply_async((str(path), "kill"), queue=own.queue)
    with pytest.raises(WorkerLostError):
        result.get(timeout=20)
    assert result.state == "FAILURE"
    assert running.tasks.add.apply_async((1, 1), queue=own.queue).get(timeout=20) == 2
    assert len(marks(path)) == 1 and waiting(running, own.queue) == 0


def test_t007_task_that_exits_is_a_failure(running: Any, own: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    result = running.tasks.concept_dies_late.apply_async((str(path), "exit"), queue=own.queue)
    with pytest.raises(WorkerLostError):
        result.get(timeout=30)
    assert len(marks(path)) == 1 and waiting(running, own.queue) == 0


def test_t008_rejected_when_the_process_is_lost(running: Any, own: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    result = running.tasks.concept_dies_once.apply_async((str(path),), queue=own.queue)
    assert result.get(timeout=20) == "second run"
    assert len(marks(path)) == 2 and waiting(running, own.queue) == 0


def test_t010_time_limit_replaces_the_process(running: Any, own: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    result = running.tasks.concept_too_long.apply_async((str(path),), queue=own.queue)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=20)
    [pid] = marks(path)
    with holding(tmp_path) as hold:
        both = [running.tasks.concept_holds.apply_async((str(hold),), queue=own.queue) for _ in range(2)]
        wait_for_marks(tmp_path / "hold.runs", 2)  # two processes work, as before
    pids = {one.get(timeout=20) for one in both}
    assert len(pids) == 2 and pid not in pids and not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("strategy", ["default", "fair"])
def test_t011_long_task_blocks_no_other(running: Any, side: Any, queue: str, tmp_path: Path, strategy: str) -> None:
    """With two processes and one of them busy, all others go to the free one (X10: both names mean fair)."""
    with side.worker({**running.env, "FLEET_QUEUE": queue}, "-c", "2", "-O", strategy, "-n", f"{queue}@here"):
        with holding(tmp_path) as hold:
            long = running.tasks.concept_holds.apply_async((str(hold),), queue=queue)
            short = [running.tasks.add.apply_async((n, n), queue=queue) for n in range(6)]
            assert [one.get(timeout=20) for one in short] == [2 * n for n in range(6)]
            assert not long.ready()
        long.get(timeout=20)
