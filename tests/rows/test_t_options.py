"""Tasks guide, the list of task options (T-170..T-189). What `acks_*` and `reject_*` do is in test_t_acks_matrix.py."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import MaxRetriesExceededError, TimeoutError


@pytest.fixture
def app() -> Celery:
    return Celery("options", broker="memory://", backend="cache+memory://", set_as_current=False)


def make(app: Celery, **options: Any) -> Any:
    def body() -> str:
        return "done"

    return app.task(shared=False, **{"name": f"options.{len(app.tasks)}", **options})(body)


def test_t170_name(app: Celery) -> None:
    assert make(app, name="mine").name == "mine"

    @app.task(shared=False)
    def automatic() -> None:
        """Nothing."""

    assert automatic.name == f"{__name__}.automatic"


def test_t171_request_of_this_thread(app: Celery) -> None:
    import threading

    task, seen = make(app), []
    task.push_request(id="here")
    other = threading.Thread(target=lambda: seen.append(task.request.id))
    other.start()
    other.join()
    assert (task.request.id, seen) == ("here", [None])
    task.pop_request()
    assert task.request.id is None


def test_t172_max_retries(app: Celery) -> None:
    assert app.Task.max_retries == 3
    seen: list[int] = []

    def body(self: Any, until: int) -> int:
        seen.append(self.request.retries)
        if self.request.retries < until:
            raise self.retry(countdown=0)
        return len(seen)

    limited = app.task(bind=True, shared=False, name="limited")(body)
    with pytest.raises(MaxRetriesExceededError):
        limited.apply((99,)).get()
    assert seen == [0, 1, 2, 3]
    del seen[:]
    unlimited = app.task(bind=True, shared=False, name="unlimited", max_retries=None)(body)
    assert unlimited.apply((20,)).get() == 21


def test_t172_without_retry_it_means_nothing(app: Celery) -> None:
    seen: list[int] = []

    @app.task(shared=False, max_retries=5)
    def fails() -> None:
        seen.append(1)
        raise ValueError("once")

    assert fails.apply().state == "FAILURE"
    assert seen == [1]


def test_t173_expected_errors(running: Any) -> None:
    """FAILURE is stored with its traceback; the log has one line of level INFO, without it (X9)."""
    tasks, log = running.tasks, running.worker
    result = tasks.expected.delay("key")
    with pytest.raises(KeyError):
        result.get(timeout=20)
    assert (result.state, "Traceback" in result.traceback) == ("FAILURE", True)
    log.wait_for(f"expected[{result.id}] raised expected: KeyError('expected key')")
    line = next(line for line in log.text().splitlines() if f"[{result.id}] raised" in line)
    assert "INFO" in line
    other = tasks.expected.delay("value")
    with pytest.raises(ValueError, match="unexpected value"):
        other.get(timeout=20)
    log.wait_for(f"expected[{other.id}] raised unexpected: ValueError('unexpected value')")
    text = log.text()
    rest = text[text.index(f"[{other.id}] raised"):]
    assert "ERROR" in text[:text.index(f"[{other.id}] raised")].splitlines()[-1]
    log.wait_for('ValueError: unexpected value')
    assert "Traceback" in rest
    assert "KeyError: 'expected key'" not in text


def test_t174_default_retry_delay(box: Any) -> None:
    assert box.app.Task.default_retry_delay == 180

    @box.app.task(bind=True, shared=False, default_retry_delay=0.5, name="options.delayed")
    def delayed(self: Any) -> None:
        self.retry(throw=False)

    from datetime import datetime

    delayed.push_request(id="t174", called_directly=False, args=[], kwargs={}, delivery_info={})
    before = time.time()
    delayed.run()
    delayed.pop_request()
    eta = datetime.fromisoformat(box.take().headers["eta"]).timestamp()
    assert 0.45 < eta - before < 3


@pytest.mark.parametrize("rate", [None, 0, 5, 2.5, "10/s", "100/m", "7/h", "12"])
def test_t175_rates(app: Celery, rate: Any) -> None:
    assert make(app, rate_limit=rate).rate_limit == rate


def test_t175_default_rate(app: Celery) -> None:
    assert make(app).rate_limit is None
    app.conf.task_default_rate_limit = "9/m"
    assert make(app).rate_limit == "9/m"


def test_t180_soft_above_hard(app: Celery) -> None:
    task = make(app, soft_time_limit=10, time_limit=5)
    with pytest.raises(ValueError, match="soft_time_limit"):
        task.apply_async()
    with pytest.raises(ValueError, match="soft_time_limit"):
        task.delay()
    assert make(app, soft_time_limit=5, time_limit=5).apply_async().id


def test_t180_not_checked_for_options_of_the_call(box: Any) -> None:
    make(box.app, name="options.call").apply_async(soft_time_limit=10, time_limit=5)
    assert box.take().headers["timelimit"] == [5, 10]


def test_t181_ignore_result(running: Any) -> None:
    result = running.tasks.ignored.delay()
    running.tasks.noted(result.id)
    assert result.get(timeout=1) is None
    assert result.ignored is True


def test_t181_option_of_the_call(running: Any) -> None:
    """It wins over the task's own."""
    tasks = running.tasks
    wanted = tasks.ignored.apply_async(ignore_result=False)
    assert wanted.get(timeout=20) == "nobody sees this"
    unwanted = tasks.add.apply_async((1, 1), ignore_result=True)
    assert unwanted.get(timeout=1) is None
    assert tasks.add.delay(1, 1).get(timeout=20) == 2


def test_t182_errors_even_if_ignored(running: Any) -> None:
    tasks = running.tasks
    fails, succeeds, retries = tasks.ignored_but_errors.delay(True), tasks.ignored_but_errors.delay(False), tasks.ignored_but_retries.delay()
    running.worker.wait_for(f"ignored_but_errors[{fails.id}] raised")
    running.worker.wait_for(f"ignored_but_errors[{succeeds.id}] succeeded")
    running.worker.wait_for(f"ignored_but_retries[{retries.id}] retry")
    silent = tasks.ignored.delay(fail=True)
    running.worker.wait_for(f"ignored[{silent.id}] raised")
    assert tasks.add.delay(1, 1).get(timeout=20) == 2

    def stored(result: Any) -> Any:
        found = tasks.notes.get(f"celery-task-meta-{result.id}")
        return found and json.loads(found)["status"]

    assert [stored(result) for result in (fails, succeeds, retries, silent)] == ["FAILURE", None, "RETRY", None]


@pytest.mark.parametrize(("name", "content_type"), [
    (None, "application/json"), ("json", "application/json"), ("pickle", "application/x-python-serialize"),
    ("yaml", "application/x-yaml"), ("msgpack", "application/x-msgpack")])
def test_t183_serializer(box: Any, name: str | None, content_type: str) -> None:
    make(box.app, name="options.serialized", serializer=name).delay()
    assert box.take().content_type == content_type


def test_t183_a_serializer_of_ones_own(box: Any) -> None:
    from kombu import serialization

    serialization.register("rows-backwards", lambda data: json.dumps(data)[::-1], lambda text: json.loads(text[::-1]),
                           content_type="application/x-rows-backwards", content_encoding="utf-8")
    try:
        make(box.app, name="options.backwards", serializer="rows-backwards").delay()
        sent = box.take()
        assert sent.content_type == "application/x-rows-backwards"
        assert json.loads(sent.raw.decode()[::-1])[0] == []
    finally:
        serialization.unregister("rows-backwards")


@pytest.mark.parametrize(("name", "header"), [(None, None), ("gzip", "application/x-gzip"), ("bzip2", "application/x-bz2")])
def test_t184_compression(box: Any, name: str | None, header: str | None) -> None:
    make(box.app, name="options.compressed", compression=name).delay()
    assert box.take().headers.get("compression") == header


def test_t184_setting(box: Any) -> None:
    box.app.conf.task_compression = "gzip"
    make(box.app, name="options.compressed_too").delay()
    assert box.take().headers["compression"] == "application/x-gzip"


def test_t185_backend_of_the_task(app: Celery) -> None:
    from celery.backends.base import DisabledBackend

    own = DisabledBackend(app=app)
    task = make(app, backend=own)
    assert task.backend is own
    assert task.AsyncResult("x").backend is own
    assert make(app).backend is app.backend


@pytest.mark.parametrize(("attribute", "setting", "value"), [
    ("acks_late", "task_acks_late", True), ("track_started", "task_track_started", True),
    ("reject_on_worker_lost", "task_reject_on_worker_lost", True), ("ignore_result", "task_ignore_result", True),
    ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored", True), ("serializer", "task_serializer", "yaml"),
    ("rate_limit", "task_default_rate_limit", "7/m"), ("priority", "task_default_priority", 7),
    ("acks_on_failure_or_timeout", "task_acks_on_failure_or_timeout", False), ("store_eager_result", "task_store_eager_result", True),
])
def test_t186_t189_attribute_then_setting(app: Celery, attribute: str, setting: str, value: Any) -> None:
    """An attribute that is given wins; else it is the setting's value, whose default differs from `value`."""
    default = getattr(make(app), attribute)
    assert default != value
    app.conf[setting] = value
    assert getattr(make(app), attribute) == value
    assert getattr(make(app, **{attribute: default or 0}), attribute) == (default or 0)


def test_t188_defaults_of_the_others(app: Celery) -> None:
    task = make(app)
    wanted = {"typing": True, "trail": True, "send_events": True, "expires": None, "priority": None, "acks_late": False,
              "acks_on_failure_or_timeout": True, "resultrepr_maxsize": 1024,
              "store_eager_result": False, "time_limit": None, "soft_time_limit": None, "throws": (),
              "serializer": "json", "store_errors_even_if_ignored": False, "ignore_result": False,
              "track_started": False, "max_retries": 3, "default_retry_delay": 180}
    assert {name: getattr(task, name) for name in wanted} == wanted
    assert not task.reject_on_worker_lost
    assert task.shadow_name((), {}, {}) is None
    assert task.Strategy
    assert task.Request


def test_t188_expires_and_priority_are_sent(box: Any) -> None:
    make(box.app, name="options.sent", expires=100, priority=4).delay()
    sent = box.take()
    assert sent.headers["expires"]
    assert sent.properties["priority"] == 4


def test_t188_bind_base_filter_lazy(app: Celery) -> None:
    class Base(Task):
        abstract = True

    seen: list[Any] = []

    def keep(task: Any) -> str:
        seen.append(task)
        return "filtered"

    def body(self: Any) -> Any:
        return self.name

    assert app.task(filter=keep, shared=False, name="filtered")(body) == "filtered"
    assert seen[0].name == "filtered"
    eager = app.task(lazy=False, bind=True, base=Base, shared=False, name="not lazy")(body)
    assert isinstance(eager, Base)
    assert type(eager) is not Base
    assert eager() == "not lazy"


def test_t188_resultrepr_maxsize(app: Celery, caplog: Any) -> None:
    @app.task(shared=False, resultrepr_maxsize=10)
    def long_text() -> str:
        return "x" * 100

    with caplog.at_level(logging.INFO):
        long_text.apply()
    line = next(record.getMessage() for record in caplog.records if "succeeded" in record.getMessage())
    assert "x" * 11 not in line


def test_t188_store_eager_result(app: Celery) -> None:
    app.conf.update(task_always_eager=True, task_store_eager_result=True)
    result = make(app).delay()
    assert app.backend.get_task_meta(result.id)["status"] == "SUCCESS"


def test_t188_pydantic_models(running: Any) -> None:
    """In a worker: dicts in, models in the task, dicts out."""
    order, done = {"number": 4, "due": "2026-02-03"}, {"number": 8, "due": "2026-02-03"}
    double, strict = running.tasks.double_order, running.tasks.strict_order
    assert double.delay(order).get(timeout=15) == done
    assert double.delay(order=order, again=order, plain=order).get(timeout=15) == done
    assert strict.delay({"number": 4}).get(timeout=15) == {"number": 4}
    for refused in (double.delay({"number": "four"}), strict.delay({"number": "4"})):
        with pytest.raises(Exception, match="ValidationError"):
            refused.get(timeout=15)


def test_t188_pydantic_models_here(running: Any) -> None:
    double = running.tasks.double_order
    assert double({"number": 4}) == {"number": 8, "due": None}
    assert double(running.tasks.Order(number=1), None) == {"number": 2, "due": None}
    assert double.apply(({"number": 4},)).get() == {"number": 8, "due": None}


@pytest.mark.parametrize("key", ["options.annotated", "*"])
def test_t189_annotations(app: Celery, key: str) -> None:
    app.conf.task_annotations = {key: {"rate_limit": "11/s", "acks_late": True}}
    task = make(app, name="options.annotated", rate_limit="5/s")
    assert (task.rate_limit, task.acks_late) == ("11/s", True)


def test_t189_annotation_objects(app: Celery) -> None:
    """Of a list, the first that has something to say."""
    class Mine:
        def annotate(self, task: Any) -> Any:
            return {"track_started": True} if task.name == "options.mine" else None

        def annotate_any(self) -> Any:
            return {"max_retries": 8}

    app.conf.task_annotations = [Mine(), {"options.mine": {"max_retries": 7}}]
    mine, other = make(app, name="options.mine"), make(app, name="options.other")
    assert (mine.track_started, other.track_started) == (True, False)
    assert (mine.max_retries, other.max_retries) == (8, 8)


def test_t189_annotated_methods(app: Celery) -> None:
    """A key with an @ decorates a method, once."""
    seen: list[Any] = []

    def around(method: Any) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(args)
            return f"around {method(self, *args, **kwargs)}"

        return call

    app.conf.task_annotations = {"options.wrapped": {"@__call__": around}}
    task = make(app, name="options.wrapped")
    assert task() == "around done"
    assert task.apply().get() == "around done"
    assert seen == [(), ()]


@pytest.mark.parametrize(("option", "value"), [
    ("rate_limit", "5/x"), ("rate_limit", "many"), ("rate_limit", -1), ("time_limit", -1), ("soft_time_limit", -0.5),
    ("time_limit", "10"), ("max_retries", "3"), ("default_retry_delay", "soon"), ("throws", "KeyError"), ("throws", (5,)),
    ("autoretry_for", ValueError), ("autoretry_for", ("ValueError",)), ("retry_kwargs", [1]), ("retry_backoff", "2"),
    ("serializer", 5), ("compression", True), ("priority", "high"), ("base", "Base"), ("name", 5)])
def test_bad_option_at_the_definition(app: Celery, option: str, value: Any) -> None:
    """T-023: named are the task and the option; no worker has to be started to learn of it."""
    options = {"name": "options.bad", option: value}
    with pytest.raises((TypeError, ValueError)) as caught:
        app.task(shared=False, **options)(lambda: None)
    assert option in str(caught.value)
    assert (str(value) if option == "name" else "options.bad") in str(caught.value)


def test_bad_option_of_an_annotation_or_a_class(app: Celery) -> None:
    app.conf.task_annotations = {"options.annotated": {"rate_limit": "5/x"}}
    with pytest.raises(ValueError, match=r"options\.annotated.*rate_limit"):
        make(app, name="options.annotated").rate_limit  # noqa: B018  looked at, so it is made

    class Bad(Task):
        name = "options.class"
        time_limit = -5

        def run(self) -> None:
            """Nothing."""

    with pytest.raises(ValueError, match=r"options\.class.*time_limit"):
        app.register_task(Bad())


@pytest.mark.parametrize("name", ["options.number", None])
def test_bad_function_names_the_task(app: Celery, name: str | None) -> None:
    with pytest.raises(TypeError, match=r"options\.number.*callables" if name else "callable"):
        app.task(name=name, shared=False)(5)


def test_soft_above_hard_names_the_task(app: Celery) -> None:
    with pytest.raises(ValueError, match=r"options\.soft.*soft_time_limit.*time_limit"):
        make(app, name="options.soft", soft_time_limit=10, time_limit=5).delay()


def test_two_tasks_of_one_name(app: Celery) -> None:
    """T-025: the first stays; that the second is not used is said."""
    make(app, name="options.twice").name  # noqa: B018  looked at, so it is made

    def other() -> str:
        return "other"

    with pytest.warns(UserWarning, match=r"options\.twice.*registered already.*other"):
        twice = app.task(name="options.twice", shared=False)(other)
    assert twice() == "done"


@pytest.mark.parametrize("arguments", [{"countdown": "soon"}, {"eta": 5}, {"max_retries": "many"}, {"countdown": [1]}])
def test_bad_argument_of_retry(app: Celery, arguments: dict[str, Any]) -> None:
    @app.task(bind=True, shared=False, name="options.retries")
    def retries(self: Any) -> None:
        raise self.retry(**arguments)

    with pytest.raises(TypeError, match=rf"options\.retries.*{next(iter(arguments))}"):
        retries.apply().get()


@pytest.mark.parametrize("arguments", [{"countdown": "soon"}, {"eta": 5}, {"expires": [1]}, {"countdown": [1]}])
def test_bad_time_of_a_call(box: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=rf"options\.timed.*{next(iter(arguments))}"):
        make(box.app, name="options.timed").apply_async(**arguments)
    with pytest.raises(TypeError, match=rf"options\.sent.*{next(iter(arguments))}"):
        box.app.send_task("options.sent", **arguments)


def test_bad_argument_of_retry_in_a_worker(running: Any) -> None:
    """It fails with that error, and is not lost as a rejected message."""
    result = running.tasks.retries_badly.delay()
    with pytest.raises(TypeError, match=r"retries_badly.*countdown"):
        result.get(timeout=20)


def test_t176_limited_tasks_wait_in_the_worker(side: Any, running: Any, amqp_url: str, redis_url: str, unique: Any) -> None:
    """They are received, count as prefetched, and run at their rate; others overtake them. With an ETA the rate counts, too (X8)."""
    env = {**running.env, "FLEET_QUEUE": unique("limited"), "FLEET_LOGLEVEL": "INFO"}
    script = """
import time
limited = [tasks.paced.delay() for _ in range(8)]
free = tasks.calling.clock.delay().get(timeout=20)
plain = sorted(result.get(timeout=20) for result in limited)
late = [tasks.paced.apply_async(countdown=0.5) for _ in range(3)]
after = sorted(result.get(timeout=20) for result in late)
with tasks.app.connection_for_write() as connection:
    waiting = connection.default_channel.queue_declare(tasks.app.conf.task_default_queue, passive=True).message_count
    connection.default_channel.queue_delete(tasks.app.conf.task_default_queue)
result = [plain[-1] - free, plain[-1] - plain[0], after[-1] - after[0], waiting]
"""
    with side.worker(env, "-c", "2"):
        overtaken, spread, spread_late, waiting = side.client(script, env)
    assert overtaken > 0
    assert spread >= 1.15  # 8 tasks at 5 a second: the first two may start together
    assert spread_late >= 0.15
    assert waiting == 0


def test_timeout_error_is_the_librarys(running: Any, unique: Any) -> None:
    """T-178: waiting is not limited by the task's own limits."""
    with pytest.raises(TimeoutError):
        running.tasks.app.AsyncResult(unique("never")).get(timeout=0.05)
