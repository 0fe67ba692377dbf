"""Pictures of the cluster, taken from time to time (FEATURES 2.12)."""
from __future__ import annotations

import threading
from typing import Any

from kombu.utils.limits import TokenBucket

from pyceleryc import platforms
from pyceleryc.app import app_or_default
from pyceleryc.utils.dispatch import Signal
from pyceleryc.utils.imports import instantiate
from pyceleryc.utils.log import get_logger
from pyceleryc.utils.time import rate

__all__ = ('Polaroid', 'evcam')

logger = get_logger('celery.evcam')


class Polaroid:
    """Calls :meth:`on_shutter` with the state every *freq* seconds; to be subclassed.

    A context manager.

    :param state: a :class:`~pyceleryc.events.state.State`.
    :param maxrate: most pictures, such as ``'10/m'``.
    :param cleanup_freq: seconds between calls of :meth:`on_cleanup`.
    """

    clear_after = False

    def __init__(
        self, state: Any, freq: float = 1.0, maxrate: Any = None, cleanup_freq: float = 3600.0,
        timer: Any = None, app: Any = None,
    ) -> None:
        self.app = app_or_default(app)
        self.state = state
        self.freq = freq
        self.cleanup_freq = cleanup_freq
        self.shutter_signal = Signal(name='shutter_signal', providing_args={'state'})
        self.cleanup_signal = Signal(name='cleanup_signal')
        self.maxrate = TokenBucket(rate(maxrate)) if maxrate else None
        self._ended = threading.Event()

    def install(self) -> None:
        """Start taking pictures."""
        for period, action in ((self.freq, self.capture), (self.cleanup_freq, self.cleanup)):
            threading.Thread(target=self._repeat, args=(period, action), daemon=True).start()

    def _repeat(self, period: float, action: Any) -> None:
        while not self._ended.wait(period):
            try:
                action()
            except Exception:
                logger.exception('A picture cannot be taken')

    def on_shutter(self, state: Any) -> None:
        """To be overridden: look at *state*, which does not change meanwhile."""

    def on_cleanup(self) -> None:
        """To be overridden: forget old pictures."""

    def cleanup(self) -> None:
        """Call the handlers of the clean-up."""
        logger.debug('Cleanup: Running...')
        self.cleanup_signal.send(sender=self.state)
        self.on_cleanup()

    def shutter(self) -> None:
        """Take a picture, unless that would be too many."""
        if self.maxrate is None or self.maxrate.can_consume():
            logger.debug('Shutter: %s', self.state)
            self.shutter_signal.send(sender=self.state)
            self.on_shutter(self.state)

    def capture(self) -> None:
        """Take a picture while no event comes in."""
        self.state.freeze_while(self.shutter, clear_after=self.clear_after)

    def cancel(self) -> None:
        """End it."""
        self._ended.set()

    def __enter__(self) -> Polaroid:
        self.install()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.cancel()


def evcam(
    camera: Any, freq: float = 1.0, maxrate: Any = None, loglevel: Any = 0, logfile: str | None = None,
    pidfile: str | None = None, timer: Any = None, app: Any = None, **kwargs: Any,
) -> None:
    """Take pictures with the class *camera* until interrupted."""
    app = app_or_default(app)
    if pidfile:
        platforms.create_pidlock(pidfile)
    app.log.setup_logging_subsystem(loglevel, logfile)
    print(f'-> evcam: Taking snapshots with {camera} (every {freq} secs.)', flush=True)
    state = app.events.State()
    with instantiate(camera, state, app=app, freq=freq, maxrate=maxrate, timer=timer):
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={'*': state.event})
            try:
                receiver.capture(limit=None)
            except (KeyboardInterrupt, SystemExit):
                logger.debug('evcam: interrupted')
