"""The tables ``celery_taskmeta`` and ``celery_tasksetmeta`` (PROTOCOL §3.5.4)."""
from __future__ import annotations

import functools
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import LONGBLOB, LONGTEXT
from sqlalchemy.orm import DeclarativeBase

from pyceleryc import states
from pyceleryc.backends.database.pickles import PickledResult

__all__ = ('ResultModelBase', 'Task', 'TaskExtended', 'TaskSet', 'make_models')

TASK_TABLE, GROUP_TABLE = 'celery_taskmeta', 'celery_tasksetmeta'
#: MySQL's plain BLOB and TEXT end at 64 KiB.
BINARY = sa.LargeBinary().with_variant(LONGBLOB(), 'mysql', 'mariadb')
TEXT = sa.Text().with_variant(LONGTEXT(), 'mysql', 'mariadb')


class _TaskMethods:
    """State and result of one task."""

    extended = False
    columns: tuple[str, ...] = ('task_id', 'status', 'result', 'traceback', 'date_done')

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id

    def to_dict(self) -> dict[str, Any]:
        """Return the meta dict."""
        return {name: getattr(self, name) for name in self.columns}

    def __repr__(self) -> str:
        return f'<Task {self.task_id} state: {getattr(self, "status", None)}>'


class _ExtendedMethods(_TaskMethods):
    """The same, with what the setting ``result_extended`` adds."""

    extended = True
    columns = (*_TaskMethods.columns, 'name', 'args', 'kwargs', 'worker', 'retries', 'queue')


class _GroupMethods:
    """A saved group."""

    def __init__(self, taskset_id: str, result: Any) -> None:
        self.taskset_id = taskset_id
        self.result = result

    def to_dict(self) -> dict[str, Any]:
        """Return the row as a dict."""
        return {name: getattr(self, name) for name in ('taskset_id', 'result', 'date_done')}

    def __repr__(self) -> str:
        return f'<TaskSet: {self.taskset_id}>'


def _id(sequence: str) -> Any:
    return sa.Column('id', sa.Integer, sa.Sequence(sequence), primary_key=True, autoincrement=True)


def _task_columns(trusted: bool) -> list[Any]:
    return [
        _id('task_id_sequence'),
        sa.Column('task_id', sa.String(155), unique=True),
        sa.Column('status', sa.String(50), default=states.PENDING),
        sa.Column('result', PickledResult(trusted), nullable=True),
        sa.Column('date_done', sa.DateTime, nullable=True),
        sa.Column('traceback', TEXT, nullable=True),
        sa.Column('name', sa.String(155), nullable=True),
        sa.Column('args', BINARY, nullable=True),
        sa.Column('kwargs', BINARY, nullable=True),
        sa.Column('worker', sa.String(155), nullable=True),
        sa.Column('retries', sa.Integer, nullable=True),
        sa.Column('queue', sa.String(155), nullable=True),
    ]


def _group_columns() -> list[Any]:
    return [
        _id('taskset_id_sequence'),
        sa.Column('taskset_id', sa.String(155), unique=True),
        sa.Column('result', BINARY, nullable=True),
        sa.Column('date_done', sa.DateTime, default=_now, nullable=True),
    ]


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _table(base: Any, name: str, schema: str | None, columns: list[Any]) -> Any:
    table = sa.Table(name, base.metadata, *columns, schema=schema, sqlite_autoincrement=True)
    sa.Index(f'ix_{name}_date_done', table.c.date_done)
    return table


@functools.cache
def make_models(
    task_table: str, group_table: str, task_schema: str | None, group_schema: str | None, trusted: bool,
) -> Any:
    """Return the classes ``task``, ``extended`` and ``group`` of tables, and their ``base``.

    :param trusted: may results be of any class?
    """
    class Base(DeclarativeBase):
        """Base of the classes of these tables."""

    tasks = _table(Base, task_table, task_schema, _task_columns(trusted))
    groups = _table(Base, group_table, group_schema, _group_columns())
    return SimpleNamespace(
        base=Base,
        task=type('Task', (_TaskMethods, Base), {'__table__': tasks}),
        extended=type('TaskExtended', (_ExtendedMethods, Base), {'__table__': tasks}),
        group=type('TaskSet', (_GroupMethods, Base), {'__table__': groups}),
    )


_default = make_models(TASK_TABLE, GROUP_TABLE, None, None, False)
ResultModelBase = _default.base
Task = _default.task
TaskExtended = _default.extended
TaskSet = _default.group
