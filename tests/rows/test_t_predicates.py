"""Tasks guide, semipredicates (T-250..T-257). What becomes of the message is in test_t_acks_matrix.py."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, exceptions, states
from celery.exceptions import Ignore, Reject, Retry, TaskPredicate


def test_t250_ignore_stores_nothing(running: Any) -> None:
    tasks = running.tasks
    result = tasks.retries_all.delay("ignore")
    running.worker.wait_for(f"retries_all[{result.id}] ignored")
    assert not tasks.notes.exists(f"celery-task-meta-{result.id}")
    assert result.state == "PENDING"


def test_t250_the_guides_example(running: Any, unique: Any) -> None:
    """A task that looks up in Redis whether it was revoked."""
    tasks, task_id = running.tasks, unique("revoked")
    tasks.notes.sadd("rows-tasks.revoked", task_id)
    try:
        tasks.some_task.apply_async(task_id=task_id)
        assert tasks.some_task.delay().get(timeout=20) == "not revoked"
        running.worker.wait_for(f"some_task[{task_id}] ignored")
        assert tasks.noted(task_id) == [["ran"]]
        assert not tasks.notes.exists(f"celery-task-meta-{task_id}")
    finally:
        tasks.notes.srem("rows-tasks.revoked", task_id)


def test_t250_no_handlers(running: Any) -> None:
    tasks = running.tasks
    result = tasks.handled.delay("ignore")
    running.worker.wait_for(f"handled[{result.id}] ignored")
    tasks.add.delay(1, 1).get(timeout=20)
    assert [name for name, *_ in tasks.noted(result.id, 2)] == ["before_start", "body"]


def test_t251_result_stored_by_hand(running: Any) -> None:
    result = running.tasks.get_tweets.delay("george")
    assert result.get(timeout=20) == ["tweet of george"]
    running.worker.wait_for(f"get_tweets[{result.id}] ignored")
    assert (result.state, result.successful()) == ("SUCCESS", True)


def test_t251_called_directly(running: Any) -> None:
    with pytest.raises(Ignore):
        running.tasks.get_tweets("george")


def test_t252_reject_has_reason_and_requeue() -> None:
    assert (Reject().reason, Reject().requeue) == (None, False)
    full = Reject("why", requeue=True)
    assert (full.reason, full.requeue, full.args) == ("why", True, ("why", True))
    assert repr(full) == "reject requeue=True: why"
    assert repr(Reject("why", True)) == repr(full)


def test_t252_t253_rejected_is_a_failure(running: Any) -> None:
    """Row T-253: the waiting program learns of it, whether the message was acknowledged early or late."""
    tasks = running.tasks
    for result in (tasks.handled.delay("reject"), tasks.render_scene.delay("memory")):
        with pytest.raises(Reject):
            result.get(timeout=20)
        assert result.state == "FAILURE"


def test_t254_put_back(running: Any, capfd: Any) -> None:
    result = running.tasks.requeues.delay()
    assert result.get(timeout=20) == "received two times"
    assert running.tasks.noted(result.id, 2) == [[False], [True]]
    running.worker.wait_for("received two times")


def test_t254_acknowledged_early_it_is_gone(running: Any) -> None:
    tasks = running.tasks
    result = tasks.requeues_early.delay()
    tasks.noted(result.id)
    running.worker.wait_for(f"requeues_early[{result.id}]")
    assert tasks.add.delay(2, 2).get(timeout=20) == 4
    assert tasks.add.delay(2, 3).get(timeout=20) == 5
    assert tasks.noted(result.id) == [[False]]
    assert result.state == "PENDING"


@pytest.mark.parametrize("kind", ["memory", "enomem"])
def test_t255_out_of_memory(running: Any, kind: str) -> None:
    tasks = running.tasks
    result = tasks.render_scene.delay(kind)
    running.worker.wait_for(f"render_scene[{result.id}]")
    tasks.add.delay(2, 2).get(timeout=20)
    assert tasks.noted(result.id) == [[0]]


def test_t255_other_errors_are_retried(running: Any) -> None:
    result = running.tasks.render_scene.delay("other")
    assert result.get(timeout=20) == "rendered"
    assert running.tasks.noted(result.id, 2) == [[0], [1]]


def test_t256_retry_exception() -> None:
    cause = ValueError("a")
    retry = Retry("text", cause, 3)
    assert (retry.message, retry.exc, retry.excs, retry.when, retry.sig, retry.is_eager) == (
        "text", cause, "ValueError('a')", 3, None, False)
    assert retry.humanize() == "in 3s"
    assert str(Retry(exc=cause, when=3)) == "Retry in 3s: ValueError('a')"
    assert str(Retry(when=3)) == "Retry in 3s"
    assert str(retry) == "text"


def test_t256_retry_raised_by_hand() -> None:
    app = Celery("predicates", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(shared=False)
    def by_hand() -> None:
        raise Retry("by hand", ValueError("why"))

    result = by_hand.apply()
    assert result.state == states.RETRY


def test_t257_base_class() -> None:
    assert all(issubclass(cls, TaskPredicate) for cls in (Ignore, Reject, Retry))
    assert issubclass(TaskPredicate, exceptions.CeleryError)
    assert exceptions.RetryTaskError is Retry
