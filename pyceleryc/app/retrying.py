"""Running a task again, or another one in its place: the part of ``Task`` that does so."""
from __future__ import annotations

import sys
from datetime import datetime
from typing import Any, NoReturn

from pyceleryc import canvas
from pyceleryc.app.options import check_call
from pyceleryc.exceptions import (
    Ignore,
    ImproperlyConfigured,
    MaxRetriesExceededError,
    Reject,
    Retry,
)

__all__ = ('Retrying',)


class Retrying:
    """Mixin of :class:`~pyceleryc.app.task.Task`: ``retry()``, ``replace()`` and what they use."""

    app: Any
    backend: Any
    name: str | None
    request: Any
    max_retries: int | None
    default_retry_delay: float
    signature: Any
    #: Limit that a ``retry()`` in the body gave; read by autoretry (T-157).
    override_max_retries: int | None

    def signature_from_request(
        self, request: Any = None, args: Any = None, kwargs: Any = None, queue: Any = None,
        **extra_options: Any,
    ) -> Any:
        """Return the signature that sends a run like *request* (default: this one) again."""
        request = self.request if request is None else request
        args = request.args if args is None else args
        kwargs = request.kwargs if kwargs is None else kwargs
        options = {**request.as_execution_options(), **extra_options}
        if queue:
            options['queue'] = queue
        else:
            options.update(self._same_way(request.delivery_info or {}, options))
        return self.signature(args, kwargs, **options)

    subtask_from_request = signature_from_request

    def _same_way(self, delivery_info: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options that route a message as the one at hand was (T-131)."""
        way: dict[str, Any] = {}
        priority = delivery_info.get('priority')
        if priority is not None:
            way['priority'] = options.get('priority', priority)
        exchange, key = delivery_info.get('exchange'), delivery_info.get('routing_key')
        if not exchange and key:
            way['queue'] = key
        else:
            way.update((name, value) for name, value in (
                ('exchange', exchange), ('routing_key', key)) if value)
        return way

    # -- retry ------------------------------------------------------------------------------

    def retry(
        self, args: Any = None, kwargs: Any = None, exc: BaseException | None = None,
        throw: bool = True, eta: datetime | None = None, countdown: float | None = None,
        max_retries: int | None = None, **options: Any,
    ) -> Any:
        """Send the running task again (FEATURES 1.8); use it as ``raise self.retry(...)``.

        :param args: other arguments than this time; so *kwargs*.
        :param exc: stored and logged as the reason, and raised when there are no retries left.
        :param throw: False returns the Retry instead of raising it.
        :param countdown: seconds to wait, or *eta*; default ``default_retry_delay``.
        :param max_retries: other limit than the task's for this call.
        :raises Retry: always, if not *throw* is False.
        :raises MaxRetriesExceededError: there are no retries left and *exc* is not given.
        :raises Reject: the new message could not be sent (T-143).
        :raises TypeError: *countdown*, *eta* or *max_retries* is something else.
        """
        request = self.request
        limit = self.max_retries if max_retries is None else max_retries
        if max_retries is not None:
            self.override_max_retries = max_retries
        if request.called_directly:  # as a function: there is nothing to retry (T-141)
            _raise_from_current(exc or Retry('Task can be retried', None))
        check_call(self.name or '', countdown=countdown, eta=eta, max_retries=max_retries)
        if not eta and countdown is None:
            countdown = self.default_retry_delay
        sig = self.signature_from_request(
            request, args, kwargs, countdown=countdown, eta=eta, retries=request.retries + 1,
            ignore_result=request.ignore_result, **options)
        if limit is not None and request.retries + 1 > limit:
            self._give_up(request, sig, exc)
        outcome = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager, sig=sig)
        if not request.is_eager:
            self._send_again(sig)
        if throw:
            raise outcome
        return outcome

    def _give_up(self, request: Any, sig: Any, exc: BaseException | None) -> None:
        if exc is not None:
            _raise_from_current(exc)
        raise MaxRetriesExceededError(
            f"Can't retry {self.name}[{request.id}] args:{sig.args} kwargs:{sig.kwargs}",
            task_args=sig.args, task_kwargs=sig.kwargs)

    def _send_again(self, sig: Any) -> None:
        try:
            sig.apply_async()
        except Exception as error:
            raise Reject(error, requeue=False) from error

    # -- replace ------------------------------------------------------------------------------

    def replace(self, sig: Any) -> Any:
        """Let *sig* run in place of this task, with its id and everything after it.

        :raises Ignore: always in a worker, so use it as ``raise self.replace(...)``.
        :raises ImproperlyConfigured: *sig* has a chord of its own, or is an empty chain.
        """
        if 'chord' in sig.options:
            raise ImproperlyConfigured(
                'A signature replacing a task must not be part of a chord')
        if isinstance(sig, canvas.group):
            # One task must stand for the group: it gives on what the group returned.
            sig |= self.app.tasks['celery.accumulate'].s(index=0)
        if isinstance(sig, canvas._chain) and not sig.tasks:
            raise ImproperlyConfigured('Cannot replace a task by an empty chain')
        self._take_place(sig)
        self.on_replace(sig)
        if self.request.is_eager:
            task_result = sig.apply()
            return task_result.get()
        # As an argument: of a chord the option is the id of its header.
        sig.apply_async(task_id=self.request.id)
        raise Ignore('Replaced by new task')

    def _take_place(self, sig: Any) -> None:
        """Give *sig* what comes after this task, and its identity."""
        request = self.request
        for callback in canvas.maybe_list(request.callbacks) or ():
            sig.link(callback)
        for errback in canvas.maybe_list(request.errbacks) or ():
            sig.link_error(errback)
        chain = request.chain
        if chain:
            # As they are: their ids are those that others wait for.  Both lists are reversed.
            sig.set(chain=[*chain, *(sig.options.get('chain') or ())])
        stamps = dict(request.stamps or {})
        if stamps:
            sig.stamp(visitor=None, **stamps)
        sig.set(
            task_id=request.id, group_id=request.group, group_index=request.group_index,
            chord=request.chord, root_id=request.root_id, reply_to=request.reply_to,
            replaced_task_nesting=(request.replaced_task_nesting or 0) + 1)

    def on_replace(self, sig: Any) -> Any:
        """Called before *sig* replaces this task; to be overridden."""
        return sig

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        """Add *sig* to the chord that this task is in; the backend must be able to.

        :param lazy: return the signature, do not send it.
        :raises ValueError: this task is in no chord.
        """
        request = self.request
        if not request.chord:
            raise ValueError('Current task is not member of any chord')
        sig.set(group_id=request.group, group_index=request.group_index, chord=request.chord,
                root_id=request.root_id)
        result = sig.freeze()
        self.backend.add_to_chord(request.group, result)
        return sig if lazy else sig.delay()


def _raise_from_current(exc: BaseException) -> NoReturn:
    """Raise *exc*, with what is being handled as its cause (X7)."""
    current = sys.exc_info()[1]
    if current is None or current is exc:
        raise exc
    raise exc from current
