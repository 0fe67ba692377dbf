"""Bootsteps without a worker: order, life, errors (Extensions guide)."""

from __future__ import annotations

from typing import Any

import pytest

from pyceleryc import bootsteps
from pyceleryc.exceptions import ImproperlyConfigured


class Parent:
    """What has steps."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.calls: list[str] = []


class First(bootsteps.Step):
    def create(self, parent: Any) -> None:
        parent.calls.append("create First")


class Noted(bootsteps.StartStopStep):
    def start(self, parent: Any) -> None:
        parent.calls.append(f"start {self.alias}")

    def stop(self, parent: Any) -> None:
        parent.calls.append(f"stop {self.alias}")

    def close(self, parent: Any) -> None:
        parent.calls.append(f"close {self.alias}")


class Zebra(Noted):
    requires = (First,)


class Ape(Noted):
    requires = (f"{__name__}:Zebra",)


class Final(Noted):
    last = True


class Cat(Noted):
    label = "Tom"


class Never(Noted):
    def include_if(self, parent: Any) -> bool:
        return False


def names(blueprint: bootsteps.Blueprint) -> list[str]:
    return [step.alias for step in blueprint.order]


def test_order_follows_what_is_required() -> None:
    parent = Parent()
    blueprint = bootsteps.Blueprint([Final, Ape, Cat], name="Test").apply(parent)
    assert names(blueprint) == ["First", "Zebra", "Ape", "Tom", "Final"]
    assert [step.alias for step in parent.steps] == ["Zebra", "Ape", "Tom", "Final"]
    assert blueprint[f"{__name__}.Ape"] is parent.steps[1]


def test_start_and_stop() -> None:
    parent = Parent()
    blueprint = bootsteps.Blueprint([Ape, Never], name="Test").apply(parent)
    assert blueprint.human_state() == "initializing"
    blueprint.start(parent)
    assert blueprint.human_state() == "running"
    blueprint.stop(parent)
    blueprint.stop(parent)
    blueprint.join(0)
    assert parent.calls == ["create First", "start Zebra", "start Ape", "close Zebra", "close Ape", "stop Ape", "stop Zebra"]
    assert blueprint.human_state() == "terminating"


def test_only_what_was_started_is_stopped() -> None:
    class Fails(Noted):
        requires = (Zebra,)

        def start(self, parent: Any) -> None:
            raise ValueError("no")

    class Later(Noted):
        requires = (Fails,)

    parent = Parent()
    blueprint = bootsteps.Blueprint([Later], name="Test").apply(parent)
    with pytest.raises(ValueError, match="no"):
        blueprint.start(parent)
    blueprint.stop(parent, close=False)
    assert parent.calls[1:] == ["start Zebra", "stop Fails", "stop Zebra"]


def test_errors_of_stop_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Noted):
        requires = (Zebra,)

        def stop(self, parent: Any) -> None:
            raise ValueError("stuck")

    parent = Parent()
    blueprint = bootsteps.Blueprint([Bad], name="Test").apply(parent)
    blueprint.start(parent)
    blueprint.stop(parent)
    assert parent.calls[-1] == "stop Zebra"
    assert "Error on stopping Bad: ValueError('stuck')" in caplog.text
    with pytest.raises(ValueError, match="stuck"):
        blueprint.send_all(parent, "stop", propagate=True)


def test_object_made_by_create() -> None:
    class Server:
        def __init__(self, calls: list[str]) -> None:
            self.calls = calls

        def start(self) -> None:
            self.calls.append("serve")

        def stop(self) -> None:
            self.calls.append("enough")

    class Serves(bootsteps.StartStopStep):
        def create(self, parent: Any) -> Server:
            return Server(parent.calls)

    for terminate in (False, True):
        parent = Parent()
        blueprint = bootsteps.Blueprint([Serves], name="Test").apply(parent)
        blueprint.start(parent)
        blueprint.stop(parent, terminate=terminate)
        assert parent.calls == ["serve", "enough"]


def test_options() -> None:
    """The guide has steps that name the options they want, and such that take all."""
    seen: dict[str, Any] = {}

    class Some(bootsteps.Step):
        def __init__(self, parent: Any, timeout: int = 3) -> None:
            seen["timeout"] = timeout

    class All(bootsteps.Step):
        def __init__(self, parent: Any, **kwargs: Any) -> None:
            seen["all"] = kwargs

    bootsteps.Blueprint([Some, All], name="Test").apply(Parent(), timeout=5, other=6)
    assert seen == {"timeout": 5, "all": {"timeout": 5, "other": 6}}


def test_info() -> None:
    class Tells(Noted):
        def info(self, parent: Any) -> dict[str, Any]:
            return {"answer": 42}

    parent = Parent()
    assert bootsteps.Blueprint([Tells, Zebra], name="Test").apply(parent).info(parent) == {"answer": 42}


def test_circle() -> None:
    class Egg(Noted):
        requires: Any = ()

    class Hen(Noted):
        requires = (Egg,)

    Egg.requires = (Hen,)
    with pytest.raises(ImproperlyConfigured, match="require each other: .*Egg.* -> "):
        bootsteps.Blueprint([Egg], name="Test").apply(Parent())


@pytest.mark.parametrize(("step", "text"), [
    ("no.such:Step", "There is no bootstep 'no.such:Step'"), (f"{__name__}:nothing", "There is no bootstep"),
    (Parent, "derive its class from"), (int, "is not a bootstep")])
def test_what_is_no_step(step: Any, text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        bootsteps.Blueprint([step]).apply(Parent())


def test_names_of_celery() -> None:
    from pyceleryc.worker import components
    from pyceleryc.worker.consumer import Connection

    class Needs(Noted):
        requires = ("celery.worker.components:Pool", "celery.worker.consumer.connection:Connection")

    order = bootsteps.Blueprint([Needs]).apply(type("W", (Parent,), {"app": None, "pool_name": "solo"})()).order
    assert {type(step) for step in order} >= {components.Pool, components.Hub, components.Timer, Connection, Needs}
