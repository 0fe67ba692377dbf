"""Calling guide, ETA, countdown and expiration (FEATURES §1.23, §1.24)."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone

import brokers
import pytest
from celery.exceptions import TaskRevokedError


@pytest.fixture
def add(box):
    @box.app.task(name="row.add")
    def add(x, y=0):
        return x + y

    return add


@pytest.fixture
def calling(running):
    return running.tasks.calling


def seconds_from(text, now):
    return (datetime.fromisoformat(text) - now).total_seconds()


def is_after(text, seconds, begun):
    """Whether the time is `seconds` after the task was sent: not before `begun`, and not later than now."""
    return seconds <= seconds_from(text, begun) and seconds_from(text, datetime.now(UTC)) <= seconds


def test_c050_countdown(box, add):
    """X21: numbers of any kind; 0 is no ETA; countdown wins over eta."""
    now = datetime.now(UTC)
    add.apply_async((1,), countdown=3)
    add.apply_async((1,), countdown=1.5)
    add.apply_async((1,), countdown=0)
    add.apply_async((1,), countdown=5, eta=now + timedelta(hours=1))
    whole, half, none, both = (message.headers["eta"] for message in box.take_all(4))
    assert is_after(whole, 3, now)
    assert is_after(half, 1.5, now)
    assert none is None
    assert is_after(both, 5, now)


def test_c050_countdown_in_the_apps_timezone(boxes):
    box = boxes(timezone="Asia/Kolkata")
    now = datetime.now(UTC)
    box.app.send_task("row.any", countdown=3)
    eta = box.take().headers["eta"]
    assert eta.endswith("+05:30")
    assert is_after(eta, 3, now)


def test_c050_c052_runs_at_or_after(calling):
    start = time.time()
    assert calling.clock.apply_async(countdown=1).get(timeout=15) >= start + 1


def test_c051_eta_in_the_header(box, add):
    aware = datetime(2050, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))
    add.apply_async((1,), eta=aware)
    add.apply_async((1,), eta=datetime(2050, 1, 2, 3, 4, 5))
    add.apply_async((1,), eta="2050-01-02T03:04:05+00:00")
    assert [message.headers["eta"] for message in box.take_all(3)] == [
        "2050-01-02T03:04:05.678901+02:00", "2050-01-02T03:04:05", "2050-01-02T03:04:05+00:00"]


def test_c051_naive_eta_is_utc(calling):
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    ran = calling.clock.apply_async(eta=due.replace(tzinfo=None)).get(timeout=15)
    assert 0 <= ran - due.timestamp() < 15
    ran = calling.clock.apply_async(eta=(datetime.now(UTC) - timedelta(hours=1)).replace(tzinfo=None)).get(timeout=15)
    assert ran == pytest.approx(time.time(), abs=15)


def test_c051_eta_with_an_offset(calling):
    due = datetime.now(timezone(timedelta(hours=-7))) + timedelta(seconds=1)
    ran = calling.clock.apply_async(eta=due).get(timeout=15)
    assert ran >= due.timestamp()


class Impatient(brokers.PrivateRabbitMQ):
    """Looks every second for consumers that hold a message for more than two."""

    def __init__(self, directory):
        super().__init__(directory, {"consumer_timeout": "2000"})

    def environment(self):
        found = super().environment()
        found["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] += " -rabbit channel_tick_interval 1000"
        return found


@pytest.mark.limit(90)
def test_c054_visibility_timeout_of_redis(side, unique, tmp_path):
    """A second worker looks for abandoned messages when it starts; a task that the first one holds is not abandoned."""
    marks = tmp_path / "marks"
    marks.touch()
    with brokers.private_redis() as server:
        env = side.env(server.url, None, unique("row"), FLEET_MARKS=str(marks),
                       FLEET_OPTIONS=json.dumps({"visibility_timeout": 2}))
        with side.worker(env):
            due = time.monotonic() + 6
            side.client("tasks.late.apply_async((7,), countdown=6)\nresult = None", env)
            time.sleep(2.5)
            with side.worker(env):
                while time.monotonic() < due + 2 or not marks.read_text():
                    time.sleep(0.1)
    assert marks.read_text().split() == ["7"]


@pytest.mark.limit(120)
def test_c055_consumer_timeout_of_rabbitmq(side, redis_url, unique, tmp_path):
    """The broker closes the channel of a worker that holds a task for too long: it is parked in the broker instead."""
    server = Impatient(tmp_path)
    with brokers.running(server):
        env = side.env(server.url, redis_url, unique("row"), FLEET_SETTINGS=json.dumps({"worker_park_eta_after": 0.5}))
        with side.worker(env) as worker:
            script = "result = tasks.now.apply_async(countdown=6).get(timeout=40)"
            sent = time.time()
            assert side.client(script, env) >= sent + 6
            assert side.client("result = tasks.add.delay(1, 1).get(timeout=30)", env) == 2
            assert worker.process.poll() is None
            assert "onnection" not in worker.text().partition("ready")[2]


def test_c057_countdown_out_of_range(box, add):
    with pytest.raises(ValueError, match="out of range"):
        add.apply_async((1,), countdown=-2147483649)
    with pytest.raises(ValueError, match="out of range"):
        add.apply_async((1,), expires=-2147483649)
    assert box.is_empty()


def test_c057_bad_eta_in_a_message(running, add_by_hand):
    task_id = add_by_hand({"eta": "not a time"})
    running.worker.wait_for("not a time")
    assert running.tasks.app.AsyncResult(task_id).state == "PENDING"
    assert running.tasks.add.delay(1, 1).get(timeout=15) == 2


@pytest.fixture
def add_by_hand(running):
    """Publishes a task with headers that no client would make."""
    from kombu import Connection

    def publish(headers):
        task_id = str(uuid.uuid4())
        with Connection(running.env["FLEET_BROKER"]) as connection:
            connection.Producer().publish(
                [[1, 1], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}], routing_key=running.queue,
                serializer="json", correlation_id=task_id,
                headers={"lang": "py", "task": "rows_tasks.add", "id": task_id, "root_id": task_id, "parent_id": None,
                         "group": None, **headers})
        return task_id

    return publish


def test_c060_expires_in_seconds(box, add):
    now = datetime.now(UTC)
    add.apply_async((1,), expires=60)
    add.apply_async((1,), expires=61.5)
    minute, half = box.take_all(2)
    assert minute.properties["expiration"] == "60000"
    assert is_after(minute.headers["expires"], 60, now)
    assert half.properties["expiration"] == "61500"


def test_c061_expires_as_a_time(box, add):
    due = datetime.now(UTC) + timedelta(hours=10)
    add.apply_async((1,), expires=due)
    add.apply_async((1,), expires=due.replace(tzinfo=None))
    add.apply_async((1,), expires=due.isoformat())
    for message, text in zip(box.take_all(3), [due, due.replace(tzinfo=None), due], strict=True):
        assert message.headers["expires"] == text.isoformat()
        assert 35_900_000 < int(message.properties["expiration"]) <= 36_000_000


def test_c062_already_past(box, add, caplog):
    """With a time to live of 0 the broker drops it when nobody waits for it."""
    result = add.apply_async((1,), expires=datetime.now(UTC) - timedelta(hours=1))
    (record,) = [record for record in caplog.records if result.id in record.getMessage()]
    assert record.levelname == "WARNING"
    assert "expir" in record.getMessage()
    assert box.is_empty()


def test_c063_c064_expired_while_it_is_held(calling, running):
    result = calling.clock.apply_async(countdown=1, expires=0.5, expiration=None)  # or the broker may drop it first
    error = result.get(timeout=15, propagate=False)
    assert result.state == "REVOKED"
    assert isinstance(error, TaskRevokedError)
    assert str(error) == "expired"
    running.worker.wait_for(f"Discarding revoked task: rows_calling.clock[{result.id}]")


def test_c063_expired_on_receipt(running, add_by_hand):
    task_id = add_by_hand({"expires": "2020-01-01T00:00:00+00:00"})
    result = running.tasks.app.AsyncResult(task_id)
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=15)
    running.worker.wait_for(f"Discarding revoked task: rows_tasks.add[{task_id}]")


def test_c065_task_attribute_is_kept_on_retry(calling, box):
    @box.app.task(name="row.expiring", expires=60)
    def expiring():
        return None

    expiring.delay()
    assert box.take().properties["expiration"] == "60000"
    expires, has_eta = calling.retries_once.delay().get(timeout=15)
    assert has_eta
    assert 0 < seconds_from(expires, datetime.now(UTC)) <= 60
