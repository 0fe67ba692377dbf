"""Headers, properties and the other conversions between Python and the core."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict, UserDict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from pyceleryc import _core

HEADERS = ["lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
           "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps"]
ARGUMENTS: dict[str, Any] = {
    "task": "t", "id": "i", "shadow": None, "eta": None, "expires": None, "group": None, "group_index": None, "retries": 0,
    "time_limit": None, "soft_time_limit": None, "root_id": "i", "parent_id": None, "argsrepr": "()", "kwargsrepr": "{}",
    "origin": "gen1@h", "ignore_result": False, "replaced_task_nesting": 0,
}


def headers(**changes: Any) -> dict[str, Any]:
    return _core.task_headers(*(ARGUMENTS | changes).values())


@pytest.fixture(params=["memory", "sqlite"])
def producer(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    config = {"scheme": request.param, "hub": _core.Hub(), "vhost": str(tmp_path / "broker.db"), "synchronous": 0}
    made = _core.Producer(config)
    made.declare({"name": "q"}, None)
    yield made
    made.close(5.0)


def travel(producer: _core.Producer, body: Any = b"", headers: Mapping[str, Any] | None = None, **properties: Any) -> Any:
    producer.publish("", "q", body, headers or {}, properties, False, None, None)
    return producer.get("q", None)


def test_layout_of_task_headers() -> None:
    assert list(headers()) == HEADERS
    common = {name: value for name, value in ARGUMENTS.items() if name in HEADERS}
    assert headers() == common | {"lang": "py", "timelimit": [None, None], "stamped_headers": None, "stamps": {}}
    made = headers(shadow="s", eta="2026-01-01T00:00:00", group="g", group_index=3, retries=2, time_limit=60.0,
                   soft_time_limit=1.5, parent_id="p", ignore_result=True, replaced_task_nesting=4)
    assert made["timelimit"] == [60, 1.5] and type(made["timelimit"][0]) is int
    assert [made[k] for k in ("shadow", "eta", "group", "group_index", "retries")] == ["s", "2026-01-01T00:00:00", "g", 3, 2]
    assert made["parent_id"] == "p" and made["ignore_result"] is True and made["replaced_task_nesting"] == 4


@pytest.mark.parametrize("changes", [{"task": 1}, {"id": None}, {"retries": "1"}, {"eta": dt.datetime(2026, 1, 1)},
                                     {"group_index": "0"}, {"time_limit": "x"}, {"argsrepr": b""}])
def test_wrong_types_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        headers(**changes)


def test_arity() -> None:
    with pytest.raises(TypeError, match=r"task_headers\(\) takes 17 positional arguments, not 1"):
        _core.task_headers("t")  # type: ignore[call-arg]


def test_states_are_the_enum() -> None:
    assert _core.STATES == ("PENDING", "RECEIVED", "STARTED", "SUCCESS", "FAILURE", "REVOKED", "REJECTED", "RETRY", "IGNORED")


def test_iso_to_timestamp() -> None:
    when = dt.datetime(2026, 11, 20, 7, 49, 1, 705409, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert _core.iso_to_timestamp(when.isoformat()) == pytest.approx(when.timestamp(), abs=1e-6)
    assert _core.iso_to_timestamp("1970-01-01T00:00:10") == 10.0
    with pytest.raises(_core.BadData) as caught:
        _core.iso_to_timestamp("tomorrow")
    assert caught.value.code == _core.BadData.code == 5
    assert isinstance(caught.value, ValueError)


def test_exceptions_are_of_two_families() -> None:
    for cls, builtin in [(_core.ConnectionLost, ConnectionError), (_core.Timeout, TimeoutError), (_core.BadData, ValueError)]:
        assert issubclass(cls, _core.CoreError) and issubclass(cls, builtin)
    for cls in (_core.AccessRefused, _core.WindowFull, _core.NotFound, _core.Unsupported):
        assert issubclass(cls, _core.CoreError) and isinstance(cls("x").code, int)


def test_headers_of_all_types_travel(producer: Any) -> None:
    sent: dict[str, Any] = {
        "none": None, "yes": True, "no": False, "int": 5, "big": 2**40, "min": -(2**63), "real": 0.1, "text": "é😀", "": "empty key",
        "list": [1, "a", None, [2.5, {}]], "tuple": (1, 2), "map": {"a": {"b": {"c": []}}}, "ordered": OrderedDict(x=1), "é": 1,
    }
    _, got, _, _ = travel(producer, headers=sent)
    assert got == sent | {"tuple": [1, 2]}
    assert list(got) == list(sent)


def test_unusual_header_values_travel_as_kombu_types(producer: Any) -> None:
    when = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
    _, got, _, _ = travel(producer, headers={"when": when, "price": Decimal("1.50"), "raw": b"\xff", "in": [when]})
    assert got == {"when": when, "price": Decimal("1.50"), "raw": b"\xff", "in": [when]}


def test_any_mapping_will_do(producer: Any) -> None:
    _, got, props, _ = travel(producer, headers=UserDict(a=1))
    assert got == {"a": 1}
    producer.publish("", "q", b"", {}, UserDict(app_id="x"), False, None, None)
    assert producer.get("q", None)[2] == {"app_id": "x"}


@pytest.mark.parametrize("bad, error", [({1: 2}, TypeError), ({"a": object()}, TypeError), (None, TypeError),
                                        ([1], (TypeError, ValueError))])
def test_headers_that_cannot_be_sent(producer: Any, bad: Any, error: Any) -> None:
    with pytest.raises(error):
        producer.publish("", "q", b"", bad, {}, False, None, None)
    assert producer.size("q", None)[0] == 0


@pytest.mark.parametrize("value", [2**64, -(10**40), "\ud800"])
def test_what_only_json_can_say_travels(producer: Any, value: Any) -> None:
    assert travel(producer, headers={"a": value})[1] == {"a": value}


def test_headers_nested_without_end(producer: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(_core.BadData):
        producer.publish("", "q", b"", {"a": endless}, {}, False, None, None)


def test_properties_travel(producer: Any) -> None:
    sent = {"content_type": "application/x", "content_encoding": "binary", "correlation_id": "c", "reply_to": "r",
            "message_id": "m", "type": "t", "user_id": "u", "app_id": "a", "cluster_id": "k", "timestamp": 1234567890,
            "delivery_mode": 1, "priority": 7, "expiration": "60000"}
    body, _, got, info = travel(producer, "text é", **sent)
    assert body == "text é".encode()
    assert got == sent
    assert info == {"exchange": "", "routing_key": "q", "priority": 7, "redelivered": False}


def test_absent_properties_stay_absent(producer: Any) -> None:
    body, got_headers, got, info = travel(producer, bytearray(b"\x00\xff"), content_type=None, priority=None)
    assert (body, got_headers, got) == (b"\x00\xff", {}, {})
    assert info["priority"] is None


@pytest.mark.parametrize("bad, error", [({"content_type": 1}, TypeError), ({"priority": 256}, ValueError), ({"priority": "1"}, TypeError),
                                        ({"delivery_mode": 3}, ValueError), ({"timestamp": 1.5}, TypeError)])
def test_properties_that_cannot_be_sent(producer: Any, bad: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        producer.publish("", "q", b"", {}, bad, False, None, None)
