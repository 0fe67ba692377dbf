"""Results in a database, through SQLAlchemy: ``db+postgresql://…`` (PROTOCOL §3.5.4, T-214).

The tables are Celery's, so workers and clients of both share them.
"""
from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pyceleryc import states
from pyceleryc.backends.base import BaseBackend
from pyceleryc.backends.remote import Remote, first_line, require
from pyceleryc.exceptions import BackendError, BackendGetMetaError, BackendStoreError, ImproperlyConfigured

require('sqlalchemy', 'sqlalchemy', 'The database result store')

import sqlalchemy as sa  # noqa: E402
from sqlalchemy import exc as sa_exc  # noqa: E402

from pyceleryc.backends.database import models, pickles  # noqa: E402
from pyceleryc.backends.database.models import Task, TaskExtended, TaskSet  # noqa: E402
from pyceleryc.backends.database.revokes import TableRevokes  # noqa: E402
from pyceleryc.backends.database.session import SessionManager  # noqa: E402

__all__ = ('DatabaseBackend', 'Task', 'TaskExtended', 'TaskSet', 'retry', 'session_cleanup')

logger = logging.getLogger('celery.backends.database')

#: Most results that one query asks for.
READ_MAX = 500
PICKLE = 'application/x-python-serialize'
BAD_URL = 'The URL of the result database {0} or database_engine_options cannot be used: {1}'
NO_DRIVER = ('The driver for the result database {0} is not installed ({1}): install it, or name another '
             'one in the URL, as in db+postgresql+psycopg2://')


@contextmanager
def session_cleanup(session: Any) -> Iterator[None]:
    """Roll *session* back if the block raises; close it in any case."""
    try:
        yield
    except BaseException:
        session.rollback()
        raise
    finally:
        session.close()


def retry(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function that uses the database try again, up to ``max_retries=3`` times."""
    @functools.wraps(fun)
    def tried(*args: Any, **kwargs: Any) -> Any:
        for left in reversed(range(kwargs.pop('max_retries', 3))):
            try:
                return fun(*args, **kwargs)
            except (sa_exc.DatabaseError, sa_exc.InvalidRequestError):
                if not left:
                    raise
        return None

    return tried


class DatabaseBackend(Remote, BaseBackend):
    """Results in the tables ``celery_taskmeta`` and ``celery_tasksetmeta``.

    :param dburi: URL for SQLAlchemy; default: *url*, else the setting ``database_url``.
    :param engine_options: of ``sqlalchemy.create_engine``, added to ``database_engine_options``.
    :raises ImproperlyConfigured: there is no URL, SQLAlchemy does not know it, or its driver is
        not installed.
    """

    #: Seconds; see T-214.
    subpolling_interval = 0.5
    supports_native_join = True
    thread_safe = True
    unreachable = (sa_exc.OperationalError, sa_exc.InterfaceError, sa_exc.TimeoutError)

    def __init__(
        self, app: Any, dburi: str | None = None, engine_options: Any = None, url: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(app, url=_database_url(dburi or url or app.conf.database_url), **kwargs)
        conf = app.conf
        self.engine_options = {**(conf.database_engine_options or {}), **(engine_options or {})}
        self.short_lived_sessions = bool(
            kwargs.get('short_lived_sessions', conf.database_short_lived_sessions))
        self.models = models.make_models(*_tables(conf), PICKLE in self.accept)
        self.task_cls = self.models.extended if conf.result_extended else self.models.task
        self.taskset_cls = self.models.group
        self.session_manager = SessionManager(conf.get('database_engine_callback'))
        self._engine()
        if conf.get('database_create_tables_at_setup', True):
            self._create_tables()

    @property
    def dburi(self) -> str:
        """The URL for SQLAlchemy."""
        return self.url or ''

    @property
    def extended_result(self) -> bool:
        """The setting ``result_extended``."""
        return bool(self.app.conf.result_extended)

    def _engine(self) -> Any:
        try:
            return self.session_manager.get_engine(
                self.dburi, self.short_lived_sessions, **self.engine_options)
        except ImportError as exc:
            raise ImproperlyConfigured(NO_DRIVER.format(self.as_uri(), exc)) from exc
        except (sa_exc.ArgumentError, TypeError, ValueError) as exc:
            raise ImproperlyConfigured(BAD_URL.format(self.as_uri(), first_line(exc))) from exc

    def _create_tables(self) -> None:
        """A database that is down now may be there when a result is stored."""
        try:
            self.session_manager.prepare_models(self._engine(), self.models)
        except TypeError as exc:  # the driver does not know an option in the URL
            raise ImproperlyConfigured(BAD_URL.format(self.as_uri(), first_line(exc))) from exc
        except sa_exc.SQLAlchemyError as exc:
            logger.error('The result database %s cannot be used now: %s', self.as_uri(), first_line(exc))

    def ResultSession(self, session_manager: Any = None) -> Any:  # noqa: N802  Celery's name
        """Return a new session of SQLAlchemy; use it ``with session_cleanup(session)``."""
        manager = session_manager or self.session_manager
        return manager.session_factory(
            self.dburi, self.models, short_lived_sessions=self.short_lived_sessions, **self.engine_options)

    def is_unreachable(self, exc: BaseException) -> bool:
        """Tell whether *exc* says that there is no connection, or a conflict with others."""
        return isinstance(exc, self.unreachable) or getattr(exc, 'connection_invalidated', False)

    # -- statements ---------------------------------------------------------------------------

    def _run(self, work: Callable[[Any], Any]) -> Any:
        """Return ``work(session)``, in one transaction."""
        session = self.ResultSession()
        with session_cleanup(session):
            answer = work(session)
            session.commit()
        return answer

    def _put(self, cls: Any, key: Any, values: dict[str, Any], *guards: Any) -> None:
        """Update the row with *key*, if *guards* allow it, or insert it."""
        table, (name, value) = cls.__table__, key
        update = sa.update(table).where(table.c[name] == value, *guards).values(**values)
        insert = sa.insert(table).values(**{name: value}, **values)

        def put(session: Any) -> None:
            if not session.execute(update).rowcount:
                session.execute(insert)

        try:
            self._run(put)
        except sa_exc.IntegrityError:
            # The row is there: one that the guards protect, or another writer was faster.
            self._run(lambda session: session.execute(update))

    def _first(self, cls: Any, column: Any, value: str) -> Any:
        return self._run(lambda session: session.scalars(sa.select(cls).where(column == value)).first())

    # -- tasks ----------------------------------------------------------------------------------

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None,
        request: Any = None, **kwargs: Any,
    ) -> Any:
        values = self._columns(result, state, traceback, request)
        status = self.task_cls.__table__.c.status
        try:
            # A late state of an earlier run must not replace the result (T-201).
            self.reach(self._put, self.task_cls, ('task_id', task_id), values, status != states.SUCCESS)
        except sa_exc.SQLAlchemyError as exc:
            raise BackendStoreError(self._complaint('stored', exc), state=state, task_id=task_id) from exc
        return result

    def _columns(self, result: Any, state: str, traceback: Any, request: Any) -> dict[str, Any]:
        meta = self._get_result_meta(result, state, traceback, request, format_date=False, encode=True)
        if meta['date_done'] is not None:
            # The column has no zone: it is the app's.
            meta['date_done'] = meta['date_done'].replace(tzinfo=None)
        for name in ('args', 'kwargs'):
            if isinstance(meta.get(name), str):
                meta[name] = meta[name].encode()
        meta['result'] = pickles.dump_result(result, PICKLE in self.accept)
        known = self.task_cls.columns
        return {name: value for name, value in meta.items() if name in known}

    def _row(self, cls: Any, column: Any, value: str) -> Any:
        try:
            return self.reach(self._first, cls, column, value)
        except sa_exc.SQLAlchemyError as exc:
            raise BackendGetMetaError(self._complaint('read', exc), task_id=value) from exc

    def task_result_exists(self, task_id: str) -> bool:
        """Tell whether there is a row."""
        return self._row(self.task_cls, self.task_cls.task_id, task_id) is not None

    def _get_task_meta_for(self, task_id: str) -> Any:
        row = self._row(self.task_cls, self.task_cls.task_id, task_id)
        if row is None:
            row = self.task_cls(task_id)
            row.status = states.PENDING
        return self._meta(row)

    def _meta(self, row: Any) -> Any:
        data = row.to_dict()
        for name in ('args', 'kwargs'):
            if data.get(name) is not None:
                data[name] = self.decode(data[name])
        return self.meta_from_decoded(data)

    def _ready_of(self, task_ids: list[str], ready: Any) -> Iterator[tuple[str, Any]]:
        for start in range(0, len(task_ids), READ_MAX):
            part = task_ids[start:start + READ_MAX]
            query = sa.select(self.task_cls).where(
                self.task_cls.task_id.in_(part), self.task_cls.status.in_(ready))
            for row in self.reach(self._run, lambda session: session.scalars(query).all()):
                yield row.task_id, self._remember(row.task_id, self._meta(row))

    def _forget(self, task_id: str) -> None:
        self._delete(self.task_cls, self.task_cls.task_id == task_id)

    def _delete(self, cls: Any, *where: Any) -> None:
        try:
            self.reach(self._run, lambda session: session.execute(sa.delete(cls.__table__).where(*where)))
        except sa_exc.SQLAlchemyError as exc:
            raise BackendError(self._complaint('deleted', exc)) from exc

    def _complaint(self, what: str, exc: BaseException) -> str:
        return f'The result cannot be {what} in {self.as_uri()}: {first_line(exc)}'

    # -- groups ---------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        values = {'result': pickles.dump_group(result), 'date_done': _utc_now()}
        try:
            self.reach(self._put, self.taskset_cls, ('taskset_id', group_id), values)
        except sa_exc.SQLAlchemyError as exc:
            raise BackendStoreError(self._complaint('stored', exc), task_id=group_id) from exc
        return result

    def _restore_group(self, group_id: str) -> Any:
        row = self._row(self.taskset_cls, self.taskset_cls.taskset_id, group_id)
        if row is None:
            return None
        data = row.to_dict()
        data['result'] = pickles.load_group(data['result'], self.app)
        return data

    def _delete_group(self, group_id: str) -> None:
        self._delete(self.taskset_cls, self.taskset_cls.taskset_id == group_id)

    def revoke_store(self) -> TableRevokes:
        """Return what keeps revoked ids in the database."""
        return TableRevokes(self)

    # -- cleanup --------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Delete the results and groups that are older than ``result_expires`` (T-217)."""
        if not self.expires:
            return
        age = timedelta(seconds=self.expires)
        oldest = {self.task_cls: self.app.now().replace(tzinfo=None) - age, self.taskset_cls: _utc_now() - age}
        for cls, date in oldest.items():
            self._delete(cls, cls.date_done < date)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.app, self.dburi, self.serializer, self.expires, self.engine_options)


def _rebuild(cls: Any, app: Any, dburi: str, serializer: str, expires: Any, options: Any) -> Any:
    return cls(app=app, dburi=dburi, serializer=serializer, expires=expires, engine_options=options)


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _database_url(url: str | None) -> str:
    url = (url or '').removeprefix('db+')
    if '://' not in url or url.partition('://')[0] in ('db', 'database'):
        raise ImproperlyConfigured(
            'Missing connection string! Write result_backend="db+postgresql://user:password@host/name", '
            '"db+sqlite:///results.db" or another URL of SQLAlchemy after "db+", or set database_url')
    return url


def _tables(conf: Any) -> tuple[str, str, str | None, str | None]:
    names, schemas = conf.database_table_names or {}, conf.database_table_schemas or {}
    return (names.get('task') or models.TASK_TABLE, names.get('group') or models.GROUP_TABLE,
            schemas.get('task'), schemas.get('group'))
