"""Signatures and workflows (FEATURES 2.3)."""
from __future__ import annotations

import json
import operator
import pickle
import uuid
from functools import reduce
from typing import Any

import pytest

from pyceleryc import (
    Celery,
    Signature,
    chain,
    chord,
    group,
    maybe_signature,
    signature,
)
from pyceleryc.canvas import StampingVisitor, _chain, chunks, xmap, xstarmap


@pytest.fixture
def app() -> Any:
    with Celery('x', broker='memory://', set_as_current=False,
                task_default_queue=f'test-{uuid.uuid4()}') as app:
        yield app


@pytest.fixture
def add(app: Any) -> Any:
    return app.task(name='x.add')(lambda x, y: x + y)


@pytest.fixture
def xsum(app: Any) -> Any:
    return app.task(name='x.xsum')(lambda numbers: sum(numbers))


def sent(app: Any) -> list[Any]:
    """Return the messages that were sent, as dicts of headers and parts of the body."""
    found = []
    while (message := app.amqp.producer.get(app.conf.task_default_queue, 1)) is not None:
        args, kwargs, embed = json.loads(message[0])
        found.append({**message[1], **embed, 'args': args, 'kwargs': kwargs})
    return found


class TestSignature:
    def test_is_a_dict(self, add: Any) -> None:
        sig = add.s(1, 2)
        assert dict(sig) == {'task': 'x.add', 'args': (1, 2), 'kwargs': {}, 'options': {},
                             'subtask_type': None, 'immutable': False}
        assert isinstance(sig, dict) and sig == dict(sig) and json.loads(json.dumps(sig))
        assert (sig.task, sig.name, sig.args, sig.type) == ('x.add', 'x.add', (1, 2), add)
        assert (repr(sig), sig.id, sig.immutable) == ('x.add(1, 2)', None, False)

    def test_makers(self, app: Any, add: Any) -> None:
        assert add.si(1, 2).immutable and add.subtask((1,)).args == (1,)
        assert add.signature((1,), {'y': 2}, countdown=3).options == {'countdown': 3}
        named = signature('foo.bar', (1,), {'a': 2}, queue='q', app=app)
        assert repr(named) == 'foo.bar(1, a=2)' and named.options == {'queue': 'q'}
        assert signature({'task': 'x.add', 'args': [1]}, app=app).type is add._get_current_object()
        assert maybe_signature(None) is None

    def test_merging(self, add: Any) -> None:
        sig = add.s(1, a=1).set(queue='a', group_id='G')
        more = sig.clone((0,), {'k': 1}, queue='b', group_id='other')
        assert more.args == (0, 1) and more.kwargs == {'a': 1, 'k': 1}
        assert more.options == {'queue': 'b', 'group_id': 'G'}
        fixed = add.si(1).clone((0,), {'k': 1}, queue='b')
        assert (fixed.args, fixed.kwargs, fixed.options) == ((1,), {}, {'queue': 'b'})
        assert sig.args == (1,)

    def test_copies_are_independent(self, add: Any) -> None:
        sig = add.s(1)
        copy = sig.clone()
        copy.link(add.s(2))
        copy.options['queue'] = 'q'
        assert sig.options == {} and sig.replace(args=(7,)).args == (7,)

    def test_freeze(self, app: Any, add: Any) -> None:
        sig = add.s(1, 2)
        result = sig.freeze('ID', group_id='G', chord={'x': 1}, root_id='R', parent_id='P',
                            group_index=3)
        assert result.id == sig.id == 'ID' and (sig.root_id, sig.parent_id) == ('R', 'P')
        assert sig.options == {
            'task_id': 'ID', 'root_id': 'R', 'parent_id': 'P', 'reply_to': app.thread_oid,
            'group_id': 'G', 'chord': {'x': 1}, 'group_index': 3}
        assert sig.freeze('other').id == 'ID'

    def test_links(self, add: Any, xsum: Any) -> None:
        sig, link = add.s(1), add.s(2)
        assert sig.link(link) is link and sig.link(link) is link
        assert sig.options['link'] == [link]
        assert sig.on_error(xsum.s()) is sig and sig.options['link_error'] == [xsum.s()]
        assert sig.flatten_links() == [sig, link]

    def test_sending(self, app: Any, add: Any) -> None:
        add.s(1).apply_async((5,), link=[add.s(9)], priority=None)
        add.si(1, 2).delay(7)
        signature('not.here', (1,), app=app).set(ignore_result=True).delay(0)
        first, second, third = sent(app)
        assert first['args'] == [5, 1] and first['callbacks'][0]['args'] == [9]
        assert second['args'] == [1, 2]
        assert third['args'] == [0, 1] and third['ignore_result'] is True

    def test_calling_and_pickle(self, add: Any) -> None:
        assert add.s(1)(2) == 3 and add.s(y=1).reprcall(2) == 'x.add(2, y=1)'
        copy = pickle.loads(pickle.dumps(add.s(1) | add.s(2)))
        assert isinstance(copy, _chain) and len(copy.tasks) == 2

    def test_wrong_operand(self, add: Any) -> None:
        with pytest.raises(TypeError, match='unsupported operand'):
            add.s(1) | 5


class TestChain:
    def test_shapes(self, app: Any, add: Any, xsum: Any) -> None:
        assert repr(add.s(1) | add.s(2) | xsum.s()) == 'x.add(1) | add(2) | xsum()'
        assert (add.s(1) | (add.s(2) | add.s(3))) == chain(add.s(1), add.s(2), add.s(3))
        assert list(chain([add.s(1)]).tasks) == [add.s(1)] and type(chain(add.s(1))) is _chain
        assert chain()() is None and chain().apply_async() is None
        assert repr(chain()).endswith(': empty>')

    def test_operands_stay(self, add: Any) -> None:
        left, right = add.s(1), add.s(2) | add.s(3)
        both = left | right
        both.tasks[1].link(add.s(9))
        assert left == add.s(1) and right == (add.s(2) | add.s(3)) and len(both.tasks) == 3

    def test_message(self, app: Any, add: Any) -> None:
        result = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
        (message,) = sent(app)
        assert message['args'] == [1, 1] and [s['args'] for s in message['chain']] == [[3], [2]]
        ids = [step['options']['task_id'] for step in message['chain']]
        assert (result.id, result.parent.id, result.parent.parent.id) == (*ids, message['id'])
        assert all(step['options']['reply_to'] == app.thread_oid for step in message['chain'])

    def test_options(self, app: Any, add: Any, xsum: Any) -> None:
        result = (add.s(1) | add.s(2) | add.s(3)).apply_async(
            (7,), link=add.s(9), link_error=xsum.s(), task_id='LAST', priority=4)
        (message,) = sent(app)
        last, middle = message['chain']
        assert message['args'] == [7, 1] and result.id == 'LAST'
        assert message['callbacks'] is None and message['errbacks'][0]['task'] == 'x.xsum'
        assert last['options']['task_id'] == 'LAST' and last['options']['link'][0]['args'] == [9]
        assert 'link' not in middle['options'] and 'priority' not in middle['options']
        assert middle['options']['link_error'][0]['task'] == 'x.xsum'

    def test_nested_with_links(self, app: Any, add: Any, xsum: Any) -> None:
        inner = add.s(1) | add.s(2)
        inner.link(add.s(5))
        inner.link_error(xsum.s())
        chain(add.s(0, 0), inner, add.s(6)).apply_async()
        (message,) = sent(app)
        last, second, first = message['chain']
        assert second['options']['link'][0]['args'] == [5] and 'link' not in first['options']
        assert first['options']['link_error'] and 'link_error' not in last['options']

    def test_rest_of_an_outer_chain(self, app: Any, add: Any) -> None:
        outer = add.s(9).set(task_id='outer')
        (add.s(1, 1) | add.s(2)).apply_async(chain=[outer])
        (message,) = sent(app)
        assert [step['args'] for step in message['chain']] == [[9], [2]]

    def test_from_message(self, app: Any, add: Any) -> None:
        text = json.dumps(add.s(1) | group(add.s(1), add.s(2)))
        back = signature(json.loads(text), app=app)
        assert isinstance(back, _chain) and isinstance(back.tasks[1], group)

    def test_eager(self, add: Any) -> None:
        result = (add.s(1, 1) | add.s(2) | add.s(3)).apply()
        assert result.get() == 7 and result.parent.get() == 4 and result.parent.parent.get() == 2

    @pytest.mark.parametrize('shape', [
        'aa', 'aaa', 'caaa', 'acac', 'ga', 'aga', 'agaa', 'gga', 'aggac', 'gaga', 'hah', 'aha', 'ahhg', 'nan', 'ngna', 'aea', 'og', 'oaoa'])
    def test_the_same_as_with_bars(self, app: Any, add: Any, xsum: Any, shape: str) -> None:
        with Celery('other', set_as_current=False) as other:
            make = {
                'a': lambda i: add.s(i).set(countdown=i), 'g': lambda i: group(add.s(i), add.s(i + 1)), 'n': lambda i: signature('x.none', (i,)),
                'c': lambda i: chain(add.s(i), add.s(i + 1), link_error=add.si(9, i), app=app),
                'h': lambda i: chord([add.s(i)], xsum.s()), 'o': lambda i: other.signature('x.o', (i,)), 'e': lambda i: chain()}
            steps = [make[kind](i) for i, kind in enumerate(shape)]
            before = json.dumps(steps)
            ours, barred = chain(*steps), reduce(operator.or_, steps, _chain())
            if not barred.get('subtask_type'):
                barred = _chain(barred, app=barred._app)
            assert json.dumps(ours) == json.dumps(barred) == json.dumps(chain(step for step in steps))
            assert json.dumps(steps) == before and type(ours) is type(barred) and ours._app is barred._app
            if isinstance(ours, _chain):
                assert [step._app for step in ours.tasks] == [step._app for step in barred.tasks]

    def test_long_ones_take_as_long_as_their_steps(self, add: Any, monkeypatch: Any) -> None:
        steps = [add.s(i) for i in range(200)]
        made, clone = [], Signature.clone
        monkeypatch.setattr(Signature, 'clone', lambda sig, *args, **options: made.append(sig) or clone(sig, *args, **options))
        assert len(chain(steps).tasks) == 200
        assert len(made) <= 400


class TestGroup:
    def test_messages(self, app: Any, add: Any) -> None:
        result = group(add.s(i) for i in range(3))(7)
        messages = sent(app)
        assert [m['args'] for m in messages] == [[7, 0], [7, 1], [7, 2]]
        assert [m['group_index'] for m in messages] == [0, 1, 2]
        assert {m['group'] for m in messages} == {result.id}
        assert [r.id for r in result.results] == [m['id'] for m in messages]

    def test_options(self, app: Any, add: Any) -> None:
        result = group([add.s(1, 1), add.s(2, 2)]).apply_async(task_id='GID', countdown=5)
        assert result.id == 'GID' and all(m['eta'] for m in sent(app))
        for name in ('link', 'link_error'):
            with pytest.raises(TypeError, match='Cannot add link to group'):
                group(add.s(1, 1)).apply_async(**{name: add.s(1)})

    def test_nested(self, app: Any, add: Any) -> None:
        result = group(
            add.s(0, 0), group(add.s(1, 1), add.s(2, 2)), add.s(3, 3) | add.s(4)).apply_async()
        messages = sent(app)
        assert [m['args'][0] for m in messages] == [0, 1, 2, 3] and len(result.results) == 4
        assert [m['group'] for m in messages] == [result.id] * 3 + [None]
        last = messages[3]['chain'][0]['options']
        assert (last['group_id'], last['group_index']) == (result.id, 3)
        assert result.results[3].id == last['task_id']

    def test_empty(self, app: Any) -> None:
        assert len(group()) == 0 and repr(group([])) == 'group(<empty>)'
        assert group([], app=app).apply_async().results == []

    def test_links(self, app: Any, add: Any, xsum: Any) -> None:
        tasks = group(add.s(0, 0), add.s(1, 1))
        tasks.link(add.s(5))
        tasks.link_error(xsum.s())
        assert tasks.tasks[0].options['link'][0].immutable
        assert 'link' not in tasks.tasks[1].options
        assert all(task.options['link_error'] == [xsum.s()] for task in tasks.tasks)

    def test_repr_and_skew(self, add: Any) -> None:
        tasks = group(add.s(1, 1), add.s(2, 2))
        assert repr(tasks) == 'group((x.add(1, 1), add(2, 2)))'
        tasks.skew(start=1, step=2)
        assert [task.options['countdown'] for task in tasks.tasks] == [1, 3]

    def test_in_a_chain(self, app: Any, add: Any) -> None:
        result = (add.s(1, 1) | group(add.s(1), add.s(2))).apply_async()
        (message,) = sent(app)
        (last,) = message['chain']
        assert last['subtask_type'] == 'group' and last['options']['task_id'] == result.id
        assert result.parent.id == message['id']
        assert [task['options']['task_id'] for task in last['kwargs']['tasks']] == [
            each.id for each in result.results]

    def test_unrolled(self, add: Any) -> None:
        assert (add.s(1) | group([add.s(2)])) == (add.s(1) | add.s(2))


class TestChordShape:
    def test_made_by_chaining(self, add: Any, xsum: Any) -> None:
        made = group(add.s(1), add.s(2)) | xsum.s()
        assert isinstance(made, chord) and made.body == xsum.s()
        longer = made | add.s(3)
        assert isinstance(longer, chord) and longer.body == (xsum.s() | add.s(3))
        assert made.body == xsum.s()
        middle = add.s(1, 1) | group(add.s(1), add.s(2)) | xsum.s()
        assert isinstance(middle.tasks[1], chord) and len(middle.tasks) == 2

    def test_message_form(self, app: Any, add: Any, xsum: Any) -> None:
        form = json.loads(json.dumps(chord([add.s(1, 1)], xsum.s())))
        assert form['task'] == 'celery.chord' and form['subtask_type'] == 'chord'
        assert form['kwargs']['header'][0]['args'] == [1, 1]
        assert form['kwargs']['body']['task'] == 'x.xsum' and form['kwargs']['kwargs'] == {}
        assert isinstance(signature(form, app=app), chord)
        assert repr(chord([add.s(1, 1)], xsum.s())) == '%x.xsum([add(1, 1)])'

    def test_empty_header(self, app: Any, xsum: Any) -> None:
        chord([], xsum.s()).apply_async()
        assert sent(app)[0]['args'] == [[]]

    def test_size(self, add: Any, xsum: Any) -> None:
        made = chord([add.s(1, 1) | add.s(2), group(add.s(1, 1), add.s(2, 2)),
                      chord([add.s(1, 1)], xsum.s())], xsum.s())
        assert made.__length_hint__() == 4

    def test_freeze(self, app: Any, add: Any, xsum: Any) -> None:
        made = chord([add.s(1, 1)], xsum.s())
        result = made.freeze('BODY')
        assert result.id == made.body.id == 'BODY'
        (task,) = made.tasks.tasks
        assert result.parent.results[0].id == task.id and task.options['chord'] == made.body
        assert 'group_id' not in task.options and made.id == result.parent.id

    def test_eager(self, add: Any, xsum: Any) -> None:
        result = chord([add.s(1, 1), add.s(2, 2)], xsum.s()).apply()
        assert result.get() == 6 and result.parent.get() == [2, 4]


class TestMaps:
    def test_every_step_of_its_body_is_among_the_parents(self, app: Any, add: Any, xsum: Any) -> None:
        """Of a chain with a chord that has more than one step after it (``result.parent`` is how one gets at values between)."""
        last = chain(add.s(1, 1), group(add.s(1), add.s(2)), xsum.s(), add.s(3)).freeze()
        parents = [last.parent, last.parent.parent, last.parent.parent.parent]
        assert [type(each).__name__ for each in parents] == ['AsyncResult', 'GroupResult', 'AsyncResult']
        assert parents[2].parent is None and len(parents[1]) == 2 and len({last.id, parents[0].id, parents[2].id}) == 3

    def test_map(self, app: Any, add: Any, xsum: Any) -> None:
        app.conf.task_routes = {'x.xsum': {'priority': 3}}
        xsum.map([[1], [2]]).apply_async()
        (message,) = sent(app)
        assert message['task'] == 'celery.map' and message['kwargs']['it'] == [[1], [2]]
        assert message['kwargs']['task']['task'] == 'x.xsum'
        assert repr(xsum.map([1])) == '[x.xsum(x) for x in [1]]'
        assert xsum.map([[1, 2], [3]]).apply().get() == [3, 3]
        assert add.starmap([(1, 2), (3, 4)]).apply().get() == [3, 7]
        assert isinstance(xsum.map([]), xmap) and isinstance(add.starmap([]), xstarmap)

    def test_chunks(self, app: Any, add: Any) -> None:
        parts = add.chunks(zip(range(4), range(4), strict=True), 3)
        assert isinstance(parts, chunks) and len(parts.group().tasks) == 2
        add.chunks([(1, 1), (2, 2), (3, 3)], 2)()
        assert [m['kwargs']['it'] for m in sent(app)] == [[[1, 1], [2, 2]], [[3, 3]]]


class TestStamps:
    class Visitor(StampingVisitor):
        def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
            return {'mark': 'm'}

    def test_headers(self, app: Any, add: Any) -> None:
        sig = add.s(1, 1)
        assert sig.stamp(foo=1, bar=[2]) is sig
        assert sig.options['stamped_headers'] == ['bar', 'foo']
        sig.apply_async()
        (message,) = sent(app)
        assert message['stamps'] == {'foo': 1, 'bar': [2]}
        assert message['stamped_headers'] == ['bar', 'foo']

    def test_append(self, add: Any) -> None:
        sig = add.s(1, 1).stamp(foo=1).stamp(append_stamps=True, foo=2)
        assert sig.options['foo'] == [2, 1] and sig.stamp(foo=3).options['foo'] == 3

    def test_visitor_reaches_everything(self, add: Any, xsum: Any) -> None:
        sig = add.s(1, 1)
        sig.link(add.s(1))
        sig.link_error(xsum.s())
        parts = [sig, sig.options['link'][0], sig.options['link_error'][0]]
        sig.stamp(self.Visitor())
        workflow = chain(add.s(1), group(add.s(2), add.s(3)), xsum.s()).stamp(self.Visitor())
        step, joined = workflow.tasks
        parts += [step, joined.body, *joined.tasks.tasks]
        assert all(part.options['mark'] == 'm' for part in parts)


def test_types_are_registered() -> None:
    assert {'chain', 'group', 'chord', 'xmap', 'xstarmap', 'chunks'} <= set(Signature.TYPES)
