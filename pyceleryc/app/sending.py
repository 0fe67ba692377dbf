"""``Celery.send_task``: from a task's name and arguments to a message (C-007)."""
from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from kombu.utils.uuid import uuid

from pyceleryc._state import get_current_worker_task
from pyceleryc.app.messages import check_iso
from pyceleryc.app.options import check_call
from pyceleryc.canvas.signature import maybe_signature
from pyceleryc.exceptions import AlwaysEagerIgnored
from pyceleryc.utils.functional import maybe_list
from pyceleryc.utils.iso8601 import parse_iso8601
from pyceleryc.utils.locks import shared_property
from pyceleryc.utils.time import maybe_make_aware

__all__ = ('Sending',)

logger = logging.getLogger('celery.app.base')


class SendSettings(NamedTuple):
    """The settings that every message depends on; a lookup costs as much as the message."""

    always_eager: bool
    protocol: int
    send_sent_event: bool
    inherit_parent_priority: bool
    retry: bool
    retry_policy: dict[str, Any]
    serializer: str
    compression: str | None
    delivery_mode: Any

    @classmethod
    def of(cls, conf: Any) -> SendSettings:
        """Read them."""
        return cls(
            conf.task_always_eager, conf.task_protocol, conf.task_send_sent_event,
            conf.task_inherit_parent_priority, conf.task_publish_retry,
            dict(conf.task_publish_retry_policy or {}), conf.task_serializer,
            conf.task_compression, conf.task_default_delivery_mode)


class Sending:
    """The part of :class:`~pyceleryc.app.base.Celery` that sends tasks."""

    amqp: Any
    backend: Any
    conf: Any
    thread_oid: str
    AsyncResult: Any
    now: Any

    @shared_property
    def send_settings(self) -> SendSettings:
        """The settings of sending, until one of them is changed."""
        return SendSettings.of(self.conf)

    def send_task(
        self, name: str, args: Any = None, kwargs: Any = None, countdown: float | None = None,
        eta: Any = None, task_id: str | None = None, producer: Any = None,
        connection: Any = None, router: Any = None, result_cls: Any = None, expires: Any = None,
        publisher: Any = None, link: Any = None, link_error: Any = None,
        add_to_parent: bool = True, group_id: str | None = None,
        group_index: int | None = None, retries: int = 0, chord: Any = None,
        reply_to: str | None = None, time_limit: float | None = None,
        soft_time_limit: float | None = None, root_id: str | None = None,
        parent_id: str | None = None, route_name: str | None = None, shadow: str | None = None,
        chain: Any = None, task_type: Any = None, replaced_task_nesting: int = 0,
        **options: Any,
    ) -> Any:
        """Send a task by its name, which need not be registered here.

        The arguments are those of :meth:`Task.apply_async`; see the Calling guide.

        :param connection: kombu connection to publish on.
        :param producer: kombu producer to publish with (*publisher* is its old name).
        :param router: used instead of the app's.
        :param result_cls: makes the result, given the id.
        :param route_name: name that the routers are asked for, instead of *name*.
        :returns: an AsyncResult.
        :raises OperationalError: the broker cannot be reached.
        """
        amqp, settings = self.amqp, self.send_settings
        task_id = task_id or uuid()
        if settings.always_eager:
            warnings.warn(AlwaysEagerIgnored(
                'task_always_eager has no effect on send_task'), stacklevel=2)
        ignore_result = options.setdefault('ignore_result', False)
        check_call(name, **options, task_id=task_id, countdown=countdown, eta=eta, shadow=shadow, link=link,
                   link_error=link_error, time_limit=time_limit, soft_time_limit=soft_time_limit)
        router = router or amqp.router
        options = router.route(options, route_name or name, args or (), kwargs or {}, task_type)
        if expires is not None:
            options['expiration'] = self._expiration(expires, name, task_id)
        parent = get_current_worker_task() if add_to_parent or not root_id else None
        root_id, parent_id = self._inherit(parent, options, root_id, parent_id)
        message = amqp.create_task_message(
            task_id, name, args, kwargs, countdown, eta, group_id, group_index, expires,
            retries, chord, maybe_list(link), maybe_list(link_error),
            reply_to or self._reply_to(ignore_result), time_limit, soft_time_limit,
            settings.send_sent_event, root_id, parent_id, shadow, chain=chain,
            replaced_task_nesting=replaced_task_nesting, **_message_options(options))
        self._send_message(
            name, task_id, message, producer or publisher, connection,
            not (ignore_result or reply_to), _publishing_options(options))
        return self._sent(result_cls or self.AsyncResult, task_id, ignore_result,
                          parent if add_to_parent else None)

    def _sent(self, result_cls: Any, task_id: str, ignore_result: bool, parent: Any) -> Any:
        result = result_cls(task_id)
        # None of the options is remembered by the result, but get() depends on this one.
        result.ignored = ignore_result
        if parent is not None:
            parent.add_trail(result)
        return result

    def _reply_to(self, ignore_result: bool) -> str:
        if ignore_result:
            return self.thread_oid
        return getattr(self.backend, 'reply_to', None) or self.thread_oid

    def expect_result(self, task_id: str, between: bool = False) -> str:
        """Prepare to receive the result of a task that others will send.

        :param between: more follows in the workflow, and as a rule nobody waits for this one.
        :returns: where it is to be sent to: the ``reply_to`` of the task.
        """
        if self.backend.wants_task_call and not (between and self.backend.finds_late):
            self._expect(self.backend, None, task_id)
        return self._reply_to(False)

    def _expect(self, backend: Any, producer: Any, task_id: str) -> None:
        batch = self.amqp.current_batch
        if batch is None:
            backend.on_task_call(producer, task_id)
        else:
            batch.expect(backend, task_id)

    def send_many(self, signatures: Iterable[Any], **options: Any) -> list[Any]:
        """Send many tasks at once: in one write to RabbitMQ, in one transaction of SQLite.

        :param signatures: signatures (chains, groups and chords, too) or dicts that describe
            them; an iterator is read while the messages are made.
        :param options: for each of them; see :meth:`Task.apply_async`.
        :returns: their results, in order.
        :raises OperationalError: the broker cannot be reached.
        :raises Exception: whatever sending one of them raises; then none is sent.
        """
        with self.amqp.batch():
            return [maybe_signature(sig, app=self._own_or_none(sig)).apply_async(**options)
                    for sig in signatures]

    def _own_or_none(self, sig: Any) -> Any:
        # A signature of a task keeps the app of that task.
        return None if getattr(sig, '_type', None) is not None else self

    def _inherit(
        self, parent: Any, options: dict[str, Any], root_id: str | None, parent_id: str | None,
    ) -> tuple[str | None, str | None]:
        """Take over from the task that sends: its ids, priority and stamps."""
        if parent is None:
            return root_id, parent_id
        request = parent.request
        if self.send_settings.inherit_parent_priority:
            options.setdefault('priority', (request.delivery_info or {}).get('priority'))
        stamped = request.stamped_headers
        if stamped and request.stamps:
            options['stamped_headers'] = sorted({*stamped, *(options.get('stamped_headers') or ())})
            for name in stamped:
                options.setdefault(name, request.stamps.get(name))
        return root_id or request.root_id or request.id, parent_id or request.id

    def _expiration(self, expires: Any, name: str, task_id: str) -> float:
        """Return the seconds until *expires*, at least 0 (C-060..C-062)."""
        check_call(name, expires=expires)
        if isinstance(expires, str):
            check_iso(name, 'expires', expires)
            expires = parse_iso8601(expires)
        if isinstance(expires, datetime):
            now = self.now()
            seconds = (maybe_make_aware(expires, tz=now.tzinfo) - now).total_seconds()
        else:
            seconds = expires
        if seconds < 0:
            logger.warning(
                '%s[%s] expired %.1f seconds before it was sent: no worker will run it',
                name, task_id, -seconds)
            return 0
        return seconds

    def _send_message(
        self, name: str, task_id: str, message: Any, producer: Any, connection: Any,
        is_mine: bool, options: dict[str, Any],
    ) -> None:
        if producer is None and connection is not None:
            producer = self.amqp.Producer(connection, auto_declare=False)
        if is_mine:
            # With a reply_to of its own the result goes to others, or is expected already.
            self._expect(self.backend, producer, task_id)
        self.amqp.send_task_message(producer, name, message, **options)


#: Options that are part of the message, not of publishing.
_MESSAGE_OPTIONS = ('ignore_result', 'argsrepr', 'kwargsrepr', 'origin', 'stamped_headers')


def _message_options(options: dict[str, Any]) -> dict[str, Any]:
    names = (*_MESSAGE_OPTIONS, *(options.get('stamped_headers') or ()))
    return {name: options[name] for name in names if name in options}


def _publishing_options(options: dict[str, Any]) -> dict[str, Any]:
    message = _message_options(options)
    return {name: value for name, value in options.items() if name not in message}
