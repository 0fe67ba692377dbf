"""Calling guide, compression (FEATURES §1.27).

C-120: the setting result_compression exists and no store uses it.
"""

from __future__ import annotations

import bz2
import importlib.metadata
import json
import lzma
import tomllib
import zlib

import pytest
from fleet import ROOT
from kombu import compression

CODECS = {
    "zlib": ("application/x-gzip", zlib.decompress),
    "gzip": ("application/x-gzip", zlib.decompress),
    "bzip2": ("application/x-bz2", bz2.decompress),
    "bzip": ("application/x-bz2", bz2.decompress),
    "lzma": ("application/x-lzma", lzma.decompress),
    "xz": ("application/x-lzma", lzma.decompress),
}


@pytest.fixture
def add(box):
    @box.app.task(name="row.add")
    def add(x, y=0):
        return x + y

    return add


@pytest.mark.parametrize("name", CODECS)
def test_c110_c111_c112_c113_message(box, add, name):
    """X22"""
    content_type, decompress = CODECS[name]
    add.apply_async((1,), {"y": 2}, compression=name)
    message = box.take()
    assert message.headers["compression"] == content_type
    assert message.content_type == "application/json"
    assert json.loads(decompress(message.raw))[:2] == [[1], {"y": 2}]
    if content_type == "application/x-gzip":
        assert message.raw[:2] == b"\x78\x9c"


@pytest.mark.parametrize("name", sorted({"zlib", "bzip2", "lzma", "row-hex"} | ({"brotli", "zstd"} & set(compression._aliases))))
def test_c110_c114_c115_c117_worker(formats, name):
    """brotli and zstd where their modules are installed."""
    text = "x" * 10_000
    assert formats.tasks.echo.apply_async((text,), compression=name).get(timeout=15) == text


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack", "row-reversed"])
def test_c110_with_any_serializer(formats, serializer):
    assert formats.tasks.echo.apply_async(({"a": [1]},), compression="zlib", serializer=serializer).get(timeout=15) == {"a": [1]}


def test_c116_c114_c115_missing_module(add):
    for name in ({"brotli", "zstd"} - set(compression._aliases)) | {"nope"}:
        with pytest.raises(KeyError, match=name):
            add.apply_async((1,), compression=name)


def test_c117_own_codec(boxes):
    compression.register(lambda data: data[::-1], lambda data: data[::-1], "application/x-row-mirror", aliases=["row-mirror"])
    box = boxes()
    box.app.send_task("row.any", (1,), compression="row-mirror")
    message = box.take()
    assert message.headers["compression"] == "application/x-row-mirror"
    assert json.loads(message.raw[::-1])[0] == [1]


def test_c118_which_one(boxes):
    box = boxes(task_compression="bzip2")

    @box.app.task(name="row.plain")
    def plain():
        return None

    @box.app.task(name="row.own", compression="lzma")
    def own():
        return None

    plain.delay()
    own.delay()
    own.apply_async(compression="zlib")
    assert [message.headers["compression"] for message in box.take_all(3)] == [
        "application/x-bz2", "application/x-lzma", "application/x-gzip"]


def test_c118_default_is_none(box, add):
    assert box.app.conf.task_compression is None
    add.delay(1)
    assert "compression" not in box.take().headers


def test_c119_retry(formats, box):
    """The header says how the retry itself is compressed; it is no header of the caller's."""
    formats.tasks.retried.apply_async(("v" * 2000, box.queue), compression="zlib")
    message = box.take()
    assert message.headers["retries"] == 1
    raw = zlib.decompress(message.raw) if "compression" in message.headers else message.raw
    assert json.loads(raw)[0] == ["v" * 2000, box.queue]


def test_c120_result_compression_is_a_setting(box):
    assert box.app.conf.result_compression is None


def test_c121_extras(impl):
    """`pip install pyceleryc[msgpack]` and so on; lzma needs nothing but a Python built with it."""
    if impl == "celery":
        extras = set(importlib.metadata.metadata(impl).get_all("Provides-Extra")) | {"lzma"}
    else:
        extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert extras >= {"brotli", "lzma", "msgpack", "yaml", "zstd"}
