"""Calling guide, routing and results (FEATURES §1.29)."""

from __future__ import annotations

import re

import pytest
from celery import Celery
from celery.exceptions import QueueNotFound
from kombu import Exchange, Queue


@pytest.fixture
def add(box):
    @box.app.task(name="row.add")
    def add(x, y=0):
        return x + y

    return add


def route(message):
    return message.delivery_info["exchange"], message.delivery_info["routing_key"]


def test_c140_queue_that_was_not_defined(box, add):
    name = f"{box.queue}.high"
    add.apply_async((1,), queue=name)
    add.apply_async((2,), queue=Queue(name, Exchange(name), routing_key=name))
    first, second = box.take_all(2, name)
    assert (first.args, second.args) == ([1], [2])
    assert route(first) == ("", name)  # through the anonymous exchange
    exchange = Exchange(name, type="direct")
    exchange(box.connection.default_channel).declare()  # made alike: no error
    exchange(box.connection.default_channel).delete()


def test_c140_missing_queues_are_not_created(boxes):
    box = boxes(task_create_missing_queues=False)
    with pytest.raises(QueueNotFound):
        box.app.send_task("row.any", queue="row-not-there")


def test_c141_worker_of_two_queues(formats):
    where = formats.tasks.where
    assert where.delay().get(timeout=15)[0] == formats.queue
    assert where.apply_async(queue=f"{formats.queue}.high").get(timeout=15)[0] == f"{formats.queue}.high"


class Pathfinder:
    def route_for_task(self, task, args=None, kwargs=None):
        return {"queue": "by-object"} if task == "row.object" else None


def find_route(name, args, kwargs, options, task=None, **kw):
    return {"queue": f"by-function-{args[0]}"} if name == "row.function" else None


ROUTES = [
    {"row.exact": {"queue": "by-name", "priority": 4}, "row.plain": "by-text", "feed.*": {"queue": "by-glob"},
     re.compile(r"(video|image)\..*"): {"queue": "by-regex"}},
    Pathfinder(),
    find_route,
    [("late.*", {"queue": "by-list"}), ("feed.*", {"queue": "too-late"})],
]


@pytest.mark.parametrize(("routes", "name", "expected"), [
    (ROUTES[0], "row.exact", "by-name"),
    (ROUTES[0], "row.plain", "by-text"),
    (ROUTES[0], "feed.tasks.import", "by-glob"),
    (ROUTES[0], "video.encode", "by-regex"),
    (ROUTES[0], "row.c", None),
    ((ROUTES[1],), "row.object", "by-object"),
    ((ROUTES[2],), "row.function", "by-function-7"),
    (("test_c_routing.find_route",), "row.function", "by-function-7"),
    (([("late.*", {"queue": "by-list"}), ("late.mo*", {"queue": "too-late"})],), "late.more", "by-list"),
    (([("late.*", {"queue": "too-wide"}), ("late.more", {"queue": "by-name"})],), "late.more", "by-name"),  # names before patterns
    ((ROUTES[0], {"feed.*": {"queue": "too-late"}}), "feed.x", "by-glob"),
    (([("unknown.*", "nowhere")], ROUTES[0]), "row.exact", "by-name"),
])
def test_c142_task_routes(routes, name, expected):
    app = Celery("routes", broker="memory://", set_as_current=False)
    app.conf.update(task_routes=routes, task_default_queue="the-default")
    found = app.amqp.router.route({}, name, (7,), {})
    assert found["queue"].name == (expected or "the-default")
    if name == "row.exact":
        assert found["priority"] == 4


def test_c142_call_options_win(box, add):
    box.app.conf.task_routes = {"row.add": {"queue": f"{box.queue}-routed", "priority": 4}}
    add.apply_async((1,))
    add.apply_async((2,), queue=box.queue, priority=7)
    routed, called = box.take(f"{box.queue}-routed"), box.take()
    assert (routed.args, routed.properties["priority"]) == ([1], 4)
    assert (called.args, called.properties["priority"]) == ([2], 7)


def test_c143_ignore_result(running):
    tasks = running.tasks
    result = tasks.add.apply_async((1, 1), ignore_result=True)
    assert result.get(timeout=15) is None
    running.worker.wait_for(f"[{result.id}] succeeded")
    assert tasks.app.AsyncResult(result.id).state == "PENDING"
    # what the call says wins over the task
    assert tasks.calling.ignored.delay("dropped").get(timeout=15) is None
    assert tasks.calling.ignored.apply_async(("kept",), ignore_result=False).get(timeout=15) == "kept"


def test_c143_c144_setting_task_call(boxes):
    box = boxes(task_ignore_result=True)

    @box.app.task(name="row.plain")
    def plain():
        return None

    @box.app.task(name="row.own", ignore_result=False)
    def own():
        return None

    plain.delay()
    own.delay()
    plain.apply_async(ignore_result=False)
    own.apply_async(ignore_result=True)
    assert [message.headers["ignore_result"] for message in box.take_all(4)] == [True, False, False, True]
    assert plain.ignore_result is True
    assert own.ignore_result is False


def test_c145_result_extended(formats):
    result = formats.tasks.echo.apply_async(("v",))
    assert result.get(timeout=15) == "v"
    assert (result.name, result.args, result.kwargs, result.retries) == ("rows_formats.echo", ["v"], {}, 0)
    assert result.queue == formats.queue
    assert "@" in result.worker


def test_c145_not_by_default(running):
    result = running.tasks.add.delay(1, 1)
    assert result.get(timeout=15) == 2
    assert (result.name, result.args, result.worker, result.queue) == (None, None, None, None)


def test_c146_c147_ignored_with_a_direct_queue(box, add):
    add.apply_async((1,), exchange="row-somewhere")
    add.apply_async((2,), routing_key="row.elsewhere")
    assert [(message.args, route(message)) for message in box.take_all(2)] == [([1], ("", box.queue)), ([2], ("", box.queue))]


def test_c146_exchange_with_key(box, add):
    exchange = Exchange(f"{box.queue}-x", type="direct")
    bound = Queue(f"{box.queue}-bound", exchange, routing_key="k")
    bound(box.connection.default_channel).declare()
    add.apply_async((1,), exchange=exchange.name, routing_key="k")
    add.apply_async((2,), exchange=exchange, routing_key="k")
    add.apply_async((3,), exchange=exchange.name, routing_key="unbound")
    assert [(message.args, route(message)) for message in box.take_all(2, bound.name)] == [
        ([1], (exchange.name, "k")), ([2], (exchange.name, "k"))]
    assert box.is_empty()
    exchange(box.connection.default_channel).delete()


def test_c147_topics(boxes):
    box = boxes()
    exchange = Exchange(f"{box.queue}-topic", type="topic")
    box.app.conf.task_queues = [Queue(box.queue, exchange, routing_key="task.#"), Queue(f"{box.queue}-feeds", exchange, routing_key="feed.#")]
    box.app.conf.task_default_exchange, box.app.conf.task_default_routing_key = exchange.name, "task.default"
    box.app.conf.task_default_exchange_type = "topic"
    Queue(f"{box.queue}-feeds", exchange, routing_key="feed.#")(box.connection.default_channel).declare()
    box.app.send_task("row.any", (1,), routing_key="feed.import")
    box.app.send_task("row.any", (2,), routing_key="task.other")
    feed, task = box.take(f"{box.queue}-feeds"), box.take()
    assert (feed.args, route(feed)) == ([1], (exchange.name, "feed.import"))
    assert (task.args, route(task)) == ([2], (exchange.name, "task.other"))
    exchange(box.connection.default_channel).delete()


def test_c148_priority_on_rabbitmq(boxes):
    """X17: higher numbers come first, where the queue knows priorities."""
    box = boxes(task_queue_max_priority=10)
    for priority in (1, 9, 5, 10):
        box.app.send_task("row.any", (priority,), priority=priority)
    box.wait_for(4)
    messages = box.take_all(4)
    assert [message.args[0] for message in messages] == [10, 9, 5, 1]
    assert [message.properties["priority"] for message in messages] == [10, 9, 5, 1]


def test_c148_priority_of_a_queue_of_its_own(boxes):
    box = boxes()
    box.app.conf.task_queues = [Queue(box.queue, Exchange(box.queue), routing_key=box.queue, max_priority=5)]
    for priority in (0, 5, 255):
        box.app.send_task("row.any", (priority,), priority=priority)
    box.wait_for(3)
    assert [message.properties["priority"] for message in box.take_all(3)] == [5, 255, 0]


def test_c148_default_priority(boxes):
    box = boxes(task_default_priority=3)

    @box.app.task(name="row.plain")
    def plain():
        return None

    plain.delay()
    assert box.take().properties["priority"] == 3


def test_c148_priority_on_redis(redis_url, unique):
    from redis import Redis

    queue, client = unique("row"), Redis.from_url(redis_url)
    app = Celery("redis-box", broker=redis_url, set_as_current=False)
    app.conf.task_default_queue = queue
    for priority, key in ((0, queue), (3, f"{queue}\x06\x163"), (9, f"{queue}\x06\x169"), (255, f"{queue}\x06\x169")):
        app.send_task("row.any", priority=priority)
        raw = client.lpop(key)
        assert raw is not None, (priority, client.keys(f"{queue}*"))
        assert f'"priority": {priority}' in raw.decode()
    app.close()
    client.delete(f"_kombu.binding.{queue}")


@pytest.mark.parametrize(("mode", "number"), [(1, 1), (2, 2), ("transient", 1), ("persistent", 2), (None, 2)])
def test_c149_delivery_mode(box, add, mode, number):
    add.apply_async((1,), delivery_mode=mode) if mode else add.delay(1)
    assert box.take().properties["delivery_mode"] == number


def test_c149_setting(boxes):
    box = boxes(task_default_delivery_mode="transient")
    box.app.send_task("row.any")
    assert box.take().properties["delivery_mode"] == 1
