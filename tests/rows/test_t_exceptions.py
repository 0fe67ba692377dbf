"""Tasks guide, exceptions as results (T-240..T-244)."""

from __future__ import annotations

import json
import pickle
import sys
import types
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SecurityError, WorkerLostError
from celery.utils.serialization import UnpickleableExceptionWrapper, get_pickleable_exception, get_pickled_exception


class HttpError(Exception):
    def __init__(self, status_code: int, headers: Any = None, body: Any = None) -> None:
        self.status_code = status_code
        self.headers = headers
        self.body = body
        super().__init__(status_code, headers, body)


class BadHttpError(Exception):
    """Its args are not those of its constructor."""

    def __init__(self, status_code: int, reason: str) -> None:
        super().__init__()
        self.status_code = status_code
        self.reason = reason


class ChildOfGood(HttpError):
    def __init__(self, first: int, second: Any, third: Any, *, needed: int) -> None:
        super().__init__(first, second, third)


@pytest.fixture
def backend() -> Any:
    return Celery("exceptions", backend="cache+memory://", set_as_current=False).backend


@pytest.fixture
def pickling() -> Any:
    app = Celery("exceptions", backend="cache+memory://", set_as_current=False)
    app.conf.update(result_serializer="pickle", accept_content=["pickle"])
    return app.backend


def test_t240_args_survive_pickle(pickling: Any) -> None:
    pickling.store_result("t240", HttpError(404, {"a": 1}, "gone"), "FAILURE")
    found = pickling.get_result("t240")
    assert type(found) is HttpError
    assert (found.status_code, found.headers, found.body) == (404, {"a": 1}, "gone")


def test_t241_replacement_of_an_exception_that_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(BadHttpError(404, "gone")))
    wrapper = get_pickleable_exception(BadHttpError(404, "gone"))
    assert isinstance(wrapper, UnpickleableExceptionWrapper)
    assert (wrapper.exc_module, wrapper.exc_cls_name) == (__name__, "BadHttpError")
    restored = get_pickled_exception(pickle.loads(pickle.dumps(wrapper)))
    assert isinstance(restored, Exception)
    assert (type(restored).__name__, type(restored).__module__) == ("BadHttpError", __name__)


def test_t241_nearest_base_class() -> None:
    nearest = get_pickleable_exception(ChildOfGood(1, 2, 3, needed=4))
    assert type(nearest) is HttpError
    assert nearest.args == (1, 2, 3)


def test_t241_from_a_worker(running: Any) -> None:
    result = running.tasks.raises.delay("stubborn")
    assert isinstance(result.get(timeout=20, propagate=False), Exception)
    assert "Stubborn" in repr(result.result)
    assert result.state == "FAILURE"


def test_t242_document_of_an_exception(running: Any) -> None:
    tasks = running.tasks
    result = tasks.raises.delay("args")
    result.get(timeout=20, propagate=False)
    stored = json.loads(tasks.notes.get(f"celery-task-meta-{result.id}"))
    assert stored["result"] == {"exc_type": "ValueError", "exc_message": ["text", "<no JSON>"], "exc_module": "builtins"}
    assert stored["traceback"].startswith("Traceback (most recent call last)")
    assert result.result.args == ("text", "<no JSON>")


def test_t243_class_is_looked_up_where_it_is_loaded(backend: Any) -> None:
    found = backend.exception_to_python({"exc_type": "HttpError", "exc_message": [1, 2, 3], "exc_module": __name__})
    assert type(found) is HttpError
    assert found.body == 3


def test_t243_nothing_is_imported(backend: Any) -> None:
    sys.modules.pop("wsgiref.handlers", None)
    found = backend.exception_to_python({"exc_type": "Anything", "exc_message": ["m"], "exc_module": "wsgiref.handlers"})
    assert (type(found).__name__, found.args) == ("Anything", ("m",))
    assert isinstance(found, Exception)
    assert "wsgiref.handlers" not in sys.modules


def test_t243_not_an_exception_class(backend: Any) -> None:
    with pytest.raises(SecurityError):
        backend.exception_to_python({"exc_type": "system", "exc_message": ["true"], "exc_module": "os"})


def test_t243_constructor_that_fails(backend: Any) -> None:
    found = backend.exception_to_python({"exc_type": "BadHttpError", "exc_message": [], "exc_module": __name__})
    assert type(found) is Exception
    assert found.args == (f"{BadHttpError}([])",)


def test_t243_scalar_message_and_no_module(backend: Any) -> None:
    assert backend.exception_to_python({"exc_type": "KeyError", "exc_message": "k", "exc_module": "builtins"}).args == ("k",)
    unknown = backend.exception_to_python({"exc_type": "Nobody", "exc_message": "k"})
    assert (type(unknown).__name__, unknown.args) == ("Nobody", ("k",))


def test_t243_nested_class(backend: Any, monkeypatch: Any) -> None:
    module = types.ModuleType("rows_nested")
    module.Outer = type("Outer", (), {"Inner": type("Inner", (Exception,), {})})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rows_nested", module)
    found = backend.exception_to_python({"exc_type": "Outer.Inner", "exc_message": ["m"], "exc_module": "rows_nested"})
    assert type(found) is module.Outer.Inner  # type: ignore[attr-defined]


def test_t243_the_librarys_own(backend: Any) -> None:
    prepared = backend.prepare_exception(WorkerLostError("gone"))
    assert prepared == {"exc_type": "WorkerLostError", "exc_message": ("gone",), "exc_module": "billiard.exceptions"}
    assert isinstance(backend.exception_to_python(prepared), WorkerLostError)


def test_t244_keyword_arguments_as_positional_ones(running: Any) -> None:
    tasks = running.tasks
    with pytest.raises(tasks.HttpError) as caught:
        tasks.raises.delay("http").get(timeout=20)
    assert (caught.value.status_code, caught.value.headers, caught.value.body) == (404, {"a": 1}, "gone")
