"""Calling guide, linking: callbacks and errbacks (FEATURES §1.21)."""

from __future__ import annotations

import uuid
import warnings

import pytest
from celery import Celery, chord, group
from celery.exceptions import CPendingDeprecationWarning


@pytest.fixture
def calling(running):
    return running.tasks.calling


@pytest.fixture
def add(running):
    return running.tasks.add


@pytest.fixture
def key():
    return uuid.uuid4().hex


def failure_of(result):
    value = result.get(timeout=20, propagate=False)
    assert result.state == "FAILURE"
    return value


def test_c020_c023_link(add, calling):
    """C-029: the primitive that chains are made of."""
    result = add.apply_async((2, 2), link=add.s(16))
    assert result.get(timeout=15) == 4
    (child,) = result.children
    assert child.get(timeout=15) == 20
    assert [(node.id, value) for node, value in result.collect()] == [(result.id, 4), (child.id, 20)]


def test_c020_family_of_a_link(add, calling):
    result = add.apply_async((2, 2), link=calling.family.s("own"))
    assert result.get(timeout=15) == 4
    seen = result.children[0].get(timeout=15)
    assert seen["args"] == [4, "own"]
    assert seen["parent_id"] == seen["root_id"] == result.id


def test_c021_immutable_link(add, calling):
    result = add.apply_async((2, 2), link=calling.family.si("own"))
    result.get(timeout=15)
    assert result.children[0].get(timeout=15)["args"] == ["own"]


def test_c022_several_links(add, calling, key):
    result = add.apply_async((2, 2), link=[calling.note.s("a", key=key), calling.note.s("b", key=key),
                                           group(calling.note.s("c", key=key), calling.note.s("d", key=key))])
    result.get(timeout=15)
    assert sorted(calling.notes_of(key, 4)) == [[4, name] for name in "abcd"]
    members = [member for child in result.children for member in getattr(child, "results", [child])]
    assert sorted(member.get(timeout=15) for member in members) == [[4, name] for name in "abcd"]


def test_c022_link_of_a_link(add, calling):
    inner = add.s(10)
    inner.link(add.s(100))
    result = add.apply_async((1, 1), link=inner)
    assert result.get(timeout=15) == 2
    child = result.children[0]
    assert child.get(timeout=15) == 12
    assert child.children[0].get(timeout=15) == 112


def test_c020_link_of_a_failed_task_is_not_sent(calling, key):
    result = calling.break_with.apply_async(("a",), link=calling.note.s(key=key), link_error=calling.on_error_id.s(key=key))
    failure_of(result)
    assert calling.notes_of(key) == [["id", result.id]]
    assert not result.children


def test_c024_errback_with_details(calling):
    result = calling.break_with.apply_async(("a",), link_error=calling.on_error_details.s())
    assert repr(failure_of(result)) == "KeyError('a')"
    (seen,) = calling.notes_of(result.id)
    kind, request_id, exception, text, traceback, request, task, _, has_errbacks = seen
    assert (kind, request_id, exception, text, traceback) == ("details", result.id, "KeyError", "'a'", "str")
    assert (request, task, has_errbacks) == ("Context", "rows_calling.break_with", True)


def test_c025_several_errbacks(calling):
    result = calling.break_with.apply_async(
        ("a",), link_error=[calling.on_error_details.s(), calling.on_error_id.s(), calling.on_error_family.s()])
    failure_of(result)
    assert sorted(note[0] for note in calling.notes_of(result.id, 3)) == ["details", "family", "id"]


def test_c026_errback_with_one_argument(calling):
    result = calling.break_with.apply_async(("a",), link_error=calling.on_error_family.s())
    failure_of(result)
    assert calling.notes_of(result.id) == [["family", result.id, result.id]]


def test_c027_errback_that_the_worker_does_not_know(calling, boxes, running):
    """It is sent as a task: here to a queue that nobody consumes from."""
    box = boxes()
    errback = box.app.signature("known.elsewhere", queue=box.queue)
    result = calling.break_with.apply_async(("a",), link_error=errback)
    failure_of(result)
    message = box.take()
    assert (message.headers["task"], message.args) == ("known.elsewhere", [result.id])
    assert message.headers["parent_id"] == result.id


def test_c028_errback_that_raises(calling, running):
    result = calling.break_with.apply_async(
        ("a",), link_error=[calling.on_error_broken.s(), calling.on_error_details.s(), calling.on_error_id.s()])
    assert repr(failure_of(result)) == "KeyError('a')"
    assert len(calling.notes_of(result.id, 2)) == 2
    running.worker.wait_for("errback broke")
    assert "Errback 'rows_calling.on_error_broken' raised an exception" in running.worker.text()


def test_c024_bound_errback_does_not_spoil_the_result(calling):
    """X20: with three arguments it can't be called with the id alone, so it fails as a task of its own."""
    result = calling.break_with.apply_async(("a",), link_error=calling.on_error_bound.s())
    assert repr(failure_of(result)) == "KeyError('a')"


def test_c024_no_errback_after_success(add, calling, key):
    add.apply_async((1, 1), link=calling.note.s("fine", key=key), link_error=calling.on_error_id.s(key=key)).get(timeout=15)
    assert calling.notes_of(key) == [[2, "fine"]]


def test_c030_chord_error(add, calling, key):
    slow = calling.note.s("the others still run", key=key).set(countdown=0.3)
    body = calling.xsum.s().on_error(calling.on_error_details.s())
    result = chord([add.s(1, 1), calling.break_with.s("b"), slow])(body)
    failed = result.parent.results[1].id
    error = result.get(timeout=20, propagate=False)
    stored = result._get_task_meta()["result"]
    assert type(stored).__name__ == "ChordError"
    assert str(stored) == f"Dependency {failed} raised KeyError('b')"
    assert isinstance(error, KeyError | type(stored))
    kind, request_id, exception, text, traceback, request, task, delivery_info, has_errbacks = calling.notes_of(result.id)[0]
    assert (kind, request_id, exception, traceback) == ("details", result.id, "ChordError", "NoneType")
    assert text == str(stored)
    assert (request, task, delivery_info, has_errbacks) == ("Context", "rows_calling.xsum", {}, True)
    assert calling.notes_of(key) == [["the others still run"]]


def test_c030_errback_of_a_chord_with_one_argument(calling):
    body = calling.xsum.s().on_error(calling.on_error_id.s())
    result = chord([calling.break_with.s("b")])(body)
    failure_of(result)
    assert calling.notes_of(result.id) == [["id", result.id]]


def test_c030_first_failure_of_the_header_wins(calling):
    """On Redis, which joins when all are done, that is the first in the order of the header."""
    result = chord([calling.break_with.s("first", 0.3), calling.break_with.s("second")])(calling.xsum.s())
    with pytest.raises(Exception, match="'first'"):
        result.get(timeout=20, follow_parents=False)


def test_c031_get_on_a_failed_chord(add, calling):
    result = chord([add.s(1, 1), calling.break_with.s("b")])(calling.xsum.s())
    with pytest.raises(Exception, match=r"Dependency .* raised KeyError\('b'\)") as caught:
        result.get(timeout=20, follow_parents=False)
    assert type(caught.value).__name__ == "ChordError"
    with pytest.raises(KeyError) as caught:
        result.get(timeout=20)
    assert caught.value.args == ("b",)


def chord_of(**settings):
    app = Celery("links", broker="memory://", set_as_current=False)
    app.conf.update(settings)

    @app.task(name="links.add")
    def add(x, y):
        return x + y

    @app.task(name="links.errback")
    def errback(task_id):
        return task_id

    return chord([add.s(1, 1), add.s(2, 2)], add.s()), errback.s()


def test_c032_errbacks_of_the_header_are_off_by_default():
    joined, errback = chord_of()
    with pytest.warns(CPendingDeprecationWarning, match="task_allow_error_cb_on_chord_header"):
        joined.link_error(errback)
    assert [task.options.get("link_error") for task in joined.tasks] == [None, None]
    assert joined.body.options["link_error"] == [errback]


def test_c032_errbacks_of_the_header():
    joined, errback = chord_of(task_allow_error_cb_on_chord_header=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        joined.link_error(errback)
    for task in joined.tasks:
        (own,) = task.options["link_error"]
        assert own.task == "links.errback"
        assert own is not errback
    assert joined.body.options["link_error"][0].task == "links.errback"


def test_c032_errbacks_of_the_header_get_the_error(calling, running):
    app = running.tasks.app
    joined = chord([calling.break_with.s("b"), calling.add.s(1, 1)], calling.xsum.s())
    app.conf.task_allow_error_cb_on_chord_header = True
    try:
        joined.link_error(calling.on_error_details.s())
    finally:
        app.conf.task_allow_error_cb_on_chord_header = False
    result = joined.apply_async()
    failed = result.parent.results[0].id
    failure_of(result)
    assert [calling.notes_of(failed)[0][:4], calling.notes_of(result.id)[0][:3]] == [
        ["details", failed, "KeyError", "'b'"], ["details", result.id, "ChordError"]]
