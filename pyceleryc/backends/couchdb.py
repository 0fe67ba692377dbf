"""Results in CouchDB: ``couchdb://user:password@host:5984/database``."""
from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pyceleryc.backends.remote import RemoteStore, require
from pyceleryc.exceptions import BackendStoreError, ImproperlyConfigured

__all__ = ('CouchBackend',)

WHAT = 'The result store couchdb://'
BAD_URL = 'The URL of the result store cannot be used; it has to be like couchdb://user:password@host:5984/database'
PORT, DATABASE = 5984, 'default'
#: Seconds to connect, and to wait for an answer.
TIMEOUT = (5, 30)
#: Tries to write a document that others write, too.
TRIES = 20
#: Most documents that one request asks for.
READ_MAX = 500
MISSING, CONFLICT, EXISTS, BUSY = 404, 409, 412, 429


class Refused(Exception):
    """An answer of the server that says no."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f'{status} {reason}')
        self.status = status


class CouchBackend(RemoteStore):
    """One document for each key, with the text of the result in its field ``value``.

    The database is made if there is none. Nothing is ever dropped by itself.

    :raises ImproperlyConfigured: the URL cannot be used, or requests is not installed.
    """

    thread_safe = True
    refusals = (Refused,)

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        self._library = require('requests', 'couchdb', WHAT)
        self.unreachable = (self._library.ConnectionError, self._library.Timeout)
        try:
            parts = urlsplit(url or '')
            address = f'{parts.hostname or "localhost"}:{parts.port or PORT}'
        except ValueError as exc:
            raise ImproperlyConfigured(BAD_URL) from exc
        self._database = f'http://{address}/{quote(unquote(parts.path.strip("/")) or DATABASE, safe="")}'
        self._auth = tuple(unquote(word or '').encode() for word in (parts.username, parts.password)) if parts.username else None
        self._session, self._pid = self._library.Session(), os.getpid()

    def _ask(self, method: str, path: str = '', **kwargs: Any) -> Any:
        """Return the answer to a request for *path* in the database.  :raises Refused: it is an error."""
        if self._pid != os.getpid():
            # Its sockets are the parent's.
            self._session, self._pid = self._library.Session(), os.getpid()
        answer = self._session.request(method, self._database + path, auth=self._auth, timeout=TIMEOUT, **kwargs)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, answer.reason)
        return answer

    def is_unreachable(self, exc: BaseException) -> bool:
        """Tell whether *exc* is an error of the connection, of the server, or says that it is busy."""
        return super().is_unreachable(exc) or (isinstance(exc, Refused) and (exc.status >= 500 or exc.status == BUSY))

    # -- documents ----------------------------------------------------------------------------

    def get(self, key: Any) -> bytes | None:
        """Return the value of *key*, or None."""
        answer = self.reach(self._unless_missing, 'GET', _path(key))
        return None if answer is None else _value(answer.json())

    def mget(self, keys: Iterable[Any]) -> list[bytes | None]:
        """Return the values of *keys*."""
        wanted, found = list(keys), []
        for start in range(0, len(wanted), READ_MAX):
            answer = self.reach(self._unless_missing, 'POST', '/_all_docs?include_docs=true', json={'keys': wanted[start:start + READ_MAX]})
            rows = [{}] * len(wanted[start:start + READ_MAX]) if answer is None else answer.json()['rows']
            found += [_value(row['doc']) if row.get('doc') else None for row in rows]
        return found

    def set(self, key: Any, value: Any) -> None:
        """Store *value* under *key*.

        :raises BackendStoreError: others write it all the time.
        """
        self.reach(self._change, 'PUT', key, json=self._document(value))

    def delete(self, key: Any) -> None:
        """Delete *key*."""
        self.reach(self._change, 'DELETE', key)

    def _document(self, value: Any) -> dict[str, str]:
        data = value.encode() if isinstance(value, str) else value
        if self.content_encoding == 'binary':
            return {'value': base64.b64encode(data).decode(), 'encoding': 'base64'}
        return {'value': data.decode()}

    def _unless_missing(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            return self._ask(method, path, **kwargs)
        except Refused as exc:
            if exc.status == MISSING:
                return None
            raise

    def _change(self, method: str, key: Any, **kwargs: Any) -> None:
        """Write or delete the document of *key*, whose revision has to be named for that."""
        revision: str | None = None
        for _ in range(TRIES):
            try:
                if revision is None and method == 'DELETE':
                    raise Refused(CONFLICT, 'the revision is not known')
                self._ask(method, _path(key), params={'rev': revision} if revision else {}, **kwargs)
                return
            except Refused as exc:
                if exc.status == MISSING and method == 'PUT':
                    self._make_database()
                elif exc.status != CONFLICT:
                    raise
            revision = self._revision(key)
            if revision is None and method == 'DELETE':
                return
        raise BackendStoreError(f'{TRIES} times others have changed {key} in {self.as_uri()} at the same time')

    def _revision(self, key: Any) -> str | None:
        answer = self._unless_missing('GET', '/_all_docs', params={'key': json.dumps(key)})
        rows = [] if answer is None else answer.json()['rows']
        return str(rows[0]['value']['rev']) if rows else None

    def _make_database(self) -> None:
        try:
            self._ask('PUT')
        except Refused as exc:
            if exc.status != EXISTS:  # another process was faster
                raise


def _path(key: Any) -> str:
    return f'/{quote(key, safe="")}'


def _value(document: dict[str, str]) -> bytes:
    data = document['value'].encode()
    return base64.b64decode(data) if document.get('encoding') == 'base64' else data
