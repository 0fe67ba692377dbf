"""Beat that is started before its broker."""
from __future__ import annotations

import logging
from typing import Any

from kombu.exceptions import OperationalError

__all__ = ('FirstConnection',)

#: Seconds between two attempts: so many more each time, up to the most.
STEP, MOST = 2.0, 32.0


class FirstConnection:
    """Connects, for the first time: until that has worked no run is taken off the schedule.

    Later outages are bridged by what publishes.
    """

    def __init__(self, app: Any, logger: logging.Logger) -> None:
        self._app, self._logger = app, logger
        self._done = False
        self._tries = 0

    def pause(self) -> float:
        """Return the seconds until the next attempt; 0 when there is, or was, a connection.

        :raises OperationalError: it has been tried ``broker_connection_max_retries`` times.
        """
        if self._done:
            return 0.0
        try:
            self._connect()
        except (OperationalError, OSError) as exc:
            self._tries += 1
            most = self._app.conf.broker_connection_max_retries
            if most and self._tries > most:
                raise
            seconds = min(STEP * self._tries, MOST)
            self._logger.error('beat: Connection error: %s. Trying again in %s seconds...', exc, seconds)
            return seconds
        self._done = True
        return 0.0

    def _connect(self) -> None:
        publisher = self._app.amqp.publisher
        if publisher is not None:
            publisher.call(lambda core: None, None)
            return
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
