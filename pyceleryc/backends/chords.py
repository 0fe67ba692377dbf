"""Chords in stores that cannot count: a task that looks again and again (FEATURES 2.3)."""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pyceleryc.backends.marks import context_of
from pyceleryc.exceptions import ChordError

__all__ = ('Chords',)

logger = logging.getLogger('celery.backends.base')


class Chords:
    """The part of a backend that brings the results of a group to the body of its chord."""

    app: Any
    mark_as_failure: Any

    def ensure_chords_allowed(self) -> None:
        """To be overridden by backends that cannot do chords: raise NotImplementedError."""

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Make sure that *body* is sent when the header is done; called before it is sent.

        :param header_result_args: arguments of the header's GroupResult.
        :param body: signature.
        """
        self.ensure_chords_allowed()
        self.fallback_chord_unlock(self.app.GroupResult(*header_result_args), body, **kwargs)

    def fallback_chord_unlock(
        self, header_result: Any, body: Any, countdown: float = 1, **kwargs: Any,
    ) -> None:
        """Send ``celery.chord_unlock``, which waits for the header by looking every second."""
        kwargs['result'] = [result.as_tuple() for result in header_result]
        options = {'countdown': countdown}
        body_type = self.app.tasks.get(body.task)
        for name in ('queue', 'priority'):
            value = body.options.get(name, getattr(body_type, name, None))
            if value is not None:
                options[name] = value
        self.app.tasks['celery.chord_unlock'].apply_async(
            (header_result.id, body), kwargs, **options)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Note how many tasks the header has; for backends that count."""

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, **kwargs: Any,
    ) -> None:
        """A task of a header ended; for backends that count."""

    def resume_chord(self, request: Any) -> None:
        """Send the body if all of the header have been counted, but who counted the last was killed
        then; for backends that count and can look without counting."""

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Add *result* to the header of a chord that runs already.

        :raises NotImplementedError: this backend cannot; Redis can.
        """
        raise NotImplementedError(
            f'{type(self).__name__} cannot add tasks to a running chord; the Redis backend can')

    def finish_chord(self, body: Any, get_values: Callable[[], list[Any]]) -> None:
        """Send *body* with what *get_values* returns; if that fails the chord fails."""
        try:
            values = get_values()
        except ChordError as exc:
            logger.info('Chord %r failed: %s', body.id, exc)
            self.chord_error_from_stack(body, exc)
            return
        try:
            body.delay(values)
        except Exception as exc:
            logger.exception('The body of chord %r cannot be sent', body.id)
            self.chord_error_from_stack(body, ChordError(f'Callback error: {exc!r}'))

    def chord_error_from_stack(self, callback: Any, exc: BaseException | None = None) -> None:
        """Store that the chord with the body *callback* failed, and tell its errbacks (C-030).

        :param exc: a ChordError that says why.
        """
        error = exc if exc is not None else ChordError('The chord failed')
        for body in _bodies(callback):
            request = context_of(body)
            self.mark_as_failure(request.id, error, request=request)


def _bodies(signature: Any) -> list[Any]:
    """Return the tasks that fail in place of the body: all members, if that is a group."""
    if signature.get('subtask_type') == 'group':
        members = (signature.get('kwargs') or {}).get('tasks') or ()
        return [body for member in members for body in _bodies(member)]
    if signature.get('subtask_type') == 'chain':
        steps = list((signature.get('kwargs') or {}).get('tasks') or ())
        return _bodies(steps[-1]) if steps else []
    return [signature]
