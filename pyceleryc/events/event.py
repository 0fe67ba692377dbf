"""Events as mappings, and the exchange they go through (PROTOCOL 3.7)."""
from __future__ import annotations

import time
from typing import Any

from kombu import Exchange

__all__ = ('Event', 'event_exchange', 'get_exchange', 'group_from', 'routing_key_of')

EVENT_EXCHANGE_NAME = 'celeryev'
#: The exchange of the default settings.
event_exchange = Exchange(EVENT_EXCHANGE_NAME, type='topic')


def Event(  # noqa: N802  the public name
    type: str, _fields: Any = None, __dict__: Any = dict, __now__: Any = time.time, **fields: Any,  # noqa: A002
) -> dict[str, Any]:
    """Return an event: a dict with its type, *fields* and, unless given, the time."""
    event: dict[str, Any] = __dict__(_fields or (), **fields)
    event.setdefault('timestamp', __now__())
    event['type'] = type
    return event


def group_from(type: str) -> str:  # noqa: A002
    """Return the group of an event type: ``task`` for ``task-sent``."""
    return type.split('-', 1)[0]


def routing_key_of(type: str) -> str:  # noqa: A002
    """Return the routing key of an event type: ``worker.online`` for ``worker-online``."""
    return type.replace('-', '.')


def get_exchange(conn: Any, name: str = EVENT_EXCHANGE_NAME) -> Exchange:
    """Return the exchange called *name*; with Redis and its like everybody gets everything."""
    fanout_only = conn.transport.driver_type in {'redis', 'gcpubsub'}
    return Exchange(name, type='fanout' if fanout_only else 'topic')
