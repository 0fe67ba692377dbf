"""Configuration of an app: where settings come from, and when they are read."""
from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

from pyceleryc import signals
from pyceleryc.app.defaults import _TO_NEW_KEY, SETTING_KEYS
from pyceleryc.app.utils import Settings, detect_settings
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.dispatch import Signal
from pyceleryc.utils.functional import maybe_evaluate

__all__ = ('Configuring', 'PendingConfiguration')

ERR_ENVVAR_NOT_SET = """The environment variable {0!r} is not set,
and as such the configuration could not be loaded.

Please set this variable and make sure it points to
a valid configuration module.

Example:
    {0}="proj.celeryconfig"\
"""


class PendingConfiguration(MutableMapping[str, Any]):
    """Settings that were written before anything was read: reading loads the others.

    :param data: what is written goes here.
    :param load: returns the loaded settings.
    """

    def __init__(self, data: dict[str, Any], load: Callable[[], Any]) -> None:
        self.data = data
        self.load = load

    def __getitem__(self, key: str) -> Any:
        return self.load()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.data[key] = value

    def __delitem__(self, key: str) -> None:
        del self.data[key]

    def __contains__(self, key: object) -> bool:
        return key in self.load()

    def __iter__(self) -> Iterator[str]:
        return iter(self.load())

    def __len__(self) -> int:
        return len(self.load())

    def __bool__(self) -> bool:
        return True

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.data.update(*args, **kwargs)

    def setdefault(self, key: str, default: Any = None) -> Any:
        return self.data.setdefault(key, default)

    def clear(self) -> None:
        self.data.clear()


class Configuring:
    """The part of :class:`~pyceleryc.app.base.Celery` about settings."""

    loader: Any
    on_configure: Any
    on_after_configure: Any
    namespace: str | None
    _preconf: dict[str, Any]
    _config_source: Any
    _config_silent: bool
    _conf: Any
    _pending_defaults: deque[Any]
    _pending_periodic_tasks: deque[Any]
    #: Called with the names of settings that were changed.
    _conf_changed: list[Callable[[tuple[str, ...]], Any]]
    _fixups: list[Any]
    _add_periodic_task: Any
    configured: bool

    @property
    def conf(self) -> Any:
        """The :class:`~pyceleryc.app.utils.Settings`; read when the first is asked for."""
        if self._conf is None:
            self._conf = Settings(PendingConfiguration(self._preconf, self._load_config))
            self._conf.bind_to(self._on_conf_change)
        return self._conf

    @conf.setter
    def conf(self, settings: Any) -> None:
        self._conf = settings

    def _load_config(self) -> Any:
        """Read the configuration; objects returned by :attr:`conf` before stay valid."""
        if isinstance(self.on_configure, Signal):
            self.on_configure.send(sender=self)
        else:
            # Overridden as a method.
            self.on_configure()
        if self._config_source:
            self.loader.config_from_object(self._config_source, silent=self._config_silent)
        self.configured = True
        settings = detect_settings(
            self.prepare_config(self.loader.conf), self._preconf, prefix=self.namespace)
        self.conf.swap_with(settings)
        settings = self.conf
        self._settings_changed(tuple(SETTING_KEYS))
        while self._pending_defaults:
            settings.add_defaults(maybe_evaluate(self._pending_defaults.popleft()()))
        while self._pending_periodic_tasks:
            self._add_periodic_task(*self._pending_periodic_tasks.popleft())
        self.on_after_configure.send(sender=self, source=settings)
        return settings

    def _on_conf_change(self, **changes: Any) -> None:
        self._settings_changed(tuple(self._new_name(name) for name in changes))

    def _settings_changed(self, names: tuple[str, ...]) -> None:
        for callback in list(self._conf_changed):
            callback(names)

    def _new_name(self, name: str) -> str:
        """Return the new name of a setting, without the prefix of the namespace."""
        prefix = f'{self.namespace.rstrip("_")}_' if self.namespace else ''
        if prefix and name.startswith(prefix):
            return name[len(prefix):].lower()
        return _TO_NEW_KEY.get(name, name)

    def prepare_config(self, c: Any) -> Any:
        """Change the settings of the source before they are used; to be overridden."""
        return c

    def setup_security(
        self, allowed_serializers: Iterable[str] | None = None, key: str | None = None,
        key_password: bytes | None = None, cert: str | None = None, store: str | None = None,
        digest: str | None = None, serializer: str = 'json',
    ) -> None:
        """Sign messages; see :func:`pyceleryc.security.setup_security`."""
        # Imported here: few need it.
        from pyceleryc.security import setup_security

        setup_security(
            allowed_serializers, key, key_password, cert, store, digest, serializer, app=self)

    # -- sources ------------------------------------------------------------------------------

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None,
    ) -> Any:
        """Take settings from a module, class, dict, or the name of one.

        They are read when the first setting is asked for.

        :param silent: ignore a module that cannot be imported.
        :param force: read now.
        :param namespace: prefix of the names: ``CELERY`` for ``CELERY_TASK_ACKS_LATE``.
        """
        self._config_source = obj
        self._config_silent = silent
        self.namespace = namespace or self.namespace
        if force or self.configured:
            return self._load_config()
        return None

    def config_from_envvar(
        self, variable_name: str, silent: bool = False, force: bool = False,
    ) -> Any:
        """Take settings from the module that an environment variable names.

        :raises ImproperlyConfigured: it is not set, unless *silent*.
        """
        name = os.environ.get(variable_name)
        if not name:
            if silent:
                return False
            raise ImproperlyConfigured(ERR_ENVVAR_NOT_SET.format(variable_name))
        return self.config_from_object(name, silent=silent, force=force)

    def config_from_cmdline(self, argv: Iterable[str], namespace: str = 'celery') -> None:
        """Take settings from arguments such as ``worker.prefetch_multiplier=1``."""
        self.conf.update(self.loader.cmdline_config_parser(argv, namespace))

    def add_defaults(self, fun: Any) -> Any:
        """Add default settings (a mapping, or a function that returns one when needed)."""
        if not callable(fun):
            defaults, fun = fun, lambda: defaults
        if self.configured:
            return self.conf.add_defaults(fun())
        self._pending_defaults.append(fun)
        return None

    # -- task modules -------------------------------------------------------------------------

    def autodiscover_tasks(
        self, packages: Any = None, related_name: str | None = 'tasks', force: bool = False,
    ) -> Any:
        """Import the module *related_name* of each package, when worker or beat start.

        :param packages: names, or a function that returns them; None: Django's apps.
        :param related_name: None imports the packages themselves.
        :param force: import now.
        """
        if force:
            return self._autodiscover_tasks(packages, related_name)

        def on_import_modules(**_: Any) -> None:
            self._autodiscover_tasks(packages, related_name)

        signals.import_modules.connect(on_import_modules, weak=False, sender=self)
        return None

    def _autodiscover_tasks(self, packages: Any, related_name: str | None) -> Any:
        if packages:
            names = packages() if callable(packages) else packages
            return self.loader.autodiscover_tasks(names, related_name)
        found: list[str] = []
        for fixup in self._fixups:
            if hasattr(fixup, 'autodiscover_tasks'):
                found.extend(fixup.autodiscover_tasks())
        return self.loader.autodiscover_tasks(found, related_name=related_name)
