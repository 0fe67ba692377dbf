"""Stores of values under keys: the documents of tasks and groups, and chord counters."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pyceleryc import states
from pyceleryc.backends.base import Backend, SyncBackendMixin, join_header
from pyceleryc.exceptions import BackendStoreError, ChordError
from pyceleryc.result import result_from_tuple

__all__ = ('BaseKeyValueStoreBackend', 'KeyValueStoreBackend')


class BaseKeyValueStoreBackend(Backend):
    """A store that overrides :meth:`get`, :meth:`set`, :meth:`delete`, :meth:`mget`.

    With ``implements_incr`` true it also has :meth:`incr` and :meth:`expire`, and chords are
    counted.
    """

    key_t: Any = str
    task_keyprefix: Any = 'celery-task-meta-'
    group_keyprefix: Any = 'celery-taskset-meta-'
    chord_keyprefix: Any = 'chord-unlock-'
    implements_incr = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = self.app.conf.result_backend_transport_options or {}
        prefix = options.get('global_keyprefix') or ''
        if prefix and prefix[-1] not in ':_-.':
            prefix += '_'
        self.global_keyprefix = prefix

    # -- to be overridden -----------------------------------------------------------------------

    def get(self, key: Any) -> Any:
        """Return the value of *key*, or None."""
        raise NotImplementedError(f'{type(self).__name__} must define get()')

    def mget(self, keys: Iterable[Any]) -> Any:
        """Return the values of *keys* in order, or a dict of those that exist."""
        raise NotImplementedError(f'{type(self).__name__} has no mget()')

    def set(self, key: Any, value: Any) -> Any:
        """Store *value* under *key* for ``self.expires`` seconds."""
        raise NotImplementedError(f'{type(self).__name__} must define set()')

    def delete(self, key: Any) -> Any:
        """Delete *key*."""
        raise NotImplementedError(f'{type(self).__name__} must define delete()')

    def incr(self, key: Any) -> int:
        """Add 1 to the number under *key*; return the new number."""
        raise NotImplementedError(f'{type(self).__name__} has no incr()')

    def expire(self, key: Any, value: float) -> Any:
        """Let *key* be deleted in *value* seconds."""
        raise NotImplementedError(f'{type(self).__name__} has no expire()')

    # -- keys -----------------------------------------------------------------------------------

    def _key(self, prefix: str, name: str, key: str) -> Any:
        return self._to_key(f'{self.global_keyprefix}{_text(prefix)}{name}{key}')

    def _to_key(self, text: str) -> Any:
        return text.encode() if self.key_t is bytes else self.key_t(text)

    def get_key_for_task(self, task_id: str, key: str = '') -> Any:
        """Return the key of a task's document."""
        _check_id(task_id)
        return self._key(self.task_keyprefix, task_id, key)

    def get_key_for_group(self, group_id: str, key: str = '') -> Any:
        """Return the key of a saved group; with *key* that of a part of its chord."""
        _check_id(group_id)
        return self._key(self.group_keyprefix, group_id, key)

    def get_key_for_chord(self, group_id: str, key: str = '') -> Any:
        """Return the key of a chord's counter."""
        _check_id(group_id)
        return self._key(self.chord_keyprefix, group_id, key)

    def _strip_prefix(self, key: Any) -> str:
        text = _text(key)
        for prefix in (self.task_keyprefix, self.group_keyprefix, self.chord_keyprefix):
            whole = f'{self.global_keyprefix}{_text(prefix)}'
            if text.startswith(whole):
                return text[len(whole):]
        return text

    # -- tasks ----------------------------------------------------------------------------------

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None,
        request: Any = None, **kwargs: Any,
    ) -> Any:
        document = self._encode_document(task_id, result, state, traceback, request)
        try:
            # A late state of an earlier run must not replace the result (T-201).
            if self._get_task_meta_for(task_id)['status'] == states.SUCCESS:
                return result
            self._set_with_state(self.get_key_for_task(task_id), document, state)
        except ValueError as exc:
            raise BackendStoreError(str(exc), state=state, task_id=task_id) from exc
        return result

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        """Store a document; to be overridden by stores that keep it according to *state*."""
        return self.set(key, value)

    def _get_task_meta_for(self, task_id: str) -> Any:
        payload = self.get(self.get_key_for_task(task_id))
        return self.decode_result(payload) if payload else self.pending_meta()

    def _forget(self, task_id: str) -> None:
        self.delete(self.get_key_for_task(task_id))

    # -- many tasks -----------------------------------------------------------------------------

    get_many = SyncBackendMixin.get_many

    def _ready_of(self, task_ids: list[str], ready: Any) -> Iterator[tuple[str, Any]]:
        keys = [self.get_key_for_task(task_id) for task_id in task_ids]
        for task_id, meta in self._mget_to_results(self.mget(keys), keys, ready).items():
            yield task_id, self._remember(task_id, meta)

    def _mget_to_results(
        self, values: Any, keys: list[Any], READY_STATES: Any = states.READY_STATES,  # noqa: N803
    ) -> dict[str, Any]:
        pairs = values.items() if hasattr(values, 'items') else zip(keys, values, strict=True)
        metas = {self._strip_prefix(key): self.decode_result(value)
                 for key, value in pairs if value is not None}
        return {key: meta for key, meta in metas.items() if meta['status'] in READY_STATES}

    # -- groups ---------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        document = self.encode({'result': result.as_tuple()})
        self._set_with_state(self.get_key_for_group(group_id), document, states.SUCCESS)
        return result

    def _restore_group(self, group_id: str) -> Any:
        payload = self.get(self.get_key_for_group(group_id))
        if not payload:
            return None
        meta = self.decode(payload)
        meta['result'] = result_from_tuple(meta['result'], self.app)
        return meta

    def _delete_group(self, group_id: str) -> None:
        self.delete(self.get_key_for_group(group_id))

    # -- chords, counted --------------------------------------------------------------------------

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Prepare to count the header's tasks, or send the task that looks after them."""
        if not self.implements_incr:
            super().apply_chord(header_result_args, body, **kwargs)
            return
        self.ensure_chords_allowed()
        header = self.app.GroupResult(*header_result_args)
        self.prepare_count(header.id)
        header.save(backend=self)

    def prepare_count(self, group_id: str) -> None:
        """Called before a chord's tasks are sent; for stores whose :meth:`incr` needs a number."""

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, **kwargs: Any,
    ) -> None:
        """Count the task; send the chord's body if it was the last."""
        if not self.implements_incr or not request.group:
            return
        key, mark = self.get_key_for_chord(request.group), self._mark_of(request, state)
        body = self.app.signature(request.chord)
        again = mark is not None and self.get(mark) is not None
        try:
            header = self.restore_group(request.group, cache=False)
            if header is None:
                if again:
                    return
                raise ChordError(f'GroupResult {request.group} no longer exists')
        except Exception as exc:
            self.chord_error_from_stack(body, ChordError(f'Cannot restore group: {exc!r}'))
            return
        if again:
            # It may be that the process that counted the last one has died before it could send the body.
            last = all(result.ready() for result in header)
        else:
            try:
                last = self.incr(key) >= len(header)
            except ChordError as exc:
                self.chord_error_from_stack(body, exc)
                return
            if mark is not None:
                self.set(mark, b'1')
            if not last:
                self.expire(key, self.expires)
        if not last:
            return
        try:
            self.finish_chord(body, lambda: self._header_values(header))
        finally:
            header.delete(backend=self)
            self.delete(key)

    def _mark_of(self, request: Any, state: str) -> Any:
        """Return the key that says that a part is counted; None for one that cannot come twice.

        A message that is acknowledged late may be delivered again, and what a worker stores of a process that is gone is
        tried until it is stored.
        """
        task = self.app.tasks.get(request.task)
        if not request.id or (state == states.SUCCESS and task is not None and not task.acks_late):
            return None
        return self.get_key_for_task(request.id, '.counted')

    def _header_values(self, header: Any) -> list[Any]:
        try:
            return join_header(header, self.app.conf.result_chord_join_timeout)
        except Exception as exc:
            culprit = next((result.id for result in header._failed_join_report()), None)
            raise ChordError(f'Dependency {culprit} raised {exc!r}') from exc


class KeyValueStoreBackend(BaseKeyValueStoreBackend, SyncBackendMixin):
    """A key-value store that is asked again and again."""


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else str(key)


def _check_id(value: Any) -> None:
    if not value:
        raise ValueError(f'{value!r} is no id of a task or group: it would name the wrong key')
