"""The short way of ``task.delay()``: one prepared template, one call into the core.

A shortcut does what ``apply_async`` → ``send_task`` → ``AMQP.send`` do when no option is
given, nobody listens, and nothing on that way was replaced (D18).  Everything else returns
None, and the caller goes the long way.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from kombu.common import Broadcast
from kombu.exceptions import OperationalError
from kombu.utils.uuid import uuid

from pyceleryc import _core, signals
from pyceleryc._state import get_current_worker_task
from pyceleryc.app.amqp import AMQP
from pyceleryc.app.messages import TaskMessages, cannot_encode, is_plain_json
from pyceleryc.app.publisher import NO_RETRY, RetryPolicy
from pyceleryc.app.routes import MapRoute, Router
from pyceleryc.app.sending import Sending
from pyceleryc.utils.nodenames import anon_nodename

__all__ = ('Mould', 'Shortcut', 'make_shortcut', 'mould_of', 'no_shortcut')

#: ``shortcut(args, kwargs, task_id)`` returns the result, or None: go the long way.
Shortcut = Callable[[Any, Any, 'str | None'], Any]

_SEND_TASK = Sending.send_task
_AMQP_SEAMS = {
    name: vars(cls)[name]
    for cls, names in (
        (AMQP, ('send', 'send_task_message', 'create_task_message', '_publish')),
        (TaskMessages, ('as_task_v2',)),
    )
    for name in names
}
#: Options of a task that the template knows; others need the long way.
_TEMPLATE_OPTIONS = frozenset({
    'queue', 'exchange', 'routing_key', 'priority', 'delivery_mode', 'time_limit',
    'soft_time_limit', 'ignore_result', 'serializer', 'compression', 'exchange_type',
})


class Mould(NamedTuple):
    """What all messages of a task have in common; groups are sent with it."""

    template: Any
    #: Raises TypeError when arguments do not fit.
    check: Callable[..., Any]
    #: ``deliver(task_id, args, kwargs, reply_to, root_id, parent_id, embed)`` sends one message.
    deliver: Callable[..., Any]
    #: Tells whether the shortcut may be taken now.
    is_usable: Callable[[], bool]


def mould_of(task: Any) -> Mould | None:
    """Return the mould of *task*, or None: its messages have to go the long way."""
    method = getattr(type(task), 'apply_async', None)
    if getattr(method, '__globals__', {}).get('__name__') != 'pyceleryc.app.task':
        # Overridden, or replaced by instrumentation (D18).
        return None
    shortcut = task._shortcut or task._new_shortcut()
    if shortcut is None:
        app = task.app
        _declare(app, app.amqp.router.route(dict(task.exec_options()), task.name, (), {}, task))
        shortcut = task._new_shortcut()
    mould: Mould | None = getattr(shortcut, 'mould', None)
    if mould is None or not mould.is_usable():
        return None
    return mould


def template_with(task: Any, own: dict[str, Any]) -> Any:
    """Return the template of messages of *task* that are sent with options of their own.

    The task has a mould.  None: such messages have to go the long way.
    """
    app = task.app
    options = app.amqp.router.route({**task.exec_options(), **own}, task.name, (), {}, task)
    if not _fits_template(app.conf, options):
        return None
    if not app.amqp.publisher.has_declared(options['queue']):
        _declare(app, options)
    return _template(app, task.name, options)


def _declare(app: Any, options: dict[str, Any]) -> None:
    """Declare the queue: before that there is no shortcut."""
    settings, publisher = app.send_settings, app.amqp.publisher
    policy = RetryPolicy(**settings.retry_policy) if settings.retry else NO_RETRY
    publisher.call(lambda core: publisher.declare(options['queue']), policy)


def no_shortcut(args: Any, kwargs: Any, task_id: str | None) -> None:
    """Stands for "not possible for this task", until its options or the settings change."""


def make_shortcut(task: Any) -> Shortcut | None:
    """Return the shortcut for *task*; None if it may become possible later."""
    app = task.app
    if not _is_plain(task, app) or not _is_static(task, app):
        return no_shortcut
    options = app.amqp.router.route(dict(task.exec_options()), task.name, (), {}, task)
    if not _fits_template(app.conf, options):
        return no_shortcut
    publisher, queue = app.amqp.publisher, options['queue']
    if not publisher.has_declared(queue):
        return None
    return _build(task, app, publisher, _template(app, task.name, options), bool(
        options.get('ignore_result')))


def _is_plain(task: Any, app: Any) -> bool:
    """Tell whether nobody has overridden or replaced a step of the long way."""
    if app._tasks.get(task.name) is not task or not task.has_plain_sending():
        return False
    if 'send_task' in app.__dict__ or type(app).send_task is not _SEND_TASK:
        return False
    amqp = app.amqp
    if amqp.publisher is None or amqp.is_instrumented:
        return False
    return all(
        name not in amqp.__dict__ and _lookup(type(amqp), name) is original
        for name, original in _AMQP_SEAMS.items())


def _lookup(cls: type, name: str) -> Any:
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _is_static(task: Any, app: Any) -> bool:
    """Tell whether all calls of *task* are sent the same way."""
    conf, amqp = app.conf, app.amqp
    return (
        not conf.task_always_eager and not conf.task_send_sent_event
        and conf.task_protocol == 2
        and amqp.task_protocols.get(2) == amqp.as_task_v2
        and type(amqp.router) is Router
        and all(type(route) is MapRoute for route in amqp.routes)
        and task.limits_are_sane())


def _fits_template(conf: Any, options: dict[str, Any]) -> bool:
    given = {name for name, value in options.items() if value is not None}
    return (
        given <= _TEMPLATE_OPTIONS
        and is_plain_json(options.get('serializer') or conf.task_serializer)
        and not (options.get('compression') or conf.task_compression)
        and not isinstance(options['queue'], Broadcast))


def _template(app: Any, name: str, options: dict[str, Any]) -> Any:
    amqp, queue = app.amqp, options['queue']
    exchange, key = amqp._destination(
        queue, options.get('exchange'), options.get('routing_key'), options.get('exchange_type'))
    return _core.TaskTemplate(
        name, exchange, key or '', anon_nodename(),
        amqp._delivery_mode(queue, options.get('delivery_mode')), options.get('priority') or 0,
        options.get('time_limit'), options.get('soft_time_limit'),
        bool(options.get('ignore_result')))


def _build(
    task: Any, app: Any, publisher: Any, template: Any, ignored: bool,
) -> Shortcut:
    """Return the function; everything it needs is a local variable of this one."""
    name, cls, result_class = task.name, type(app), app.AsyncResult
    core, check, backend = publisher.core, task.argument_check(), task.backend
    deliver = _deliverer(publisher, core, template, app._local, name)
    shared_backend = getattr(backend, 'thread_safe', False)
    watches = not ignored and backend.wants_task_call
    inherits_priority = app.conf.task_inherit_parent_priority
    before, after = signals.before_task_publish, signals.after_task_publish
    sent = signals.task_sent
    sequences, mappings = (tuple, list, type(None)), (dict, type(None))

    def shortcut(args: Any, kwargs: Any, task_id: str | None) -> Any:
        if (before.receivers or after.receivers or sent.receivers
                or publisher.current is not core or cls.send_task is not _SEND_TASK):
            task.forget_shortcut()
            return None
        if args.__class__ not in sequences or kwargs.__class__ not in mappings:
            # Unusual types, and wrong ones: the long way knows what to say.
            return None
        check(*args or (), **kwargs or {})
        parent = get_current_worker_task()
        if parent is not None and (inherits_priority or parent.request.stamped_headers):
            return None
        root_id, parent_id = (None, None) if parent is None else _family(parent.request)
        store = backend if shared_backend else task.backend
        reply_to = None
        if watches:
            task_id = task_id or uuid()
            batch = publisher.batch
            if batch is None:
                store.on_task_call(None, task_id)
            else:
                batch.expect(store, task_id)
            reply_to = store.reply_to
        task_id = deliver(task_id, args or (), kwargs or {}, reply_to, root_id, parent_id)
        if task_id is None:
            return None
        result = result_class(task_id, store, name)
        if ignored:
            result.ignored = True
        if parent is not None:
            parent.add_trail(result)
        return result

    usable = partial(_is_usable, task, publisher, core)
    shortcut.mould = Mould(template, check, deliver, usable)  # type: ignore[attr-defined]
    return shortcut


def _family(request: Any) -> tuple[Any, Any]:
    return request.root_id or request.id, request.id


def _is_usable(task: Any, publisher: Any, core: Any) -> bool:
    """Ask what the shortcut itself asks at each call."""
    if (signals.before_task_publish.receivers or signals.after_task_publish.receivers
            or signals.task_sent.receivers or publisher.current is not core
            or type(task.app).send_task is not _SEND_TASK):
        task.forget_shortcut()
        return False
    return True


def _deliverer(
    publisher: Any, core: Any, template: Any, local: Any, name: str,
) -> Callable[..., Any]:
    """Return the function that calls the core and translates its errors."""
    send = core.send

    def deliver(
        task_id: str | None, args: Any, kwargs: Any, reply_to: str | None, root_id: str | None,
        parent_id: str | None, embed: Any = None,
    ) -> Any:
        batch = publisher.batch
        try:
            if batch is not None:
                return batch.core.send(
                    template, task_id, args, kwargs, reply_to or local.oid, root_id, parent_id, 0,
                    None, None, None, None, None, embed, None, None, None)
            return send(
                template, task_id, args, kwargs, reply_to or local.oid, root_id, parent_id, 0,
                None, None, None, None, None, embed, None)
        except _core.ConnectionLost:
            publisher.fail_over()
            return None
        except _core.BadData:
            raise
        except _core.CoreError as exc:
            raise OperationalError(str(exc)) from exc
        except Exception as exc:
            if _can_encode((args, kwargs, embed)):
                # A signal handler has raised while the core was waiting.
                raise
            raise cannot_encode(name, args, kwargs, exc) from exc

    return deliver


def _can_encode(body: Any) -> bool:
    try:
        _core.json_dumps(body)
    except Exception:
        return False
    return True
