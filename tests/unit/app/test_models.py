"""Tasks with pydantic models: what the rows (T-188) do not ask."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError, ValidationInfo, field_validator

from pyceleryc import Celery
from pyceleryc.exceptions import ImproperlyConfigured


class Item(BaseModel):
    number: int
    note: str | None = None

    @field_validator("number")
    @classmethod
    def scale(cls, number: int, info: ValidationInfo) -> int:
        context = info.context or {}
        assert context["celery_task_name"] == "item"
        return number * context.get("factor", 1)


@pytest.fixture
def app() -> Celery:
    return Celery("models", broker="memory://", set_as_current=False)


def double(item: Item) -> Item:
    return item


async def wait(item: Item) -> Item:
    return item


def test_context_and_dump_kwargs(app: Celery) -> None:
    task = app.task(name="item", pydantic=True, pydantic_context={"factor": 3}, pydantic_dump_kwargs={"exclude_none": True})(double)
    assert task({"number": 2}) == {"number": 6}


def test_strict(app: Celery) -> None:
    task = app.task(name="item", pydantic=True, pydantic_strict=True)(double)
    with pytest.raises(ValidationError):
        task({"number": "2"})


def test_coroutine(app: Celery) -> None:
    task = app.task(name="item", pydantic=True)(wait)
    assert asyncio.run(task.run({"number": 2})) == {"number": 2, "note": None}


def test_without_pydantic_the_extra_is_named(app: Celery, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ImproperlyConfigured, match=r"'item'.*pyceleryc\[pydantic\]"):
        app.task(name="item", pydantic=True, lazy=False)(double)


def test_off_by_default(app: Celery) -> None:
    task = app.task(name="item")(double)
    assert task({"number": 2}) == {"number": 2}
    assert not hasattr(task, "pydantic_strict")
