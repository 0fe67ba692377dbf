"""The loader that others are made of."""
from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from kombu.utils import json

from pyceleryc import signals
from pyceleryc.app.defaults import find
from pyceleryc.exceptions import reraise
from pyceleryc.utils.collections import DictAttribute, force_mapping
from pyceleryc.utils.functional import maybe_list
from pyceleryc.utils.imports import (
    NotAPackage,
    find_module,
    import_from_cwd,
    symbol_by_name,
)
from pyceleryc.utils.locks import new_rlock

__all__ = ('BaseLoader', 'autodiscover_tasks', 'find_related_module')

CONFIG_INVALID_NAME = """\
The configuration '{module}' is not the name of a Python module that can be imported.
"""
CONFIG_WITH_SUFFIX = CONFIG_INVALID_NAME + "Did you mean '{suggest}'?\n"

_CMDLINE_CAST = re.compile(r'\((\w+)\)')
_discovery_lock = new_rlock()


class BaseLoader:
    """Reads the configuration and imports modules; hooks for worker and task.

    :param app: the app this loader belongs to.

    Methods named ``on_*`` are for subclasses to override and do nothing here.
    """

    builtin_modules: frozenset[str] = frozenset()
    configured = False
    override_backends: Mapping[str, str] = {}
    worker_initialized = False

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()
        self._conf: Any = None

    # -- hooks --------------------------------------------------------------------------

    def now(self, utc: bool = True) -> datetime:
        """Return the naive time now, in UTC or on the local clock."""
        return datetime.now(timezone.utc).replace(tzinfo=None) if utc else datetime.now()

    def on_task_init(self, task_id: str, task: Any) -> None:
        """Called before a task runs."""
        return None

    def on_process_cleanup(self) -> None:
        """Called after a task ran."""
        return None

    def on_worker_init(self) -> None:
        """Called when the worker starts."""
        return None

    def on_worker_shutdown(self) -> None:
        """Called when the worker ends."""
        return None

    def on_worker_process_init(self) -> None:
        """Called in each pool process when it starts."""
        return None

    # -- modules ------------------------------------------------------------------------

    def import_task_module(self, module: str) -> Any:
        """Import a module of tasks, found from the working directory too."""
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_module(self, module: str, package: str | None = None) -> Any:
        """Import *module*."""
        return importlib.import_module(module, package=package)

    def import_from_cwd(
        self, module: str, imp: Callable[..., Any] | None = None, package: str | None = None,
    ) -> Any:
        """Import *module*, with the working directory on the path."""
        return import_from_cwd(module, imp or self.import_module, package=package)

    def import_default_modules(self) -> list[Any]:
        """Import the modules of the settings ``imports`` and ``include``.

        First the signal ``import_modules`` is sent, by which autodiscovery is done;
        what a receiver raises is raised here.
        """
        responses = signals.import_modules.send(sender=self.app)
        for _, response in responses:
            if isinstance(response, Exception):
                reraise(type(response), response, response.__traceback__)
        return [self.import_task_module(module) for module in self.default_modules]

    @cached_property
    def default_modules(self) -> tuple[Any, ...]:
        """Names of the modules that a worker imports."""
        return (*self.builtin_modules, *(maybe_list(self.app.conf.imports) or ()),
                *(maybe_list(self.app.conf.include) or ()))

    def find_module(self, module: str) -> Any:
        """Import *module*; see :func:`pyceleryc.utils.imports.find_module`."""
        return find_module(module)

    def autodiscover_tasks(
        self, packages: Iterable[str] | None, related_name: str | None = 'tasks',
    ) -> None:
        """Import *related_name* of each of *packages*, where there is one."""
        modules = autodiscover_tasks(packages, related_name=related_name)
        self.task_modules.update(module.__name__ for module in modules or () if module)

    # -- worker -------------------------------------------------------------------------

    def init_worker(self) -> None:
        """Import the task modules and call the hook; done once."""
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def shutdown_worker(self) -> None:
        """Call the hook for the end of the worker."""
        self.on_worker_shutdown()

    def init_worker_process(self) -> None:
        """Call the hook for the start of a pool process."""
        self.on_worker_process_init()

    # -- configuration --------------------------------------------------------------------

    @property
    def conf(self) -> Any:
        """The configuration source, read when it is first asked for."""
        if self._conf is None:
            self._conf = self.read_configuration()
        return self._conf

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Read the configuration from a mapping, an object, or the name of either.

        :param silent: return False if a name cannot be imported, instead of raising.
        :return: True if it was read.
        """
        if isinstance(obj, str):
            try:
                obj = self._smart_import(obj, imp=self.import_from_cwd)
            except (ImportError, AttributeError):
                if silent:
                    return False
                raise
        self._conf = force_mapping(obj)
        if self._conf.get('override_backends') is not None:
            self.override_backends = self._conf['override_backends']
        return True

    def _smart_import(self, path: str, imp: Callable[..., Any]) -> Any:
        if ':' in path:
            return symbol_by_name(path, imp=imp)
        try:
            return imp(path)
        except ImportError:
            # Not a module: the last part may be an attribute.
            return symbol_by_name(path, imp=imp)

    def _import_config_module(self, name: str) -> Any:
        try:
            return self.find_module(name)
        except NotAPackage:
            if name.endswith('.py'):
                text = CONFIG_WITH_SUFFIX.format(module=name, suggest=name[:-3])
                reraise(NotAPackage, NotAPackage(text), sys.exc_info()[2])
            raise NotAPackage(CONFIG_INVALID_NAME.format(module=name)) from None

    def read_configuration(self, env: str = 'CELERY_CONFIG_MODULE') -> Any:
        """Return the configuration in the module that the environment names, or {}."""
        name = os.environ.get(env)
        if name:
            return DictAttribute(self._import_config_module(name))
        return {}

    def cmdline_config_parser(
        self, args: Iterable[str], namespace: str = 'celery',
        re_type: re.Pattern[str] = _CMDLINE_CAST, extra_types: Mapping[str, Any] | None = None,
        override_types: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return the settings in arguments such as ``worker.prefetch_multiplier=1``.

        A leading dot stands for *namespace*; ``key=(int)3`` gives a type.

        :raises ValueError: an argument is not understood.
        """
        types = {'json': json.loads, **(extra_types or {})}
        overrides = {'tuple': 'json', 'list': 'json', 'dict': 'json', **(override_types or {})}

        def parse(arg: str) -> tuple[str, Any]:
            key, equals, text = arg.partition('=')
            if not equals:
                raise ValueError(f'{arg!r} is no setting: write name=value')
            return self._cmdline_setting(key, text, namespace, re_type, types, overrides)

        return dict(map(parse, args))

    def _cmdline_setting(
        self, key: str, text: str, namespace: str, re_type: re.Pattern[str],
        types: Mapping[str, Any], overrides: Mapping[str, str],
    ) -> tuple[str, Any]:
        key = key.lower().strip()
        name = key[1:] if key.startswith('.') else key.replace('.', '_')
        space, found_key, option = find(name, namespace)
        cast = re_type.match(text)
        if cast:
            kind, value = cast[1], text[cast.end():]
        else:
            kind, value = option.type, text
        convert = types.get(overrides.get(kind, kind)) or option.typemap.get(kind)
        if convert is None:
            raise ValueError(f'{key}: unknown type {kind!r}')
        return f'{space}_{found_key}' if space else found_key, convert(value)


# -- autodiscovery -----------------------------------------------------------------------------

def autodiscover_tasks(
    packages: Iterable[str] | None, related_name: str | None = 'tasks',
) -> list[Any]:
    """Import *related_name* of each of *packages*; return the modules."""
    with _discovery_lock:
        return [find_related_module(package, related_name) for package in packages or ()]


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        # A parent is missing or is no package.
        return False


def find_related_module(package: str, related_name: str | None) -> Any:
    """Import ``package.related_name``; return None if there is no such module.

    *package* may be the dotted path of a class, such as a Django ``AppConfig``: then
    the nearest package above it is used.  Without *related_name* the package itself is
    imported.

    :raises ImportError: *package* is missing, or an import inside the module failed.
    """
    module = _import_package(package)
    if not related_name:
        return module
    name = f'{module.__name__}.{related_name}'
    return importlib.import_module(name) if _exists(name) else None


def _import_package(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as exc:
        parent = path.rpartition('.')[0]
        # Only the path itself may be missing; an import inside it must not go unseen.
        if not parent or not _is_part_of(exc.name, path):
            raise
    module = _import_package(parent)
    while not hasattr(module, '__path__') and '.' in module.__name__:
        module = importlib.import_module(module.__name__.rpartition('.')[0])
    return module


def _is_part_of(missing: str | None, package: str) -> bool:
    return missing is not None and (package == missing or package.startswith(f'{missing}.'))
