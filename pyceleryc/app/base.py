"""The application: :class:`Celery`."""
from __future__ import annotations

import inspect
import os
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any
from uuid import NAMESPACE_OID, uuid3, uuid4

from kombu.utils.uuid import uuid as make_uuid

from pyceleryc import _state
from pyceleryc._state import (
    _deregister_app,
    _register_app,
    _set_current_app,
    connect_on_app_finalize,
    get_current_app,
    get_current_task,
    get_current_worker_task,
    set_default_app,
)
from pyceleryc.app import builtins
from pyceleryc.app.annotations import prepare as prepare_annotations
from pyceleryc.app.autoretry import add_autoretry_behaviour
from pyceleryc.app.configuring import Configuring
from pyceleryc.app.connections import Connections
from pyceleryc.app.models import take_models
from pyceleryc.app.options import check_function, warn_of_other
from pyceleryc.app.periodic import Periodic
from pyceleryc.app.registry import TaskRegistry
from pyceleryc.app.sending import Sending
from pyceleryc.app.utils import AppPickler, _unpickle_app, _unpickle_app_v2, appstr, bugreport
from pyceleryc.canvas import signature
from pyceleryc.loaders import get_loader_cls
from pyceleryc.local import PromiseProxy, maybe_evaluate
from pyceleryc.utils.clock import LogicalClock
from pyceleryc.utils.dispatch import Signal
from pyceleryc.utils.functional import head_from_fun
from pyceleryc.utils.imports import gen_task_name, instantiate, symbol_by_name
from pyceleryc.utils.locks import new_rlock, shared_property
from pyceleryc.utils.time import localize, timezone, to_utc

__all__ = ('Celery',)

BUILTIN_FIXUPS = {'pyceleryc.fixups.django:fixup'}
#: Makes the ids of this process's programs differ from those of others.
_NODE = uuid4().int


class _ThreadIdentity(threading.local):
    """The id under which one thread of an app receives replies (PROTOCOL 3.1.1)."""

    def __init__(self, app_id: int) -> None:
        self.oid = make_oid(app_id, threading.get_ident())


def make_oid(app_id: int, thread_id: int = 0) -> str:
    """Return an id that no other app, thread and process has."""
    return str(uuid3(NAMESPACE_OID, f'{_NODE:x}-{os.getpid():x}-{thread_id:x}-{app_id:x}'))


class Celery(Configuring, Connections, Periodic, Sending):
    """An application: its tasks, settings, broker and results (FEATURES 2.1).

    :param main: name of the main module, if that defines tasks (T-043).
    :param broker: URL; *backend*: of results.
    :param include: modules that workers import.
    :param changes: settings; so are other keywords.  They win over configuration files.
    :param config_source: see :meth:`config_from_object`.
    :param set_as_current: make it this thread's app.
    :param task_cls: base class of the tasks.
    :param autofinalize: False: raise an error if it is used before :meth:`finalize`.
    :param strict_typing: check arguments before sending (T-113).
    """

    SYSTEM = os.uname().sysname
    IS_macOS = SYSTEM == 'Darwin'  # noqa: N815  the public name
    IS_WINDOWS = False

    Pickler = AppPickler
    builtin_fixups = BUILTIN_FIXUPS
    amqp_cls: Any = 'pyceleryc.app.amqp:AMQP'
    backend_cls: Any = None
    events_cls: Any = 'pyceleryc.app.events:Events'
    loader_cls: Any = None
    log_cls: Any = 'pyceleryc.app.log:Logging'
    control_cls: Any = 'pyceleryc.app.control:Control'
    task_cls: Any = 'pyceleryc.app.task:Task'
    registry_cls: Any = TaskRegistry
    on_configure: Any = None
    on_after_configure: Any = None
    on_after_finalize: Any = None
    on_after_fork: Any = None

    def __init__(
        self, main: str | None = None, loader: Any = None, backend: Any = None,
        amqp: Any = None, events: Any = None, log: Any = None, control: Any = None,
        set_as_current: bool = True, tasks: Any = None, broker: Any = None, include: Any = None,
        changes: Any = None, config_source: Any = None, fixups: Any = None,
        task_cls: Any = None, autofinalize: bool = True, namespace: str | None = None,
        strict_typing: bool = True, **kwargs: Any,
    ) -> None:
        self.main = main
        self.amqp_cls = amqp or self.amqp_cls
        self.events_cls = events or self.events_cls
        self.log_cls = log or self.log_cls
        self.control_cls = control or self.control_cls
        self.loader_cls = loader or self._default_loader()
        self._custom_task_cls_used = bool(task_cls) or self.task_cls != Celery.task_cls
        self.task_cls = task_cls or self.task_cls
        self.set_as_current = set_as_current
        self.autofinalize = autofinalize
        self.namespace = namespace
        self.strict_typing = strict_typing
        self.clock = LogicalClock()
        self.user_options: Any = defaultdict(set)
        self.steps: Any = defaultdict(set)
        self._init_settings(config_source, {**(changes or {}), **kwargs}, broker, backend, include)
        self._init_tasks(tasks)
        self._init_runtime()
        self._init_signals()
        self.fixups = set(self.builtin_fixups) if fixups is None else set(fixups)
        if self.set_as_current:
            self.set_current()
        applied = (symbol_by_name(fixup)(self) for fixup in sorted(self.fixups, key=str))
        self._fixups = [fixup for fixup in applied if fixup is not None]
        self.on_init()
        _register_app(self)

    def _init_settings(
        self, source: Any, changes: dict[str, Any], broker: Any, backend: Any, include: Any,
    ) -> None:
        self.configured = False
        self._conf: Any = None
        self._config_source = source
        self._config_silent = False
        self._preconf = changes
        self._pending_defaults = deque()
        self._pending_periodic_tasks = deque()
        self._conf_changed = [self._forget_computed]
        if backend is not None and not isinstance(backend, str):
            self.backend_cls, backend = backend, None
        named = {'broker_url': broker, 'result_backend': backend, 'include': include}
        changes.update((name, value) for name, value in named.items() if value)

    def _init_tasks(self, tasks: Any) -> None:
        self.finalized = False
        self._finalize_mutex = new_rlock()
        self._pending: deque[Any] = deque()
        self._tasks = tasks if isinstance(tasks, TaskRegistry) else self.registry_cls(tasks or {})

    def _init_runtime(self) -> None:
        self._pool: Any = None
        self._fixups = []
        self._local = _ThreadIdentity(id(self))
        self._backend_cache: Any = None

    def _init_signals(self) -> None:
        for name, arguments in (
            ('on_configure', ()), ('on_after_configure', ('source',)),
            ('on_after_finalize', ()), ('on_after_fork', ()),
        ):
            # A subclass may have a method of that name.
            if getattr(self, name) is None:
                setattr(self, name, Signal(name=f'app.{name}', providing_args=arguments))

    def _default_loader(self) -> Any:
        return (os.environ.get('CELERY_LOADER') or self.loader_cls
                or 'pyceleryc.loaders.app:AppLoader')

    def on_init(self) -> None:
        """Called at the end of the constructor; to be overridden."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name in ('send_task', 'amqp', 'AsyncResult', 'backend'):
            self._forget_shortcuts()

    # -- which app is used ----------------------------------------------------------------

    def set_current(self) -> None:
        """Make this the app of the current thread."""
        _set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of threads that have none."""
        set_default_app(self)

    def close(self) -> None:
        """Flush and close what is connected, and take it off the list of apps."""
        self._pool = None
        amqp = self.__dict__.get('amqp')
        publisher = amqp.__dict__.get('publisher') if amqp is not None else None
        if publisher is not None:
            publisher.close()
        _deregister_app(self)

    def __enter__(self) -> Celery:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    # -- tasks ------------------------------------------------------------------------------

    def task(self, *args: Any, **opts: Any) -> Any:
        """Decorator: make a task of a function (FEATURES 1.2).

        Used bare, or with options: any attribute of :class:`Task`, and *name*, *base*, *bind*,
        *shared* (register it with other apps, too), *filter*, *lazy*; and those of
        ``app/models.py``: *pydantic*, *pydantic_strict*, *pydantic_context*, *pydantic_dump_kwargs*.
        """
        def decorate(
            fun: Callable[..., Any], shared: bool = True, lazy: bool = True,
            filter: Any = None,  # noqa: A002  the public name
            **options: Any,
        ) -> Any:
            check_function(fun, options)
            if shared:
                connect_on_app_finalize(_state.SharedTask(fun, options))
            if not lazy or self.finalized:
                made = self._own_task(fun, **options)
            else:
                made = PromiseProxy(self._own_task, (fun,), options, __doc__=fun.__doc__)
                self._pending.append(made)
            return filter(made) if filter else made

        if len(args) > 1:
            raise TypeError(f'@task() takes exactly 1 argument ({len(args)} given)')
        if args:
            if not callable(args[0]):
                raise TypeError('argument 1 to @task() must be a callable')
            return decorate(args[0], **opts)
        return lambda fun: decorate(fun, **opts)

    def _own_task(self, fun: Any, **options: Any) -> Any:
        return warn_of_other(self._task_from_fun(fun, **options), fun)

    def _task_from_fun(
        self, fun: Any, name: str | None = None, base: Any = None, bind: bool = False,
        **options: Any,
    ) -> Any:
        """Return the task of *fun*; the one registered under the name, if there is one."""
        if not self.finalized and not self.autofinalize:
            raise RuntimeError('Contract breach: app not finalized')
        name = name or self.gen_task_name(fun.__name__, fun.__module__)
        if name in self._tasks:
            return self._tasks[name]
        base = base or self.Task
        run = take_models(fun, self, name, options)
        run = run if bind else staticmethod(run)
        if 'backend' in options:
            options['_backend'] = options.pop('backend')
        task = type(fun.__name__, (base,), {
            '_app': self, 'name': name, 'run': run, '_decorated': True,
            '__doc__': fun.__doc__, '__module__': fun.__module__,
            '__annotations__': getattr(fun, '__annotations__', {}), '__bound__': False,
            '__header__': staticmethod(self.type_checker(fun, bound=bind)), '__wrapped__': run,
            'request_stack': None, 'abstract': False, **options,
        })()
        object.__setattr__(task, '__qualname__', getattr(fun, '__qualname__', fun.__name__))
        self._tasks[name] = task
        task.bind(self)
        add_autoretry_behaviour(task, **options)
        return task

    def type_checker(self, fun: Any, bound: bool = False) -> Callable[..., Any]:
        """Return the function that checks arguments of calls of *fun*."""
        return head_from_fun(fun, bound=bound)

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a class-based task: an instance, or the class."""
        if inspect.isclass(task):
            task = task()
        cls = type(task)
        if not task.name:
            cls.name = self.gen_task_name(cls.__name__, cls.__module__)
        self.tasks[task.name] = task
        cls._app = self
        cls.request_stack = None
        cls.__bound__ = False
        task.bind(self)
        add_autoretry_behaviour(task, **options)
        return task

    def gen_task_name(self, name: str, module: str | None) -> str:
        """Return the automatic name of a task; to be overridden (T-049)."""
        return gen_task_name(self, name, module)

    def finalize(self, auto: bool = False) -> None:
        """Make the tasks that wait for it; done at the first use of the app.

        :raises RuntimeError: ``autofinalize`` is off, and this is not an explicit call.
        """
        with self._finalize_mutex:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError('Contract breach: app not finalized')
            self.finalized = True
            builtins.add_builtin_tasks(self)
            # Before the shared tasks of others: where names clash, the app's own task wins.
            while self._pending:
                maybe_evaluate(self._pending.popleft())
            _state._announce_app_finalized(self)
            for task in list(self._tasks.values()):
                task.bind(self)
            self.on_after_finalize.send(sender=self)

    @property
    def tasks(self) -> Any:
        """The :class:`TaskRegistry`; looking at it finalizes the app."""
        self.finalize(auto=True)
        return self._tasks

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """Return a signature bound to this app."""
        kwargs['app'] = self
        return signature(*args, **kwargs)

    @shared_property
    def annotations(self) -> Any:
        """The setting ``task_annotations``, prepared."""
        return prepare_annotations(self.conf.task_annotations)

    def _forget_computed(self, names: tuple[str, ...]) -> None:
        """Settings have changed: forget what was computed from them."""
        for setting, attribute in (
            ('timezone', 'timezone'), ('enable_utc', 'timezone'),
            ('task_annotations', 'annotations'),
        ):
            if setting in names:
                self.__dict__.pop(attribute, None)
        self.__dict__.pop('send_settings', None)
        self._forget_shortcuts()

    def _forget_shortcuts(self) -> None:
        for task in list(self.__dict__.get('_tasks', {}).values()):
            if hasattr(task, 'forget_shortcut'):
                task.forget_shortcut()

    # -- parts --------------------------------------------------------------------------------

    @shared_property
    def amqp(self) -> Any:
        """The :class:`~pyceleryc.app.amqp.AMQP`."""
        return instantiate(self.amqp_cls, app=self)

    @shared_property
    def control(self) -> Any:
        """Remote control of workers."""
        return instantiate(self.control_cls, app=self)

    @shared_property
    def events(self) -> Any:
        """Monitoring events."""
        return instantiate(self.events_cls, app=self)

    @shared_property
    def loader(self) -> Any:
        """Reads configuration and imports tasks."""
        return get_loader_cls(self.loader_cls)(app=self)

    @shared_property
    def log(self) -> Any:
        """Sets up logging."""
        return instantiate(self.log_cls, app=self)

    @property
    def backend(self) -> Any:
        """The result backend; one per thread, unless it says that it is thread-safe."""
        found = self._backend_cache
        if found is None:
            found = getattr(self._local, 'backend', None)
        return self._make_backend() if found is None else found

    @backend.setter
    def backend(self, backend: Any) -> None:
        self._backend_cache = backend

    def _make_backend(self) -> Any:
        # One thread makes the shared one: with two, some results would go to nobody's queue.
        with self._finalize_mutex:
            if self._backend_cache is not None:
                return self._backend_cache
            made = self._get_backend()
            if self.conf.get('result_backend_thread_safe') or getattr(made, 'thread_safe', False):
                self._backend_cache = made
            else:
                self._local.backend = made
            return made

    def _get_backend(self) -> Any:
        # Imported here: the backends import the app package.
        from pyceleryc.app import backends

        cls, url = backends.by_url(self.backend_cls or self.conf.result_backend, self.loader)
        return cls(app=self, url=url)

    @shared_property
    def Task(self) -> Any:  # noqa: N802  the public name
        """Base class of this app's tasks."""
        return self.create_task_cls()

    def create_task_cls(self) -> Any:
        """Make the base class of this app's tasks."""
        return self.subclass_with_self(
            self.task_cls, name='Task', attribute='_app', keep_reduce=True, abstract=True)

    def subclass_with_self(
        self, Class: Any, name: str | None = None,  # noqa: N803  the public name
        attribute: str = 'app', reverse: str | None = None, keep_reduce: bool = False,
        **kw: Any,
    ) -> Any:
        """Return a subclass of *Class* whose *attribute* is this app.

        :param reverse: attribute of the app that is the subclass, to unpickle instances.
        :param keep_reduce: instances know themselves how to be pickled.
        """
        base = symbol_by_name(Class)
        attributes = {
            attribute: self, '__module__': base.__module__, '__doc__': base.__doc__, **kw}
        if not keep_reduce:
            path = reverse or base.__name__
            attributes['__reduce__'] = lambda obj: (
                _unpickle_appattr, (path, obj.__reduce_args__()))
        return type(name or base.__name__, (base,), attributes)

    @shared_property
    def AsyncResult(self) -> Any:  # noqa: N802  the public name
        """Class of results of this app's tasks."""
        return self.subclass_with_self('pyceleryc.result:AsyncResult')

    @shared_property
    def ResultSet(self) -> Any:  # noqa: N802  the public name
        """Class of sets of results."""
        return self.subclass_with_self('pyceleryc.result:ResultSet')

    @shared_property
    def GroupResult(self) -> Any:  # noqa: N802  the public name
        """Class of results of groups."""
        return self.subclass_with_self('pyceleryc.result:GroupResult')

    @shared_property
    def WorkController(self) -> Any:  # noqa: N802  the public name
        """Class of workers that are embedded in programs."""
        return self.subclass_with_self('pyceleryc.worker:WorkController')

    @shared_property
    def Worker(self) -> Any:  # noqa: N802  the public name
        """Class of workers of the command line."""
        return self.subclass_with_self('pyceleryc.apps.worker:Worker')

    @shared_property
    def Beat(self, **kwargs: Any) -> Any:  # noqa: N802  the public name
        """Class of the scheduler of the command line."""
        return self.subclass_with_self('pyceleryc.apps.beat:Beat')

    # -- commands -----------------------------------------------------------------------------

    def start(self, argv: Any = None) -> Any:
        """Run the command line of this app with *argv*; return the exit code."""
        # Imported here: a publisher never needs the command line.
        from pyceleryc.bin.celery import celery

        argv = sys.argv[1:] if argv is None else list(argv)
        return celery.main(args=argv, obj=self, standalone_mode=False)

    def worker_main(self, argv: Any = None) -> Any:
        """Run a worker: ``app.worker_main(['worker', '-l', 'INFO'])``."""
        argv = sys.argv[1:] if argv is None else argv
        if 'worker' not in argv:
            raise ValueError(
                'The worker sub-command must be specified in argv.\n'
                'Use app.start() to programmatically start other commands.')
        return self.start(argv=argv)

    def bugreport(self) -> str:
        """Return what a bug report should tell about this installation."""
        return bugreport(self)

    # -- small things ---------------------------------------------------------------------------

    def either(self, default_key: str, *defaults: Any) -> Any:
        """Return the first of *defaults* that is not None, else the setting."""
        found = next((value for value in defaults if value is not None), None)
        return self.conf.get(default_key) if found is None else found

    def select_queues(self, queues: Any = None) -> Any:
        """Let workers consume from these queues only."""
        return self.amqp.queues.select(queues)

    @property
    def current_task(self) -> Any:
        """The task that runs here, or None."""
        return get_current_task()

    @property
    def current_worker_task(self) -> Any:
        """The task that the worker runs here, or None."""
        return get_current_worker_task()

    @shared_property
    def oid(self) -> str:
        """Id of this app in this process."""
        return make_oid(id(self))

    @property
    def thread_oid(self) -> str:  # type: ignore[override]
        """Id of this app in this thread; replies are sent to it."""
        return self._local.oid

    def uses_utc_timezone(self) -> bool:
        """Tell whether the app's time zone is UTC."""
        return bool(self.timezone == timezone.utc)

    @shared_property
    def timezone(self) -> Any:
        """The setting ``timezone``; UTC if not set, or local time if ``enable_utc`` is off."""
        conf = self.conf
        if conf.timezone:
            return timezone.get_timezone(conf.timezone)
        return timezone.utc if conf.enable_utc else timezone.local

    def now(self) -> Any:
        """Return the time now, in the app's time zone."""
        return localize(to_utc(self.loader.now(utc=True)), self.timezone)

    def uuid(self) -> str:
        """Return a new task id."""
        return str(make_uuid())

    # -- the object -----------------------------------------------------------------------------

    def _after_fork(self) -> None:
        """In a child process: nothing of the parent's connections may be used."""
        self._pool = None
        self._local = _ThreadIdentity(id(self))
        self.__dict__.pop('oid', None)
        amqp = self.__dict__.get('amqp')
        if amqp is not None:
            amqp._producer_pool = None
        self.on_after_fork.send(sender=self)

    def __reduce__(self) -> tuple[Any, ...]:
        if hasattr(self, '__reduce_args__'):
            return _unpickle_app, (type(self), self.Pickler, *self.__reduce_args__())
        return _unpickle_app_v2, (type(self), self.__reduce_keys__())

    def __reduce_keys__(self) -> dict[str, Any]:
        """Return the constructor's keywords that make this app again."""
        return {
            'main': self.main,
            'changes': dict(self._conf.changes) if self.configured else dict(self._preconf),
            'loader': self.loader_cls,
            'backend': self.backend_cls,
            'amqp': self.amqp_cls,
            'events': self.events_cls,
            'log': self.log_cls,
            'control': self.control_cls,
            'fixups': self.fixups,
            'config_source': self._config_source,
            'task_cls': self.task_cls,
            'namespace': self.namespace,
        }

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {appstr(self)}>'


def _unpickle_appattr(reverse_name: str, args: tuple[Any, ...]) -> Any:
    target = get_current_app()
    for name in reverse_name.split('.'):
        target = getattr(target, name)
    return target(*args)


def _make_default_app() -> Celery:
    """Make the app of programs that made none; it reads ``celeryconfig``."""
    return Celery(
        'default', fixups=[], set_as_current=False,
        loader=os.environ.get('CELERY_LOADER') or 'default')


def _after_fork() -> None:
    for app in _state._get_active_apps():
        app._after_fork()


_state.set_default_app_factory(_make_default_app)
os.register_at_fork(after_in_child=_after_fork)

#: Old name.
App = Celery
