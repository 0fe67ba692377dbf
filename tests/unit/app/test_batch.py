"""Batches: what is sent in a block leaves together, or not at all (D17)."""
from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import pytest
from kombu.exceptions import EncodeError, OperationalError

from pyceleryc.canvas.bulk import PlainGroup
from pyceleryc import Celery, chain, chord, group, signals


@pytest.fixture
def app() -> Any:
    app = Celery('batches', broker='memory://', backend='cache+memory://', set_as_current=False)
    app.conf.task_default_queue = 'batches'

    @app.task(name='add', shared=False)
    def add(x: int, y: int = 0) -> int:
        return x + y

    @app.task(name='total', shared=False)
    def total(values: list[int]) -> int:
        return sum(values)

    yield app
    app.amqp.publisher.core.purge('batches', None) if app.amqp.publisher.current else None
    app.close()


def waiting(app: Any) -> int:
    try:
        return app.amqp.publisher.core.size('batches', None)[0]
    except Exception:
        return 0


def bodies(app: Any) -> list[tuple[Any, dict[str, Any]]]:
    from pyceleryc import _core

    found = []
    while (got := app.amqp.publisher.core.get('batches', None)) is not None:
        found.append((_core.json_loads(got[0]), got[1]))
    return found


def test_nothing_leaves_before_the_end(app: Any) -> None:
    add = app.tasks['add']
    with app.amqp.batch():
        results = [add.delay(n) for n in range(5)]
        assert waiting(app) == 0
    assert waiting(app) == 5
    assert [headers['id'] for _, headers in bodies(app)] == [result.id for result in results]


def test_nothing_leaves_when_the_block_raises(app: Any) -> None:
    with pytest.raises(ZeroDivisionError), app.amqp.batch():
        app.tasks['add'].delay(1)
        raise ZeroDivisionError
    assert waiting(app) == 0
    app.tasks['add'].delay(2)
    assert waiting(app) == 1


def test_an_inner_block_belongs_to_the_outer(app: Any) -> None:
    add = app.tasks['add']
    with app.amqp.batch():
        add.delay(1)
        with pytest.raises(ZeroDivisionError), app.amqp.batch():
            add.delay(2)
            raise ZeroDivisionError
        with app.amqp.batch():
            add.delay(3)
        assert waiting(app) == 0
    assert [body[0] for body, _ in bodies(app)] == [[1], [3]]


def test_each_thread_has_its_own(app: Any) -> None:
    add = app.tasks['add']
    add.delay(0)
    with app.amqp.batch():
        add.delay(1)
        other = threading.Thread(target=add.delay, args=(2,))
        other.start()
        other.join()
        assert [body[0] for body, _ in bodies(app)] == [[0], [2]]
    assert [body[0] for body, _ in bodies(app)] == [[1]]


def test_send_many(app: Any) -> None:
    add = app.tasks['add']
    sigs = [add.s(1), add.s(2).set(shadow='two'), dict(add.s(3)), chain(add.s(4), add.s(5)), group(add.s(6), add.s(7))]
    results = app.send_many(iter(sigs))
    assert len(results) == 5
    found = bodies(app)
    assert [body[0] for body, _ in found] == [[1], [2], [3], [4], [6], [7]]
    assert [headers['id'] for _, headers in found[:3]] == [result.id for result in results[:3]]


def test_send_many_gives_options_to_all(app: Any) -> None:
    app.send_many((app.tasks['add'].s(n) for n in range(3)), shadow='seen')
    assert [headers['shadow'] for _, headers in bodies(app)] == ['seen'] * 3


@pytest.mark.parametrize('bad', [lambda add: add.s(object()), lambda add: add.s(1, 2, 3)])
def test_a_bad_member_stops_all(app: Any, bad: Any) -> None:
    add = app.tasks['add']
    for send in (lambda sigs: app.send_many(sigs), lambda sigs: group(sigs).apply_async(),
                 lambda sigs: chord(sigs)(app.tasks['total'].s())):
        with pytest.raises((EncodeError, TypeError)):
            send([add.s(1), bad(add), add.s(2)])
        assert waiting(app) == 0


def test_a_generator_that_sends_itself(app: Any) -> None:
    add = app.tasks['add']

    def members() -> Any:
        for number in range(3):
            add.delay(10 + number)
            yield add.s(number)

    group(members()).apply_async()
    assert sorted(body[0][0] for body, _ in bodies(app)) == [0, 1, 2, 10, 11, 12]


def test_signals_keep_their_order(app: Any) -> None:
    seen: list[tuple[str, str]] = []

    def before(headers: Any = None, **_: Any) -> None:
        seen.append(('before', headers['id']))

    def after(headers: Any = None, **_: Any) -> None:
        assert waiting(app) == 3
        seen.append(('after', headers['id']))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        ids = [result.id for result in group(app.tasks['add'].s(n) for n in range(3)).apply_async()]
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert seen == [('before', i) for i in ids] + [('after', i) for i in ids]


def plain_and_general(app: Any, send: Any) -> tuple[list[Any], list[Any]]:
    """What the short way sends, and the long way (a connected signal takes it)."""
    send()
    short = bodies(app)

    def receiver(**_: Any) -> None:
        seen.append(1)

    seen: list[int] = []
    signals.before_task_publish.connect(receiver)
    try:
        send()
    finally:
        signals.before_task_publish.disconnect(receiver)
    assert seen
    return short, bodies(app)


def without_ids(messages: list[Any]) -> list[Any]:
    volatile = {'id', 'root_id', 'group'}
    cleaned = []
    for (args, kwargs, embed), headers in messages:
        if headers['task'] == 'celery.chord_unlock':
            continue
        if embed['chord']:
            options = embed['chord']['options']
            embed['chord']['options'] = {k: bool(v) for k, v in options.items()}
        cleaned.append(((args, kwargs, embed), {k: v for k, v in headers.items() if k not in volatile}))
    return cleaned


def test_the_short_way_sends_what_the_long_way_sends(app: Any) -> None:
    add, total = app.tasks['add'], app.tasks['total']
    for send in (lambda: group(add.s(n, y=1) for n in range(3)).apply_async(),
                 lambda: group(add.s(1), add.si(2)).apply_async((9,)),
                 lambda: chord([add.s(n) for n in range(3)])(total.s()),
                 lambda: group(add.s(n).set(priority=n, time_limit=9) for n in range(3)).apply_async(),
                 lambda: group(add.s(1).set(link=total.s()), add.s(2).set(link_error=[total.s(), total.si(1)])).apply_async(),
                 lambda: group(add.s(1).set(eta=datetime(2050, 1, 1), expires=datetime(2050, 1, 2)), add.s(2)).apply_async(),
                 lambda: chord([add.s(n).set(link=total.s(), priority=3) for n in range(2)])(total.s()),
                 lambda: group(add.s(1).set(queue=app.conf.task_default_queue, countdown=None), add.s(2)).apply_async()):
        short, long = plain_and_general(app, send)
        assert len(short) == len(long) >= 2
        assert without_ids(short) == without_ids(long)


def test_which_groups_take_the_short_way(app: Any) -> None:
    add = app.tasks['add']
    for options in ({}, {'link': add.s()}, {'priority': 3}, {'countdown': 3}, {'queue': app.conf.task_default_queue}):
        assert PlainGroup.of(app, [add.s(1).set(**options)], {}, ()) is not None
    for options in ({'serializer': 'pickle'}, {'headers': {'a': 1}}, {'task_id': 'x'}, {'stamped_headers': ['a'], 'a': 1}):
        assert PlainGroup.of(app, [add.s(1).set(**options)], {}, ()) is None


def test_members_of_one_group(app: Any) -> None:
    result = group(app.tasks['add'].s(n) for n in range(4)).apply_async()
    headers = [headers for _, headers in bodies(app)]
    assert [h['group'] for h in headers] == [result.id] * 4
    assert [h['group_index'] for h in headers] == [0, 1, 2, 3]
    assert [h['id'] for h in headers] == [r.id for r in result.results]


def test_signatures_stay_as_they_are(app: Any) -> None:
    sigs = [app.tasks['add'].s(n) for n in range(3)]
    copies = [dict(sig) for sig in sigs]
    group(sigs).apply_async()
    chord(sigs)(app.tasks['total'].s())
    assert [dict(sig) for sig in sigs] == copies and all(not sig.options for sig in sigs)


def test_an_overridden_apply_async_is_called(app: Any) -> None:
    calls: list[Any] = []

    class Counting(app.Task):  # type: ignore[name-defined, misc]
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return super().apply_async(*args, **kwargs)

    task = app.task(base=Counting, name='counting', shared=False)(lambda x: x)
    group(task.s(1), task.s(2)).apply_async()
    assert len(calls) == 2


def test_the_size_of_a_header_message_does_not_grow(app: Any) -> None:
    add, total = app.tasks['add'], app.tasks['total']
    sizes = []
    for count in (2, 200):
        chord([add.s(7) for _ in range(count)])(total.s())
        sizes.append(max(len(str(body)) for body, headers in bodies(app) if headers['task'] == 'add'))
    assert sizes[0] == sizes[1]


def test_a_dead_broker_is_reported() -> None:
    app = Celery('dead', broker='amqp://guest:guest@127.0.0.1:1//', set_as_current=False)
    app.conf.task_publish_retry = False
    app.task(name='t', shared=False)(lambda: None)
    with pytest.raises(OperationalError):
        group(app.tasks['t'].s() for _ in range(3)).apply_async()
