"""What happens when the state of a task changes: storing it, and telling those who depend on it."""
from __future__ import annotations

import inspect
import logging
from typing import Any

from pyceleryc import states
from pyceleryc.app.context import Context
from pyceleryc.exceptions import TaskRevokedError
from pyceleryc.utils.functional import arity_greater

__all__ = ('Marks', 'context_of')

logger = logging.getLogger('celery.backends.base')


class Marks:
    """The part of a backend that the worker calls when a run begins and ends."""

    app: Any
    store_result: Any
    on_chord_part_return: Any

    def mark_as_started(self, task_id: str, request: Any = None, **meta: Any) -> Any:
        """Store STARTED with *meta*, which is ``pid`` and ``hostname`` (T-221)."""
        return self.store_result(task_id, meta, states.STARTED, request=request)

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """Store SUCCESS with the return value, and count the task in its chord."""
        in_chord = request is not None and request.chord
        if in_chord and store_result and self._store_and_count(task_id, result, request, state):
            return
        if store_result:
            self.store_result(task_id, result, state, request=request)
        if in_chord:
            self.on_chord_part_return(request, state, result)

    def _store_and_count(self, task_id: str, result: Any, request: Any, state: str) -> bool:
        """Store the result of a header's task and count it, if both can be done at once."""
        return False

    def mark_as_failure(
        self, task_id: str, exc: BaseException, traceback: str | None = None,
        request: Any = None, store_result: bool = True, call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store FAILURE; fail the rest of its chain, count it in its chord, tell errbacks.

        :param traceback: text.
        :param request: :class:`Context` of the run; without it nobody is told.
        :param store_result: False if results of the task are ignored.
        """
        if store_result:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)
        if request is None:
            return
        if request.chord:
            self.on_chord_part_return(request, state, exc)
        # The list has the last task first.  It is stored last, for it is the one waited for.
        for signature in reversed(request.chain or ()):
            self._fail_link(signature, exc, traceback, state, store_result)
        if call_errbacks and request.errbacks:
            self._call_task_errbacks(request, exc, traceback)

    def mark_as_revoked(
        self, task_id: str, reason: Any = '', request: Any = None, store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Store REVOKED with ``TaskRevokedError(reason)`` (T-225)."""
        exc = TaskRevokedError(reason)
        if store_result:
            self.store_result(task_id, exc, state, traceback=None, request=request)
        if request is not None and request.chord:
            self.on_chord_part_return(request, state, exc)

    def mark_as_retry(
        self, task_id: str, exc: BaseException | None, traceback: str | None = None,
        request: Any = None, store_result: bool = True, state: str = states.RETRY,
    ) -> Any:
        """Store RETRY with the exception that caused it (T-224)."""
        if not store_result:
            return None
        return self.store_result(task_id, exc, state, traceback=traceback, request=request)

    # -- the rest of a chain ------------------------------------------------------------------

    def _fail_link(
        self, signature: Any, exc: BaseException, traceback: Any, state: str, store: bool,
    ) -> None:
        """Tasks that will never be sent fail too, or get() on the last would wait for ever."""
        for step in _tasks_of(signature):
            context = context_of(step)
            if store and context.id:
                self.store_result(context.id, exc, state, traceback=traceback, request=context)
            if context.chord:
                self.on_chord_part_return(context, state, exc)

    # -- errbacks -------------------------------------------------------------------------------

    def _call_task_errbacks(self, request: Any, exc: BaseException, traceback: Any) -> None:
        """Call the errbacks that take (request, exc, traceback); send the others (X20)."""
        to_send = []
        for errback in request.errbacks:
            signature = self.app.signature(errback)
            if self._wants_details(signature):
                self._guarded(signature, lambda s: s(request, exc, traceback))
            else:
                to_send.append(signature)
        for signature in to_send:
            self._guarded(signature, lambda s: self._send_errback(s, request))

    def _wants_details(self, signature: Any) -> bool:
        task = self.app.tasks.get(signature.task)
        if task is None:
            # Another worker knows it.
            return False
        header = getattr(task, '__header__', None)
        return header is not None and not _is_bound(task) and arity_greater(header, 1)

    def _send_errback(self, signature: Any, request: Any) -> None:
        options = {'parent_id': request.id, 'root_id': request.root_id or request.id}
        eager = (request.delivery_info or {}).get('is_eager') or self.app.conf.task_always_eager
        send = signature.apply if eager else signature.apply_async
        send((request.id,), **options)

    def _guarded(self, signature: Any, call: Any) -> None:
        """One errback that fails must neither stop the others nor change the stored error."""
        try:
            call(signature)
        except Exception:
            logger.exception('Errback %r raised an exception', signature.task)


def _is_bound(task: Any) -> bool:
    """Tell whether *task* was made of a function with ``bind=True``."""
    run = inspect.getattr_static(task, 'run', None)
    return '__wrapped__' in vars(type(task)) and not isinstance(run, staticmethod)


def _tasks_of(signature: Any) -> list[Any]:
    """Return the signatures of the tasks whose results a step of a chain stands for."""
    kwargs = signature.get('kwargs') or {}
    kind = signature.get('subtask_type')
    if kind == 'chord':
        # The step counts as done when its body is.
        return _tasks_of(kwargs['body']) if kwargs.get('body') else [signature]
    if kind in ('group', 'chain'):
        members = kwargs.get('tasks') or ()
        return [task for member in members for task in _tasks_of(member)]
    return [signature]


def context_of(signature: Any) -> Context:
    """Return the request that the task of *signature* would have had."""
    options = signature.get('options') or {}
    return Context(
        id=options.get('task_id'), task=signature.get('task'),
        args=signature.get('args'), kwargs=signature.get('kwargs'),
        errbacks=options.get('link_error') or [], delivery_info={},
        chord=options.get('chord'), chain=options.get('chain'),
        group=options.get('group_id'), group_index=options.get('group_index'),
        root_id=options.get('root_id'), parent_id=options.get('parent_id'),
        reply_to=options.get('reply_to'), headers={},
    )
