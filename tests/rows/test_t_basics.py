"""Tasks guide, basics (T-020..T-035): decorators, classes, binding. T-029 (what bind is for) is shown by T-028 and T-130."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from celery import Celery, Task, current_app, shared_task


def nothing() -> None:
    """A body."""


@pytest.fixture
def app() -> Celery:
    return Celery("basics", broker="memory://", set_as_current=False)


@pytest.fixture
def keep_current() -> Any:
    """Puts the current app back after a test that makes others."""
    before = current_app._get_current_object()
    yield
    before.set_current()


def test_t001_a_callable_becomes_a_task(running: Any) -> None:
    assert running.tasks.add.delay(2, 2).get(timeout=20) == 4


def test_t020_no_parentheses(app: Celery) -> None:
    @app.task
    def bare() -> int:
        return 7

    assert bare.name == f"{__name__}.bare" and bare() == 7


def test_t020_empty_parentheses(app: Celery) -> None:
    @app.task()
    def empty() -> int:
        return 8

    assert empty.name == f"{__name__}.empty" and empty() == 8


def test_t021_options_are_class_attributes(app: Celery) -> None:
    task = app.task(serializer="yaml", max_retries=9, name="t021")(nothing)
    assert (task.serializer, task.max_retries) == ("yaml", 9)
    assert type(app.tasks["t021"]).serializer == "yaml" and type(app.tasks["t021"]).max_retries == 9


def test_t022_unknown_options_are_kept(app: Celery) -> None:
    assert app.task(foo=1, name="t022")(nothing).foo == 1


@pytest.mark.parametrize("args", [(1,), ("name",), (print, print)])
def test_t023_wrong_decorator_arguments(app: Celery, args: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        app.task(*args)


def test_t024_lazy_until_used(app: Celery) -> None:
    @app.task
    def lazy() -> None:
        """Not registered before the app is finalized."""

    assert f"{__name__}.lazy" not in app._tasks and not app.finalized
    assert isinstance(lazy, Task) and callable(lazy.delay)
    assert f"{__name__}.lazy" in app._tasks
    assert repr(lazy).startswith(f"<@task: {__name__}.lazy of basics at 0x") and repr(lazy).endswith(">")


def test_t024_not_lazy(app: Celery) -> None:
    task = app.task(lazy=False, name="t024")(nothing)
    assert type(task).__mro__[1] is app.Task and app._tasks["t024"] is task


@pytest.mark.filterwarnings("ignore:task 'twice' is registered already")
def test_t025_first_of_a_name_wins(app: Celery) -> None:
    def one() -> int:
        return 1

    def two() -> int:
        return 2

    first = app.task(name="twice")(one)
    second = app.task(name="twice")(two)
    app.finalize()
    assert first._get_current_object() is second._get_current_object() is app.tasks["twice"]
    assert second() == 1
    assert app.task(name="twice")(nothing) is app.tasks["twice"]


def doubled(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return 2 * function(*args)

    return wrapper


def test_t026_task_decorator_outermost(app: Celery) -> None:
    @app.task
    @doubled
    def three(x: int) -> int:
        """Three times."""
        return 3 * x

    assert three(1) == 6 and three.name == f"{__name__}.three" and three.__doc__ == "Three times."
    assert three.__wrapped__.__wrapped__(1) == 3


def test_t026_decorated_function_in_the_worker(running: Any) -> None:
    assert running.tasks.basics_doubled.delay(4).get(timeout=20) == 10


def test_t027_shared_task_is_in_every_app(keep_current: None) -> None:
    before = Celery("before", broker="memory://", set_as_current=False)
    before.finalize()

    @shared_task(name="rows.t027", max_retries=11, foo="bar")
    def everywhere(x: int) -> int:
        return x + 1

    assert "rows.t027" in before.tasks
    one = Celery("one", broker="memory://")
    assert everywhere.app is one and everywhere.name == "rows.t027"
    two = Celery("two", broker="memory://")
    assert everywhere.app is two
    assert one.tasks["rows.t027"] is not two.tasks["rows.t027"]
    assert everywhere.max_retries == 11 and everywhere.foo == "bar" and everywhere(1) == 2
    one.set_current()
    assert everywhere.app is one and isinstance(everywhere, Task)


def test_t027_shared_task_bare_and_bound(keep_current: None) -> None:
    app = Celery("bound", broker="memory://")

    @shared_task
    def shared_bare() -> int:
        return 1

    @shared_task(bind=True)
    def shared_bound(self: Any) -> Any:
        return self

    assert shared_bare() == 1 and shared_bare.name == f"{__name__}.shared_bare"
    assert shared_bound() is app.tasks[f"{__name__}.shared_bound"]


def test_t028_bind_gives_the_task(app: Celery, running: Any) -> None:
    @app.task(bind=True)
    def me(self: Any, x: int) -> Any:
        return self, x

    assert me(3) == (app.tasks[me.name], 3)
    result = running.tasks.basics_my_id.delay()
    assert result.get(timeout=20) == result.id


def test_t029_bound_tasks_have_what_their_base_has(app: Celery) -> None:
    class Counter(Task):
        count = 5

    @app.task(bind=True, base=Counter)
    def counted(self: Any) -> tuple[int, int]:
        return self.count, self.request.retries

    assert counted() == (5, 0)


def test_t030_request_by_the_name_of_the_module(running: Any) -> None:
    result = running.tasks.basics_my_id_unbound.delay()
    assert result.get(timeout=20) == result.id


def test_t030_retry_without_bind(running: Any) -> None:
    assert running.tasks.basics_retry_unbound.delay().get(timeout=20) == 1


def test_t031_base_class(app: Celery) -> None:
    class MyTask(Task):
        def helper(self) -> str:
            return f"help of {self.name}"

    class OfApp(app.Task):
        pass

    task = app.task(base=MyTask, name="t031")(nothing)
    assert isinstance(task, MyTask) and isinstance(task, Task) and task.helper() == "help of t031"
    assert task.app is app and isinstance(app.task(base=OfApp, name="t031b")(nothing), OfApp)


def test_t031_base_class_of_all(app: Celery) -> None:
    class MyTask(Task):
        answer = 42

    other = Celery("based", broker="memory://", set_as_current=False, task_cls=MyTask)
    assert other.task(name="t031c")(nothing).answer == 42


def test_t032_import_of_the_class() -> None:
    import celery
    from celery.app.task import Task as full

    assert celery.Task is Task is full


def test_t033_on_failure_of_the_base(running: Any) -> None:
    result = running.tasks.basics_fails.delay()
    with pytest.raises(KeyError):
        result.get(timeout=20)
    running.worker.wait_for(f"basics: {result.id} failed with KeyError('nobody')")


def test_t034_called_as_a_function(app: Celery) -> None:
    @app.task(bind=True)
    def direct(self: Any, x: int, y: int) -> tuple[int, bool, Any, Any, Any]:
        return x + y, self.request.called_directly, self.request.id, self.request.args, self.request.kwargs

    assert direct(2, y=3) == (5, True, None, (2,), {"y": 3})
    assert direct.request.called_directly is True and direct.request.args is None


def test_t034_nested_direct_call_has_a_request_of_its_own(app: Celery) -> None:
    @app.task(bind=True)
    def inner(self: Any, x: int) -> Any:
        return self.request.args

    @app.task(bind=True)
    def outer(self: Any, x: int) -> Any:
        return inner(x + 1), self.request.args

    assert outer(1) == ((2,), (1,))
    assert outer.apply((1,)).get() == ((2,), (1,))


def test_t035_metadata_of_the_function(app: Celery) -> None:
    def add(x: int, y: int = 2) -> int:
        """Sum."""
        return x + y

    task = app.tasks[app.task(add).name]
    assert (task.__name__, task.__doc__, task.__module__) == ("add", "Sum.", __name__)
    assert task.__annotations__ == add.__annotations__ and task.__wrapped__ is add
    assert task.__qualname__ == add.__qualname__
