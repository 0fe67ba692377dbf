"""Batches on the real broker and result store (D16, D17)."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyceleryc import Celery, _core, chord, group

N = 3000


@pytest.fixture
def app(amqp_url: str, redis_url: str, unique: Callable[[str], str]) -> Iterator[Any]:
    app = Celery('bulk', broker=amqp_url, backend=redis_url, set_as_current=False)
    app.conf.update(task_default_queue=unique('bulk'), result_expires=60)
    app.task(name='add', shared=False)(lambda x: x)
    app.task(name='total', shared=False)(sum)
    yield app
    app.amqp.publisher.core.remove(app.conf.task_default_queue, None)
    app.close()


def take_all(app: Any) -> list[tuple[Any, dict[str, Any]]]:
    core, found = app.amqp.publisher.core, []
    core.flush(None)
    while (got := core.get(app.conf.task_default_queue, None)) is not None:
        found.append((_core.json_loads(got[0]), got[1]))
    return found


def test_a_large_group_arrives_once_and_in_order(app: Any) -> None:
    result = group(app.tasks['add'].s(n) for n in range(N)).apply_async()
    found = take_all(app)
    assert [body[0] for body, _ in found] == [[n] for n in range(N)]
    assert [headers['id'] for _, headers in found] == [member.id for member in result.results]


def test_send_many_with_a_window_smaller_than_the_batch(app: Any) -> None:
    app.conf.broker_transport_options = {'publish_window': 100}
    app.send_many(app.tasks['add'].s(n) for n in range(N))
    assert [body[0] for body, _ in take_all(app)] == [[n] for n in range(N)]


def test_a_chord_says_its_size_before_it_is_sent(app: Any) -> None:
    with app.amqp.batch():
        result = chord([app.tasks['add'].s(n) for n in range(50)])(app.tasks['total'].s())
        size = app.backend.get(app.backend.get_key_for_group(result.parent.id, '.s'))
        assert int(size) == 50
        assert app.amqp.publisher.core.size(app.conf.task_default_queue, None)[0] == 0
    found = take_all(app)
    assert len(found) == 50
    assert {headers['group'] for _, headers in found} == {result.parent.id}


def test_results_of_many_are_read_as_they_come(app: Any) -> None:
    sent = group(app.tasks['add'].s(n) for n in range(N)).apply_async()
    for number, member in enumerate(sent.results):
        app.backend.store_result(member.id, number, 'SUCCESS')
    assert sent.get(timeout=30) == list(range(N))
    app.amqp.publisher.core.purge(app.conf.task_default_queue, None)
