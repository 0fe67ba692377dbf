"""Revoked ids in a table of the result database; see :mod:`pyceleryc.backends.revokes`."""
from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pyceleryc.backends.errors import StoreUnreachable
from pyceleryc.backends.remote import first_line
from pyceleryc.backends.revokes import LIMIT, entries

__all__ = ('TableRevokes',)


#: More than two need as many writers of the same ids.
TRIES = 5


class Base(DeclarativeBase):
    """Base of the class of this table: it is made only where it is needed."""


class Revoked(Base):
    """A revoked id, and the Unix time at which it is forgotten."""

    __tablename__ = 'pyceleryc_revoked'
    task_id: Mapped[str] = mapped_column(sa.String(155), primary_key=True)
    expires: Mapped[float] = mapped_column(sa.Double, index=True)


class TableRevokes:
    """The table ``pyceleryc_revoked``.

    :param backend: the ``DatabaseBackend`` whose database it is in.
    """

    base = Base

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def add(self, task_ids: Sequence[str], expires: float) -> None:
        now = time.time()
        for part in entries(task_ids):
            for left in reversed(range(TRIES)):
                try:
                    self._try(self._add, part, now + expires)
                    break
                except sa.exc.IntegrityError:  # another one was faster with the same ids: now they are there
                    if not left:
                        raise
        self._try(self.backend._run, lambda session: session.execute(sa.delete(Revoked).where(Revoked.expires <= now)))

    def _add(self, task_ids: Sequence[str], until: float) -> None:
        def put(session: Any) -> None:
            session.execute(sa.update(Revoked).where(Revoked.task_id.in_(task_ids)).values(expires=until))
            known = set(session.scalars(sa.select(Revoked.task_id).where(Revoked.task_id.in_(task_ids))))
            new = [{'task_id': task_id, 'expires': until} for task_id in dict.fromkeys(task_ids) if task_id not in known]
            if new:
                session.execute(sa.insert(Revoked), new)

        self.backend._run(put)

    def load(self) -> list[str]:
        newest = sa.select(Revoked.task_id).where(Revoked.expires > time.time()).order_by(Revoked.expires.desc()).limit(LIMIT)
        found: list[str] = self._try(self.backend._run, lambda session: list(session.scalars(newest)))
        return found[::-1]

    def _try(self, call: Any, *args: Any) -> Any:
        def prepared() -> Any:
            self.backend.session_manager.prepare_models(self.backend._engine(), self)
            return call(*args)

        try:
            return self.backend.reach(prepared)
        except sa.exc.IntegrityError:
            raise
        except sa.exc.SQLAlchemyError as exc:
            raise StoreUnreachable(f'Revoked ids cannot be kept in {self.backend.as_uri()}: {first_line(exc)}') from exc
