"""Calling guide, serializers (FEATURES §1.26)."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import celery.exceptions
import kombu.exceptions
import pytest
from kombu import serialization

SERIALIZERS = {
    "json": ("application/json", "utf-8"),
    "pickle": ("application/x-python-serialize", "binary"),
    "yaml": ("application/x-yaml", "utf-8"),
    "msgpack": ("application/x-msgpack", "binary"),
}


@pytest.fixture
def add(box):
    @box.app.task(name="row.add")
    def add(x, y=0):
        return x + y

    return add


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_c090_c092_c095_c096_c097_content_type(box, add, serializer):
    add.apply_async(([1, "é", None, 2.5, True],), {"y": {"a": 1}}, serializer=serializer)
    message = box.take()
    assert (message.content_type, message.content_encoding) == SERIALIZERS[serializer]
    assert message.args[0] == [1, "é", None, 2.5, True]
    assert message.kwargs == {"y": {"a": 1}}


def test_c091_defaults(box, add):
    conf = box.app.conf
    assert (conf.task_serializer, conf.result_serializer, list(conf.accept_content)) == ("json", "json", ["json"])
    add.delay(1)
    assert box.take().content_type == "application/json"


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_c092_c095_c096_c097_round_trip(formats, serializer):
    value = {"text": "é", "number": 3, "float": 1.5, "none": None, "true": True, "list": [1, [2]], "dict": {"a": {"b": 1}}}
    assert formats.tasks.echo.apply_async((value,), serializer=serializer).get(timeout=15) == value


def test_c092_more_types_of_json(formats):
    """X23"""
    values = [datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), date(2030, 1, 2), Decimal("1.10"), uuid.uuid4(), b"\xff\x00"]
    for value in values:
        assert formats.tasks.echo.delay(value).get(timeout=15) == value
        assert formats.tasks.kinds.delay(value).get(timeout=15)[0] == [type(value).__name__]


def test_c093_keys_become_text(formats):
    assert formats.tasks.echo.delay({1: 2}).get(timeout=15) == {"1": 2}


def test_c094_tuples_become_lists(formats):
    kinds = formats.tasks.kinds
    for serializer, name in (("json", "list"), ("msgpack", "list"), ("yaml", "list"), ("pickle", "tuple")):
        assert kinds.apply_async(((1, 2),), serializer=serializer).get(timeout=15) == [[name], {}], serializer


def test_c095_protocol_of_pickle(box, add):
    add.apply_async((1,), serializer="pickle")
    assert box.take().raw[:2] == b"\x80\x04"


def test_c096_yaml_has_no_python_objects(box, add):
    add.apply_async(((1, 2),), serializer="yaml")
    assert b"!!python" not in box.take().raw
    with pytest.raises(kombu.exceptions.EncodeError):
        add.apply_async((object(),), serializer="yaml")


def test_c099_own_serializer(formats):
    result = formats.tasks.kinds.apply_async((1,), {"a": "x"}, serializer="row-reversed")
    assert result.get(timeout=15) == [["int"], {"a": "str"}]


def test_c100_not_accepted(running):
    """The message is rejected, and there is no result."""
    result = running.tasks.add.apply_async((1, 1), serializer="pickle")
    running.worker.wait_for("Refusing to deserialize untrusted content of type pickle (application/x-python-serialize)")
    assert running.tasks.add.delay(1, 1).get(timeout=15) == 2
    assert result.state == "PENDING"


def test_c101_result_accept_content(running, redis_url):
    from celery import Celery

    result = running.tasks.add.delay(1, 1)
    assert result.get(timeout=15) == 2

    def read(**settings):
        app = Celery("reader", broker="memory://", backend=redis_url, set_as_current=False)
        app.conf.update(settings)
        return app.AsyncResult(result.id).get(timeout=30)

    assert read(accept_content=["pickle", "json"]) == 2
    assert read(accept_content=["pickle"], result_accept_content=["application/json"]) == 2
    for settings in ({"accept_content": ["pickle"]}, {"result_accept_content": ["pickle"]}):
        with pytest.raises(kombu.exceptions.ContentDisallowed):
            read(**settings)


def test_c102_which_one(boxes):
    box = boxes(task_serializer="yaml")

    @box.app.task(name="row.plain")
    def plain():
        return None

    @box.app.task(name="row.own", serializer="msgpack")
    def own():
        return None

    plain.delay()
    own.delay()
    own.apply_async(serializer="pickle")
    assert [message.content_type for message in box.take_all(3)] == [
        "application/x-yaml", "application/x-msgpack", "application/x-python-serialize"]


def test_c103_unknown(add):
    with pytest.raises(serialization.SerializerNotInstalled, match="nope"):
        add.apply_async((1,), serializer="nope")


def test_c104_arguments_that_cannot_be_encoded(box, add):
    with pytest.raises(kombu.exceptions.EncodeError, match="Object of type object is not JSON serializable"):
        add.delay(object())
    with pytest.raises(kombu.exceptions.EncodeError):
        add.apply_async((object(),), countdown=1)
    assert box.is_empty()


def test_c104_result_that_cannot_be_encoded(formats):
    result = formats.tasks.unencodable.delay()
    error = result.get(timeout=15, propagate=False)
    assert result.state == "FAILURE"
    assert type(error).__name__ == "EncodeError"
    assert "not JSON serializable" in str(error)


def test_c105_no_pickle_for_root(side, formats):
    import subprocess

    if os.getuid() != 0:
        pytest.fail("this test is for root")
    env = {name: value for name, value in formats.env.items() if name != "C_FORCE_ROOT"}
    done = subprocess.run([side.python, "-m", side.name, "-A", "rows_formats", "worker", "-c", "1", "-P", "solo"], env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    assert done.returncode == 1
    assert "pickle" in done.stdout
    assert "superuser" in done.stdout


def test_c098_auth_is_the_name_of_signed_messages(box, add, tmp_path):
    """The rest is in tests/unit/security and tests/compat/test_auth.py: it changes the registry of the whole process."""
    with pytest.raises(celery.exceptions.ImproperlyConfigured):
        box.app.setup_security()
    with pytest.raises((kombu.exceptions.SerializerNotInstalled, kombu.exceptions.EncodeError)):
        add.apply_async((1,), serializer="auth")
