"""Engines and sessions: one engine for each process and database."""
from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from pyceleryc.backends.database.models import ResultModelBase

__all__ = ('ResultModelBase', 'SessionManager')

#: Tries to create the tables: processes that start together do it at once, and one of them fails.
CREATE_TRIES = 5
#: Engine options that only pools know.
_POOL_OPTIONS = ('pool_size', 'max_overflow', 'pool_timeout', 'pool_recycle', 'pool_use_lifo')


class SessionManager:
    """Makes sessions; a forked child makes new connections and leaves its parent's alone.

    :param engine_callback: called with each engine that is made; the setting
        ``database_engine_callback``.
    """

    def __init__(self, engine_callback: Callable[[Any], Any] | None = None) -> None:
        self.engine_callback = engine_callback
        self._engines: dict[str, Any] = {}
        self._start()

    def _start(self) -> None:
        # Those of the parent process, if there are any: it goes on using their connections.
        for engine in self._engines.values():
            engine.dispose(close=False)
        self._engines, self._prepared = {}, set[Any]()
        self._lock, self._pid = threading.Lock(), os.getpid()

    def get_engine(self, dburi: str, short_lived_sessions: bool = False, **kwargs: Any) -> Any:
        """Return the process's engine for *dburi*.

        :param short_lived_sessions: connect anew for each session.
        :param kwargs: of ``sqlalchemy.create_engine``.
        """
        if self._pid != os.getpid():
            self._start()
        with self._lock:
            found = self._engines.get(dburi)
            if found is None:
                found = self._engines[dburi] = self._make(dburi, short_lived_sessions, kwargs)
        return found

    def _make(self, dburi: str, short_lived: bool, options: dict[str, Any]) -> Any:
        # The text of errors goes into logs, and parameters are users' data.
        options = {'hide_parameters': True, **options}
        if short_lived:
            options = {key: value for key, value in options.items() if key not in _POOL_OPTIONS}
            options['poolclass'] = NullPool
        engine = create_engine(dburi, **options)
        if self.engine_callback is not None:
            self.engine_callback(engine)
        return engine

    def create_session(self, dburi: str, short_lived_sessions: bool = False, **kwargs: Any) -> Any:
        """Return the engine and a maker of sessions."""
        engine = self.get_engine(dburi, short_lived_sessions, **kwargs)
        return engine, sessionmaker(bind=engine, expire_on_commit=False)

    def session_factory(self, dburi: str, models: Any = None, **kwargs: Any) -> Any:
        """Return a new session, in a database that has the tables.

        :param models: as :func:`make_models` returns them; default: those of the default names.
        """
        engine, make = self.create_session(dburi, **kwargs)
        self.prepare_models(engine, models)
        return make()

    def prepare_models(self, engine: Any, models: Any = None) -> None:
        """Create the tables that are missing, once in each process.

        :raises sqlalchemy.exc.DatabaseError: that is not possible.
        """
        base = ResultModelBase if models is None else models.base
        if (engine, base) in self._prepared:
            return
        for left in reversed(range(CREATE_TRIES)):
            try:
                base.metadata.create_all(engine)
                break
            except DatabaseError:
                if not left:
                    raise
                time.sleep(0.05)
        self._prepared.add((engine, base))

    def invalidate(self, dburi: str) -> None:
        """Close the connections to *dburi*; the next session makes new ones."""
        with self._lock:
            engine = self._engines.pop(dburi, None)
        if engine is not None:
            engine.dispose()
