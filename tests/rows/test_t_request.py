"""Tasks guide, attributes of the request (T-060..T-089), seen by tasks in a worker."""

from __future__ import annotations

import os
import re
import socket
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.app.task import Context

Shown = dict[str, Any]


@pytest.fixture(scope="module")
def plain(running: Any) -> Shown:
    """What a task sees that was called with two arguments."""
    result = running.tasks.request_show.delay(2, 2)
    return {**result.get(timeout=20), "result_id": result.id}


def show(running: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **options: Any) -> Shown:
    return running.tasks.request_show.apply_async(args, kwargs, **options).get(timeout=20)


def test_t060_id(plain: Shown) -> None:
    assert plain["id"] == plain["result_id"]


def test_t061_t084_group(running: Any, plain: Shown) -> None:
    result = group(running.tasks.request_show.s(n) for n in range(3)).delay()
    shown = result.get(timeout=20)
    assert [one["group"] for one in shown] == [result.id] * 3
    assert [one["group_index"] for one in shown] == [0, 1, 2]
    assert plain["group"] is None and plain["group_index"] is None


def test_t062_chord_is_the_signature_of_the_body(running: Any, plain: Shown) -> None:
    body = running.tasks.request_show.s()
    result = chord([running.tasks.request_show.s(n) for n in range(2)])(body)
    seen = result.get(timeout=20)
    headers = seen["args"][0]
    assert [one["chord"]["task"] for one in headers] == ["rows_tasks.request_show"] * 2
    assert headers[0]["chord"]["options"]["task_id"] == result.id
    assert headers[0]["group"] == headers[1]["group"] is not None
    assert seen["chord"] is None and plain["chord"] is None


def test_t063_correlation_id(plain: Shown) -> None:
    assert plain["correlation_id"] == plain["id"]


def test_t064_t065_arguments(running: Any, plain: Shown) -> None:
    assert (plain["args"], plain["kwargs"]) == ([2, 2], {})
    shown = show(running, ("a",), {"b": [1, None]})
    assert (shown["args"], shown["kwargs"]) == (["a"], {"b": [1, None]})


def test_t066_origin(plain: Shown) -> None:
    assert plain["origin"] == f"gen{os.getpid()}@{socket.gethostname()}"


def test_t067_t082_retries_and_parent_of_a_retried_run(running: Any, plain: Shown) -> None:
    assert plain["retries"] == 0
    result = running.tasks.request_again.delay()
    shown = result.get(timeout=20)
    assert (shown["retries"], shown["id"], shown["parent_id"], shown["root_id"]) == (1, result.id, result.id, result.id)


def test_t068_is_eager(running: Any, plain: Shown) -> None:
    assert plain["is_eager"] is False
    assert running.tasks.request_show.apply().get()["is_eager"] is True


def test_t069_eta_is_a_string(running: Any, plain: Shown) -> None:
    assert plain["eta"] is None
    before = datetime.now(UTC)
    eta = show(running, countdown=0.3)["eta"]
    assert isinstance(eta, str) and 0 <= (datetime.fromisoformat(eta) - before).total_seconds() < 3
    exact = datetime(2020, 5, 17, 1, 2, 3, tzinfo=UTC)
    assert show(running, eta=exact)["eta"] == "2020-05-17T01:02:03+00:00"


def test_t070_expires_is_a_string(running: Any, plain: Shown) -> None:
    assert plain["expires"] is None
    expires = show(running, expires=60)["expires"]
    assert isinstance(expires, str) and 50 < datetime.fromisoformat(expires).timestamp() - time.time() < 61


def test_t071_hostname(running: Any, plain: Shown) -> None:
    assert plain["hostname"] == running.node
    assert running.tasks.request_show.apply().get()["hostname"] == socket.gethostname()


def test_t072_delivery_info(running: Any, plain: Shown) -> None:
    assert plain["delivery_info"] == {"exchange": "", "routing_key": running.queue, "priority": 0, "redelivered": False}
    assert show(running, priority=3)["delivery_info"]["priority"] == 3
    eager = running.tasks.request_show.apply(priority=4).get()["delivery_info"]
    assert eager == {"is_eager": True, "exchange": None, "routing_key": None, "priority": 4}


def test_t073_reply_to(plain: Shown) -> None:
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", plain["reply_to"])


def test_t074_called_directly(running: Any, plain: Shown) -> None:
    assert plain["called_directly"] is False
    assert running.tasks.request_show.apply().get()["called_directly"] is False
    assert running.tasks.request_show()["called_directly"] is True


def test_t075_timelimit_is_hard_and_soft(running: Any, plain: Shown) -> None:
    assert plain["timelimit"] == [None, None]
    assert show(running, time_limit=30, soft_time_limit=20.5)["timelimit"] == [30, 20.5]


def test_t076_time_limit_and_soft_time_limit(running: Any) -> None:
    result = running.tasks.request_limits.apply_async(time_limit=30, soft_time_limit=20)
    assert result.get(timeout=20) == [30, 20]
    assert running.tasks.request_limits.delay().get(timeout=20) == [None, None]


def test_t077_t078_callbacks_and_errbacks(running: Any, plain: Shown) -> None:
    add, shown_by = running.tasks.add, running.tasks.request_show
    assert plain["callbacks"] is None and plain["errbacks"] is None
    shown = show(running, link=shown_by.s(), link_error=[add.si(1, 2), add.si(3, 4)])
    assert [one["task"] for one in shown["callbacks"]] == ["rows_tasks.request_show"]
    assert [one["args"] for one in shown["errbacks"]] == [[1, 2], [3, 4]]


def test_t079_utc_is_none(plain: Shown) -> None:
    assert plain["utc"] is None


def test_t080_headers_are_the_custom_ones(running: Any, plain: Shown) -> None:
    assert plain["headers"] is None
    assert show(running, headers={"x-foo": "1", "number": 2})["headers"] == {"x-foo": "1", "number": 2}


def test_t081_t082_root_and_parent(running: Any, plain: Shown) -> None:
    assert (plain["root_id"], plain["parent_id"]) == (plain["id"], None)
    parent, child = running.tasks.request_parent.delay().get(timeout=20)
    from_task = running.tasks.app.AsyncResult(child).get(timeout=20)
    assert (from_task["id"], from_task["root_id"], from_task["parent_id"]) == (child, parent, parent)


def test_t083_chain_is_reversed(running: Any, plain: Shown) -> None:
    assert plain["chain"] is None
    result = chain(running.tasks.request_show.s("first"), running.tasks.add.si(1, 1), running.tasks.add.si(2, 2)).delay()
    assert result.get(timeout=20) == 4
    first = result.parent.parent.get(timeout=20)
    assert [one["args"] for one in first["chain"]] == [[2, 2], [1, 1]]
    assert first["root_id"] == first["id"]


def test_t085_properties(plain: Shown) -> None:
    properties = plain["properties"]
    assert properties["correlation_id"] == plain["id"] and properties["reply_to"] == plain["reply_to"]
    assert properties["content_type"] == "application/json" and properties["content_encoding"] == "utf-8"
    assert properties["delivery_mode"] == 2


def test_t086_t087_others(running: Any, plain: Shown) -> None:
    assert (plain["replaced_task_nesting"], plain["shadow"], plain["taskset"], plain["ignore_result"]) == (0, None, None, False)
    assert (plain["task"], plain["lang"], plain["argsrepr"], plain["kwargsrepr"]) == ("rows_tasks.request_show", "py", "(2, 2)", "{}")
    assert plain["stamps"] in (None, {}) and plain["stamped_headers"] in (None, [])
    shown = show(running, shadow="another name", argsrepr="<hidden>")
    assert (shown["shadow"], shown["task"], shown["argsrepr"]) == ("another name", "rows_tasks.request_show", "<hidden>")


def test_t087_stamps(running: Any) -> None:
    shown = show(running, stamped_headers=["color"], color="red")
    assert shown["stamped_headers"] == ["color"] and shown["stamps"] == {"color": "red"}


def test_t088_children_are_what_the_task_sent(running: Any) -> None:
    result = running.tasks.request_parent.delay()
    _, child = result.get(timeout=20)
    assert [one.id for one in result.children] == [child]
    untracked = running.tasks.request_no_trail.delay()
    untracked.get(timeout=20)
    assert not untracked.children


def test_t089_example_of_the_guide(running: Any) -> None:
    result = running.tasks.dump_context.delay(2, y=3)
    assert result.get(timeout=20) == f"Executing task id {result.id}, args: [2] kwargs: {{'y': 3}}"


def test_t060_unknown_attributes_and_get(running: Any) -> None:
    result = running.tasks.request_names.apply_async(headers={"trace": "abc"})
    assert result.get(timeout=20) == [5, result.id, "abc"]


def test_t060_t074_direct_call_in_a_task_has_its_own_request(running: Any) -> None:
    result = running.tasks.request_outer.delay(1)
    assert result.get(timeout=20) == [[None, [2]], result.id, [1]]


OUTSIDE = {
    "id": None, "group": None, "chord": None, "correlation_id": None, "args": None, "kwargs": None, "origin": None, "retries": 0,
    "is_eager": False, "eta": None, "expires": None, "hostname": None, "delivery_info": None, "reply_to": None,
    "called_directly": True, "timelimit": None, "callbacks": None, "errbacks": None, "utc": None, "headers": None, "root_id": None,
    "parent_id": None, "chain": None, "group_index": None, "properties": None, "replaced_task_nesting": 0, "shadow": None,
    "stamps": None, "stamped_headers": None, "ignore_result": False, "logfile": None, "loglevel": None, "taskset": None,
    "children": [],
}


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_t060_outside_of_a_run(name: str) -> None:
    """T-060..T-088: the defaults."""
    app = Celery("outside", broker="memory://", set_as_current=False)

    @app.task
    def idle() -> None:
        """A body."""

    assert getattr(idle.request, name) == OUTSIDE[name] == getattr(Context(), name)


@pytest.mark.parametrize("name", ["task", "lang", "argsrepr", "kwargsrepr"])
def test_t087_headers_outside_of_a_run(name: str) -> None:
    assert getattr(Context(), name) is None


def test_t060_context_is_made_of_a_dict() -> None:
    context = Context({"id": "x", "own": 1}, retries=2)
    assert (context.id, context.own, context.retries, context.get("own"), context.get("other", 3)) == ("x", 1, 2, 1, 3)
    with pytest.raises(AttributeError):
        context.other
