"""_core's JSON against kombu's: thousands of generated documents, and the odd ones by name."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import random
import struct
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from decimal import Decimal
from importlib import machinery, util
from typing import Any

import pytest
from kombu.utils import json as kombu_json

from pyceleryc import Signature, _core

Point = namedtuple("Point", "x y")


class Color(enum.IntEnum):
    RED = 1


class Text(str):
    pass


class Reducible:
    def __json__(self) -> dict[str, int]:
        return {"reduced": 1}


class Registered:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registered) and other.value == self.value


def outcome(function: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    """What a call gives: its value, or its exception's type and text."""
    try:
        value = function(*args)
    except Exception as exc:
        return type(exc).__name__, str(exc)
    return "value", repr(value) + str(types_of(value))


def types_of(value: Any) -> Any:
    if isinstance(value, dict):
        return [(types_of(k), types_of(v)) for k, v in value.items()]
    return [types_of(v) for v in value] if isinstance(value, list) else type(value).__name__


def same_dumps(obj: Any) -> None:
    assert outcome(_core.json_dumps, obj) == outcome(kombu_json.dumps, obj)


def same_loads(data: Any) -> None:
    assert outcome(_core.json_loads, data) == outcome(kombu_json.loads, data)


class Plain(dict[str, Any]):
    """Written as a dict."""

    def __json__(self) -> dict[str, Any]:
        raise AssertionError("a dict of any class is written as one")


class Sorted(dict[str, Any]):
    def items(self) -> Any:
        return sorted(super().items())


def test_classes_of_dicts() -> None:
    ordered = OrderedDict(b=1, a=2)
    ordered.move_to_end("b")
    for obj in (Plain(b=1, a=[Plain(), {"c": Plain(d=None)}]), Sorted(b=1, a=2), ordered, defaultdict(list, a=[1]), Counter("aab"),
                Plain({1: 2})):  # type: ignore[dict-item]
        same_dumps(obj)
        same_dumps({"in": [obj]})
    signature = Signature("t.add", (1, Signature("t.sub")), {"k": 1}, {"link": [Signature("t.mul")]})
    same_dumps(signature)
    called: list[str] = []
    sys.setprofile(lambda frame, event, arg: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        _core.json_dumps(signature)
    finally:
        sys.setprofile(None)
    assert called == []  # not even kombu's dumps()


class Maker:
    """Random documents, reproducible by seed."""

    STRINGS = ["", "a", "abc def", 'q"uote', "back\\slash", "\x00\x1f\x7f", "tab\tnl\n\r\b\f", "é", "ß€",
               "日本語", "😀", "\ud800", "\udfff x", "𝄞 mixed é \x7f", "a" * 5000, "é" * 3000, "/", "\u2028"]
    LEAVES: list[Any] = [None, True, False, 0, 1, -1, 2**31, -(2**63), 2**63 - 1, 2**63, -(2**63) - 1, 10**40,
                         0.0, -0.0, 1.5, 1e16, 1e-5, 123456789.123, 1e308, 5e-324, 0.1, 1 / 3, math.inf, -math.inf]
    ODD: list[Any] = [b"bytes", b"\xff\x00", dt.datetime(2026, 11, 20, 7, 49, 1, 5, tzinfo=dt.timezone.utc),
                      dt.datetime(2026, 1, 1), dt.date(2026, 2, 3), dt.time(1, 2, 3), Decimal("1.50"),
                      uuid.UUID(int=7), Color.RED, Text("sub"), Point(1, 2), Reducible(), OrderedDict(a=1),
                      (), (1,), (1, (2, [3])), {1: 2}, {None: 1, True: 2, 1.5: 3}, {"k": {"nested": (1, 2)}}]

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def string(self) -> str:
        if self.random.random() < 0.6:
            return self.random.choice(self.STRINGS)
        points = [0x30, 0x7A, 0x22, 0x5C, 0x1F, 0x7F, 0x80, 0xFF, 0x100, 0x7FF, 0x800, 0xFFFD, 0x10000, 0x10FFFF]
        return "".join(chr(self.random.choice(points)) for _ in range(self.random.randrange(20)))

    def leaf(self, odd: bool) -> Any:
        dice = self.random.random()
        if odd and dice < 0.1:
            return self.random.choice(self.ODD)
        if dice < 0.4:
            return self.string()
        if dice < 0.6:
            return struct.unpack("d", self.random.randbytes(8))[0]
        if dice < 0.7:
            return self.random.getrandbits(self.random.randrange(1, 80)) * self.random.choice([1, -1])
        return self.random.choice(self.LEAVES)

    def document(self, depth: int = 4, odd: bool = False) -> Any:
        dice = self.random.random()
        size = self.random.randrange(6)
        if depth == 0 or dice < 0.3:
            return self.leaf(odd)
        if dice < 0.6:
            return [self.document(depth - 1, odd) for _ in range(size)]
        if dice < 0.7:
            return tuple(self.document(depth - 1, odd) for _ in range(size))
        return {self.string(): self.document(depth - 1, odd) for _ in range(size)}


@pytest.mark.parametrize("odd", [False, True], ids=["plain", "odd"])
def test_generated_documents_both_ways(odd: bool) -> None:
    maker = Maker(20261120 + odd)
    for _ in range(1200):
        document = maker.document(odd=odd)
        same_dumps(document)
        text = kombu_json.dumps(document)
        same_loads(text)
        same_loads(text.encode())
        same_loads(json.dumps(document, ensure_ascii=False, default=str, skipkeys=True))


def test_mutated_texts_fail_or_read_alike() -> None:
    maker = Maker(3)
    for _ in range(4000):
        text = bytearray(kombu_json.dumps(maker.document(depth=3)).encode()[:200])
        for _ in range(maker.random.randrange(1, 4)):
            where = maker.random.randrange(len(text) + 1)
            text[where:where + maker.random.randrange(2)] = maker.random.choice(
                [b"", b"\\", b'"', b"\\u", b"\\ud800", b",", b"[", b"}", b"\xff", b"\xc3\xa9", b"0", b"-", b"1e5", b"\x00",
                 b"\x0b", b" ", b"NaN", b"/*x*/", b".", b"\xef\xbb\xbf"])
        same_loads(bytes(text))
        same_loads(text)
        same_loads(text.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("text", [
    "", " ", "nul", "NaN", "-Infinity", "[1,]", "{}x", '{"a":1,"a":2,"b":3}', '"\\ud800"', '"\\ud83d\\ude00"', '"\\ud83dA"',
    "\ud800", "1e999", "-1e999", "-0", "-0.0", "1" * 4301, "[" * 100000, "[" * 300 + "]" * 300, "[" * 5000 + "]" * 5000,
    "\ufeff[]", "[1\f]", '"\t"', "01", "1.", ".5", "+1", "[1] [2]", '{"__type__": "nope", "__value__": 1}', "0." + "1" * 2000,
    '{"__type__": "bytes", "__value__": "é"}', '{"__type__": "uuid", "__value__": {"hex": "0"}}', '{"__type__": 1}', "'a'",
    '{"__type__": "decimal", "__value__": "1.50", "x": 1}', '{"__value__": "QQ==", "__type__": "base64"}', '{"a": 1e5}',
    '[{"__type__": "bytes", "__value__": {"__type__": "bytes", "__value__": "x"}}]', '{"": {"\\u0061": 1}}', "2" * 70 + ".5",
    '{"__type__": "bytes", "__type__": "base64", "__value__": "QQ=="}', "123456789012345678901234567890", '{"__type__": [], "__value__": 1}',
], ids=lambda text: ascii(text[:30]))
def test_texts_that_are_easily_read_wrong(text: str) -> None:
    same_loads(text)
    same_loads(text.encode("utf-8", "surrogatepass"))


def test_what_may_be_loaded() -> None:
    for data in [b"[1]", bytearray(b"[1]"), memoryview(b"[1]"), memoryview(b"[x1x]x")[::2], Text("[1]"), 1, None, [], b"\xff",
                 b'"\xff"', memoryview(b'"\xff"'), bytearray(b'"\xff"'), "[1]".encode("utf-16")]:
        same_loads(data)


def test_depth_and_cycles() -> None:
    deep: Any = []
    for _ in range(400):
        deep = {"k": [deep]}
    text = _core.json_dumps(deep)
    assert text == kombu_json.dumps(deep)
    assert _core.json_dumps(_core.json_loads(text)) == text
    endless: list[Any] = []
    endless.append({"again": endless})
    same_dumps(endless)
    shared: list[Any] = [1]
    same_dumps([shared, {"x": shared}, shared])
    for _ in range(100_000):
        shared = [shared]
    assert outcome(_core.json_dumps, shared)[0] == "RecursionError"


def test_unusual_values() -> None:
    for value in Maker.ODD:
        same_dumps(value)
        same_dumps({"k": [value]})
    for value in [object(), {1, 2}, lambda: 0, {"a": object()}, {(1, 2): 3}, {b"k": 1}, range(3), 1j]:
        kind, text = outcome(_core.json_dumps, value)
        assert (kind, text) == outcome(kombu_json.dumps, value)
        assert kind == "TypeError"


def test_registered_types_travel() -> None:
    kombu_json.register_type(Registered, "core-test", lambda o: o.value, Registered)
    try:
        text = _core.json_dumps([Registered(5)])
        assert text == kombu_json.dumps([Registered(5)])
        assert _core.json_loads(text) == [Registered(5)]
    finally:
        del kombu_json._encoders[Registered], kombu_json._decoders["core-test"]


def test_key_cache_keeps_keys_apart() -> None:
    names = [f"key{i}" for i in range(2000)] + ["é", "k" * 64, "k" * 65, "", "a\x00b"]
    document = {name: i for i, name in enumerate(names)}
    for _ in range(3):
        assert _core.json_loads(json.dumps(document)) == document


def test_two_modules_have_two_states() -> None:
    path = _core.__file__
    spec = util.spec_from_file_location("pyceleryc._core", path,
                                        loader=machinery.ExtensionFileLoader("pyceleryc._core", path))
    assert spec is not None and spec.loader is not None
    other = util.module_from_spec(spec)
    spec.loader.exec_module(other)
    assert other.CoreError is not _core.CoreError
    with pytest.raises(other.BadData):
        other.iso_to_timestamp("never")
    assert other.json_loads('{"a": 1}') == _core.json_loads('{"a": 1}')
