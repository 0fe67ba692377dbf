"""What goes into a bug report, and apps with `__reduce_args__`."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pyceleryc import Celery
from pyceleryc.app.utils import AppPickler, bugreport


class OldApp(Celery):
    """Written for the old way to pickle apps."""

    def __reduce_args__(self) -> tuple[Any, ...]:
        return (self.main, {"task_default_queue": "kept"}, None, None, None, None, None, None, False, None)


def test_bugreport_has_no_secrets() -> None:
    app = Celery("report", broker="amqp://me:hush@127.0.0.1:1//", backend="redis://:hush@127.0.0.1:1/0", set_as_current=False)
    app.conf.task_default_queue = "special"
    text = bugreport(app)
    sections = [line for line in text.splitlines() if line.startswith("[")]
    assert sections == ["[versions]", "[system]", "[app]", "[settings]"]
    assert "driver: py-amqp" in text and "special" in text and "results: redis://" in text
    assert "hush" not in text


def test_bugreport_of_a_broken_installation() -> None:
    app = Celery("report", broker="nothing://", set_as_current=False)
    assert "transport: unusable" in bugreport(app)


def test_app_with_reduce_args() -> None:
    copy = pickle.loads(pickle.dumps(OldApp("old", set_as_current=False)))
    assert isinstance(copy, OldApp) and copy.main == "old" and copy.conf.task_default_queue == "kept"


def test_pickler_wants_all_values() -> None:
    with pytest.raises(TypeError, match="10 values"):
        AppPickler().build_standard_kwargs("main", {})
    named = AppPickler().build_kwargs(*"mclbaevgx")
    assert named["control"] == "g" and named["config_source"] is None and "x" not in named.values()
