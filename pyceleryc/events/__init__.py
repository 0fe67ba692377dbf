"""Monitoring events: what workers tell those who watch (FEATURES 2.12, PROTOCOL 3.7)."""
from __future__ import annotations

from pyceleryc.events.dispatcher import EventDispatcher
from pyceleryc.events.event import Event, event_exchange, get_exchange, group_from
from pyceleryc.events.receiver import EventReceiver

__all__ = ('Event', 'EventDispatcher', 'EventReceiver', 'event_exchange', 'get_exchange', 'group_from')
