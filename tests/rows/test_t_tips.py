"""Tasks guide, tips, performance and the example (T-340..T-350)."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import EncodeError


def test_t181_t340_nothing_is_written(running: Any, unique: Any) -> None:
    """What Redis is told meanwhile is listened to: not one command names the task."""
    tasks = running.tasks
    task_id = unique("quiet")
    with tasks.notes.monitor() as monitor:
        result = tasks.ignored.apply_async(task_id=task_id)
        tasks.noted(task_id)
        after = tasks.add.delay(1, 1)
        assert after.get(timeout=20) == 2
        tasks.notes.echo(f"end-{task_id}")
        commands = []
        for seen in monitor.listen():
            commands.append(seen["command"])
            if f"end-{task_id}" in seen["command"]:
                break
    assert [line for line in commands if f"celery-task-meta-{task_id}" in line] == []
    assert [line for line in commands if f"celery-task-meta-{after.id}" in line] != []
    assert result.get(timeout=1) is None


def test_t340_setting_for_all_tasks(app: Celery) -> None:
    app.conf.task_ignore_result = True

    @app.task(shared=False)
    def by_setting() -> None:
        """Nothing."""

    @app.task(shared=False, ignore_result=False)
    def by_itself() -> None:
        """Nothing."""

    assert (by_setting.ignore_result, by_itself.ignore_result) == (True, False)


@pytest.fixture
def app() -> Celery:
    return Celery("tips", broker="memory://", backend="cache+memory://", set_as_current=False)


def test_t341_no_waiting_within_a_task(running: Any, app: Celery) -> None:
    with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task!"):
        running.tasks.waits_for_another.delay(False).get(timeout=20)

    @app.task(shared=False)
    def eager() -> Any:
        return app.AsyncResult("another").get(timeout=1)

    app.conf.task_always_eager = True
    with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task!"):
        eager.delay().get()


def test_t342_unless_it_is_allowed(running: Any) -> None:
    assert running.tasks.waits_for_another.delay(True).get(timeout=20) == 3


def test_t343_t344_t345_chain_instead(running: Any, unique: Any) -> None:
    """The guide's example: results come before the arguments that were given."""
    key = unique("page")
    running.tasks.update_page_info.delay("http://example.com", key).get(timeout=20)
    assert running.tasks.noted(key) == [[{"length": 28}, "http://example.com"]]


def test_t343_result_of_the_chain(running: Any) -> None:
    tasks = running.tasks
    result = (tasks.fetch_page.s("u") | tasks.parse_page.s())()
    assert result.get(timeout=20) == {"length": 11}
    assert result.parent.get(timeout=20) == "<page of u>"


class Article:
    """As a model of an ORM."""

    def __init__(self, pk: int) -> None:
        self.pk = pk


def test_t347_model_objects_are_refused(box: Any) -> None:
    @box.app.task(shared=False, name="tips.expand_abbreviations")
    def expand_abbreviations(article: Any) -> None:
        """Would fetch it and save it."""

    with pytest.raises(EncodeError, match="Article"):
        expand_abbreviations.delay(Article(102))
    expand_abbreviations.delay(102)
    assert box.take().args == [102]


class Transaction:
    """What django.db.transaction does with on_commit."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []

    def on_commit(self, call: Any) -> None:
        self.callbacks.append(call)

    def commit(self) -> None:
        for call in self.callbacks:
            call()


def test_t348_sent_when_the_transaction_is_committed(box: Any) -> None:
    @box.app.task(shared=False, name="tips.expand")
    def expand(article_id: int) -> None:
        """Would find the article, which is there now."""

    transaction = Transaction()
    transaction.on_commit(lambda: expand.delay(7))
    expand.delay("before")
    assert box.take().args == ["before"]
    transaction.commit()
    assert box.take().args == [7]


def test_t348_base_class_for_django(box: Any, monkeypatch: Any) -> None:
    """Where Django is not installed a module of that name stands for it."""
    transaction = Transaction()
    django, db, module = (types.ModuleType(name) for name in ("django", "django.db", "django.db.transaction"))
    module.on_commit = db.on_commit = transaction.on_commit  # type: ignore[attr-defined]
    django.db, db.transaction = db, module  # type: ignore[attr-defined]
    for made in (django, db, module):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    from celery.contrib.django.task import DjangoTask

    @box.app.task(shared=False, name="tips.in_django", base=DjangoTask)
    def in_django(article_id: int) -> None:
        """Would find the article."""

    assert in_django.delay_on_commit(1) is None
    assert in_django.apply_async_on_commit((2,), countdown=50) is None
    in_django.delay("before")
    assert box.take().args == ["before"]
    transaction.commit()
    assert box.take().args == [1]
    later = box.take()
    assert (later.args, later.headers["eta"] is not None) == ([2], True)


def test_t349_broker_without_a_host() -> None:
    app = Celery(broker="amqp://", set_as_current=False)
    assert app.connection_for_write().as_uri() == "amqp://guest:**@localhost:5672//"


def test_t349_t350_the_example(running: Any) -> None:
    """Called with keywords only; true and false are stored as JSON has them."""
    tasks = running.tasks
    for comment_id, spam in ((2, True), (3, False)):
        result = tasks.spam_filter.delay(comment_id=comment_id, remote_addr="127.0.0.1")
        assert result.get(timeout=20) is spam
        stored = tasks.notes.get(f"celery-task-meta-{result.id}").decode()
        assert f'"result": {json.dumps(spam)}' in stored
    running.worker.wait_for("Running spam filter for comment 3")
