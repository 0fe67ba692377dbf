"""Signals: named events and the functions that are called when they happen (FEATURES 2.6)."""
from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from kombu.utils.functional import retry_over_time

from pyceleryc.local import PromiseProxy, Proxy
from pyceleryc.utils.deprecated import warn
from pyceleryc.utils.functional import fun_accepts_kwargs
from pyceleryc.utils.locks import new_rlock
from pyceleryc.utils.log import get_logger
from pyceleryc.utils.time import humanize_seconds

__all__ = ('Signal',)

logger = get_logger('celery.utils.dispatch.signal')

RECEIVER_RETRY_ERROR = 'Signal handler %(receiver)r failed, it is called again %(when)s'


def _identity(target: Any) -> Any:
    """Return what tells *target* from others, also after it was found anew."""
    if issubclass(type(target), Proxy):
        target = target._get_current_object()
    if target is None or isinstance(target, (str, bytes)):
        return target
    if hasattr(target, '__func__'):
        # Each access to a method makes a new object.
        return id(target.__self__), id(target.__func__)
    return id(target)


def _weak_reference(receiver: Any, on_death: Callable[[Any], None]) -> weakref.ref[Any]:
    if hasattr(receiver, '__func__') and hasattr(receiver, '__self__'):
        return weakref.WeakMethod(receiver, on_death)
    return weakref.ref(receiver, on_death)


def _retrying(receiver: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls *receiver* again until it does not fail."""

    def on_error(exc: BaseException, intervals: Any, retries: int) -> float:
        interval = float(next(intervals))
        logger.error(RECEIVER_RETRY_ERROR, {
            'receiver': receiver, 'when': humanize_seconds(interval, 'in', ' '),
        })
        return interval

    @functools.wraps(receiver)
    def retry(*args: Any, **kwargs: Any) -> Any:
        return retry_over_time(receiver, Exception, args, kwargs, on_error)

    return retry


class Signal:
    """An event that functions can be connected to.

    :param providing_args: names of what receivers get, for documentation.
    :param name: shown in logs.

    ``receivers`` is one list for the life of the signal and empty when nobody
    listens, so its truth is the cheap test before anything is prepared to be sent.
    Its items are (key, weak reference or function).
    """

    def __init__(
        self, providing_args: Iterable[str] | None = None, use_caching: bool = False,
        name: str | None = None,
    ) -> None:
        self.name = name
        self.providing_args = set(providing_args or ())
        self.use_caching = use_caching
        self.receivers: list[tuple[tuple[Any, Any], Any]] = []
        # Reentrant: a receiver may die, and be removed, while the lock is held.
        self.lock = new_rlock()

    # -- connecting ---------------------------------------------------------------------

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect a receiver; with keywords only, return a decorator that does.

        :param receiver: called with ``signal``, ``sender`` and the values sent.
        :param sender: listen to this sender only.
        :param weak: do not keep the receiver alive.
        :param dispatch_uid: connecting again under the same id does nothing.
        :param retry: call it again, later and later, while it raises.
        :raises ValueError: the receiver does not take any keyword arguments.
        """
        if args:
            receiver, *rest = args
            options = dict(zip(('sender', 'weak', 'dispatch_uid', 'retry'), rest, strict=False))
            return self._connect(receiver, **options, **kwargs)
        return lambda receiver: self._connect(receiver, **kwargs)

    def _connect(
        self, receiver: Any, sender: Any = None, weak: bool = True, dispatch_uid: Any = None,
        retry: bool = False,
    ) -> Any:
        if not callable(receiver):
            raise TypeError(f'signal receivers must be callable, not {receiver!r}')
        if not fun_accepts_kwargs(receiver):
            raise ValueError('Signal receiver must accept keyword arguments.')
        if issubclass(type(sender), PromiseProxy) and not sender.__evaluated__():
            # Wait for the task rather than force its app to be finalized now.
            sender.__then__(self._connect, receiver, sender, weak, dispatch_uid, retry)
            return receiver
        self._add((_identity(dispatch_uid or receiver), _identity(sender)), receiver, weak, retry)
        return receiver

    def _add(self, key: tuple[Any, Any], receiver: Any, weak: bool, retry: bool) -> None:
        held: Any = receiver
        if retry:
            # The function that retries is ours alone; a weak reference would be dead.
            held = _retrying(receiver)
        elif weak:
            held = _weak_reference(receiver, self._on_death)
        with self.lock:
            if not any(known == key for known, _ in self.receivers):
                self.receivers.append((key, held))

    def _on_death(self, reference: Any) -> None:
        with self.lock:
            self.receivers[:] = [item for item in self.receivers if item[1] is not reference]

    def disconnect(
        self, receiver: Any = None, sender: Any = None, weak: bool | None = None,
        dispatch_uid: Any = None,
    ) -> bool:
        """Disconnect a receiver, by itself or its *dispatch_uid*; tell whether it was there."""
        if weak is not None:
            warn('Passing `weak` to disconnect', removal='6.0', alternative='It has no effect.')
        key = (_identity(dispatch_uid or receiver), _identity(sender))
        with self.lock:
            for index, (known, _) in enumerate(self.receivers):
                if known == key:
                    del self.receivers[index]
                    return True
        return False

    # -- sending --------------------------------------------------------------------------

    def has_listeners(self, sender: Any = None) -> bool:
        """Tell whether anything would be called for *sender*."""
        return bool(self.receivers) and bool(self._live_receivers(sender))

    def _live_receivers(self, sender: Any) -> list[Any]:
        wanted = _identity(sender)
        live = []
        for (_, listens_to), held in list(self.receivers):
            if listens_to is None or listens_to == wanted:
                receiver = held() if isinstance(held, weakref.ref) else held
                if receiver is not None:
                    live.append(receiver)
        return live

    def send(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        """Call the receivers; return pairs of each and its answer, or what it raised.

        Exceptions are logged and do not keep others from being called.
        """
        if not self.receivers:
            return []
        responses: list[tuple[Any, Any]] = []
        for receiver in self._live_receivers(sender):
            try:
                response = receiver(signal=self, sender=sender, **named)
            except Exception as exc:
                logger.exception('Signal handler %r raised: %r', receiver, exc)
                response = exc
            responses.append((receiver, response))
        return responses

    send_robust = send

    def __repr__(self) -> str:
        return f'<{type(self).__name__}: {self.name} providing_args={self.providing_args!r}>'

    __str__ = __repr__
