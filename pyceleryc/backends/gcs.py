"""Results in a bucket of Google Cloud Storage: ``gs://bucket/path?gcs_project=…``; counters of chords in Firestore."""
from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pyceleryc.backends.remote import RemoteStore, first_line, require
from pyceleryc.exceptions import ChordError, ImproperlyConfigured

__all__ = ('GCSBackend',)

logger = logging.getLogger('celery.backends.gcs')

WHAT = 'The result store gs://'
#: Of Firestore; the names are Celery's.
COLLECTION, COUNT, EXPIRES = 'celery', 'chord_count', 'expires_at'
#: Seconds for which a counter is kept at least.
DAY = 86400
#: Of a request: no tries of the library, ours know what somebody waits for; seconds.
LIMITS: dict[str, Any] = {'timeout': 30, 'retry': None}
NO_RULE = ('gcs_ttl is set, and the bucket {0} has no rule that deletes by custom time: make one ("days since custom time: 0"), '
           'or set gcs_ttl to 0')


class GCSBackend(RemoteStore):
    """One object for each document; with ``gcs_ttl`` a rule of the bucket drops old ones. Chords are counted.

    Parameters of the URL, or settings: ``gcs_project``, ``gcs_bucket``, ``gcs_base_path``, ``gcs_ttl`` (seconds),
    ``firestore_project``. Google's libraries find credentials in their own way.

    :raises ImproperlyConfigured: bucket or project is missing, or the rule for ``gcs_ttl``, or a library.
    """

    implements_incr = True
    thread_safe = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        self._storage = require('google.cloud.storage', 'gcs', WHAT)
        self._firestore = require('google.cloud.firestore', 'gcs', WHAT)
        errors, auth = require('google.api_core.exceptions', 'gcs', WHAT), require('google.auth.exceptions', 'gcs', WHAT)
        http = require('requests.exceptions', 'gcs', WHAT)
        self._missing = errors.NotFound
        self.unreachable = (errors.ServerError, errors.TooManyRequests, errors.Aborted, errors.RetryError, auth.TransportError,
                            http.ConnectionError, http.Timeout)
        self.refusals = (errors.GoogleAPIError, auth.GoogleAuthError)
        parts = urlsplit(url or '')
        option = _options(app.conf, parse_qs(parts.query))
        self.bucket_name, self.project = unquote(parts.netloc) or option('gcs_bucket'), option('gcs_project')
        if not self.bucket_name:
            raise ImproperlyConfigured('Missing bucket name: gs://bucket?gcs_project=project, or set gcs_bucket')
        if not self.project:
            raise ImproperlyConfigured('Missing project: gs://bucket?gcs_project=project, or set gcs_project')
        self.firestore_project = option('firestore_project') or self.project
        self.base_path = unquote(parts.path).strip('/') or (option('gcs_base_path') or '').strip('/')
        self.ttl = _seconds(option('gcs_ttl') or 0)
        self._clients: dict[str, Any] = {}
        self._pid = os.getpid()
        if self.ttl:
            self._check_rule()

    def _client(self, name: str, make: Any) -> Any:
        """Return this process's client of a service."""
        if self._pid != os.getpid():
            # The parent's connections are not for us.
            self._clients, self._pid = {}, os.getpid()
        clients = self._clients
        if name not in clients:
            clients[name] = make()
        return clients[name]

    def disconnect(self) -> None:
        """Make new clients at the next call: that of Firestore waits longer and longer before it connects again."""
        self._clients = {}

    @property
    def bucket(self) -> Any:
        """The bucket, as the library knows it."""
        return self._client('storage', lambda: self._storage.Client(project=self.project)).bucket(self.bucket_name)

    def _check_rule(self) -> None:
        """Without it nothing would ever be dropped."""
        bucket = self.bucket
        try:
            self.reach(bucket.reload, **LIMITS)
        except Exception as exc:
            logger.warning('Whether the bucket %s has a rule for gcs_ttl cannot be seen: %s', self.bucket_name, first_line(exc))
            return
        if not any('daysSinceCustomTime' in rule.get('condition', {}) for rule in bucket.lifecycle_rules):
            raise ImproperlyConfigured(NO_RULE.format(self.bucket_name))

    # -- documents ----------------------------------------------------------------------------

    def _blob(self, key: Any) -> Any:
        return self.bucket.blob(f'{self.base_path}/{key}' if self.base_path else key)

    def get(self, key: Any) -> bytes | None:
        """Return the value of *key*, or None."""
        return self.reach(self._get, key)

    def _get(self, key: Any) -> Any:
        try:
            return self._blob(key).download_as_bytes(**LIMITS)
        except self._missing:
            return None

    def set(self, key: Any, value: Any) -> None:
        """Store *value* under *key*."""
        self.reach(self._set, key, value)

    def _set(self, key: Any, value: Any) -> None:
        blob = self._blob(key)
        if self.ttl:
            blob.custom_time = datetime.now(UTC) + timedelta(seconds=self.ttl)
        blob.upload_from_string(value, **LIMITS)

    def delete(self, key: Any) -> None:
        """Delete *key*, be it a document or a counter."""
        counter = key.startswith(f'{self.global_keyprefix}{self.chord_keyprefix}')
        self.reach(self._delete, self._counter if counter else self._blob, key)

    def _delete(self, find: Any, key: Any) -> None:
        try:
            find(key).delete(**LIMITS)
        except self._missing:  # as it should be
            return

    # -- counters -----------------------------------------------------------------------------

    def _counter(self, key: Any) -> Any:
        client = self._client('firestore', lambda: self._firestore.Client(project=self.firestore_project))
        return client.collection(COLLECTION).document(key)

    def prepare_count(self, group_id: str) -> None:
        """Make the counter, with the time at which Firestore may drop it."""
        until = datetime.now(UTC) + timedelta(seconds=max(self.expires or 0, DAY))
        key = self.get_key_for_chord(group_id)
        self.reach(lambda: self._counter(key).set({EXPIRES: until}, merge=True, **LIMITS))

    def incr(self, key: Any) -> int:
        """Add 1 to the number under *key*; return the new number."""
        return int(self.reach(self._incr, key))

    def _incr(self, key: Any) -> Any:
        try:
            answer = self._counter(key).update({COUNT: self._firestore.Increment(1)}, **LIMITS)
        except self._missing as exc:
            raise ChordError(f'The counter {key} is gone: it has expired') from exc
        return answer.transform_results[0].integer_value

    def expire(self, key: Any, value: float) -> None:
        """The counter has its time from the start."""


def _options(conf: Any, query: dict[str, list[str]]) -> Any:
    """Return a function that knows the value of an option: the URL comes before the settings."""
    return lambda name: query[name][-1] if name in query else conf.get(name)


def _seconds(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise ImproperlyConfigured(f'gcs_ttl={value} is no number of seconds') from None
