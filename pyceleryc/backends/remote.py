"""What stores behind a client library have in common: clear errors, and patience with the server."""
from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pyceleryc._state import get_current_task
from pyceleryc.backends.errors import StoreUnreachable
from pyceleryc.backends.keyvalue import KeyValueStoreBackend
from pyceleryc.exceptions import BackendError, ImproperlyConfigured

__all__ = ('Remote', 'RemoteStore', 'pauses', 'require')

#: The policy of calls that somebody waits for.
ONCE_MORE = {'max_retries': 1}

logger = logging.getLogger('celery.backends')


def require(module: str, extra: str, what: str) -> Any:
    """Import and return *module*.

    :param extra: of this package, which installs it.
    :param what: needs it; for the error.
    :raises ImproperlyConfigured: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ImproperlyConfigured(
            f'{what} needs the module {module}, which cannot be imported ({exc}): '
            f"pip install 'pyceleryc[{extra}]'") from exc


def pauses(policy: Mapping[str, Any]) -> Iterator[float]:
    """Yield the seconds to wait before each new try that a ``retry_policy`` allows."""
    limit, pause, count = policy.get('max_retries', 20), policy.get('interval_start', 0), 0
    while limit is None or count < limit:
        yield pause
        pause = min(pause + policy.get('interval_step', 1), policy.get('interval_max', 1))
        count += 1


class Remote:
    """The part of a backend that calls a client library.

    Where a task's result cannot reach the server it is tried again as :attr:`retry_policy` says
    (default: for about 20 seconds): meanwhile the task's process waits, a message that is
    acknowledged late stays, and the result is kept.
    ``result_backend_transport_options['retry_policy']`` changes that.
    """

    app: Any
    as_uri: Any
    always_retry: bool
    retry_policy: dict[str, Any]
    #: Errors of the library that say that the server cannot be reached now.
    unreachable: tuple[type[BaseException], ...] = ()
    #: Its other errors: the server says no, and will say it again.
    refusals: tuple[type[BaseException], ...] = ()

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(app, *args, **kwargs)  # type: ignore[call-arg]  # a mixin
        options = app.conf.result_backend_transport_options or {}
        if options.get('retry_policy'):
            self.retry_policy = {**self.retry_policy, **options['retry_policy']}

    def reach(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return ``call(*args, **kwargs)``, tried again while the server cannot be reached.

        Inside a task that is as often as :attr:`retry_policy` says, but with
        ``result_backend_always_retry`` those settings rule.  Elsewhere somebody waits, be it a web
        request or the worker's loop: a connection that has become stale gets one more try.

        :raises StoreUnreachable: the server cannot be reached.
        :raises BackendError: the server refuses the call.
        """
        patient = get_current_task() is not None and not self.always_retry
        waits = pauses(self.retry_policy if patient else ONCE_MORE)
        while True:
            try:
                return call(*args, **kwargs)
            except Exception as exc:
                if not self.is_unreachable(exc):
                    if isinstance(exc, self.refusals):
                        raise BackendError(
                            f'The result store {self.as_uri()} refuses the call: {first_line(exc)}') from exc
                    raise
                pause = next(waits, None)
                reason = f'The result store {self.as_uri()} cannot be reached: {first_line(exc)}'
                self.disconnect()
                if pause is None:
                    raise StoreUnreachable(reason) from exc
            if pause:
                logger.warning('%s. Trying again in %s s.', reason, pause)
            time.sleep(pause)

    def is_unreachable(self, exc: BaseException) -> bool:
        """Tell whether *exc* may be gone when the call is repeated."""
        return isinstance(exc, self.unreachable)

    def disconnect(self) -> None:
        """Drop connections that may be broken; called when a call could not reach the server."""

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Tell whether *exc* says that the server cannot be reached."""
        return isinstance(exc, StoreUnreachable)


class RemoteStore(Remote, KeyValueStoreBackend):
    """Documents under keys, each read for itself."""

    supports_native_join = True

    def mget(self, keys: Iterable[Any]) -> Any:
        """Return the values of *keys*."""
        return [self.get(key) for key in keys]


def first_line(exc: BaseException) -> str:
    """Return the name and the first line of an error: the rest may be data."""
    lines = str(exc).strip().splitlines()
    return f'{type(exc).__name__}: {lines[0].strip()}' if lines else type(exc).__name__
