"""``app.events``: the events of an app (FEATURES 2.12)."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyceleryc.app.drivers import has_fanout
from pyceleryc.utils.imports import symbol_by_name
from pyceleryc.utils.locks import shared_property

__all__ = ('Events',)


class Events:
    """Makes receivers, dispatchers and states that know the app."""

    receiver_cls: Any = 'pyceleryc.events.receiver:EventReceiver'
    dispatcher_cls: Any = 'pyceleryc.events.dispatcher:EventDispatcher'
    state_cls: Any = 'pyceleryc.events.state:State'

    def __init__(self, app: Any = None) -> None:
        self.app = app

    @shared_property
    def Receiver(self) -> Any:  # noqa: N802  the public name
        """Class :class:`~pyceleryc.events.receiver.EventReceiver` of this app."""
        return self.app.subclass_with_self(self.receiver_cls, reverse='events.Receiver')

    @shared_property
    def Dispatcher(self) -> Any:  # noqa: N802
        """Class :class:`~pyceleryc.events.dispatcher.EventDispatcher` of this app."""
        return self.app.subclass_with_self(self.dispatcher_cls, reverse='events.Dispatcher')

    @shared_property
    def State(self) -> Any:  # noqa: N802
        """Class :class:`~pyceleryc.events.state.State`."""
        return symbol_by_name(self.state_cls)

    @contextmanager
    def default_dispatcher(
        self, hostname: str | None = None, enabled: bool = True, buffer_while_offline: bool = False,
    ) -> Iterator[Any]:
        """Return a context manager: a dispatcher on a connection of the pool.

        With brokers that have no events (FEATURES 2.12) it sends nothing.
        """
        if not has_fanout(self.app.conf.broker_write_url):
            yield self.Dispatcher(hostname=hostname, enabled=False)
            return
        with self.app.amqp.producer_pool.acquire(block=True) as producer:
            with self.Dispatcher(producer.connection, hostname, producer.channel, buffer_while_offline,
                                 enabled) as dispatcher:
                yield dispatcher
