"""Results in MongoDB: ``mongodb://user:password@host/database`` and the setting ``mongodb_backend_settings``."""
from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

from kombu.exceptions import EncodeError

from pyceleryc import states
from pyceleryc.backends.base import BaseBackend
from pyceleryc.backends.remote import Remote, first_line, require
from pyceleryc.exceptions import BackendError, ImproperlyConfigured
from pyceleryc.result import result_from_tuple

__all__ = ('MongoBackend',)

logger = logging.getLogger('celery.backends.mongodb')

WHAT = 'The result store mongodb://'
TOO_MUCH = ('MongoDB cannot keep the result of task {0} ({1}): a document has at most 16 MB, and stamps have to be '
            'numbers of 64 bits, texts, lists and dicts')
#: Of the setting mongodb_backend_settings; what else is there goes to pymongo's client.
SETTINGS = {'database': None, 'taskmeta_collection': 'celery_taskmeta', 'groupmeta_collection': 'celery_groupmeta'}
#: Options of the client, where neither the URL nor the settings say something else.
LIMITS = {'maxPoolSize': 10, 'serverSelectionTimeoutMS': 5000, 'connectTimeoutMS': 5000, 'socketTimeoutMS': 30_000}
#: Names of the setting for options of the client.
RENAMED = {'user': 'username', 'max_pool_size': 'maxPoolSize'}
#: Most results that one query asks for.
READ_MAX = 500
#: Where a saved group has what a list of ids cannot say; other readers overlook it.
TREE = 'tree'


class MongoBackend(Remote, BaseBackend):
    """One document of MongoDB for each task and group, in the collections that Celery uses.

    :param url: also ``mongodb+srv://``, and several hosts; options after ``?`` as pymongo knows them.
    :raises ImproperlyConfigured: the URL or the setting cannot be used, or pymongo is not installed.
    """

    #: Seconds; see T-214.
    subpolling_interval = 0.5
    supports_native_join = True
    thread_safe = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=_with_host(url), **kwargs)
        self._library = require('pymongo', 'mongodb', WHAT)
        bson = require('bson.errors', 'mongodb', WHAT)
        self.unreachable = (self._library.errors.ConnectionFailure,)
        self.refusals = (self._library.errors.PyMongoError,)
        self._cannot_keep = (bson.InvalidDocument, bson.InvalidStringData, OverflowError)
        settings = _settings(app.conf.mongodb_backend_settings)
        self.database_name = settings.pop('database')
        self.taskmeta_collection = settings.pop('taskmeta_collection')
        self.groupmeta_collection = settings.pop('groupmeta_collection')
        self._host = settings.pop('host', None) or self.url
        self._port = settings.pop('port', None)
        self._options = _options(self._host, settings)
        self._connected = os.getpid(), self._connect()

    # -- connection -----------------------------------------------------------------------------

    @property
    def database(self) -> Any:
        """The database, as this process's client of pymongo knows it."""
        if self._connected[0] != os.getpid():
            # The client has threads and locks, which do not work on after a fork.
            self._connected = os.getpid(), self._connect()
        return self._connected[1]

    def _connect(self) -> Any:
        """Make a client; it connects when it is used."""
        errors = self._library.errors
        try:
            client = self._library.MongoClient(self._host, self._port, connect=False, **self._options)
            return client[self.database_name] if self.database_name else client.get_default_database('celery')
        except (errors.ConfigurationError, errors.InvalidURI, errors.InvalidName, TypeError, ValueError) as exc:
            raise ImproperlyConfigured(
                f'{self.as_uri()} or mongodb_backend_settings cannot be used: {first_line(exc)}') from exc

    @property
    def collection(self) -> Any:
        """The collection of the tasks' documents."""
        return self.database[self.taskmeta_collection]

    @property
    def group_collection(self) -> Any:
        """The collection of the saved groups."""
        return self.database[self.groupmeta_collection]

    # -- tasks ----------------------------------------------------------------------------------

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None,
        request: Any = None, **kwargs: Any,
    ) -> Any:
        meta = self._get_result_meta(result, state, traceback, request, format_date=False)
        meta['result'] = self.encode(result)
        try:
            self.reach(self._replace, {'_id': task_id, **meta})
        except self._cannot_keep:
            self._put_as_text(task_id, meta)
        return result

    def _replace(self, document: dict[str, Any]) -> None:
        # A late state of an earlier run must not replace the result (T-201).
        guard = {'_id': document['_id'], 'status': {'$ne': states.SUCCESS}}
        duplicate = self._library.errors.DuplicateKeyError
        try:
            self.collection.replace_one(guard, document, upsert=True)
        except duplicate:
            # It is guarded, or another writer has just made it.
            self.collection.replace_one(guard, document)

    def _put_as_text(self, task_id: str, meta: dict[str, Any]) -> None:
        """Store arguments that no document of MongoDB can have as result_serializer writes them."""
        plain = {key: self.encode(meta[key]) for key in ('args', 'kwargs') if meta.get(key) is not None}
        try:
            self.reach(self._replace, {'_id': task_id, **meta, **plain})
        except self._cannot_keep as exc:
            raise EncodeError(TOO_MUCH.format(task_id, type(exc).__name__)) from exc

    def _get_task_meta_for(self, task_id: str) -> Any:
        document = self.reach(lambda: self.collection.find_one({'_id': task_id}))
        return self._meta(document) if document else self.pending_meta()

    def _meta(self, document: dict[str, Any]) -> Any:
        task_id = document.pop('_id')
        document['result'] = self.decode(document['result'])
        return self.meta_from_decoded({**document, 'task_id': task_id})

    def _ready_of(self, task_ids: list[str], ready: Any) -> Iterator[tuple[str, Any]]:
        for start in range(0, len(task_ids), READ_MAX):
            query = {'_id': {'$in': task_ids[start:start + READ_MAX]}, 'status': {'$in': list(ready)}}
            for document in self.reach(lambda: list(self.collection.find(query))):
                meta = self._meta(document)
                yield meta['task_id'], self._remember(meta['task_id'], meta)

    def _forget(self, task_id: str) -> None:
        self.reach(lambda: self.collection.delete_one({'_id': task_id}))

    # -- groups ---------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        document = {'_id': group_id, 'result': self.encode([member.id for member in result]), 'date_done': self.app.now()}
        members = result.as_tuple()
        if members != ((group_id, None), [((member.id, None), None) for member in result]):
            document[TREE] = self.encode(members)
        self.reach(lambda: self.group_collection.replace_one({'_id': group_id}, document, upsert=True))
        return result

    def _restore_group(self, group_id: str) -> Any:
        document = self.reach(lambda: self.group_collection.find_one({'_id': group_id}))
        if document is None:
            return None
        if TREE in document:
            group = result_from_tuple(self.decode(document[TREE]), self.app)
        else:
            group = self.app.GroupResult(group_id, [self.app.AsyncResult(id) for id in self.decode(document['result'])])
        return {'task_id': group_id, 'result': group, 'date_done': document['date_done']}

    def _delete_group(self, group_id: str) -> None:
        self.reach(lambda: self.group_collection.delete_one({'_id': group_id}))

    # -- cleanup --------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Delete the results and groups that are older than ``result_expires`` (T-217)."""
        if not self.expires:
            return
        query = {'date_done': {'$lt': self.app.now() - timedelta(seconds=self.expires)}}
        for collection in (self.collection, self.group_collection):
            self._index(collection)
            self.reach(collection.delete_many, query)

    def _index(self, collection: Any) -> None:
        """Celery makes the same; where the user has one of his own, or we may not, the cleanup works, too."""
        try:
            self.reach(collection.create_index, 'date_done', background=True)
        except BackendError as exc:
            logger.warning('No index for the cleanup of %s in %s: %s', collection.name, self.as_uri(), first_line(exc))


def _with_host(url: str | None) -> str:
    """The name alone, as in result_backend='mongodb', and ``mongodb://`` mean this host."""
    return url if url and url != 'mongodb://' else 'mongodb://localhost'


def _settings(given: Any) -> dict[str, Any]:
    if given is None:
        return dict(SETTINGS)
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured('mongodb_backend_settings has to be a dict, such as {"database": "results"}')
    return {**SETTINGS, **given}


def _options(host: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of the client: of *settings*, and ours which these and the URL *host* leave open."""
    options = {**settings, **(settings.get('options') or {})}
    options.pop('options', None)
    options = {RENAMED.get(name, name): value for name, value in options.items() if value is not None}
    url = host if isinstance(host, str) and '://' in host else ''
    known = {name.lower() for name in options} | {name.lower() for name, _ in parse_qsl(url.partition('?')[2], True)}
    ours: dict[str, Any] = dict(LIMITS)
    if ('username' in options or '@' in url) and 'authmechanism' not in known and not url.startswith('mongodb+srv:'):
        # For Celery a database in the URL is where results are, not where the user is defined.
        ours['authSource'] = 'admin'
    return {**{name: value for name, value in ours.items() if name.lower() not in known}, **options}
