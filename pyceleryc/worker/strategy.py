"""What becomes of a message that has come: ``Task.Strategy`` (FEATURES 2.10).

For tasks with the default strategy and the default class of requests the machine decides alone. For others a function is called
with each message in the worker's main process: what :meth:`Task.start_strategy` returns.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.imports import symbol_by_name
from pyceleryc.worker.message import TaskMessage
from pyceleryc.worker.protocol1 import body_of_mapping
from pyceleryc.worker.request import Request

if TYPE_CHECKING:
    from pyceleryc.app.task import Task
    from pyceleryc.worker.machine import MachineHooks

__all__ = ('default', 'hybrid_to_proto2', 'proto1_to_proto2', 'Customs', 'request_class')

logger = logging.getLogger('celery.worker.strategy')

Handler = Callable[..., Any]


def default(task: Task, app: Any, consumer: Any, **kwargs: Any) -> Handler:
    """Return the function that hands every message on, to run when its time has come.

    It is called as ``handler(message, body, ack, reject, callbacks)``; strategies of user code call it in the end, or settle
    the message by ``ack()`` or ``reject()`` instead.
    """
    cls = request_class(task)
    hooks = consumer.machine.hooks
    eventer = consumer.event_dispatcher

    def task_message_handler(message: TaskMessage, body: Any = None, ack: Any = None, reject: Any = None,
                             callbacks: Any = (), **kwargs: Any) -> None:
        request = cls(message, on_ack=ack, on_reject=reject, hostname=consumer.hostname, eventer=eventer, app=app, task=task)
        message.wanted = True
        hooks.customs.follow(request)
        hooks.note_received(message.headers, request.id, request.name, request)
        for callback in callbacks or ():
            callback(request)

    return task_message_handler


def request_class(task: Task) -> type[Request]:
    """Return the class of the task's requests.

    :raises ImproperlyConfigured: it is no subclass of ours.
    """
    if task.Request in _DEFAULT_REQUESTS:
        return Request
    try:
        cls = symbol_by_name(task.Request)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(f'Task {task.name}: there is no Request class {task.Request!r}: {exc}') from exc
    if not (isinstance(cls, type) and issubclass(cls, Request)):
        raise ImproperlyConfigured(
            f'Task {task.name}: its Request, {task.Request!r}, is not derived from celery.worker.request.Request')
    return cls


class Customs:
    """The tasks of a worker that have a strategy or a class of requests of their own, and what runs of them."""

    def __init__(self, hooks: MachineHooks) -> None:
        self.hooks = hooks
        self._handlers: dict[str, Handler] = {}
        #: By id; there are two of one id when a task is tried again before it has ended.
        self.running: dict[str, list[Request]] = {}

    def concerns(self, task: Task) -> bool:
        """Has the task a strategy or a class of requests of its own?"""
        return task.Strategy not in _DEFAULTS or request_class(task) is not Request

    def follows(self, task: Task) -> bool:
        """Has it a class of requests that wants to know how it goes?"""
        return request_class(task) is not Request

    def follow(self, request: Request) -> None:
        """Tell *request* what happens to it."""
        if type(request) is not Request:
            self.running.setdefault(request.id, []).append(request)

    def forget_unstarted(self) -> None:
        """The connection is lost: what has not begun comes again."""
        for task_id, requests in list(self.running.items()):
            requests[:] = [request for request in requests if request.begun]
            if not requests:
                del self.running[task_id]

    def forget(self, task_id: str) -> None:
        """It does not run, or will come again."""
        self._first(task_id, remove=True)

    def _first(self, task_id: str, remove: bool) -> Request | None:
        requests = self.running.get(task_id)
        if not requests:
            return None
        first = requests[0]
        if remove:
            del requests[0]
            if not requests:
                del self.running[task_id]
        return first

    def handle(self, task: Task, message: TaskMessage) -> str | None:
        """Ask the strategy of *task*; return None, or how the message is settled."""
        handler = self._handlers.get(task.name)
        if handler is None:
            handler = self._handlers[task.name] = task.start_strategy(self.hooks.app, self.hooks.machine.consumer)
        try:
            handler(message, None, message.ack_log_error, message.reject_log_error, ())
        except Exception as exc:  # as in Celery: going on would lose messages
            logger.exception('The strategy of %s failed', task.name)
            self.hooks.machine.consumer.controller.fail(exc)
            return 'stop'
        if message.fate is None and not message.wanted:
            self.hooks.machine.consumer.controller.fail(ImproperlyConfigured(
                f'The strategy of {task.name}, {task.Strategy!r}, has neither handed a message on nor settled it: '
                'this worker does not keep messages for strategies'))
            return 'stop'
        return message.fate

    def tell(self, task_id: str, method: str, *args: Any, last: bool = False, **kwargs: Any) -> bool:
        """Call a method of the task's request, if it is of a class of its own."""
        request = self._first(task_id, remove=last)
        if request is None:
            return False
        request.begun = request.begun or method == 'on_accepted'
        try:
            getattr(request, method)(*args, **kwargs)
        except Exception as exc:
            logger.exception('%s of the request of %s failed: %r', method, request, exc)
        return True


_DEFAULT_REQUESTS: Any = ('pyceleryc.worker.request:Request', 'celery.worker.request:Request', Request)
#: Names and objects of the default strategy.
_DEFAULTS: Any = ('pyceleryc.worker.strategy:default', 'celery.worker.strategy:default', default)


def proto1_to_proto2(message: Any, body: Mapping[str, Any]) -> tuple[Any, dict[str, Any], bool, bool]:
    """Return (body, headers, decoded, utc) of a message of protocol 1 as one of protocol 2 has them."""
    if not isinstance(body, Mapping) or 'id' not in body or 'task' not in body:
        raise ValueError('this is no task message of protocol 1: "task" or "id" is missing')
    args, kwargs, embed = body_of_mapping(body)
    if not isinstance(kwargs, Mapping):
        raise ValueError('the keyword arguments of a task message are not a mapping')
    fields = {name: value for name, value in body.items() if name not in ('args', 'kwargs', *embed)}
    headers = {**fields, 'argsrepr': repr(args), 'kwargsrepr': repr(kwargs), 'group': fields.get('taskset'),
               'timelimit': fields.get('timelimit') or (None, None)}
    return (args, kwargs, embed), headers, True, bool(fields.get('utc', True))


def hybrid_to_proto2(message: Any, body: Mapping[str, Any]) -> tuple[Any, dict[str, Any], bool, bool]:
    """The same for a message whose headers are of protocol 2 and whose body is of protocol 1."""
    made, headers, decoded, utc = proto1_to_proto2(message, body)
    return made, {**(message.headers or {}), **headers}, decoded, utc
