"""Calling guide, on_message (FEATURES §1.22)."""

from __future__ import annotations

import pytest
from celery import Celery
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import ImproperlyConfigured


@pytest.fixture
def task(running):
    return running.tasks.calling.reports


def test_c040_c043_all_states(task):
    """X18: at least the five keys of the guide."""
    metas = []
    result = task.delay()
    assert result.get(timeout=15, on_message=metas.append) == "done"
    mine = [meta for meta in metas if meta["task_id"] == result.id]
    assert [(type(meta), meta["status"]) for meta in mine] == [(dict, "PROGRESS"), (dict, "PROGRESS"), (dict, "SUCCESS")]
    assert [meta["result"] for meta in mine] == [{"progress": 50}, {"progress": 90}, "done"]
    for meta in mine:
        assert set(meta) >= {"task_id", "result", "children", "status", "traceback", "date_done"}
        assert meta["traceback"] is None
    assert mine[0]["date_done"] is None
    assert mine[-1]["date_done"]


def test_c041_without_propagation(task):
    metas = []
    result = task.delay("broke")
    error = result.get(timeout=15, on_message=metas.append, propagate=False)
    assert repr(error) == "KeyError('broke')"
    mine = [meta for meta in metas if meta["task_id"] == result.id]
    assert [meta["status"] for meta in mine] == ["PROGRESS", "PROGRESS", "FAILURE"]
    assert mine[-1]["result"] == {"exc_type": "KeyError", "exc_message": ["broke"], "exc_module": "builtins"} or isinstance(
        mine[-1]["result"], KeyError)
    assert "KeyError" in mine[-1]["traceback"]


def test_c040_failure_is_raised(task):
    metas = []
    with pytest.raises(KeyError):
        task.delay("broke").get(timeout=15, on_message=metas.append)
    assert [meta["status"] for meta in metas][-1] == "FAILURE"


def test_c042_not_with_stores_that_are_asked_again_and_again():
    class Polled(KeyValueStoreBackend):
        def get(self, key):
            return None

    app = Celery("polling", broker="memory://", set_as_current=False)
    result = app.AsyncResult("some-id", backend=Polled(app=app))
    with pytest.raises(ImproperlyConfigured, match="does not support on_message callback"):
        result.get(timeout=1, on_message=print)


def test_c044_task_that_was_done_before(running):
    """Nobody is called for what was stored before, and only during the get() that was given it."""
    result = running.tasks.add.delay(1, 1)
    other = running.tasks.app.AsyncResult(result.id)
    assert result.get(timeout=15) == 2
    metas = []
    assert other.get(timeout=15, on_message=metas.append) == 2
    assert running.tasks.add.delay(2, 2).get(timeout=15) == 4
    assert [meta for meta in metas if meta["task_id"] == result.id] == []
    assert metas == []
