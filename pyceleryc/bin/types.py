"""Kinds of values of options and arguments."""
from __future__ import annotations

import json
import logging
from typing import Any

import click
from kombu.utils.json import loads

from pyceleryc.utils.iso8601 import parse_iso8601
from pyceleryc.utils.log import LOG_LEVELS

__all__ = (
    'COMMA_SEPARATED_LIST', 'ISO8601', 'ISO8601_OR_FLOAT', 'JSON_ARRAY', 'JSON_OBJECT', 'LOG_LEVEL',
    'OCTAL', 'CommaSeparatedList', 'ISO8601DateTime', 'ISO8601DateTimeOrFloat', 'JsonArray',
    'JsonObject', 'LogLevel', 'Octal',
)


class CommaSeparatedList(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """``a,b,c``, as a list; spaces around the names and empty names are dropped."""

    name = 'comma separated list'

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        """Split *value*."""
        parts = value.split(',') if isinstance(value, str) else value
        return [part.strip() for part in parts if part.strip()]


class _Json(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    kind: type = list
    name = 'json array'

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Decode *value* as the messages are decoded."""
        if isinstance(value, self.kind):
            return value
        try:
            found = loads(value)
        except ValueError as exc:
            self.fail(f'{value!r} is not JSON: {exc}', param, ctx)
        if not isinstance(found, self.kind):
            self.fail(f'{json.dumps(found, default=str)} is no {self.name}', param, ctx)
        return found


class JsonArray(_Json):
    """A list in JSON."""


class JsonObject(_Json):
    """A dictionary in JSON."""

    kind = dict
    name = 'json object'


class ISO8601DateTime(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """A date and time such as ``2031-05-17T12:00:00+02:00``."""

    name = 'iso-8601'

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse *value*."""
        try:
            return parse_iso8601(value)
        except (TypeError, ValueError) as exc:
            self.fail(f'{value!r} is no ISO-8601 time: {exc}', param, ctx)


class ISO8601DateTimeOrFloat(ISO8601DateTime):
    """A date and time, or seconds from now."""

    name = 'iso-8601 or float'

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse *value*, as a number first."""
        try:
            return float(value)
        except (TypeError, ValueError):
            return super().convert(value, param, ctx)


class LogLevel(click.Choice):  # type: ignore[type-arg]
    """The name of a log level in any case, as its number."""

    def __init__(self) -> None:
        super().__init__(('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL', 'FATAL'), case_sensitive=False)

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Return the level's number."""
        if isinstance(value, int) and value in logging.getLevelNamesMapping().values():
            return value
        return int(LOG_LEVELS[super().convert(value, param, ctx)])


class Octal(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """A number in octal, such as a umask."""

    name = 'octal'

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Return the number."""
        try:
            return value if isinstance(value, int) else int(value, 8)
        except ValueError:
            self.fail(f'{value!r} is no octal number, such as 022', param, ctx)


COMMA_SEPARATED_LIST = CommaSeparatedList()
JSON_ARRAY = JsonArray()
JSON_OBJECT = JsonObject()
ISO8601 = ISO8601DateTime()
ISO8601_OR_FLOAT = ISO8601DateTimeOrFloat()
LOG_LEVEL = LogLevel()
OCTAL = Octal()
