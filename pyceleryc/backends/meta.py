"""The documents in which results are stored (PROTOCOL §3.5.1)."""
from __future__ import annotations

from typing import Any

from kombu.serialization import dumps, loads

from pyceleryc import states
from pyceleryc._state import get_current_task
from pyceleryc.result import ResultBase

__all__ = ('Documents',)


class Documents:
    """The part of a backend that makes and reads result documents."""

    app: Any
    serializer: str
    content_type: str
    content_encoding: str
    accept: Any
    prepare_exception: Any
    exception_to_python: Any
    EXCEPTION_STATES: Any
    READY_STATES: Any

    # -- any data ---------------------------------------------------------------------------

    def _encode(self, data: Any) -> tuple[str, str, Any]:
        """Return (content type, content encoding, serialized *data*)."""
        content_type, encoding, payload = dumps(data, serializer=self.serializer)
        return content_type, encoding, payload

    def encode(self, data: Any) -> Any:
        """Return *data* serialized with the setting ``result_serializer``.

        :raises kombu.exceptions.EncodeError: the serializer cannot.
        """
        return self._encode(data)[2]

    def decode(self, payload: Any) -> Any:
        """Undo :meth:`encode`.

        :raises kombu.exceptions.ContentDisallowed: the serializer is not in
            ``result_accept_content``.
        """
        if payload is None:
            return None
        return loads(payload, content_type=self.content_type,
                     content_encoding=self.content_encoding, accept=self.accept)

    # -- results ----------------------------------------------------------------------------

    def prepare_value(self, result: Any) -> Any:
        """Return *result* as the document carries it: results of others become tuples."""
        if self.serializer != 'pickle' and isinstance(result, ResultBase):
            return result.as_tuple()  # type: ignore[attr-defined]  # all kinds of results have it
        return result

    def encode_result(self, result: Any, state: str) -> Any:
        """Return the value or exception *result* as the document carries it."""
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return self.prepare_value(result)

    def decode_result(self, payload: Any) -> Any:
        """Return the meta dict in the document *payload*."""
        return self.meta_from_decoded(self.decode(payload))

    def meta_from_decoded(self, meta: Any) -> Any:
        """Make exceptions of the dicts that stand for them."""
        if meta['status'] in self.EXCEPTION_STATES:
            meta['result'] = self.exception_to_python(meta['result'])
        return meta

    def current_task_children(self, request: Any = None) -> list[Any] | None:
        """Return the tuples of the results of the tasks that *request* has sent.

        :param request: default: that of the task that is running; None if there is none.
        """
        request = request or getattr(get_current_task(), 'request', None)
        if request is None:
            return None
        return [child.as_tuple() for child in getattr(request, 'children', None) or ()]

    def make_document(
        self, task_id: str, result: Any, state: str, traceback: str | None = None,
        request: Any = None,
    ) -> bytes:
        """Return the encoded document of a result, which is not stored.

        :param result: value or exception of the task.
        :param traceback: text; with *state* one of the exception states.
        :param request: :class:`Context` of the run; gives children, group and parent.
        :raises kombu.exceptions.EncodeError: the result cannot be serialized.
        """
        return self._encode_document(
            task_id, self.encode_result(result, state), state, traceback, request)

    def _encode_document(
        self, task_id: str, result: Any, state: str, traceback: Any, request: Any,
    ) -> Any:
        meta = self._get_result_meta(result, state, traceback, request)
        meta['task_id'] = task_id
        data = self.encode(meta)
        # Stores of others may encode to something else, which only they put away.
        return data.encode() if isinstance(data, str) else data

    def _get_result_meta(
        self, result: Any, state: str, traceback: Any, request: Any, format_date: bool = True,
        encode: bool = False,
    ) -> dict[str, Any]:
        """Return the meta dict without its last key, ``task_id``.

        :param result: as :meth:`encode_result` returns it.
        :param format_date: ``date_done`` as ISO-8601 text, else a datetime.
        :param encode: serialize arguments, for stores with a column for each.
        """
        done = self.app.now() if state in self.READY_STATES else None
        if done is not None and format_date:
            done = done.isoformat()
        meta = {
            'status': state,
            'result': result,
            'traceback': traceback,
            'children': self.current_task_children(request),
            'date_done': done,
        }
        for key, name in (('group_id', 'group'), ('parent_id', 'parent_id')):
            value = getattr(request, name, None)
            if value:
                meta[key] = value
        if self.app.conf.result_extended:
            meta.update(self._extended(request, encode))
        return meta

    def _extended(self, request: Any, encode: bool = False) -> dict[str, Any]:
        """Return what the setting ``result_extended`` adds (C-145)."""
        if request is None:
            return {}
        args, kwargs = getattr(request, 'args', None), getattr(request, 'kwargs', None)
        fields = {
            'name': getattr(request, 'task', None),
            'args': self.encode(args) if encode else args,
            'kwargs': self.encode(kwargs) if encode else kwargs,
            'worker': getattr(request, 'hostname', None),
            'retries': getattr(request, 'retries', None),
            'queue': (getattr(request, 'delivery_info', None) or {}).get('routing_key'),
        }
        stamps = getattr(request, 'stamps', None)
        if stamps:
            fields['stamped_headers'] = getattr(request, 'stamped_headers', None)
            fields.update(stamps)
        return fields

    def pending_meta(self) -> dict[str, Any]:
        """Return what is said about ids of which nothing is stored (T-220)."""
        return {'status': states.PENDING, 'result': None}
