"""Tasks: classes whose instances are called here, or sent to be run by a worker."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu import serialization
from kombu.exceptions import OperationalError
from kombu.utils.uuid import uuid

from pyceleryc import canvas
from pyceleryc._state import _task_stack, current_app
from pyceleryc.app.annotations import resolve_all as resolve_all_annotations
from pyceleryc.app.context import Context
from pyceleryc.app.messages import check_shape
from pyceleryc.app.options import check_task
from pyceleryc.app.registry import _unpickle_task_v2
from pyceleryc.app.retrying import Retrying
from pyceleryc.app.utils import appstr
from pyceleryc.exceptions import MaxRetriesExceededError
from pyceleryc.utils.imports import instantiate
from pyceleryc.utils.log import get_task_logger
from pyceleryc.utils.nodenames import gethostname
from pyceleryc.utils.threads import LocalStack

__all__ = ('Context', 'Task')

#: Attributes that are defaults of the options of apply_async (C-010).
_EXEC_OPTIONS = (
    'queue', 'routing_key', 'exchange', 'priority', 'expires', 'serializer', 'delivery_mode',
    'compression', 'time_limit', 'soft_time_limit', 'immediate', 'mandatory', 'ignore_result',
)


class class_property:  # noqa: N801  used like property
    """The app of a task class, also when asked of the class itself."""

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        return (owner if obj is None else obj)._get_app()

    def __set__(self, obj: Any, app: Any) -> None:
        obj._app = app


class Task(Retrying):
    """Base of all tasks; define :meth:`run` in a subclass, or use ``@app.task``.

    Attributes are the options of T-170..T-189; None means "as the settings say".
    """

    #: Function that runs the task for a message, if a tool has replaced the worker's.
    __trace__: Any = None
    #: Checks arguments: a function with the parameters of run() and no body.
    __header__: Any = None
    __bound__ = False
    __v2_compat__ = False

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError
    Strategy: Any = 'pyceleryc.worker.strategy:default'
    Request: Any = 'pyceleryc.worker.request:Request'

    name: Any = None  # str, when it is registered
    typing: bool | None = None
    max_retries: int | None = 3
    default_retry_delay: float = 3 * 60
    rate_limit: Any = None
    ignore_result: bool | None = None
    trail = True
    send_events = True
    store_errors_even_if_ignored: bool | None = None
    store_eager_result: bool | None = None
    serializer: str | None = None
    compression: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    track_started: bool | None = None
    acks_late: bool | None = None
    acks_on_failure_or_timeout: bool | None = None
    acks_on_failure: bool | None = None
    acks_on_timeout: bool | None = None
    reject_on_worker_lost: bool | None = None
    throws: tuple[type[BaseException], ...] = ()
    expires: Any = None
    priority: int | None = None
    resultrepr_maxsize = 1024
    request_stack: Any = None
    abstract = True

    #: Attributes that are None and what setting they come from, when bound to an app.
    from_config = (
        ('serializer', 'task_serializer'),
        ('rate_limit', 'task_default_rate_limit'),
        ('priority', 'task_default_priority'),
        ('track_started', 'task_track_started'),
        ('acks_late', 'task_acks_late'),
        ('acks_on_failure_or_timeout', 'task_acks_on_failure_or_timeout'),
        ('reject_on_worker_lost', 'task_reject_on_worker_lost'),
        ('ignore_result', 'task_ignore_result'),
        ('store_eager_result', 'task_store_eager_result'),
        ('store_errors_even_if_ignored', 'task_store_errors_even_if_ignored'),
    )

    _app: Any = None
    _backend: Any = None
    _default_request: Any = None
    _exec_options: dict[str, Any] | None = None
    _shortcut: Any = None

    app: Any = class_property()

    # -- binding to an app ------------------------------------------------------------------

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Make this the task class of *app*: read its settings and annotations."""
        was_bound, cls.__bound__ = cls.__bound__, True
        cls._app = app
        cls._exec_options = None
        conf = app.conf
        if cls.typing is None:
            cls.typing = app.strict_typing
        for attribute, setting in cls.from_config:
            if getattr(cls, attribute, None) is None:
                setattr(cls, attribute, conf[setting])
        if cls.request_stack is None or cls.request_stack is Task.request_stack:
            cls.request_stack = LocalStack()
        if not was_bound:
            cls.annotate()
            check_task(cls)
        cls.on_bound(app)
        return app

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Called when the class is bound to *app*; to be overridden."""

    @classmethod
    def _get_app(cls) -> Any:
        if cls._app is None:
            cls._app = current_app._get_current_object()
        if not cls.__bound__:
            cls.bind(cls._app)
        return cls._app

    @classmethod
    def annotate(cls) -> None:
        """Apply the setting ``task_annotations``; a key ``@name`` wraps that method."""
        for annotation in resolve_all_annotations(cls._app.annotations, cls):
            for key, value in annotation.items():
                if key.startswith('@'):
                    cls.add_around(key[1:], value)
                else:
                    setattr(cls, key, value)

    @classmethod
    def add_around(cls, attr: str, around: Callable[..., Any]) -> None:
        """Replace the method *attr* by ``around(method)``, as a decorator does."""
        method = getattr(cls, attr)
        # A base class may have been annotated, too: once is enough.
        original = getattr(method, '_annotated', method)
        replaced = around(original)
        replaced.__wrapped__ = replaced._annotated = original
        setattr(cls, attr, replaced)

    def __setattr__(self, name: str, value: Any) -> None:
        # Options are set now and then, tasks are sent all the time: see shortcut.py.
        object.__setattr__(self, name, value)
        if name in _EXEC_OPTIONS or name == 'typing':
            self.__dict__.pop('_exec_options', None)
            self.forget_shortcut()

    # -- being called -----------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task here, as a function (T-034)."""
        if self._is_being_run():
            return self.run(*args, **kwargs)
        _task_stack.push(self)
        self.push_request(args=args, kwargs=kwargs)
        try:
            return self.run(*args, **kwargs)
        finally:
            self.pop_request()
            _task_stack.pop()

    def _is_being_run(self) -> bool:
        """Tell, once for each run, whether a ``__call__`` of the subclass was called to run the
        task, and calls this class's: the request is there already (T-307)."""
        if type(self).__call__ is Task.__call__:
            return False
        request = self.request
        if request.called_directly or request._protected:
            return False
        request._protected = 1
        return True

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work.  To be defined by the subclass."""
        raise NotImplementedError(f'task {type(self).__name__} must define the run method')

    @property
    def request(self) -> Any:
        """The :class:`Context` of the run that is going on here."""
        request = self.request_stack.top if self.request_stack is not None else None
        if request is None:
            # Not running: some code asks nevertheless, and gets the defaults.
            if self._default_request is None:
                self._default_request = Context()
            return self._default_request
        # The worker pushes a LazyRequest: the context is made only for tasks that look at it.
        make = getattr(type(request), 'context', None)
        return request if make is None else make(request)

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Begin a run with a new :class:`Context` made of the arguments."""
        self.request_stack.push(Context(*args, **kwargs))

    def pop_request(self) -> Any:
        """End what :meth:`push_request` began."""
        return self.request_stack.pop()

    # -- sending ----------------------------------------------------------------------------

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send the task with these arguments; return its AsyncResult (C-003)."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None,
        producer: Any = None, link: Any = None, link_error: Any = None,
        shadow: str | None = None, **options: Any,
    ) -> Any:
        """Send the task (Calling guide; FEATURES 1.20).

        :param countdown: seconds until it may run; or *eta*, a datetime.
        :param expires: seconds, or a datetime, after which it is not run any more.
        :param link: signature(s) to send after success; *link_error*: after failure.
        :param shadow: name to be shown in logs and monitors.
        :param retry: try again to publish, as *retry_policy* says.
        :param queue: name or Queue; also *exchange*, *routing_key*, *priority*,
            *serializer*, *compression*, *headers*, *ignore_result*, *time_limit*,
            *soft_time_limit*, *argsrepr*, *kwargsrepr*, *connection*.
        :returns: an AsyncResult; an EagerResult if ``task_always_eager`` is set.
        :raises TypeError: the arguments do not fit, unless ``typing`` is off (T-110).
        :raises ValueError: the soft time limit is above the hard one.
        :raises OperationalError: the broker cannot be reached.
        :raises EncodeError: the arguments cannot be serialized.
        """
        if not (options or producer or link or link_error or shadow):
            shortcut = self._shortcut or self._new_shortcut()
            if shortcut is not None:
                result = shortcut(args, kwargs, task_id)
                if result is not None:
                    return result
        return self._apply_async(
            args, kwargs, task_id, producer, link, link_error, shadow, options)

    def _apply_async(
        self, args: Any, kwargs: Any, task_id: str | None, producer: Any, link: Any,
        link_error: Any, shadow: str | None, options: dict[str, Any],
    ) -> Any:
        app = self._get_app()
        if not self.limits_are_sane():
            raise ValueError(
                f'task {self.name!r}: soft_time_limit ({self.soft_time_limit}) must be less than '
                f'or equal to time_limit ({self.time_limit})')
        if self.typing and self.__header__ is not None:
            self.__header__(*(args or ()), **(kwargs or {}))
        options = {**self.exec_options(), **options}
        producer = producer or options.pop('publisher', None)
        if shadow is None:
            shadow = self.shadow_name(args or (), kwargs or {}, options)
        if app.send_settings.always_eager:
            return self._apply_eagerly(args, kwargs, task_id, link, link_error, options)
        return app.send_task(
            self.name, args, kwargs, task_id=task_id, producer=producer, link=link,
            link_error=link_error, result_cls=self.AsyncResult, shadow=shadow, task_type=self,
            **options)

    def _apply_eagerly(
        self, args: Any, kwargs: Any, task_id: str | None, link: Any, link_error: Any,
        options: dict[str, Any],
    ) -> Any:
        # Imported here: pyceleryc.result imports the app package.
        from pyceleryc.result import denied_join_result

        check_shape(args or (), kwargs or {})
        # Serialized and back, so that the task sees what a worker would give it.
        content_type, encoding, data = serialization.dumps(
            (args or (), kwargs or {}), options.get('serializer') or self.app.conf.task_serializer)
        args, kwargs = serialization.loads(data, content_type, encoding, accept=[content_type])
        with denied_join_result():
            return self.apply(
                args, kwargs, task_id=task_id or uuid(), link=link, link_error=link_error,
                **options)

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Return the name to show instead of the task's; to be overridden (C-012)."""
        return None

    def exec_options(self) -> dict[str, Any]:
        """Return the attributes that are options of sending and not None."""
        if self._exec_options is None:
            values = {name: getattr(self, name, None) for name in _EXEC_OPTIONS}
            found = {name: value for name, value in values.items() if value is not None}
            object.__setattr__(self, '_exec_options', found)
        return self._exec_options or {}

    _get_exec_options = exec_options

    def limits_are_sane(self) -> bool:
        """Tell whether the soft time limit is not above the hard one (T-180)."""
        hard, soft = self.time_limit, self.soft_time_limit
        return not (hard and soft and soft > hard)

    def argument_check(self) -> Callable[..., Any]:
        """Return what checks arguments before they are sent."""
        if self.typing and self.__header__ is not None:
            return self.__header__
        return _accept_all

    def has_plain_sending(self) -> bool:
        """Tell whether this class overrides none of the steps of sending."""
        cls = type(self)
        return all(getattr(cls, name) is getattr(Task, name)
                   for name in ('shadow_name', 'AsyncResult', '_apply_async', 'exec_options'))

    def _new_shortcut(self) -> Any:
        # Imported here: the module needs the classes that are defined above it.
        from pyceleryc.app.shortcut import make_shortcut

        self._get_app()
        shortcut = make_shortcut(self)
        object.__setattr__(self, '_shortcut', shortcut)
        return shortcut

    def forget_shortcut(self) -> None:
        """Something about sending has changed: find out anew."""
        self.__dict__.pop('_shortcut', None)

    # -- running here -------------------------------------------------------------------------

    def apply(
        self, args: Any = None, kwargs: Any = None, link: Any = None, link_error: Any = None,
        task_id: str | None = None, retries: int | None = None, throw: bool | None = None,
        logfile: str | None = None, loglevel: int | None = None, headers: Any = None,
        **options: Any,
    ) -> Any:
        """Run the task here and wait, as a worker would run it (C-014).

        :param throw: raise what the task raises; default: ``task_eager_propagates``.
        :returns: an EagerResult.
        """
        # Imported here: both import this module.
        from pyceleryc.app.trace import eager_trace
        from pyceleryc.result import EagerResult

        app = self._get_app()
        throw = app.conf.task_eager_propagates if throw is None else throw
        request = self._eager_request(
            args, kwargs, task_id or uuid(), retries or 0, link, link_error, logfile, loglevel,
            headers, options)
        state, value, traceback = eager_trace(
            self, request, request.args, request.kwargs, throw)
        if state == 'RETRY' and getattr(value, 'sig', None) is not None:
            # Nobody would run it later, so it is done at once (T-142).
            return value.sig.apply(retries=request.retries + 1)
        return EagerResult(request.id, value, state, traceback=traceback, name=self.name)

    def _eager_request(
        self, args: Any, kwargs: Any, task_id: str, retries: int, link: Any, link_error: Any,
        logfile: Any, loglevel: Any, headers: Any, options: dict[str, Any],
    ) -> Context:
        ignored = options.get('ignore_result')
        request = Context(
            id=task_id, task=self.name, parent_id=None, root_id=task_id, retries=retries,
            is_eager=True, logfile=logfile, loglevel=loglevel or 0, hostname=gethostname(),
            callbacks=_as_list(link), errbacks=_as_list(link_error), headers=headers,
            ignore_result=bool(self.ignore_result if ignored is None else ignored),
            args=args or (), kwargs=kwargs or {}, called_directly=False,
            delivery_info={
                'is_eager': True, 'exchange': options.get('exchange'),
                'routing_key': options.get('routing_key'), 'priority': options.get('priority'),
            })
        stamped = options.get('stamped_headers')
        if stamped:
            request.update(
                stamped_headers=stamped, stamps={k: options.get(k) for k in stamped})
        for name in ('chain', 'group', 'group_index'):
            if options.get(name) is not None:
                request.update({name: options[name]})
        return request

    # -- results and state ------------------------------------------------------------------

    def AsyncResult(self, task_id: str, **kwargs: Any) -> Any:  # noqa: N802  public name
        """Return the AsyncResult of a run of this task."""
        return self._get_app().AsyncResult(
            task_id, backend=self.backend, task_name=self.name, **kwargs)

    @property
    def backend(self) -> Any:
        """The result backend: the task's own, or the app's."""
        return self.app.backend if self._backend is None else self._backend

    @backend.setter
    def backend(self, value: Any) -> None:
        object.__setattr__(self, '_backend', value)
        self.forget_shortcut()

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None,
        **kwargs: Any,
    ) -> None:
        """Store a state of the run that is going on (or of *task_id*), with *meta*."""
        request = self.request
        self.backend.store_result(
            request.id if task_id is None else task_id, meta, state, request=request, **kwargs)

    def send_event(
        self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any,
    ) -> Any:
        """Send a monitoring event about the run that is going on."""
        app = self.app
        policy = retry_policy if retry_policy is not None else app.conf.task_publish_retry_policy
        with app.events.default_dispatcher(hostname=self.request.hostname) as dispatcher:
            return dispatcher.send(
                type_, uuid=self.request.id, retry=retry, retry_policy=policy, **fields)

    def add_trail(self, result: Any) -> Any:
        """Note that this run has sent another task (T-088)."""
        if self.trail:
            self.request.children.append(result)
        return result

    # -- signatures -------------------------------------------------------------------------

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Any:
        """Return a signature of this task with arguments and options."""
        starkwargs.setdefault('app', self.app)
        return canvas.signature(self, args, *starargs, **starkwargs)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Any:
        """``signature(args, kwargs)``."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Any:
        """The same, but it takes no results of other tasks."""
        return self.signature(args, kwargs, immutable=True)

    def chunks(self, it: Any, n: int) -> Any:
        """Return a signature that runs *n* calls per message, with arguments from *it*."""
        return canvas.chunks(self.s(), it, n, app=self.app)

    def map(self, it: Any) -> Any:
        """Return a signature that calls the task with each item, in one message."""
        return canvas.xmap(self.s(), it, app=self.app)

    def starmap(self, it: Any) -> Any:
        """Return a signature that calls the task with each item's arguments."""
        return canvas.xstarmap(self.s(), it, app=self.app)

    # -- called by the worker -----------------------------------------------------------------

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Return the function that the worker calls for each message of this task."""
        return instantiate(self.Strategy, self, app, consumer, **kwargs)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before the body; to be overridden."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called after success; to be overridden."""

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task is to be retried; to be overridden."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called after failure; to be overridden."""

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any,
    ) -> None:
        """Called at the very end, whatever happened; to be overridden."""

    # -- the object -----------------------------------------------------------------------------

    def get_logger(self) -> Any:
        """Return ``get_task_logger(self.name)`` (X13)."""
        return get_task_logger(self.name or '')

    def get_publisher(self, connection: Any = None) -> Any:
        """Return a context manager that gives a producer, on *connection* if given (X14)."""
        amqp = self.app.amqp
        if connection is None:
            return self.app.producer_or_acquire()
        return amqp.Producer(connection, auto_declare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # Tasks are looked up by name in the other process, after importing their module.
        module = type(self).__module__
        return _unpickle_task_v2, (self.name, None if module == __name__ else module), None

    def __repr__(self) -> str:
        return f'<@task: {self.name} of {appstr(self.app)}>'

    @property
    def __name__(self) -> str:
        return str(type(self).__name__)


def _accept_all(*args: Any, **kwargs: Any) -> None:
    """Stands for the check of a task that wants none."""


def _as_list(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]
