"""Django: set it up before tasks are imported, close its connections around tasks.

Active when ``DJANGO_SETTINGS_MODULE`` is set.  This module must not import Django
at the top: it is looked at in programs that do not have it.
"""
from __future__ import annotations

import os
import sys
import warnings
from datetime import datetime, timezone
from functools import cached_property
from importlib import import_module
from typing import Any

from pyceleryc import signals
from pyceleryc.exceptions import FixupWarning, ImproperlyConfigured
from pyceleryc.utils.imports import symbol_by_name
from pyceleryc.utils.log import get_logger

__all__ = ('DjangoFixup', 'DjangoWorkerFixup', 'fixup')

logger = get_logger('celery.fixups.django')

ERR_NOT_INSTALLED = (
    "DJANGO_SETTINGS_MODULE is set, but Django isn't installed: the app is used without it. "
    'Install Django, or unset the variable.'
)
MIN_DJANGO = (2, 2)
DJANGO_TASK = 'pyceleryc.contrib.django.task:DjangoTask'


def _maybe_close_fd(fh: Any) -> None:
    try:
        os.close(fh.fileno())
    except (AttributeError, OSError, TypeError):
        # No file behind it, or closed already.
        return


def _is_eager(task: Any) -> bool:
    # An eager task runs inside a request, whose connections go on.
    return bool(getattr(task.request, 'is_eager', False))


def _verify_django_version(django: Any) -> None:
    if django.VERSION < MIN_DJANGO:
        needed = '.'.join(map(str, MIN_DJANGO))
        raise ImproperlyConfigured(f'Django {needed} or later is required')


def fixup(app: Any, env: str = 'DJANGO_SETTINGS_MODULE') -> DjangoFixup | None:
    """Apply the fixup to *app* if the environment names Django settings; else None."""
    if not os.environ.get(env):
        return None
    try:
        django = import_module('django')
    except ImportError:
        warnings.warn(FixupWarning(ERR_NOT_INSTALLED), stacklevel=2)
        return None
    _verify_django_version(django)
    return DjangoFixup(app).install()


class DjangoFixup:
    """What every process with a Django app needs."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._worker_fixup: DjangoWorkerFixup | None = None
        if app is not None:
            # Requests are served by many threads, and all of them use this app.
            app.set_default()

    def install(self) -> DjangoFixup:
        """Connect to the app and to the signals of the worker."""
        # Projects are run from their directory, which commands do not have on the path.
        sys.path.insert(0, os.getcwd())
        self.app.loader.now = self.now
        if not getattr(self.app, '_custom_task_cls_used', False):
            self.app.task_cls = DJANGO_TASK
        signals.import_modules.connect(self.on_import_modules, sender=self.app)
        signals.worker_init.connect(self.on_worker_init)
        return self

    @property
    def worker_fixup(self) -> DjangoWorkerFixup:
        """The part for workers, made when it is needed."""
        if self._worker_fixup is None:
            self._worker_fixup = DjangoWorkerFixup(self.app)
        return self._worker_fixup

    @worker_fixup.setter
    def worker_fixup(self, value: DjangoWorkerFixup) -> None:
        self._worker_fixup = value

    def on_import_modules(self, **kwargs: Any) -> None:
        """Set Django up and check models before any task module is imported."""
        self.worker_fixup.validate_models()

    def on_worker_init(self, **kwargs: Any) -> None:
        """Start looking after connections."""
        self.worker_fixup.install()

    def now(self, utc: bool = False) -> datetime:
        """Return the time now, as Django sees it unless *utc*."""
        if utc:
            return datetime.now(timezone.utc).replace(tzinfo=None)
        return self._now()  # type: ignore[no-any-return]

    def autodiscover_tasks(self) -> list[str]:
        """Return the names of the installed Django apps."""
        apps = symbol_by_name('django.apps:apps')
        return [config.name for config in apps.get_app_configs()]

    @cached_property
    def _now(self) -> Any:
        return symbol_by_name('django.utils.timezone:now')


class DjangoWorkerFixup:
    """Closes connections around tasks, and those that a new process inherited.

    The setting ``CELERY_DB_REUSE_MAX`` keeps database connections for so many tasks.
    """

    worker: Any = None

    def __init__(self, app: Any) -> None:
        self.app = app
        self.db_reuse_max = app.conf.get('CELERY_DB_REUSE_MAX', None)
        self._connections = import_module('django.db').connections
        self._cache = import_module('django.core.cache')
        self._settings = symbol_by_name('django.conf:settings')
        self._database_error = symbol_by_name('django.db:Error')
        self._tasks_served = 0

    def django_setup(self) -> None:
        """Set Django up: settings, logging and models."""
        import_module('django').setup()

    def validate_models(self) -> None:
        """Set Django up and run its checks, unless ``CELERY_SKIP_CHECKS`` is set."""
        self.django_setup()
        if not os.environ.get('CELERY_SKIP_CHECKS'):
            import_module('django.core.checks')
            symbol_by_name('django.core.management.base:BaseCommand')().check()

    def install(self) -> DjangoWorkerFixup:
        """Connect to the signals around tasks, and close what is open now."""
        signals.beat_embedded_init.connect(self.close_database)
        signals.task_prerun.connect(self.on_task_prerun)
        signals.task_postrun.connect(self.on_task_postrun)
        signals.worker_process_init.connect(self.on_worker_process_init)
        self.close_database()
        self.close_cache()
        return self

    def on_worker_process_init(self, **kwargs: Any) -> None:
        """Let go of the connections that were inherited from the parent."""
        for connection in self._connections.all():
            # Closing by the protocol would end the session of the parent, too.
            self._close_socket(connection)
        self.close_database()
        self.close_cache()

    def _close_socket(self, connection: Any) -> None:
        handle = getattr(connection, 'connection', None)
        socket = getattr(handle, '_sock', None) or handle
        if hasattr(socket, 'fileno'):
            _maybe_close_fd(socket)

    def on_task_prerun(self, sender: Any, **kwargs: Any) -> None:
        """Start every task with fresh connections, unless they are kept."""
        if not self.db_reuse_max and not _is_eager(sender):
            self.close_database()

    def on_task_postrun(self, sender: Any, **kwargs: Any) -> None:
        """Close what the task used, or count it where connections are kept."""
        if _is_eager(sender):
            return
        self._tasks_served += 1
        if self._tasks_served >= (self.db_reuse_max or 1):
            self.close_database()
        self.close_cache()

    def close_database(self, **kwargs: Any) -> None:
        """Close the database connections of this thread."""
        self._tasks_served = 0
        for connection in self._connections.all():
            try:
                connection.close()
            except self._database_error as exc:
                # The server may have hung up first: what counts is that it is not used again.
                logger.warning('Closing %r failed: %r', connection, exc)
                connection.connection = None

    def close_cache(self) -> None:
        """Close the connections of the caches."""
        try:
            self._cache.close_caches()
        except (TypeError, AttributeError):
            # A cache backend without the method.
            return
