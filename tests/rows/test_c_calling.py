"""Calling guide, the calling API (FEATURES §1.20)."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, chain, chord, group, signature
from celery.exceptions import AlwaysEagerIgnored
from celery.result import AsyncResult, EagerResult


@pytest.fixture
def add(box):
    @box.app.task(name="row.add")
    def add(x, y=0):
        return x + y

    return add


@pytest.fixture
def eager():
    app = Celery("eager", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_always_eager = True

    @app.task(name="eager.add")
    def add(x, y):
        return x + y

    @app.task(name="eager.total")
    def total(numbers):
        return sum(numbers)

    @app.task(name="eager.kinds")
    def kinds(*args, **kwargs):
        return [type(arg).__name__ for arg in args], {name: type(value).__name__ for name, value in kwargs.items()}

    @app.task(name="eager.fail", bind=True)
    def fail(self, key):
        raise KeyError(key)

    return app


def test_c001_uniform_api(add):
    for callable_ in (add, add.s(1), group([add.s(1, 1)]), add.s(1, 1) | add.s(2), chord([add.s(1)], add.s()),
                      add.chunks([(1, 1)], 1), add.map([1]), add.starmap([(1, 1)])):
        for method in ("apply_async", "delay", "__call__", "apply"):
            assert hasattr(callable_, method), (callable_, method)


def test_c002_one_message_and_a_result(box, add):
    result = add.apply_async((1,), {"y": 2})
    message = box.take()
    assert isinstance(result, AsyncResult)
    assert (message.args, message.kwargs) == ([1], {"y": 2})
    assert message.headers["task"] == "row.add"
    assert message.headers["id"] == message.properties["correlation_id"] == result.id
    assert box.is_empty()


def test_c002_all_parameters_by_position(box, add):
    link, errback = add.s(5), add.s(6)
    result = add.apply_async((1,), {"y": 2}, "the-id", None, link, errback, "the-shadow")
    message = box.take()
    assert result.id == message.headers["id"] == "the-id"
    assert message.headers["shadow"] == "the-shadow"
    assert message.embed["callbacks"][0]["args"] == [5]
    assert message.embed["errbacks"][0]["args"] == [6]


def test_c003_delay_has_no_options(box, add):
    add.delay(1, y=2)
    add.delay(3)
    first, second = box.take_all(2)
    assert (first.args, first.kwargs) == ([1], {"y": 2})
    assert (second.args, second.kwargs) == ([3], {})
    with pytest.raises(TypeError):
        add.delay(1, countdown=3)


def test_c004_call_sends_nothing(box, add):
    assert add(2, 3) == 5
    assert add.s(2)(3) == 5
    assert box.is_empty()


def test_c005_cheat_sheet(box, add):
    now = datetime.now(UTC)
    add.apply_async((1,), {"y": 2})
    add.apply_async((1,), countdown=10)
    add.apply_async((1,), eta=now + timedelta(seconds=10))
    add.apply_async((1,), countdown=60, expires=120)
    add.apply_async((1,), expires=now + timedelta(days=2))
    plain, countdown, eta, both, expires = (message.headers for message in box.take_all(5))

    def seconds(text):
        return (datetime.fromisoformat(text) - now).total_seconds()

    assert plain["eta"] is plain["expires"] is None
    assert seconds(countdown["eta"]) == pytest.approx(10, abs=2)
    assert seconds(eta["eta"]) == 10
    assert seconds(both["eta"]) == pytest.approx(60, abs=2)
    assert seconds(both["expires"]) == pytest.approx(120, abs=2)
    assert seconds(expires["expires"]) == 2 * 24 * 3600


def test_c006_arguments_as_list_or_left_out(box):
    @box.app.task(name="row.any")
    def any_(*args, **kwargs):
        return args

    any_.apply_async(args=[1, 2])
    any_.apply_async()
    any_.apply_async(kwargs={"a": 1})
    assert [(message.args, message.kwargs) for message in box.take_all(3)] == [([1, 2], {}), ([], {}), ([], {"a": 1})]


def test_c007_send_task_by_name(box, add):
    result = box.app.send_task("not.known.here", (1,), {"b": 2}, countdown=5, task_id="by-name", queue=box.queue)
    message = box.take()
    assert result.id == "by-name"
    assert message.headers["task"] == "not.known.here"
    assert (message.args, message.kwargs) == ([1], {"b": 2})
    assert message.headers["ignore_result"] is False
    assert message.headers["eta"]
    box.app.send_task("not.known.here", ignore_result=True)
    assert box.take().headers["ignore_result"] is True


def test_c007_send_task_ignores_always_eager(box):
    box.app.conf.task_always_eager = True
    with pytest.warns(AlwaysEagerIgnored):
        box.app.send_task("not.known.here")
    assert box.take().headers["task"] == "not.known.here"


def test_c007_the_workers_ignore_result_is_overridden(running):
    result = running.tasks.app.send_task("rows_calling.ignored", ("kept",))
    assert result.get(timeout=15) == "kept"


def test_c008_signatures(box, add):
    by_name = signature("row.add", args=(1,), kwargs={"y": 2}, app=box.app, countdown=7)
    assert by_name.options == {"countdown": 7}
    assert add.s(1, y=2) == add.signature((1,), {"y": 2}) == add.subtask((1,), {"y": 2})
    assert add.si(1).immutable
    assert not add.s(1).immutable
    by_name.apply_async()
    add.s(1).delay(y=3)
    assert [(message.args, message.kwargs) for message in box.take_all(2)] == [([1], {"y": 2}), ([1], {"y": 3})]
    assert add.s(1)(2) == 3


def test_c009_own_id(running):
    task_id = f"custom-{os.urandom(6).hex()}"
    result = running.tasks.calling.family.apply_async(task_id=task_id)
    seen = result.get(timeout=15)
    assert result.id == seen["id"] == seen["root_id"] == task_id
    assert running.tasks.app.AsyncResult(task_id).get(timeout=15) == seen


def test_c010_options_from_the_task(box):
    @box.app.task(name="row.options", queue=box.queue, priority=3, expires=50, serializer="yaml", compression="zlib", time_limit=30,
                  soft_time_limit=20, delivery_mode=1, ignore_result=True)
    def options():
        return None

    options.delay()
    message = box.take()
    assert message.properties["priority"] == 3
    assert message.properties["delivery_mode"] == 1
    assert message.properties["expiration"] == "50000"
    assert message.content_type == "application/x-yaml"
    assert message.headers["compression"] == "application/x-gzip"
    assert message.headers["timelimit"] == [30, 20]
    assert message.headers["ignore_result"] is True
    assert message.headers["expires"]


def test_c010_exchange_and_key_from_the_task(box):
    from kombu import Exchange, Queue

    topic = Exchange(f"{box.queue}-x", type="topic")
    bound = Queue(f"{box.queue}-t", topic, routing_key="row.*")
    bound(box.connection.default_channel).declare()

    @box.app.task(name="row.routed", exchange=topic.name, routing_key="row.one")
    def routed():
        return None

    @box.app.task(name="row.queued", queue=f"{box.queue}-other")
    def queued():
        return None

    routed.delay()
    queued.delay()
    assert box.take(bound.name).delivery_info["routing_key"] == "row.one"
    assert box.take(f"{box.queue}-other").headers["task"] == "row.queued"
    topic(box.connection.default_channel).delete()


def test_c010_call_wins_over_the_task(box):
    @box.app.task(name="row.options", priority=3, expires=50, time_limit=30, soft_time_limit=20)
    def options():
        return None

    options.apply_async(priority=5, expires=100, time_limit=40, soft_time_limit=35)
    message = box.take()
    assert message.properties["priority"] == 5
    assert message.properties["expiration"] == "100000"
    assert message.headers["timelimit"] == [40, 35]


def test_c011_publish_options_pass_through(box, add):
    add.apply_async((1,), headers={"x-own": "a", "lang": "C"}, expiration=7, message_id="mid", app_id="the-app", type="kind",
                    mandatory=True, timeout=5, confirm_timeout=5)
    message = box.take()
    assert message.headers["x-own"] == "a"
    assert message.headers["lang"] == "C"  # the caller's headers win
    assert message.properties["expiration"] == "7000"
    assert {name: message.properties[name] for name in ("message_id", "app_id", "type")} == {
        "message_id": "mid", "app_id": "the-app", "type": "kind"}


def test_c012_shadow(box):
    from celery import Task

    class Named(Task):
        def shadow_name(self, args, kwargs, options):
            return f"{self.name}({args[0]}, {kwargs['b']}, {options.get('countdown')})"

    @box.app.task(name="row.named", base=Named)
    def named(a, b):
        return None

    named.apply_async((1,), {"b": 2}, countdown=3)
    named.apply_async((1,), {"b": 2}, shadow="given")
    assert [message.headers["shadow"] for message in box.take_all(2)] == ["row.named(1, 2, 3)", "given"]


def test_c012_shadow_is_in_the_log(running):
    shadow = f"shadow-{os.urandom(4).hex()}"
    result = running.tasks.add.apply_async((1, 1), shadow=shadow)
    assert result.get(timeout=15) == 2
    running.worker.wait_for(f"{shadow}[{result.id}] received")
    running.worker.wait_for(f"{shadow}[{result.id}] succeeded")


def test_c013_children_of_the_parent(running):
    kept = running.tasks.calling.sends_children.delay(True)
    (child,) = kept.get(timeout=15)
    assert [result.id for result in kept.children] == [child]
    assert kept.children[0].get(timeout=15) == 2
    dropped = running.tasks.calling.sends_children.delay(False)
    assert dropped.get(timeout=15) == []
    assert dropped.children == []


def test_c014_apply(eager):
    eager.conf.task_always_eager = False
    add, fail = eager.tasks["eager.add"], eager.tasks["eager.fail"]
    result = add.apply((1,), {"y": 2})
    assert isinstance(result, EagerResult)
    assert (result.get(), result.state, result.successful()) == (3, "SUCCESS", True)
    failed = fail.apply(("a",))
    assert (failed.state, failed.failed(), repr(failed.result)) == ("FAILURE", True, "KeyError('a')")
    assert "KeyError" in failed.traceback
    with pytest.raises(KeyError):
        failed.get()
    with pytest.raises(KeyError):
        fail.apply(("a",), throw=True)
    eager.conf.task_eager_propagates = True
    with pytest.raises(KeyError):
        fail.apply(("a",))
    assert fail.apply(("a",), throw=False).state == "FAILURE"


def test_c014_request_of_apply(eager):
    @eager.task(name="eager.me", bind=True)
    def me(self, *args):
        request = self.request
        return request.id, request.retries, request.is_eager, request.called_directly, request.args

    assert me.apply((1,), task_id="x", retries=2).get() == ("x", 2, True, False, (1,))


def test_c015_always_eager_sends_values_as_a_message_would(eager):
    kinds = eager.tasks["eager.kinds"]
    result = kinds.delay((1, 2), 3, name=(4,))
    assert isinstance(result, EagerResult)
    assert result.get() == (["list", "int"], {"name": "list"})
    assert kinds.apply_async(((1, 2),), serializer="pickle").get() == (["tuple"], {})
    with pytest.raises(Exception, match="not JSON serializable"):
        kinds.delay(object())


def test_c015_always_eager_failures(eager):
    fail = eager.tasks["eager.fail"]
    assert fail.delay("a").state == "FAILURE"
    eager.conf.task_eager_propagates = True
    with pytest.raises(KeyError):
        fail.delay("a")


def test_c015_always_eager_canvas(eager):
    add, total = eager.tasks["eager.add"], eager.tasks["eager.total"]
    assert chain(add.s(1, 1), add.s(2), add.s(3)).delay().get() == 7
    assert group([add.s(1, 1), add.s(2, 2)]).delay().get() == [2, 4]
    assert chord([add.s(1, 1), add.s(2, 2)])(total.s()).get() == 6
    assert (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s()).apply_async().get() == 7
    assert add.chunks([(1, 1), (2, 2), (3, 3)], 2).apply_async().get() == [[2, 4], [6]]
    assert add.starmap([(1, 1), (2, 2)]).delay().get() == [2, 4]
    assert total.map([[1, 2], [3]]).delay().get() == [3, 3]
    assert add.apply_async((1, 1), countdown=100).get() == 2  # does not wait


def test_c015_always_eager_links(eager):
    seen = []

    @eager.task(name="eager.see")
    def see(arg, *rest):
        seen.append((arg, *rest))

    @eager.task(name="eager.see_id")
    def see_id(task_id):
        seen.append(task_id)

    eager.tasks["eager.add"].apply_async((1, 2), link=[see.s("a"), see.si("b")])
    eager.tasks["eager.fail"].apply_async(("k",), link_error=see_id.s(), task_id="failed")
    assert seen == [(3, "a"), ("b",), "failed"]


def test_c014_time_is_spent_in_apply(eager):
    @eager.task(name="eager.nap")
    def nap():
        time.sleep(0.1)

    start = time.monotonic()
    nap.apply()
    assert time.monotonic() - start >= 0.1
