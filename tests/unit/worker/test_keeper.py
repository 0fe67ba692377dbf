"""Results that the worker's parent keeps while the store is away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyceleryc.backends.errors import StoreUnreachable
from pyceleryc.worker import keeper
from pyceleryc.worker.keeper import Keeper


class Store:
    """A store that may be away, and the timer of a loop."""

    def __init__(self) -> None:
        self.away = False
        self.kept: list[str] = []
        self.timers: list[Callable[[], object]] = []

    def take(self, task_id: str) -> Callable[[], None]:
        def call() -> None:
            if self.away:
                raise StoreUnreachable("away")
            self.kept.append(task_id)

        return call

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        assert seconds >= keeper.PAUSE
        self.timers.append(callback)

    def tick(self) -> None:
        due, self.timers = self.timers, []
        for callback in due:
            callback()


@pytest.fixture
def store() -> Store:
    return Store()


def test_at_once_when_it_can(store: Store) -> None:
    Keeper(store.call_later).store("a", store.take("a"))
    assert (store.kept, store.timers) == (["a"], [])


def test_in_order_when_the_store_is_back(store: Store) -> None:
    results = Keeper(store.call_later)
    store.away = True
    for task_id in "abc":
        results.store(task_id, store.take(task_id))
    store.tick()
    assert store.kept == [] and len(store.timers) == 1
    store.away = False
    results.store("d", store.take("d"))
    store.tick()
    assert (store.kept, store.timers) == (list("abcd"), [])
    results.store("e", store.take("e"))
    assert store.kept == list("abcde")


def test_other_errors(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """They are the caller's when they come at once; later they must not stop the others."""
    def fail() -> None:
        raise ValueError("no such thing")

    results = Keeper(store.call_later)
    with pytest.raises(ValueError, match="no such thing"):
        results.store("a", fail)
    store.away = True
    results.store("b", store.take("b"))
    results.store("c", fail)
    results.store("d", store.take("d"))
    store.away = False
    store.tick()
    assert store.kept == ["b", "d"] and "Can't store the result of c" in caplog.text


def test_a_limit(store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LIMIT", 2)
    store.away = True
    results = Keeper(store.call_later)
    for task_id in "abc":
        results.store(task_id, store.take(task_id))
    assert "Can't store the result of c: too many" in caplog.text
    store.away = False
    results.close()
    assert store.kept == ["a", "b"]


def test_what_is_lost_at_the_end_is_named(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.away = True
    results = Keeper(store.call_later)
    results.store("a", store.take("a"))
    results.close()
    assert "these results are lost: a" in caplog.text
