"""Beat inside another program: as a thread, or as a process of its own."""
from __future__ import annotations

import multiprocessing
from threading import Thread
from typing import Any

from pyceleryc import platforms

__all__ = ('BeatProcess', 'BeatThread')

_context = multiprocessing.get_context('fork')
#: Seconds that the end of the program waits for it.
STOP_TIMEOUT = 10.0


class BeatThread(Thread):
    """Runs *service* in a thread that ends with the program."""

    def __init__(self, service: Any) -> None:
        super().__init__(name='Beat', daemon=True)
        self.service = service

    def run(self) -> None:
        """Until :meth:`stop`."""
        self.service.app.set_current()
        self.service.start()

    def stop(self) -> None:
        """Store the schedule and end."""
        self.service.stop(wait=True)


class BeatProcess(_context.Process):  # type: ignore[name-defined]
    """Runs *service* in a process that ends with this one, however that ends."""

    def __init__(self, service: Any) -> None:
        super().__init__(name='Beat')
        self.service = service

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        platforms.set_pdeathsig('SIGTERM')
        platforms.signals.reset('SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2')
        for name in ('SIGTERM', 'SIGINT'):
            platforms.signals[name] = self._on_signal
        self.service.app.set_current()
        try:
            self.service.start(embedded_process=True)
        finally:
            # Exit handlers do not run in a process of multiprocessing.
            self.service.app.close()

    def _on_signal(self, signum: int, frame: Any) -> None:
        self.service.ask_stop()

    def stop(self) -> None:
        """Store the schedule and end."""
        if self.is_alive():
            self.terminate()
            self.join(STOP_TIMEOUT)
        if self.is_alive():
            self.kill()
            self.join()

