"""From a name or URL to a class of result backends (T-206..T-208)."""
from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

from kombu.utils.imports import symbol_by_name

from pyceleryc._state import current_app
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.imports import load_extension_class_names

__all__ = ('by_name', 'by_url')

UNKNOWN_BACKEND = """\
Unknown result backend: {0!r}.  Did you spell that correctly? ({1!r})
Known are: {2}; or write the class as "package.module:Class".\
"""

BACKEND_ALIASES = {
    'redis': 'pyceleryc.backends.redis:RedisBackend',
    'rediss': 'pyceleryc.backends.redis:RedisBackend',
    'redis+socket': 'pyceleryc.backends.redis:RedisBackend',
    'sentinel': 'pyceleryc.backends.redis:SentinelBackend',
    'rpc': 'pyceleryc.backends.rpc:RPCBackend',
    'sqlite': 'pyceleryc.backends.sqlite:SQLiteBackend',
    'cache': 'pyceleryc.backends.cache:CacheBackend',
    'memory': 'pyceleryc.backends.cache:CacheBackend',
    'azureblockblob': 'pyceleryc.backends.azureblockblob:AzureBlockBlobBackend',
    's3': 'pyceleryc.backends.s3:S3Backend',
    'dynamodb': 'pyceleryc.backends.dynamodb:DynamoDBBackend',
    'mongodb': 'pyceleryc.backends.mongodb:MongoBackend',
    'mongodb+srv': 'pyceleryc.backends.mongodb:MongoBackend',
    'couchdb': 'pyceleryc.backends.couchdb:CouchBackend',
    'gs': 'pyceleryc.backends.gcs:GCSBackend',
    'database': 'pyceleryc.backends.database:DatabaseBackend',
    'db': 'pyceleryc.backends.database:DatabaseBackend',
    'file': 'pyceleryc.backends.filesystem:FilesystemBackend',
    'filesystem': 'pyceleryc.backends.filesystem:FilesystemBackend',
    'disabled': 'pyceleryc.backends.base:DisabledBackend',
}
#: Stores of Celery that could not be tested; docs/DIFFERENCES.md says what was looked for.
ELSEWHERE = frozenset({
    'arangodb', 'cassandra', 'consul', 'cosmosdbsql', 'couchbase', 'elasticsearch'})
NOT_HERE = """\
The result store {0!r} of Celery is not part of pyceleryc. Use another one ({1}); or write a subclass of \
pyceleryc.backends.base:KeyValueStoreBackend and set result_backend, or override_backends, to \
"package.module:Class"; or install a package that has one as an entry point "celery.result_backends".\
"""
ENTRY_POINTS = 'celery.result_backends'


def _aliases(loader: Any, namespace: str = ENTRY_POINTS) -> dict[str, str]:
    loader = loader or current_app.loader
    return {
        **BACKEND_ALIASES,
        **dict(load_extension_class_names(namespace)),
        **(loader.override_backends or {}),
    }


def by_name(
    backend: Any = None, loader: Any = None, extension_namespace: str = ENTRY_POINTS,
) -> Any:
    """Return the class called *backend*: an alias, an entry point, or ``package.module:Class``.

    :param backend: a class is returned as it is; None means no backend.
    :param loader: has the aliases of the setting ``override_backends``.
    :raises ImproperlyConfigured: there is no such class.
    """
    backend = backend or 'disabled'
    if not isinstance(backend, str):
        return backend
    aliases = _aliases(loader, extension_namespace)
    if backend in ELSEWHERE and backend not in aliases:
        raise ImproperlyConfigured(NOT_HERE.format(backend, ', '.join(sorted(aliases))))
    try:
        found = symbol_by_name(backend, aliases)
    except (ValueError, ImportError, AttributeError) as exc:
        raise ImproperlyConfigured(_complaint(backend, exc, aliases)) from exc
    if isinstance(found, types.ModuleType):
        raise ImproperlyConfigured(_complaint(
            backend, 'value is a module, not a class', aliases))
    return found


def _complaint(backend: str, reason: Any, aliases: Mapping[str, str]) -> str:
    return UNKNOWN_BACKEND.format(backend.strip(), reason, ', '.join(sorted(aliases)))


def by_url(backend: Any = None, loader: Any = None) -> tuple[Any, str | None]:
    """Return the class for the URL or name *backend*, and the URL if it was one.

    In ``scheme+rest://`` the scheme decides and the rest is passed on, unless the whole is
    known.
    """
    url = None
    if isinstance(backend, str) and '://' in backend:
        url = backend
        scheme = url.partition('://')[0]
        if '+' in scheme and scheme not in _aliases(loader):
            scheme, url = url.split('+', 1)
        backend = scheme
    return by_name(backend, loader), url
