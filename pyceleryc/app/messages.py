"""Task messages of protocol 1 and 2 (PROTOCOL 3.1, 3.3)."""
from __future__ import annotations

import numbers
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from kombu.exceptions import EncodeError
from kombu.serialization import dumps, registry
from kombu.utils import json as kombu_json

from pyceleryc import _core
from pyceleryc.app.options import check_call
from pyceleryc.utils.nodenames import anon_nodename
from pyceleryc.utils.pickling import register_pickle
from pyceleryc.utils.saferepr import saferepr
from pyceleryc.utils.time import maybe_make_aware, to_utc

__all__ = ('task_message', 'TaskMessages')

register_pickle()

#: Smaller countdowns are mistakes, and overflow elsewhere.
INT_MIN = -2147483648


class task_message(NamedTuple):  # noqa: N801  the public name
    """A message before it is serialized; *sent_event* are the fields of the event, or None."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any
    sent_event: dict[str, Any] | None


def check_shape(args: Any, kwargs: Any) -> None:
    """Raise TypeError unless *args* is a list or tuple and *kwargs* a mapping (T-115)."""
    if not isinstance(args, (list, tuple)):
        raise TypeError('task args must be a list or tuple')
    if not isinstance(kwargs, Mapping):
        raise TypeError('task keyword arguments must be a mapping')


def seconds_in_range(seconds: float, what: str) -> float:
    """Return *seconds*; ValueError if they cannot be meant (C-057)."""
    if seconds < INT_MIN:
        raise ValueError(f'{what} is out of range: {seconds!r}')
    return seconds


def iso_text(when: Any) -> Any:
    """Return a datetime as ISO text; text and None stay."""
    return when if not when or isinstance(when, str) else when.isoformat()


def check_iso(name: str, what: str, text: str) -> None:
    """Raise ValueError unless *text* is a time: a worker could do nothing with the message."""
    try:
        unix_time(text)
    except ValueError as exc:
        raise ValueError(f'task {name!r}: {what} is no ISO-8601 time: {text!r}') from exc


def unix_time(iso: str) -> float:
    """Return the Unix time of an ISO-8601 text; without offset it is UTC."""
    return _core.iso_to_timestamp(iso)


def is_plain_json(serializer: str | None) -> bool:
    """Tell whether *serializer* is kombu's own JSON, which the core writes as well."""
    codec = registry._encoders.get(serializer or '')
    return (codec is not None and codec.encoder is kombu_json.dumps
            and codec.content_type == 'application/json')


def encode(body: Any, serializer: str | None) -> tuple[str, str, bytes | str]:
    """Return content type, content encoding and the serialized body.

    :raises EncodeError: the body cannot be serialized so.
    """
    if not is_plain_json(serializer):
        return dumps(body, serializer)
    try:
        return 'application/json', 'utf-8', _core.json_dumps(body)
    except Exception as exc:
        raise EncodeError(str(exc)) from exc


def cannot_encode(
    name: str, args: Any, kwargs: Any, why: Exception, serializer: str | None = 'json',
) -> EncodeError:
    """Return the error that says which argument of the task *name* cannot be serialized."""
    values = [*enumerate(args or ()), *(kwargs or {}).items()]
    for where, value in values:
        try:
            encode(value, serializer)
        except Exception as exc:
            return EncodeError(f'task {name!r}: argument {where!r} cannot be serialized: {exc}')
    return EncodeError(f'task {name!r} cannot be serialized: {why}')


class TaskMessages:
    """Makes task messages; the part of :class:`~pyceleryc.app.amqp.AMQP` that does so.

    *countdown* and a numeric *expires* are seconds from *now*; *eta* and *expires* may be
    datetimes or ISO-8601 texts.  Options that are no part of the protocol are ignored.
    """

    app: Any
    #: Most characters of the ``argsrepr`` and ``kwargsrepr`` headers (T-123).
    argsrepr_maxsize = 1024
    kwargsrepr_maxsize = 1024

    def as_task_v2(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None,
        countdown: float | None = None, eta: Any = None, group_id: str | None = None,
        group_index: int | None = None, expires: Any = None, retries: int = 0,
        chord: Any = None, callbacks: Any = None, errbacks: Any = None,
        reply_to: str | None = None, time_limit: float | None = None,
        soft_time_limit: float | None = None, create_sent_event: bool = False,
        root_id: str | None = None, parent_id: str | None = None, shadow: str | None = None,
        chain: Any = None, now: datetime | None = None, timezone: Any = None,
        origin: str | None = None, ignore_result: bool = False, argsrepr: str | None = None,
        kwargsrepr: str | None = None, stamped_headers: Any = None,
        replaced_task_nesting: int = 0, **options: Any,
    ) -> task_message:
        """Return a message of protocol 2."""
        args, kwargs = args or (), kwargs or {}
        check_shape(args, kwargs)
        eta, expires = self._times(name, countdown, eta, expires, now, timezone)
        if argsrepr is None:
            argsrepr = saferepr(args, self.argsrepr_maxsize)
        if kwargsrepr is None:
            kwargsrepr = saferepr(kwargs, self.kwargsrepr_maxsize)
        root_id = root_id or task_id
        headers = _core.task_headers(
            name, task_id, shadow, eta, expires, group_id, group_index, retries or 0, time_limit,
            soft_time_limit, root_id, parent_id, argsrepr, kwargsrepr, origin or anon_nodename(),
            bool(ignore_result), replaced_task_nesting or 0)
        if stamped_headers is not None:
            headers['stamped_headers'] = stamped_headers
            headers['stamps'] = {key: options[key] for key in stamped_headers if key in options}
        embed = {'callbacks': callbacks, 'errbacks': errbacks, 'chain': chain, 'chord': chord}
        event = {
            'uuid': task_id, 'root_id': root_id, 'parent_id': parent_id, 'name': name,
            'args': argsrepr, 'kwargs': kwargsrepr, 'retries': retries, 'eta': eta,
            'expires': expires,
        }
        return task_message(
            headers, {'correlation_id': task_id, 'reply_to': reply_to or ''},
            (args, kwargs, embed), event if create_sent_event else None)

    def as_task_v1(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None,
        countdown: float | None = None, eta: Any = None, group_id: str | None = None,
        group_index: int | None = None, expires: Any = None, retries: int = 0,
        chord: Any = None, callbacks: Any = None, errbacks: Any = None,
        reply_to: str | None = None, time_limit: float | None = None,
        soft_time_limit: float | None = None, create_sent_event: bool = False,
        root_id: str | None = None, parent_id: str | None = None, shadow: str | None = None,
        now: datetime | None = None, timezone: Any = None, **compat_kwargs: Any,
    ) -> task_message:
        """Return a message of protocol 1: no headers, everything in the body."""
        args, kwargs = args or (), kwargs or {}
        check_shape(args, kwargs)
        eta, expires = self._times(name, countdown, eta, expires, now, timezone)
        body = {
            'task': name, 'id': task_id, 'args': args, 'kwargs': kwargs, 'group': group_id,
            'group_index': group_index, 'retries': retries, 'eta': eta, 'expires': expires,
            'utc': self.app.conf.enable_utc, 'callbacks': callbacks, 'errbacks': errbacks,
            'timelimit': (time_limit, soft_time_limit), 'taskset': group_id, 'chord': chord,
        }
        event = {
            'uuid': task_id, 'name': name, 'args': saferepr(args), 'kwargs': saferepr(kwargs),
            'retries': retries, 'eta': eta, 'expires': expires,
        }
        return task_message(
            {}, {'correlation_id': task_id, 'reply_to': reply_to or ''}, body,
            event if create_sent_event else None)

    def _times(
        self, name: str, countdown: float | None, eta: Any, expires: Any,
        now: datetime | None, timezone: Any,
    ) -> tuple[str | None, str | None]:
        """Return eta and expires as ISO texts (C-050..C-062)."""
        if not (countdown or eta or expires is not None):
            return None, None
        check_call(name, countdown=countdown, eta=eta, expires=expires)
        for what, text in (('eta', eta), ('expires', expires)):
            if isinstance(text, str):
                check_iso(name, what, text)
        if countdown:
            eta = self._after(name, 'countdown', countdown, now, timezone)
        if isinstance(expires, numbers.Real):
            expires = self._after(name, 'expires', float(expires), now, timezone)
        return iso_text(eta), iso_text(expires)

    def _after(
        self, name: str, what: str, seconds: float, now: datetime | None, timezone: Any,
    ) -> datetime:
        try:
            seconds_in_range(seconds, what)
            start = self._now(now, timezone)
            # In UTC: Python adds to what the clock shows, which may be put forward or back until then.
            return (to_utc(start) + timedelta(seconds=seconds)).astimezone(start.tzinfo)
        except (OverflowError, ValueError) as exc:
            raise type(exc)(f'task {name!r}: {what} is out of range: {seconds!r}') from exc

    def _now(self, now: datetime | None, timezone: Any) -> datetime:
        return maybe_make_aware(now or self.app.now(), tz=timezone or self.app.timezone)
