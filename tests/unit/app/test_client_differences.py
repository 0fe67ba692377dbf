"""What docs/DIFFERENCES.md says of the client side, where no other test says it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pyceleryc import Celery, Task, chain, signals


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("differences", broker="memory://", backend="cache+memory://", set_as_current=False) as made:
        made.conf.update(task_default_queue="differences", task_always_eager=True)
        yield made


def test_then_returns_the_result(app: Celery) -> None:
    result = app.AsyncResult("x")
    assert result.then(lambda _: None) is result


@pytest.mark.parametrize("route", [{"exchange": "ex"}, {"exchange": ""}, {"exchange": "", "routing_key": "rk"}])
def test_a_route_that_leads_nowhere_leads_to_the_default_queue(app: Celery, route: dict[str, str]) -> None:
    app.conf.update(task_always_eager=False, task_routes={"routed": route})
    seen: list[Any] = []

    def note(exchange: str, routing_key: str, **_: Any) -> None:
        seen.append((exchange, routing_key))

    signals.before_task_publish.connect(note, sender="routed")
    app.send_task("routed")
    signals.before_task_publish.disconnect(note, sender="routed")
    assert seen == [("", "differences")]


def test_old_names_beside_new_ones(app: Celery) -> None:
    app.conf.update(task_serializer="pickle", CELERY_RESULT_SERIALIZER="yaml")
    assert (app.conf.task_serializer, app.conf.result_serializer) == ("pickle", "yaml")


def test_link_of_an_eager_chain_is_called_once(app: Celery) -> None:
    told: list[int] = []
    add, tell = app.task(lambda x, y: x + y, name="add"), app.task(told.append, name="tell")
    chain(add.s(1, 1), add.s(3)).apply_async(link=tell.s())
    assert told == [5]


@pytest.mark.parametrize("propagates", [False, True])
def test_handlers_of_an_eager_task_that_raises(app: Celery, propagates: bool) -> None:
    told: list[str] = []

    class Telling(Task):
        def on_failure(self, *args: Any) -> None:
            told.append("on_failure")

        def after_return(self, *args: Any) -> None:
            told.append("after_return")

    @app.task(base=Telling)
    def fails() -> None:
        raise KeyError("x")

    app.conf.task_eager_propagates = propagates
    with pytest.raises(KeyError):
        fails.delay().get()
    assert told == ["on_failure", "after_return"]


@pytest.mark.parametrize(("now", "hours"), [(datetime(2025, 3, 30, 0, 30), 2), (datetime(2025, 10, 25, 23, 30), 2), (datetime(2025, 3, 29, 12), 24 * 21)])
def test_a_countdown_is_in_real_seconds(app: Celery, now: datetime, hours: int) -> None:
    """Also in the night in which the clocks of the app's time zone are changed."""
    app.conf.timezone = "Europe/Berlin"
    now = now.replace(tzinfo=timezone.utc)
    headers = app.amqp.as_task_v2("id", "name", countdown=hours * 3600, expires=hours * 3600, now=now.astimezone(ZoneInfo("Europe/Berlin"))).headers
    for name in ("eta", "expires"):
        found = datetime.fromisoformat(headers[name])
        assert found == now + timedelta(hours=hours) and found.utcoffset() == found.astimezone(ZoneInfo("Europe/Berlin")).utcoffset()
