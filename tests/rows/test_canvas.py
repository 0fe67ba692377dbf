"""Canvas: signatures, chains, groups, chords, chunks, maps, replace, stamps (FEATURES §2.3)."""

from __future__ import annotations

import json
import pickle
import time
import uuid

import pytest
from celery import Celery, Signature, chain, chord, chunks, group, maybe_signature, signature, subtask, xmap, xstarmap
from celery.canvas import StampingVisitor
from celery.exceptions import ImproperlyConfigured
from celery.result import AsyncResult, GroupResult


@pytest.fixture
def app():
    return Celery("canvas", broker="memory://", backend="cache+memory://", set_as_current=False)


@pytest.fixture
def t(app):
    """Tasks without a worker, by attribute."""

    class Tasks:
        @staticmethod
        @app.task(name="t.add")
        def add(x, y=0):
            return x + y

        @staticmethod
        @app.task(name="t.xsum")
        def xsum(numbers):
            return sum(numbers)

        @staticmethod
        @app.task(name="t.fail")
        def fail(*args):
            raise KeyError("t")

    return Tasks


@pytest.fixture
def w(running):
    """Tasks that a worker runs."""
    return running.tasks.calling


@pytest.fixture
def key():
    return uuid.uuid4().hex


# -- signatures ------------------------------------------------------------------------------------------------------------


def test_signature_is_a_dict(t):
    sig = t.add.s(1, y=2)
    assert isinstance(sig, dict)
    assert dict(sig) == {"task": "t.add", "args": (1,), "kwargs": {"y": 2}, "options": {}, "subtask_type": None, "immutable": False}
    assert (sig.task, sig.name, sig.args, sig.kwargs, sig.options) == ("t.add", "t.add", (1,), {"y": 2}, {})
    assert (sig.subtask_type, sig.immutable, sig.id, sig.parent_id, sig.root_id) == (None, False, None, None, None)
    assert sig.type.name == "t.add"
    assert json.loads(json.dumps(sig)) == {**sig, "args": [1]}
    assert sig == t.add.s(1, y=2) == dict(sig)
    assert sig != t.add.s(1, y=3)
    assert repr(sig) == "t.add(1, y=2)"


def test_signature_from_anything(t, app):
    plain = json.loads(json.dumps(t.add.s(1)))
    assert isinstance(signature(plain, app=app), Signature)
    assert signature("t.add", (1,), app=app) == t.add.s(1) == subtask("t.add", (1,), app=app) == Signature.from_dict(dict(t.add.s(1)), app=app)
    sig = t.add.s(1)
    assert maybe_signature(sig) is sig
    assert maybe_signature(sig, clone=True) is not sig
    assert maybe_signature(None) is None
    assert pickle.loads(pickle.dumps(sig)) == sig
    assert [type(made) for made in (t.add.chunks([(1,)], 1), t.add.map([1]), t.add.starmap([(1,)]))] == [chunks, xmap, xstarmap]
    for made, cls in ((t.add.s(1) | t.add.s(2), type(t.add.s(1) | t.add.s(2))), (group([t.add.s(1)]), group),
                      (chord([t.add.s(1)], t.add.s()), chord)):
        assert isinstance(signature(json.loads(json.dumps(made)), app=app), cls)


def test_partials_merge(t):
    """New arguments come first, keywords and options are updated."""
    sig = t.add.signature((2,), {"a": 1, "b": 1}, queue="one", priority=1)
    more = sig.clone((1,), {"b": 2}, priority=2)
    assert (more.args, more.kwargs, more.options) == ((1, 2), {"a": 1, "b": 2}, {"queue": "one", "priority": 2})
    assert sig.partial((0,)).args == (0, 2)
    assert (sig.args, sig.kwargs, sig.options) == ((2,), {"a": 1, "b": 1}, {"queue": "one", "priority": 1})


def test_group_id_stays(t):
    sig = t.add.s().set(group_id="first")
    assert sig.clone(group_id="second").options["group_id"] == "first"


def test_immutable(t):
    sig = t.add.si(1, 2)
    more = sig.clone((0,), {"z": 1}, queue="q")
    assert (more.args, more.kwargs, more.options) == ((1, 2), {}, {"queue": "q"})
    assert sig.apply((7,)).get() == 3
    loose = sig.clone()
    loose.set_immutable(False)
    assert loose.clone((0,)).args == (0, 1, 2)
    assert t.add.s(1).set(immutable=True).immutable


def test_replace_of_parts(t):
    sig = t.add.s(1, y=2).set(queue="q")
    assert sig.replace(args=(5,)).args == (5,)
    assert sig.replace(kwargs={}).kwargs == {}
    assert sig.replace(options={}).options == {}
    assert sig.args == (1,)
    assert sig.replace(args=(5,)).options == {"queue": "q"}


def test_none_options_of_a_call_are_not_given(box):
    sig = box.app.signature("row.any", (1,), priority=5, countdown=None)
    sig.apply_async(priority=None)
    assert box.take().properties["priority"] == 5


def test_freeze(t, app):
    sig = t.add.s(1, 2)
    result = sig.freeze("the-id", group_id="g", root_id="r", parent_id="p", group_index=3)
    assert isinstance(result, AsyncResult)
    assert (result.id, sig.id, sig.root_id, sig.parent_id) == ("the-id", "the-id", "r", "p")
    assert (sig.options["group_id"], sig.options["group_index"]) == ("g", 3)
    assert sig.freeze().id == "the-id"
    assert t.add.s(1).freeze().id != t.add.s(1).freeze().id


def test_links_of_a_signature(t):
    sig, link, errback = t.add.s(1), t.add.s(2), t.xsum.s()
    assert sig.link(link) is link
    sig.link(link)
    assert sig.options["link"] == [link]
    assert sig.link_error(errback) is errback
    assert sig.on_error(errback) is sig
    assert sig.options["link_error"] == [errback]
    link.link(t.add.s(3))
    assert [each.args for each in sig.flatten_links()] == [(1,), (2,), (3,)]
    sig.append_to_list_option("link", t.add.s(4))
    assert len(sig.options["link"]) == 2


def test_clones_share_nothing(t):
    sig = t.add.s([1])
    copy = sig.clone()
    copy.link(t.add.s(2))
    copy.set(queue="q")
    assert sig.options == {}


def test_call_and_invert(t, w):
    assert t.add.s(1)(2) == 3
    assert t.add.s(1).apply((2,)).get() == 3
    assert ~w.add.s(1, 2) == 3


def test_unregistered_name(box):
    box.app.signature("elsewhere.task", (2,)).delay(1)
    message = box.take()
    assert (message.headers["task"], message.args) == ("elsewhere.task", [1, 2])


def test_reprs(t):
    add, xsum = t.add, t.xsum
    assert repr(add.s(1, 2) | add.s(3)) == "t.add(1, 2) | add(3)"
    assert repr(group(add.s(1, 1), add.s(2, 2))) == "group((t.add(1, 1), add(2, 2)))"
    assert repr(chord([add.s(1, 1)], xsum.s())) == "%t.xsum([add(1, 1)])"
    assert repr(add.s(1).clone((0,))) == "t.add(0, 1)"


# -- chains ----------------------------------------------------------------------------------------------------------------


def test_chain_shapes(t):
    add = t.add
    a, b, c, d = (add.s(number) for number in range(4))
    assert chain(a, b, c) == chain([a, b, c]) == chain(iter([a, b, c])) == (a | b | c) == ((a | b) | c) == (a | (b | c))
    assert [step.args for step in (a | b | (c | d)).tasks] == [(0,), (1,), (2,), (3,)]
    assert [step.args for step in chain([a]).tasks] == [(0,)]
    assert [step.args for step in chain(a).tasks] == [(0,)]
    assert chain().apply_async() is None
    assert a == add.s(0)


def test_empty_chain_is_falsy_when_called():
    assert chain()() is None


def test_chain_run(w):
    add = w.add
    result = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
    assert result.get(timeout=15) == 7
    assert result.parent.get(timeout=15) == 4
    assert result.parent.parent.get(timeout=15) == 2
    assert result.parent.parent.parent is None
    assert (add.s(1) | add.s(2)).delay(10).get(timeout=15) == 13
    assert (add.s(1) | add.s(2))(10).get(timeout=15) == 13


def test_chain_options(w):
    task_id = f"chain-{uuid.uuid4()}"
    result = chain(w.add.s(1, 1), w.family.s()).apply_async(task_id=task_id)
    assert result.id == task_id
    assert result.get(timeout=15)["id"] == task_id


def test_family_of_a_chain(w):
    result = (w.family.s() | w.family.si() | w.family.si()).apply_async()
    third, second, first = result.get(timeout=15), result.parent.get(timeout=15), result.parent.parent.get(timeout=15)
    assert first["parent_id"] is None
    assert second["parent_id"] == first["id"]
    assert third["parent_id"] == second["id"]
    assert first["id"] == first["root_id"] == second["root_id"] == third["root_id"]


def test_chain_link_and_errback(w, key):
    add = w.add
    result = (add.s(1, 1) | add.s(1)).apply_async(link=w.note.s(key=key))
    assert result.get(timeout=15) == 3
    assert w.notes_of(key) == [[3]]
    failing = (add.s(1, 1) | w.break_with.si("middle") | add.s(1)).apply_async(link_error=w.on_error_id.s(key=f"{key}-e"))
    with pytest.raises(KeyError, match="middle"):
        failing.get(timeout=15)
    assert w.notes_of(f"{key}-e")[0] == ["id", failing.parent.id]


def test_failure_in_a_chain(w):
    result = (w.add.s(1, 1) | w.break_with.si("middle") | w.add.s(1) | w.add.s(1)).apply_async()
    with pytest.raises(KeyError, match="middle"):
        result.get(timeout=15)
    for node, state in ((result, "FAILURE"), (result.parent, "FAILURE"), (result.parent.parent, "FAILURE"), (result.parent.parent.parent, "SUCCESS")):
        node.get(timeout=15, propagate=False)
        assert node.state == state


def test_children_of_a_chain(w):
    result = (w.add.s(1, 1) | w.add.s(2)).apply_async()
    result.get(timeout=15)
    result.parent.get(timeout=15)  # it is stored after the next task is sent
    assert [child.id for child in result.parent.children] == [result.id]
    assert [value for _, value in result.parent.collect()] == [2, 4]


def test_chain_in_a_task(running, w):
    inner = w.starts_workflow.delay()
    last = running.tasks.app.AsyncResult(inner.get(timeout=15))
    seen = last.get(timeout=15)
    assert seen["root_id"] == inner.id
    assert seen["args"][0]["parent_id"] == inner.id


def test_message_of_a_chain(box):
    first, second, third = (box.app.signature("row.any", (number,)) for number in range(3))
    result = (first | second | third).apply_async()
    message = box.take()
    assert message.args == [0]
    assert [step["args"] for step in message.embed["chain"]] == [[2], [1]]
    assert [step["options"]["task_id"] for step in message.embed["chain"]] == [result.id, result.parent.id]
    assert message.headers["id"] == result.parent.parent.id


# -- groups ----------------------------------------------------------------------------------------------------------------


def test_group_shapes(t):
    add = t.add
    assert len(group(add.s(i) for i in range(3))) == 3
    assert [sig.args for sig in group([add.s(1), add.s(2)]).tasks] == [sig.args for sig in group(add.s(1), add.s(2)).tasks]
    assert [sig.args for sig in group(group(add.s(1), add.s(2))).tasks] == [(1,), (2,)]
    assert group().apply_async().results == []
    assert group(add.s(1), add.s(2)).skew(start=1, stop=10).tasks[1].options["countdown"] == 2


def test_group_generator_is_read_late(t):
    read = []

    def members():
        for number in range(3):
            read.append(number)
            yield t.add.s(number)

    made = group(members())
    assert read == []
    assert len(made.tasks) == 3


def test_group_run(w, running):
    add = w.add
    result = group(add.s(i, i) for i in range(5))()
    assert isinstance(result, GroupResult)
    assert result.get(timeout=15) == [0, 2, 4, 6, 8]
    assert (result.successful(), result.ready(), result.failed(), result.completed_count(), len(result)) == (True, True, False, 5, 5)
    assert group([add.s(1), add.s(2)]).delay(10).get(timeout=15) == [11, 12]
    assert group([add.s(1), add.s(2)])(10).get(timeout=15) == [11, 12]
    assert group(add.s(1, 1), group(add.s(2, 2), group(add.s(3, 3)))).delay().get(timeout=15) == [2, 4, 6]
    assert group(add.s(1, 1) | add.s(1), add.s(2, 2)).apply_async().get(timeout=15) == [3, 4]


def test_group_place_of_the_members(w):
    result = group(w.family.s(i) for i in range(3))()
    seen = result.get(timeout=15)
    assert [each["group_index"] for each in seen] == [0, 1, 2]
    assert {each["group"] for each in seen} == {result.id}


def test_group_failure(w):
    result = group(w.add.s(1, 1), w.break_with.s("g"), w.add.s(2, 2))()
    with pytest.raises(KeyError, match="g"):
        result.get(timeout=15)
    values = result.get(timeout=15, propagate=False)
    assert (values[0], repr(values[1]), values[2]) == (2, "KeyError('g')", 4)
    assert result.failed()


def test_group_links(t, w, key):
    with pytest.raises(TypeError):
        group(t.add.s(1, 1)).apply_async(link=t.add.s(1))
    with pytest.raises(TypeError):
        group(t.add.s(1, 1)).apply_async(link_error=t.add.s(1))
    made = group(w.break_with.s("a"), w.break_with.s("b"))
    made.link_error(w.on_error_id.s(key=key))
    result = made.apply_async()
    result.get(timeout=15, propagate=False)
    assert sorted(note[1] for note in w.notes_of(key, 2)) == sorted(member.id for member in result.results)
    linked = group(w.add.s(1, 1), w.add.s(2, 2))
    linked.link(w.note.s("once", key=f"{key}-l"))
    linked.apply_async().get(timeout=15)
    assert w.notes_of(f"{key}-l") == [["once"]]  # after the first member, without a result


def test_group_saved_and_restored(w, running):
    result = group(w.add.s(1, 1), w.add.s(2, 2))()
    result.save()
    assert result.get(timeout=15) == [2, 4]
    again = running.tasks.app.GroupResult.restore(result.id)
    assert again == result
    assert again.get(timeout=15) == [2, 4]
    again.delete()
    assert running.tasks.app.GroupResult.restore(result.id) is None


# -- chords ----------------------------------------------------------------------------------------------------------------


def test_chord_shapes(t):
    add, xsum = t.add, t.xsum
    both = group(add.s(1), add.s(2))
    assert isinstance(both | xsum.s(), chord)
    assert (both | xsum.s()).body == xsum.s()
    assert (both | xsum.s() | add.s(3)).body == (xsum.s() | add.s(3))
    assert (add.s(1) | group(add.s(2))) == (add.s(1) | add.s(2))
    longer = add.s(1) | both | xsum.s()
    assert [step.task for step in longer.tasks] == ["t.add", "celery.chord"]
    assert isinstance((both | group(add.s(3), add.s(4))).body, group)
    assert (both | xsum.s()) is not both
    assert len(both.tasks) == 2


def test_chord_run(w):
    add, xsum = w.add, w.xsum
    result = chord([add.s(i, i) for i in range(10)])(xsum.s())
    assert result.get(timeout=15) == 90
    assert isinstance(result.parent, GroupResult)
    assert result.parent.get(timeout=15) == [2 * i for i in range(10)]
    assert chord((add.s(i, i) for i in range(3)), xsum.s()).apply_async().get(timeout=15) == 6
    assert chord([add.s(1, 1)])(xsum.s()).get(timeout=15) == 2
    assert chord([], w.ident.s()).apply_async().get(timeout=15) == []
    assert (group(add.s(1), add.s(2)) | xsum.s()).apply_async((10,)).get(timeout=15) == 23
    assert chord([add.s(2, 2), add.s(4, 4)])(w.ident.s()).get(timeout=15) == [4, 8]


def test_chord_with_an_immutable_body(w):
    assert chord([w.add.s(1, 1), w.add.s(2, 2)])(w.family.si("own")).get(timeout=15)["args"] == ["own"]


def test_chord_links_and_ids(w, key):
    task_id = f"chord-{uuid.uuid4()}"
    body = w.xsum.s()
    body.link(w.note.s(key=key))
    result = chord([w.add.s(1, 1), w.add.s(2, 2)])(body, task_id=task_id)
    assert result.id == task_id
    assert result.get(timeout=15) == 6
    assert w.notes_of(key) == [[6]]


WORKFLOWS = {
    "chain into group": (lambda a, s, i: a.s(1, 1) | group(a.s(1), a.s(2)), [3, 4]),
    "chain, group, chain": (lambda a, s, i: a.s(1, 1) | group(a.s(1), a.s(2)) | s.s() | a.s(100), 107),
    "chord into group": (lambda a, s, i: group(a.s(1, 1), a.s(2, 2)) | s.s() | group(a.s(1), a.s(2)), [7, 8]),
    "two chords": (lambda a, s, i: group(a.s(1, 1), a.s(2, 2)) | s.s() | group(a.s(1), a.s(2)) | s.s(), 15),
    "group into group": (lambda a, s, i: group(a.s(1, 1), a.s(2, 2)) | group(i.s(), s.s()), [[2, 4], 6]),
    "group into group into task": (lambda a, s, i: group(a.s(1, 1), a.s(2, 2)) | group(s.s(), s.s()) | i.s(), [6, 6]),
    "chains in the header": (lambda a, s, i: chord([a.s(1, 1) | a.s(2), a.s(3, 3) | a.s(4) | a.s(5)], i.s()), [4, 15]),
    "chord in the header": (lambda a, s, i: chord([chord([a.s(1, 1), a.s(2, 2)], s.s()), a.s(3, 3)], i.s()), [6, 6]),
    "chord in a header in a header": (
        lambda a, s, i: chord([chord([chord([a.s(1, 1), a.s(2, 2)], s.s()), a.s(1, 1)], s.s()), a.s(3, 3)], i.s()), [8, 6]),
    "chord as body": (lambda a, s, i: chord([a.s(1, 1), a.s(2, 2)], chord([s.s(), s.s()], i.s())), [6, 6]),
    "chain with a chord in the header": (
        lambda a, s, i: chord([a.s(1, 1) | group(a.s(1), a.s(2)) | s.s(), a.s(3, 3)], i.s()), [7, 6]),
    "chain that ends with a group in the header": (
        lambda a, s, i: chord([a.s(1, 1) | group(a.s(1), a.s(2)), a.s(3, 3)], i.s()), [[3, 4], 6]),
    "chain as body": (lambda a, s, i: chord([a.s(1, 1), a.s(2, 2)], s.s() | a.s(1) | a.s(2)), 9),
    "chord in a group": (lambda a, s, i: group(chord([a.s(1, 1), a.s(2, 2)], s.s()), a.s(5, 5)), [6, 10]),
    "chain of chains": (lambda a, s, i: chain(chain(a.s(1, 1), a.s(1)), chain(a.s(1), chain(a.s(1), a.s(1)))), 6),
    "starmap in a chain": (lambda a, s, i: a.starmap([(1, 1), (2, 2)]) | s.s(), 6),
    "chunks in a chord": (lambda a, s, i: a.chunks([(1, 1), (2, 2), (3, 3)], 2).group() | i.s(), [[2, 4], [6]]),
    "map in a header": (lambda a, s, i: chord([s.map([[1], [2, 3]]), a.s(1, 1)], i.s()), [[1, 5], 2]),
    "immutable steps": (lambda a, s, i: a.si(1, 1) | group(a.si(2, 2), a.si(3, 3)) | s.s(), 10),
}


def test_members_of_nested_groups_keep_their_order(w):
    a, i = w.add, w.ident
    assert chord([group(a.s(1, 1), a.s(2, 2)), a.s(3, 3)], i.s()).apply_async().get(timeout=15) == [2, 4, 6]
    nested = a.s(0, 1) | group(a.s(1) | a.s(1), group(a.s(2), a.s(3) | a.s(3))) | i.s()
    assert nested.apply_async().get(timeout=15) == [3, 3, 7]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows(w, name):
    make, expected = WORKFLOWS[name]
    assert make(w.add, w.xsum, w.ident).apply_async().get(timeout=20) == expected


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_from_plain_dicts(w, running, name):
    make, expected = WORKFLOWS[name]
    plain = json.loads(json.dumps(make(w.add, w.xsum, w.ident)))
    assert signature(plain, app=running.tasks.app).apply_async().get(timeout=20) == expected


@pytest.mark.parametrize("name", [name for name in WORKFLOWS if "ends with a group" not in name])
def test_workflows_here(w, name):
    """apply()"""
    make, expected = WORKFLOWS[name]
    assert make(w.add, w.xsum, w.ident).apply().get() == expected


@pytest.mark.parametrize("name", [name for name in WORKFLOWS if "ends with a group" not in name])
def test_workflows_always_eager(app, t, name):
    app.conf.task_always_eager = True

    @app.task(name="t.ident")
    def ident(value):
        return value

    make, expected = WORKFLOWS[name]
    assert make(t.add, t.xsum, ident).apply_async().get() == expected


FAILING_ALSO = {
    "first of a chain with a chord": lambda a, f, s, i: f.si("x") | group(a.s(1), a.s(2)) | i.s() | a.s(1),
    "chord in a header": lambda a, f, s, i: chord([chord([f.s("x"), a.s(1, 1)], s.s()), a.s(2, 2)], i.s()),
}
FAILING = {
    "member of a group in a chain": lambda a, f, s, i: a.s(1, 1) | group(a.s(1), f.si("x")) | i.s(),
    "chain in a header": lambda a, f, s, i: chord([a.s(1, 1) | f.si("x") | a.s(1), a.s(2, 2)], i.s()),
    "body of a chord in a header": lambda a, f, s, i: chord([chord([a.s(1, 1)], f.si("x")), a.s(2, 2)], i.s()),
    "body": lambda a, f, s, i: chord([a.s(1, 1), a.s(2, 2)], f.si("x")),
    "first of the body's chain": lambda a, f, s, i: chord([a.s(1, 1), a.s(2, 2)], f.si("x") | i.s() | i.s()),
    "header before a chain": lambda a, f, s, i: group(f.s("x"), a.s(2, 2)) | s.s() | a.s(1) | a.s(2),
}


def fails(sig):
    result = sig.apply_async()
    with pytest.raises(Exception, match="x") as caught:
        result.get(timeout=15)
    assert type(caught.value).__name__ in ("KeyError", "ChordError")
    result.get(timeout=15, propagate=False)
    return result.state == "FAILURE"


@pytest.mark.parametrize("name", FAILING)
def test_failing_workflows(w, name):
    assert fails(FAILING[name](w.add, w.break_with, w.xsum, w.ident))


@pytest.mark.parametrize("name", FAILING_ALSO)
def test_failing_workflows_end(w, name):
    """Whoever waits for the last task hears of the failure."""
    assert fails(FAILING_ALSO[name](w.add, w.break_with, w.xsum, w.ident))


@pytest.mark.filterwarnings("ignore:task_allow_error_cb_on_chord_header")
def test_errback_on_every_kind(w, key):
    """A chain's errbacks are those of each step, a group's of each member, a chord's of its body."""
    kinds = {
        "task": w.break_with.s("x"),
        "chain": w.add.s(1, 1) | w.break_with.si("x") | w.add.s(1),
        "chord": chord([w.add.s(1, 1), w.break_with.s("x")], w.xsum.s()),
        "body": chord([w.add.s(1, 1)], w.break_with.si("x")),
        "group": group(w.add.s(1, 1), w.break_with.s("x")),
        "chain with a chord": w.add.s(1, 1) | group(w.add.s(1), w.break_with.si("x")) | w.xsum.s(),
    }
    for kind, sig in kinds.items():
        name = f"{key}-{kind}"
        sig.link_error(w.on_error_id.s(key=name))
        sig.apply_async().get(timeout=15, propagate=False)
        notes = w.notes_of(name)
        assert {note[0] for note in notes} == {"id"}, kind
        assert len(notes) == 1, kind


def test_chord_in_a_task(w, running):
    assert running.tasks.app.AsyncResult(w.starts_chord.delay().get(timeout=15)).get(timeout=15) == 6


# -- chunks, maps ----------------------------------------------------------------------------------------------------------


def test_chunks_and_maps(w):
    pairs = [(i, i) for i in range(5)]
    assert w.add.chunks(pairs, 2).apply_async().get(timeout=15) == [[0, 2], [4, 6], [8]]
    assert w.add.chunks(iter(pairs), 2)().get(timeout=15) == [[0, 2], [4, 6], [8]]
    assert w.add.chunks(pairs, 3).group().apply_async().get(timeout=15) == [[0, 2, 4], [6, 8]]
    assert w.add.starmap(pairs).delay().get(timeout=15) == [0, 2, 4, 6, 8]
    assert w.xsum.map([[0, 1, 2], [5, 5]]).apply_async().get(timeout=15) == [3, 10]
    assert (w.xsum.map([[1], [2]]) | w.xsum.s()).apply_async().get(timeout=15) == 3


def test_message_of_a_map(boxes):
    box = boxes()

    @box.app.task(name="row.square")
    def square(x):
        return x * x

    box.app.conf.task_routes = {"row.square": {"queue": f"{box.queue}-squares"}}
    square.map([1, 2]).apply_async()
    message = box.take(f"{box.queue}-squares")
    assert message.headers["task"] == "celery.map"
    assert message.kwargs["it"] == [1, 2]
    assert message.kwargs["task"]["task"] == "row.square"
    assert repr(square.map([1, 2])) == "[row.square(x) for x in [1, 2]]"


# -- replace, add_to_chord -------------------------------------------------------------------------------------------------


def test_replace(w, key):
    result = w.replaced_by_task.delay(7)
    seen = result.get(timeout=15)
    assert (seen["args"], seen["id"], seen["root_id"]) == ([7], result.id, result.id)
    assert w.replaced_by_chain.delay(1).get(timeout=15) == 111
    assert w.replaced_by_group.delay(10).get(timeout=15) == [10, 11, 12]


def test_replace_within_workflows(w):
    assert (w.replaced_by_chain.s(1) | w.add.s(1000)).apply_async().get(timeout=15) == 1111
    assert (w.add.s(1, 1) | w.replaced_by_group.s() | w.xsum.s()).apply_async().get(timeout=15) == 9
    assert chord([w.replaced_by_chain.s(1), w.add.s(1, 1)])(w.ident.s()).get(timeout=15) == [111, 2]
    assert chord([w.replaced_by_group.s(1), w.add.s(1, 1)])(w.ident.s()).get(timeout=15) == [[1, 2, 3], 2]
    assert group(w.replaced_by_chain.s(1), w.replaced_by_task.s(2)).apply_async().get(timeout=15)[0] == 111


def test_replace_keeps_links(w, key):
    linked = w.replaced_by_chain.s(1)
    linked.link(w.note.s(key=key))
    assert linked.apply_async().get(timeout=15) == 111
    w.notes_of(key)
    time.sleep(0.5)  # for a second one
    assert w.notes_of(key) == [[111]]


def test_replace_here(app, t):
    @app.task(name="t.replaced", bind=True)
    def replaced(self, x):
        return self.replace(t.add.s(x, 1) | t.add.s(1))

    assert replaced.apply((1,)).get() == 3


def test_replace_refuses(app, t):
    @app.task(name="t.refused", bind=True)
    def refused(self, which):
        raise self.replace({"empty": chain(), "chord": t.add.s(1).set(chord=t.xsum.s())}[which])

    for which in ("empty", "chord"):
        with pytest.raises(ImproperlyConfigured):
            refused.apply((which,), throw=True)


def test_add_to_chord(w):
    assert sorted(chord([w.joins_chord.s(1), w.add.s(2, 2)])(w.ident.s()).get(timeout=15)) == [1, 4, 1001]


# -- stamps ----------------------------------------------------------------------------------------------------------------


def test_stamps(box):
    sig = box.app.signature("row.any", (1,))
    sig.stamp(customer=7, tags=["a"])
    sig.apply_async()
    headers = box.take().headers
    assert sorted(headers["stamped_headers"]) == ["customer", "tags"]
    assert headers["stamps"] == {"customer": 7, "tags": ["a"]}


def test_stamps_are_in_the_request(w, running):
    sig = w.stamps.s()
    sig.stamp(customer="c7")
    names, values = sig.apply_async().get(timeout=15)
    assert names == ["customer"]
    assert values in ({"customer": "c7"}, {"customer": ["c7"]})


def test_stamps_are_inherited(w, running):
    sig = w.sends_stamped.s()
    sig.stamp(customer="c7")
    sent = sig.apply_async().get(timeout=15)
    assert running.tasks.app.AsyncResult(sent).get(timeout=15)[0] == ["customer"]


def test_stamps_within_workflows(w):
    workflow = w.stamps.s() | group(w.stamps.si(), w.stamps.si()) | w.ident.s()
    workflow.stamp(customer="c7")
    found = workflow.apply_async().get(timeout=15)
    assert [names for names, _ in found] == [["customer"], ["customer"]]


def test_stamps_cannot_be_changed_by_a_call(t):
    sig = t.add.s(1)
    sig.stamp(customer=1)
    assert sig.clone(customer=2).options["customer"] == 1


def test_visitor_hooks(t):
    calls = []

    class Visitor(StampingVisitor):
        def on_signature(self, sig, **headers):
            calls.append(("signature", sig.task))
            return {"own": "s"}

        def on_group_start(self, group, **headers):
            calls.append(("group", len(group.tasks)))
            return {"in_group": True, "other": 1, "stamped_headers": ["in_group"]}

        def on_chain_start(self, chain, **headers):
            calls.append(("chain", len(chain.tasks)))
            return {}

        def on_chord_header_start(self, sig, **headers):
            calls.append(("header", len(sig.tasks.tasks if hasattr(sig.tasks, "tasks") else sig.tasks)))
            return {"in_header": True}

        def on_chord_body(self, sig, **headers):
            calls.append(("body", None))
            return {}

        def on_callback(self, callback, **headers):
            calls.append(("callback", callback.task))
            return {}

        def on_errback(self, errback, **headers):
            calls.append(("errback", errback.task))
            return {}

    sig = t.add.s(1, 1)
    sig.link(t.add.s(1))
    sig.link_error(t.xsum.s())
    workflow = sig | group(t.add.s(1), t.add.s(2)) | t.xsum.s()
    workflow.stamp(Visitor())
    kinds = [kind for kind, _ in calls]
    assert {"signature", "chain", "header", "body", "callback", "errback"} <= set(kinds)
    assert kinds.count("signature") >= 4
    step = workflow.tasks[0]
    assert step.options["own"] == "s"
    assert "own" in step.options["stamped_headers"]
    assert step.options["link"][0]["options"]["own"] == "s"
    assert step.options["link_error"][0]["options"]["own"] == "s"
    header = workflow.tasks[1].tasks
    for member in getattr(header, "tasks", header):
        assert member["options"]["own"] == "s"
        assert member["options"]["in_header"] is True
        assert sorted(member["options"]["stamped_headers"]) == ["in_header", "own"]
    assert "group" not in kinds  # the header is told by the hook of its own, unless that is not overridden
    alone = group(t.add.s(1), t.add.s(2))
    alone.stamp(Visitor())
    assert sorted(alone.tasks[0]["options"]["stamped_headers"]) == ["in_group", "own"]
    with pytest.raises(TypeError):
        StampingVisitor()
