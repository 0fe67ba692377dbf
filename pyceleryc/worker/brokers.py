"""The broker that a worker consumes from, and the others that it may go to (``broker_url`` with several URLs)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any


from pyceleryc.app.drivers import broker_urls, failover, scheme_of
from pyceleryc.utils.url import hide_password

if TYPE_CHECKING:
    from pyceleryc.app.base import Celery

logger = logging.getLogger("celery.worker.consumer")

#: Schemes between which the core's worker can go from one broker to another.
_MOVABLE = (frozenset({"amqp", "amqps"}), frozenset({"redis"}))


class Brokers:
    """`url` is that of the broker in use, `core_config` its configuration of `_core.Worker`.

    :param stalls: tasks run in the worker's loop (solo): it may be silent for long.
    """

    def __init__(self, app: Celery, stalls: bool = False) -> None:
        self.app = app
        self.stalls = stalls
        self.urls = broker_urls(app.conf.broker_read_url)
        self.url = self.urls[0]
        if len(self.urls) > 1 and not any(kind.issuperset(map(scheme_of, self.urls)) for kind in _MOVABLE):
            if self.core_config() is not None:  # otherwise kombu goes to the next one
                logger.warning("This worker uses %s only: it could go to another broker only if all were RabbitMQ (amqp://), or all Redis.", self.uri())
            del self.urls[1:]
        self._order = failover(self.urls, app.conf.broker_failover_strategy)

    def core_config(self) -> dict[str, Any] | None:
        """None without a C driver for this broker."""
        config = self.app.amqp.core_config(self.url, role="read")
        return None if config is None else {**config, "heartbeat": self.app.conf.broker_heartbeat, "stalls": self.stalls}

    def next(self) -> dict[str, Any] | None:
        """The configuration of the broker to try now; None if there is only one."""
        if len(self.urls) < 2:
            return None
        self.url = next(self._order)
        return self.core_config()

    def uri(self) -> str:
        """For people: without the password. Kombu doesn't know all schemes of the core."""
        if scheme_of(self.url) in ("amqp", "amqps", "redis"):
            return str(self.app.connection_for_read(self.url).as_uri())
        return hide_password(self.url) if "@" in self.url else self.url
