"""Tasks guide, automatic retry (T-150..T-160)."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import Ignore, Reject, Retry


class FailWhaleError(Exception):
    pass


class FailMinnowError(FailWhaleError):
    pass


@pytest.fixture
def app() -> Celery:
    return Celery("autoretry", broker="memory://", backend="cache+memory://", set_as_current=False)


class Asked(Exception):
    """Raised in place of a retry: what retry() was asked for."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self.options = options


class Recording(Task):
    """Its retry() says what it was given."""

    abstract = True

    def retry(self, *args: Any, **options: Any) -> Any:
        raise Asked(options)


def asked(app: Celery, retries: int = 0, error: type[Exception] = FailWhaleError, **options: Any) -> dict[str, Any]:
    """What the task's retry() is given when it fails after `retries` retries."""
    def body() -> None:
        raise error("down")

    task = app.task(base=Recording, shared=False, name=f"asked.{len(app.tasks)}", **options)(body)
    task.push_request(retries=retries, called_directly=False)
    try:
        with pytest.raises(Asked) as caught:
            task.run()
    finally:
        task.pop_request()
    return caught.value.options


def test_t150_a_listed_exception_is_retried(running: Any) -> None:
    assert running.tasks.refresh_timeline.delay(1).get(timeout=20) == 1


@pytest.mark.parametrize("listed", [(FailWhaleError,), [FailWhaleError]])
def test_t150_tuple_or_list(app: Celery, listed: Any) -> None:
    assert isinstance(asked(app, autoretry_for=listed)["exc"], FailWhaleError)


def test_t150_others_are_not_retried_and_none_by_default(app: Celery) -> None:
    def body() -> None:
        raise KeyError("k")

    listed = app.task(autoretry_for=(FailWhaleError,), shared=False, name="listed")(body)
    plain = app.task(shared=False, name="plain")(body)
    for task in (listed, plain):
        with pytest.raises(KeyError):
            task.apply(throw=True)


def test_t150_subclasses_of_what_is_listed(app: Celery) -> None:
    assert isinstance(asked(app, error=FailMinnowError, autoretry_for=(FailWhaleError,))["exc"], FailMinnowError)


def test_t151_retry_kwargs(running: Any) -> None:
    """max_retries 5: five retries are enough, six are not; then the exception itself ends the task."""
    assert running.tasks.refresh_timeline.delay(5).get(timeout=20) == 5
    failed = running.tasks.refresh_timeline.delay(6)
    with pytest.raises(running.tasks.FailWhaleError) as caught:
        failed.get(timeout=20)
    assert caught.value.args == (5,)


def test_t151_retry_kwargs_are_passed_on(app: Celery) -> None:
    options = asked(app, autoretry_for=(FailWhaleError,), retry_kwargs={"max_retries": 5, "queue": "slow"})
    assert options.pop("exc").args == ("down",)
    assert options == {"max_retries": 5, "queue": "slow"}
    assert set(asked(app, autoretry_for=(FailWhaleError,))) == {"exc"}


def test_t152_exception_is_for_all_but_ignore_and_retry(running: Any) -> None:
    tasks = running.tasks
    error, rejected, ignored = (tasks.retries_all.delay(kind) for kind in ("error", "reject", "ignore"))
    assert [retries for retries, in tasks.noted(error.id, 2)] == [0, 1]
    assert [retries for retries, in tasks.noted(rejected.id, 2)] == [0, 1]
    with pytest.raises(KeyError):
        error.get(timeout=20)
    running.worker.wait_for(f"retries_all[{ignored.id}] ignored")
    assert tasks.noted(ignored.id) == [[0]]
    assert ignored.state == "PENDING"


@pytest.mark.parametrize("predicate", [Ignore(), Retry("by hand")])
def test_t152_predicates_pass(app: Celery, predicate: Exception) -> None:
    def body() -> None:
        raise predicate

    task = app.task(base=Recording, autoretry_for=(Exception,), shared=False, name="passes")(body)
    with pytest.raises(type(predicate)):
        task.run()


def test_t152_reject_is_an_exception_like_others(app: Celery) -> None:
    def body() -> None:
        raise Reject("no")

    options = {"base": Recording, "autoretry_for": (Exception,), "shared": False}
    with pytest.raises(Asked):
        app.task(name="retried", **options)(body).run()
    with pytest.raises(Reject):
        app.task(name="excluded", dont_autoretry_for=(Reject,), **options)(body).run()


@pytest.mark.parametrize(("backoff", "delays"), [
    (True, [1, 2, 4, 8]), (1, [1, 2, 4, 8]), (3, [3, 6, 12, 24]), (2.9, [2, 4, 8, 16]), (0.5, [1, 2, 4, 8])])
def test_t153_backoff(app: Celery, backoff: Any, delays: list[int]) -> None:
    options = {"autoretry_for": (FailWhaleError,), "retry_backoff": backoff, "retry_jitter": False}
    assert [asked(app, retries=n, **options)["countdown"] for n in range(4)] == delays


def test_t153_no_backoff_means_the_default_delay(app: Celery) -> None:
    """X6: without a countdown of its own the retry waits default_retry_delay."""
    assert "countdown" not in asked(app, autoretry_for=(FailWhaleError,), retry_backoff=False)
    assert app.Task.default_retry_delay == 180


def test_t153_the_worker_waits(running: Any) -> None:
    result = running.tasks.backs_off.delay()
    first, second = (when for when, in running.tasks.noted(result.id, 2))
    assert 0.9 <= second - first < 3
    assert result.get(timeout=20) == 1


def test_t154_backoff_wins_over_countdown(app: Celery) -> None:
    options = asked(app, autoretry_for=(FailWhaleError,), retry_kwargs={"countdown": 77, "max_retries": 9},
                    retry_backoff=2, retry_jitter=False)
    assert (options["countdown"], options["max_retries"]) == (2, 9)


def test_t155_backoff_max(app: Celery) -> None:
    options = {"autoretry_for": (FailWhaleError,), "retry_backoff": True, "retry_jitter": False}
    assert asked(app, retries=9, **options)["countdown"] == 512
    assert asked(app, retries=10, **options)["countdown"] == 600
    assert asked(app, retries=400, **options)["countdown"] == 600
    assert asked(app, retries=10, retry_backoff_max=20, **options)["countdown"] == 20


def test_t156_jitter(app: Celery) -> None:
    """A whole number of seconds from 0 to the delay, each of them as likely as the others."""
    options = {"autoretry_for": (FailWhaleError,), "retry_backoff": 8}
    task_options = [asked(app, **options)["countdown"] for _ in range(400)]
    assert set(task_options) == set(range(9))
    assert all(type(value) is int for value in task_options)
    assert max(map(task_options.count, range(9))) < 100  # 44 are to be expected


def test_t157_three_retries_by_default(app: Celery) -> None:
    seen = []

    @app.task(bind=True, autoretry_for=(FailWhaleError,), shared=False)
    def fails(self: Any) -> None:
        seen.append(self.request.retries)
        raise FailWhaleError("down")

    result = fails.apply()
    assert seen == [0, 1, 2, 3]
    assert (result.state, result.result.args) == ("FAILURE", ("down",))


def test_t157_a_retry_in_the_body_changes_the_limit(app: Celery) -> None:
    seen = []

    @app.task(bind=True, autoretry_for=(FailWhaleError,), shared=False, max_retries=9)
    def fails(self: Any) -> None:
        seen.append(self.request.retries)
        try:
            raise FailWhaleError("down")
        except FailWhaleError as exc:
            raise self.retry(exc=exc, max_retries=1) from exc

    assert fails.apply().state == "FAILURE"
    assert seen == [0, 1]


def test_t158_exclusions(app: Celery) -> None:
    seen = []

    @app.task(autoretry_for=(FailWhaleError,), dont_autoretry_for=(FailMinnowError,), shared=False)
    def fails() -> None:
        seen.append(1)
        raise FailMinnowError("down")

    assert fails.apply().state == "FAILURE"
    assert seen == [1]


class Patient(Task):
    abstract = True
    autoretry_for = (FailWhaleError,)
    retry_kwargs = {"max_retries": 2}  # noqa: RUF012  a class attribute of tasks
    retry_backoff = 3
    retry_backoff_max = 5
    retry_jitter = False


def test_t159_attributes_of_a_base_class(app: Celery) -> None:
    class Both(Patient, Recording):
        abstract = True

    def body() -> None:
        raise FailWhaleError("down")

    task = app.task(base=Both, shared=False, name="inherits")(body)
    for retries, countdown in ((0, 3), (1, 5)):
        task.push_request(retries=retries, called_directly=False)
        with pytest.raises(Asked) as caught:
            task.run()
        task.pop_request()
        assert {"countdown": countdown, "max_retries": 2}.items() <= caught.value.options.items()


def test_t159_registered_classes(app: Celery) -> None:
    seen = []

    class Timeline(Patient):
        name = "timeline"

        def run(self) -> int:
            seen.append(self.request.retries)
            raise FailWhaleError("down")

    task = app.register_task(Timeline())
    assert task.apply().state == "FAILURE"
    assert seen == [0, 1, 2]


def test_t160_as_try_except_retry(running: Any) -> None:
    """Result, retries and the error when they are used up are those of the longer way of writing it."""
    tasks = running.tasks
    for failures in (0, 2):
        assert {task.delay(failures).get(timeout=20) for task in (tasks.refresh_timeline, tasks.refresh_by_hand)} == {failures}
    for task in (tasks.refresh_timeline, tasks.refresh_by_hand):
        with pytest.raises(tasks.FailWhaleError) as caught:
            task.delay(6).get(timeout=20)
        assert caught.value.args == (5,)
