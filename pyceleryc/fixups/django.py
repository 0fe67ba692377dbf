"""Django: set it up before tasks are imported, close its connections around tasks.

Active when ``DJANGO_SETTINGS_MODULE`` is set.  This module must not import Django
at the top: it is looked at in programs that do not have it.
"""
from __future__ import annotations

import os
import sys
import warnings
from datetime import datetime, timezone
from importlib import import_module
from typing import Any

from pyceleryc import signals
from pyceleryc.exceptions import FixupWarning, ImproperlyConfigured
from pyceleryc.utils.imports import symbol_by_name
from pyceleryc.utils.log import get_logger

__all__ = ('DjangoFixup', 'DjangoWorkerFixup', 'fixup')

logger = get_logger('celery.fixups.django')

OLDEST_DJANGO = (2, 2)
DJANGO_TASK = 'pyceleryc.contrib.django.task:DjangoTask'


def fixup(app: Any, env: str = 'DJANGO_SETTINGS_MODULE') -> DjangoFixup | None:
    """Apply the fixup to *app* if the environment names Django settings; else None.

    :raises ImproperlyConfigured: this Django is too old.
    """
    if not os.environ.get(env):
        return None
    try:
        version = import_module('django').VERSION
    except ImportError:
        warnings.warn(FixupWarning(
            f"{env} is set, but Django isn't installed: the app is used without it. "
            'Install Django, or unset the variable.'), stacklevel=2)
        return None
    if version < OLDEST_DJANGO:
        raise ImproperlyConfigured('Django {}.{} or later is required'.format(*OLDEST_DJANGO))
    return DjangoFixup(app).install()


class DjangoFixup:
    """What every process with a Django app needs."""

    def __init__(self, app: Any) -> None:
        self.app = app
        #: The part for workers, made when it is needed; others may be put here.
        self._for_worker: DjangoWorkerFixup | None = None
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
        for signal, handler, sender in ((signals.import_modules, self.on_import_modules, self.app),
                                        (signals.worker_init, self.on_worker_init, None)):
            signal.connect(handler, sender=sender)
        return self

    @property
    def worker_fixup(self) -> DjangoWorkerFixup:
        """The part for workers."""
        if self._for_worker is None:
            self._for_worker = DjangoWorkerFixup(self.app)
        return self._for_worker

    @worker_fixup.setter
    def worker_fixup(self, value: DjangoWorkerFixup) -> None:
        self._for_worker = value

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
        return symbol_by_name('django.utils.timezone:now')()

    def autodiscover_tasks(self) -> list[str]:
        """Return the names of the installed Django apps."""
        return [config.name for config in symbol_by_name('django.apps:apps').get_app_configs()]


class _Connections:
    """What Django has open in this process."""

    def __init__(self) -> None:
        self._databases = import_module('django.db').connections
        self._error = symbol_by_name('django.db:Error')
        self._close_caches = getattr(import_module('django.core.cache'), 'close_caches', None)

    def close_databases(self) -> None:
        """Close those of this thread."""
        for connection in self._databases.all():
            try:
                connection.close()
            except self._error as exc:
                # The server may have hung up first: what counts is that it is not used again.
                logger.warning('Closing %r failed: %r', connection, exc)
                connection.connection = None

    def close_caches(self) -> None:
        """Close those of the caches."""
        if self._close_caches is not None:
            self._close_caches()

    def abandon(self) -> None:
        """In a forked process: let go of the parent's. A proper goodbye would end the parent's session, too."""
        for connection in self._databases.all():
            driver = getattr(connection, 'connection', None)
            number = _descriptor(getattr(driver, '_sock', None) or driver)
            if number is not None:
                os.closerange(number, number + 1)
        self.close_databases()
        self.close_caches()


def _descriptor(file: Any) -> int | None:
    """Return the number of an open file, or None: not every driver has one to show."""
    try:
        return int(file.fileno())
    except (AttributeError, OSError, TypeError, ValueError):
        return None


class DjangoWorkerFixup:
    """Decides when connections are closed: around each task, and in a new process.

    The setting ``CELERY_DB_REUSE_MAX`` keeps database connections for so many tasks.
    """

    worker: Any = None

    def __init__(self, app: Any) -> None:
        self.app = app
        self.db_reuse_max = app.conf.get('CELERY_DB_REUSE_MAX', None)
        self._open = _Connections()
        self._served = 0

    def django_setup(self) -> None:
        """Set Django up: settings, logging and models."""
        import_module('django').setup()

    def validate_models(self) -> None:
        """Set Django up and run its checks, unless ``CELERY_SKIP_CHECKS`` is set."""
        self.django_setup()
        if not os.environ.get('CELERY_SKIP_CHECKS'):
            symbol_by_name('django.core.management.base:BaseCommand')().check()

    def install(self) -> DjangoWorkerFixup:
        """Connect to the signals around tasks, and close what is open now."""
        for signal, handler in (
            (signals.beat_embedded_init, self.close_database),
            (signals.task_prerun, self.on_task_prerun),
            (signals.task_postrun, self.on_task_postrun),
            (signals.worker_process_init, self.on_worker_process_init),
        ):
            signal.connect(handler)
        self.close_database()
        self.close_cache()
        return self

    def on_worker_process_init(self, **kwargs: Any) -> None:
        """Let go of the connections that were inherited from the parent."""
        self._served = 0
        self._open.abandon()

    def on_task_prerun(self, sender: Any, **kwargs: Any) -> None:
        """Start every task with fresh connections, unless they are kept."""
        if not self.db_reuse_max and not _inside_a_request(sender):
            self.close_database()

    def on_task_postrun(self, sender: Any, **kwargs: Any) -> None:
        """Close what the task used, or count it where connections are kept."""
        if _inside_a_request(sender):
            return
        self._served += 1
        if self._served >= (self.db_reuse_max or 1):
            self.close_database()
        self.close_cache()

    def close_database(self, **kwargs: Any) -> None:
        """Close the database connections of this thread."""
        self._served = 0
        self._open.close_databases()

    def close_cache(self) -> None:
        """Close the connections of the caches."""
        self._open.close_caches()


def _inside_a_request(task: Any) -> bool:
    """An eager task uses the connections of its caller, who goes on with them."""
    return bool(getattr(task.request, 'is_eager', False))
