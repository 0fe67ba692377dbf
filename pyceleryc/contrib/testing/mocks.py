"""Messages as workers get them, for tests of code that reads messages."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import MagicMock, Mock

from kombu.serialization import dumps
from kombu.utils.uuid import uuid

__all__ = ('ContextMock', 'TaskMessage', 'TaskMessage1', 'task_message_from_sig')


def _message(headers: Any, body: Any, task_id: str, serializer: str) -> Any:
    message = Mock(name=f'TaskMessage-{task_id}')
    content_type, encoding, payload = dumps(body, serializer)
    message.headers, message.body, message.payload = headers, payload, body
    message.content_type, message.content_encoding = content_type, encoding
    message.properties = {'correlation_id': task_id, 'reply_to': ''}
    message.decode.return_value = body
    return message


def TaskMessage(  # noqa: N802  the public name
    name: str, id: str | None = None, args: Sequence[Any] = (),  # noqa: A002
    kwargs: Mapping[str, Any] | None = None, callbacks: Any = None, errbacks: Any = None,
    chain: Any = None, shadow: str | None = None, utc: bool | None = None, **options: Any,
) -> Any:
    """Return a message of protocol 2.

    :param options: further headers; *serializer* is that of the body.
    """
    task_id, serializer = id or uuid(), options.pop('serializer', 'json')
    embed = {'callbacks': callbacks, 'errbacks': errbacks, 'chain': chain, 'chord': options.pop('chord', None)}
    headers = {'lang': 'py', 'id': task_id, 'task': name, 'shadow': shadow, **options}
    return _message(headers, (list(args), dict(kwargs or {}), embed), task_id, serializer)


def TaskMessage1(  # noqa: N802  the public name
    name: str, id: str | None = None, args: Sequence[Any] = (),  # noqa: A002
    kwargs: Mapping[str, Any] | None = None, callbacks: Any = None, errbacks: Any = None,
    chain: Any = None, **options: Any,
) -> Any:
    """Return a message of protocol 1."""
    task_id, serializer = id or uuid(), options.pop('serializer', 'json')
    body = {
        'task': name, 'id': task_id, 'args': list(args), 'kwargs': dict(kwargs or {}),
        'callbacks': callbacks, 'errbacks': errbacks, **options}
    return _message({}, body, task_id, serializer)


def task_message_from_sig(app: Any, sig: Any, utc: bool = True, TaskMessage: Any = TaskMessage) -> Any:  # noqa: N803
    """Return the message that sending *sig* makes."""
    sig.freeze()
    options = dict(sig.options)
    callbacks, errbacks = options.pop('link', None), options.pop('link_error', None)
    countdown = options.pop('countdown', None)
    made = app.amqp.as_task_v2(sig.id, sig.task, sig.args, sig.kwargs, countdown=countdown, **{
        name: options[name] for name in ('eta', 'expires', 'group_id', 'chord', 'root_id', 'parent_id') if name in options})
    return TaskMessage(
        sig.task, id=sig.id, args=sig.args, kwargs=sig.kwargs,
        callbacks=[dict(link) for link in callbacks or ()], errbacks=[dict(link) for link in errbacks or ()],
        eta=made.headers['eta'], expires=made.headers['expires'], utc=utc, **({'chain': options['chain']} if 'chain' in options else {}))


class _ContextMock(MagicMock):
    """Its ``with`` block gets the mock itself, and lets errors through."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        return None


def ContextMock(*args: Any, **kwargs: Any) -> Any:  # noqa: N802  the public name
    """Return a mock that can be used in ``with``."""
    return _ContextMock(*args, **kwargs)
