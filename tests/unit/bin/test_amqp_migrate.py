"""The commands amqp and migrate, and contrib.migrate under it, in memory and from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from pyceleryc import Celery
from pyceleryc.bin.celery import main
from pyceleryc.contrib import migrate

URL = "memory://"


@pytest.fixture
def app(unique) -> Iterator[Celery]:
    made = Celery("mover", broker=URL, set_as_current=False)
    made.conf.task_default_queue = unique("first")
    yield made


def run(app: Celery, *arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), obj=app, input=given)


def put(app: Celery, queue: str, *names: str, **options: object) -> list[str]:
    """Send messages by kombu."""
    ids = []
    with app.connection() as connection:
        app.amqp.queues[queue](connection.default_channel).declare()
        producer = connection.Producer(auto_declare=False)
        for number, name in enumerate(names):
            ids.append(f"{name}-{number}")
            producer.publish([[number], {}, {}], routing_key=queue, headers={"id": ids[-1], "task": name}, **options)
    return ids


def take(app: Celery, queue: str) -> list[str]:
    with app.connection() as connection:
        bound, found = app.amqp.queues[queue](connection.default_channel), []
        while (message := bound.get(no_ack=True)) is not None:
            found.append(message.headers["id"])
    return found


# ---- amqp ---------------------------------------------------------------------------------------------------------

def test_shell(app: Celery, unique) -> None:
    queue, exchange = unique("queue"), unique("exchange")
    done = run(app, "amqp", given=f"""
        exchange.declare {exchange} direct
        queue.declare {queue}
        queue.bind {queue} {exchange} key
        basic.publish "two words" {exchange} key
        basic.get {queue} true
        basic.get {queue}
        queue.purge {queue}
        queue.delete {queue}
        exit
        never.reached
    """)
    assert done.exit_code == 0, done.output
    assert f"queue:{queue} messages:0 consumers:0" in done.output
    assert "'body': 'two words'" in done.output and "The queue is empty." in done.output
    assert done.output.count("deleted.") == 2 and "never" not in done.output


def test_shell_tells_what_went_wrong(app: Celery) -> None:
    done = run(app, "amqp", "repl", given='nonsense\nqueue.declare\nqueue.purge "\nhelp queue.purge\nhelp\n')
    assert done.exit_code == 1
    for text in ("No such command 'nonsense'", "Missing argument 'QUEUE'", "No closing quotation", "exchange.declare"):
        assert text in done.output


def test_one_command(app: Celery, unique) -> None:
    queue = unique("queue")
    put(app, queue, "a")
    done = CliRunner().invoke(main, ["-q", "amqp", "basic.get", queue, "yes", "--json"], obj=app)
    assert done.exit_code == 0 and json.loads(done.output)["properties"]["headers"]["id"] == "a-0"
    assert run(app, "-q", "amqp", "basic.get", queue, "--json").output == "null\n"


@pytest.mark.parametrize("url, says", [
    ("nothing://", "There is no broker transport 'nothing'"), ("sqlite:////nowhere/x.db", "nowhere"), ("amqp://127.0.0.1:1//", "refused"),
])
def test_no_such_broker(url: str, says: str) -> None:
    app = Celery("nowhere", broker=url, set_as_current=False)
    done = run(app, "amqp", "queue.purge", "x")
    assert done.exit_code == 1 and says in done.output and "Traceback" not in done.output


# ---- migrate --------------------------------------------------------------------------------------------------------

def test_copy_and_move(app: Celery, unique) -> None:
    source, dest = unique("source"), unique("dest")
    ids = put(app, source, "a", "b", "a")
    copied = run(app, "migrate", URL, URL, "-Q", f"{source}:{dest}", "-n", "3", "-t", "20")
    assert copied.exit_code == 0 and copied.output == "Migrated 3 messages.\n"
    assert take(app, dest) == ids
    moved = run(app, "migrate", URL, URL, "-Q", f"{source}:{dest}", "-n", "2", "-t", "20", "-a", "-T", "a")
    assert moved.output == "Migrated 2 messages, passed over 1.\n"
    assert take(app, dest) == [ids[0], ids[2]] and take(app, source) == [ids[1]]


def test_from_a_file_to_another_broker(app: Celery, unique, tmp_path) -> None:
    """What a project does that has outgrown sqlite://."""
    queue, url = unique("queue"), f"sqlite:///{tmp_path}/tasks.db"
    small = Celery("small", broker=url, set_as_current=False)
    small.conf.task_default_queue = queue
    ids = [small.send_task("a", (number,)).id for number in range(3)]
    done = run(app, "migrate", url, URL, "-Q", queue, "-a", "-n", "3", "-t", "20")
    assert done.exit_code == 0 and done.output == "Migrated 3 messages.\n"
    assert take(app, queue) == ids and small.control.purge() == 0


def test_limit(app: Celery, unique) -> None:
    source, dest = unique("source"), unique("dest")
    ids = put(app, source, *"aaaa")
    assert "Migrated 1 message." in run(app, "migrate", URL, URL, "-Q", f"{source}:{dest}", "-a", "-n", "1").output
    assert take(app, dest) == ids[:1] and sorted(take(app, source)) == ids[1:]


def test_copies_are_the_same(app: Celery, unique) -> None:
    source, dest = unique("source"), unique("dest")
    put(app, source, "a", compression="gzip", priority=3, expiration=30, correlation_id="c", reply_to="r")
    run(app, "migrate", URL, URL, "-Q", f"{source}:{dest}", "-n", "1", "-t", "20")
    with app.connection() as connection:
        one, two = (app.amqp.queues[name](connection.default_channel).get(no_ack=True) for name in (source, dest))
    assert two.headers.pop("compression") == "application/x-gzip"  # kombu gives messages back without
    assert (one.body, one.headers, one.content_type, one.payload) == (two.body, two.headers, two.content_type, two.payload)
    kept = {*migrate.KEPT, "expiration"}
    assert {k: v for k, v in one.properties.items() if k in kept} == {k: v for k, v in two.properties.items() if k in kept}


@pytest.mark.parametrize("arguments, code, says", [
    (["amqp://127.0.0.1:1//", URL, "-Q", "x"], 1, "cannot migrate: "),
    (["nothing://", URL, "-Q", "x"], 2, "There is no broker transport 'nothing'"),
    ([URL], 2, "Missing argument 'DESTINATION'"),
    ([URL, URL, "-n", "0"], 2, "-n"),
])
def test_wrong_usage(app: Celery, arguments: list[str], code: int, says: str) -> None:
    done = run(app, "migrate", *arguments)
    assert done.exit_code == code and says in done.output and "Traceback" not in done.output


def test_move(app: Celery, unique) -> None:
    source, dest, other = unique("source"), unique("dest"), unique("other")
    ids = put(app, source, *"abcd")
    places = {"a": dest, "b": app.amqp.queues[other], "c": ("", dest)}
    seen: list[str] = []
    state = migrate.move(lambda body, message: places.get(message.headers["task"]), app=app, source=source, timeout=0.1,
                         callback=lambda state, body, message: seen.append(message.headers["task"]))
    assert (state.count, seen) == (4, ["a", "b", "c"])
    assert (take(app, source), take(app, dest), take(app, other)) == ([ids[3]], [ids[0], ids[2]], [ids[1]])


def test_move_by_id_and_name(app: Celery, unique) -> None:
    source, dest = unique("source"), unique("dest")
    ids = put(app, source, *"abcc")
    options = {"app": app, "source": [source], "timeout": 0.1}
    migrate.move_task_by_id(ids[1], dest, **options)
    assert take(app, dest) == [ids[1]]
    migrate.move_by_taskmap({"c": dest}, **options)
    assert take(app, dest) == ids[2:]
    migrate.move_direct_by_id(ids[0], "w@here", **options)
    assert take(app, source) == [] and take(app, "w@here.dq2") == [ids[0]]


def test_undecodable_bodies_are_moved(app: Celery, unique) -> None:
    source, dest = unique("source"), unique("dest")
    with app.connection() as connection:
        app.amqp.queues[source](connection.default_channel).declare()
        connection.Producer(auto_declare=False).publish(
            b"\x80\x04.", routing_key=source, headers={"id": "x", "task": "a"}, content_type="application/x-python-serialize",
            content_encoding="binary")
    assert "Migrated 1 message." in run(app, "migrate", URL, URL, "-Q", f"{source}:{dest}", "-a", "-t", "1").output
    assert take(app, dest) == ["x"]
