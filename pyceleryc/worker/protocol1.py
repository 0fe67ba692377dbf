"""Messages of protocol 1, and those between the two: what a worker makes of them (PROTOCOL 3.3).

Clients of Celery 3, and others with ``task_protocol = 1``, write the whole task into the body and nothing into the headers. The machine
reads headers, so such a message becomes one of protocol 2 before anything else looks at it. Where headers and body both say
something the headers are right.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kombu.compression import decompress
from kombu.serialization import dumps, loads, prepare_accept_content, registry

from pyceleryc.utils.saferepr import saferepr

if TYPE_CHECKING:
    from pyceleryc.app.base import Celery

__all__ = ('Upgraded', 'upgrade', 'body_of_mapping')

#: Headers, body, content type, content encoding.
Upgraded = tuple[dict[str, Any], bytes | str, str, str]

#: Fields of the body that are headers in protocol 2; the others are arguments, or about what follows the task.
_HEADERS = ('task', 'id', 'retries', 'shadow', 'root_id', 'parent_id', 'group_index', 'ignore_result', 'origin')
_PARTS = (*_HEADERS, 'args', 'kwargs', 'eta', 'expires', 'utc', 'timelimit', 'taskset', 'group', 'argsrepr', 'kwargsrepr')


def upgrade(app: Celery, headers: Mapping[str, Any], body: bytes, content_type: str | None,
            content_encoding: str | None) -> Upgraded | None:
    """Return the message as protocol 2 has it; None if it is of neither protocol."""
    compression = headers.get('compression')
    try:
        data = decompress(body, compression) if compression else body
        accept = prepare_accept_content(app.conf.accept_content)
        fields = loads(data, content_type, content_encoding, accept=accept)
    except Exception:  # of any serializer; whoever called says what became of the message
        return None
    if not isinstance(fields, Mapping) or not (fields.get('task') or headers.get('task')):
        return None
    args, kwargs, embed = body_of_mapping(fields)
    made = _headers(fields, args, kwargs)
    made.update((name, value) for name, value in headers.items() if value is not None and name != 'compression')
    serializer = registry.type_to_name.get(content_type or '', 'json')
    new_type, new_encoding, new_body = dumps((args, kwargs, embed), serializer)
    return made, new_body, new_type, new_encoding


def body_of_mapping(fields: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Return args, kwargs and embedded options of a body of protocol 1."""
    embed = {name: None for name in ('callbacks', 'errbacks', 'chain', 'chord')}
    embed.update((name, value) for name, value in fields.items() if name not in _PARTS)
    return fields.get('args') or [], fields.get('kwargs') or {}, embed


def _headers(fields: Mapping[str, Any], args: Any, kwargs: Any) -> dict[str, Any]:
    made = {name: fields[name] for name in _HEADERS if fields.get(name) is not None}
    # Times without an offset are UTC, whatever the field utc says, as for a worker of Celery.
    made.update(
        lang='py', eta=fields.get('eta'), expires=fields.get('expires'),
        group=fields.get('group') or fields.get('taskset'), timelimit=fields.get('timelimit') or [None, None],
        retries=fields.get('retries') or 0, argsrepr=fields.get('argsrepr') or saferepr(args),
        kwargsrepr=fields.get('kwargsrepr') or saferepr(kwargs))
    return made

