"""What every result store has in common, and what stores of other projects override."""
from __future__ import annotations

import logging
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from kombu.serialization import prepare_accept_content, registry
from kombu.utils.functional import LRUCache

from pyceleryc import states
from pyceleryc._state import get_current_app, get_current_task
from pyceleryc.backends.chords import Chords
from pyceleryc.backends.errors import EXCEPTION_ABLE_CODECS, Exceptions
from pyceleryc.backends.marks import Marks
from pyceleryc.backends.meta import Documents
from pyceleryc.exceptions import (
    BackendGetMetaError,
    BackendStoreError,
    ImproperlyConfigured,
    TimeoutError,
)
from pyceleryc.result import GroupResult, allow_join_result
from pyceleryc.utils.url import hide_password

if TYPE_CHECKING:
    from pyceleryc.backends.revokes import RevokeStore

__all__ = (
    'Backend', 'BaseBackend', 'BaseDictBackend', 'SyncBackendMixin', 'DisabledBackend',
    'KeyValueStoreBackend', 'BaseKeyValueStoreBackend', 'EXCEPTION_ABLE_CODECS',
    'get_current_task',
)


logger = logging.getLogger('celery.backends')


class Backend(Exceptions, Documents, Marks, Chords):
    """Keeps states and results of tasks.

    A store overrides :meth:`_store_result`, :meth:`_get_task_meta_for`, :meth:`_forget`, and
    for groups :meth:`_save_group`, :meth:`_restore_group`, :meth:`_delete_group`; and it
    inherits :class:`SyncBackendMixin` for waiting.

    :param serializer: name; default: ``result_serializer``.
    :param max_cached_results: how many results are kept in memory, -1 for none; default:
        ``result_cache_max``.
    :param accept: serializers that may be read; default: ``result_accept_content``.
    :param expires: seconds or timedelta; default: ``result_expires``.
    :param expires_type: converts the seconds.
    :param url: where the store is.
    """

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES
    PROPAGATE_STATES = states.PROPAGATE_STATES
    TimeoutError = TimeoutError

    #: Seconds between the looks of code that waits for many results; None: as it likes.
    subpolling_interval: float | None = None
    #: Can it get many results at once (``ResultSet.join_native``)?
    supports_native_join = False
    #: Does the store drop old results by itself?
    supports_autoexpire = False
    #: Do results outlive the process?
    persistent = True
    #: May threads share the object?
    thread_safe = False
    #: Has :meth:`on_task_call` something to do?
    wants_task_call = False
    #: Does who listens only when the result is wanted miss nothing?
    finds_late = False
    is_async = False
    retry_policy = {'max_retries': 20, 'interval_start': 0, 'interval_step': 1, 'interval_max': 1}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A class that says what to do before a task is sent wants it to be done.
        if 'on_task_call' in vars(cls) and 'wants_task_call' not in vars(cls):
            cls.wants_task_call = True

    def __init__(
        self, app: Any, serializer: str | None = None, max_cached_results: int | None = None,
        accept: Any = None, expires: Any = None, expires_type: Any = None,
        url: str | None = None, **kwargs: Any,
    ) -> None:
        self.app = app
        conf = app.conf
        self.serializer = serializer or conf.result_serializer
        try:
            encoder = registry._encoders[self.serializer]
        except KeyError:
            raise ImproperlyConfigured(
                f'There is no serializer {self.serializer!r}: install its package or register '
                'it with kombu, or change result_serializer') from None
        self.content_type, self.content_encoding, self.encoder = encoder
        limit = conf.result_cache_max if max_cached_results is None else max_cached_results
        self._cache: Any = None if limit == -1 else LRUCache(limit=limit)
        if accept is None:
            accept = conf.result_accept_content
        self.accept = prepare_accept_content(conf.accept_content if accept is None else accept)
        self.expires = self.prepare_expires(expires, expires_type)
        self.always_retry = bool(conf.result_backend_always_retry)
        self.url = url

    def __reduce__(self) -> tuple[Any, ...]:
        # As Celery has it, without the app: that of the reader has the connections.
        return unpickle_backend, (type(self), (), {'expires': self.expires, 'url': self.url})

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URL, without the password unless that is asked for."""
        url = self.url or ''
        return url if include_password else hide_password(url)

    def prepare_expires(self, value: Any, type: Any = None) -> Any:  # noqa: A002
        """Return *value*, or ``result_expires`` if it is None, in seconds; None: never."""
        value = self.app.conf.result_expires if value is None else value
        if isinstance(value, timedelta):
            value = value.total_seconds()
        return type(value) if value is not None and type else value

    def prepare_persistent(self, enabled: Any = None) -> bool:
        """Return *enabled*, or ``result_persistent``, or what the store does by itself."""
        if enabled is None:
            enabled = self.app.conf.result_persistent
        return self.persistent if enabled is None else bool(enabled)

    # -- writing ----------------------------------------------------------------------------

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None,
        request: Any = None, **kwargs: Any,
    ) -> Any:
        """Store a state of a task.

        :param result: return value, exception, or meta of a custom state.
        :param traceback: text.
        :param request: :class:`Context` of the run.
        :returns: the result as it is in the document.
        :raises kombu.exceptions.EncodeError: it cannot be serialized.
        :raises BackendStoreError: it could not be stored, with
            ``result_backend_always_retry``; else what the store raises.
        """
        prepared = self.encode_result(result, state)

        def failed() -> Exception:
            return BackendStoreError(
                'failed to store result on the backend', task_id=task_id, state=state)

        self._retrying(
            lambda: self._store_result(
                task_id, prepared, state, traceback, request=request, **kwargs), failed)
        return prepared

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None,
        request: Any = None, **kwargs: Any,
    ) -> Any:
        """Write a result that :meth:`encode_result` has prepared."""
        raise NotImplementedError(f'{type(self).__name__} must define _store_result()')

    def _retrying(self, call: Callable[[], Any], make_error: Callable[[], Exception]) -> Any:
        """Return ``call()``, tried again as the ``result_backend_*retries*`` settings say."""
        if not self.always_retry:
            return call()
        conf, count = self.app.conf, 0
        while True:
            try:
                return call()
            except Exception as exc:
                if not self.exception_safe_to_retry(exc):
                    raise
                if count >= conf.result_backend_max_retries:
                    raise make_error() from exc
                self.on_backend_retryable_error(exc)
            pause = min(conf.result_backend_base_sleep_between_retries_ms * 2 ** min(count, 32),
                        conf.result_backend_max_sleep_between_retries_ms)
            # Jitter: many clients that lost the same server must not come back together.
            time.sleep(pause * random.uniform(0.5, 1) / 1000)
            count += 1

    def on_backend_retryable_error(self, exc: BaseException) -> None:
        """Called before each new try after *exc*; to be overridden."""
        logger.warning('%s; trying again.', exc)

    # -- reading ----------------------------------------------------------------------------

    def get_task_meta(self, task_id: str, cache: bool = True) -> Any:
        """Return the meta dict of a task; of an unknown one that of PENDING.

        :param cache: the answer may come from memory, and ready ones go there.
        :raises BackendGetMetaError: it could not be read, with
            ``result_backend_always_retry``; else what the store raises.
        """
        self._ensure_not_eager()
        if cache and self._cache is not None and task_id in self._cache:
            return self._cache[task_id]
        meta = self._retrying(
            lambda: self._get_task_meta_for(task_id),
            lambda: BackendGetMetaError('failed to get meta', task_id=task_id))
        return self._remember(task_id, meta) if cache else meta

    def _remember(self, key: str, meta: Any) -> Any:
        if self._cache is not None and meta.get('status') in self.READY_STATES:
            self._cache[key] = meta
        return meta

    def ready_metas(self, task_ids: list[str]) -> dict[str, Any] | None:
        """Return the meta dicts of those tasks that are ready, by id, read at once.

        None: this store has to be asked for one after the other.
        """
        return None

    def _get_task_meta_for(self, task_id: str) -> Any:
        """Read the meta dict of a task, as :meth:`meta_from_decoded` returns it."""
        raise NotImplementedError(f'{type(self).__name__} must define _get_task_meta_for()')

    def _ensure_not_eager(self) -> None:
        if self.app.conf.task_always_eager and not self.app.conf.task_store_eager_result:
            warnings.warn(
                'Tasks run eagerly (task_always_eager), so no result is stored: use the '
                'EagerResult that apply_async() returns, or set task_store_eager_result.',
                RuntimeWarning, stacklevel=3)

    def task_result_exists(self, task_id: str) -> bool:
        """Tell whether anything is stored for the id."""
        meta = self.get_task_meta(task_id)
        return 'task_id' in meta or meta['status'] != states.PENDING

    def get_state(self, task_id: str) -> str:
        """Return the name of the task's state."""
        return str(self.get_task_meta(task_id)['status'])

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        """Return the task's return value, or exception."""
        return self.get_task_meta(task_id).get('result')

    def get_traceback(self, task_id: str) -> str | None:
        """Return the traceback text of a task that failed."""
        return self.get_task_meta(task_id).get('traceback')

    def get_children(self, task_id: str) -> Any:
        """Return the results of the tasks that this one has sent."""
        return self.get_task_meta(task_id).get('children')

    def is_cached(self, task_id: str) -> bool:
        """Tell whether the result is in memory."""
        return self._cache is not None and task_id in self._cache

    def reload_task_result(self, task_id: str) -> None:
        """Read the result anew, though it is in memory."""
        meta = self.get_task_meta(task_id, cache=False)
        if self._cache is not None:
            self._cache[task_id] = meta

    def forget(self, task_id: str) -> None:
        """Delete the result (T-216)."""
        if self._cache is not None:
            self._cache.pop(task_id, None)
        self._forget(task_id)

    def _forget(self, task_id: str) -> None:
        raise NotImplementedError(f'{type(self).__name__} cannot forget results')

    # -- groups -----------------------------------------------------------------------------

    def save_group(self, group_id: str, result: Any) -> Any:
        """Store the ids of a group's tasks."""
        return self._save_group(group_id, result)

    def get_group_meta(self, group_id: str, cache: bool = True) -> Any:
        """Return ``{'result': GroupResult}``, or None."""
        self._ensure_not_eager()
        if cache and self._cache is not None and group_id in self._cache:
            return self._cache[group_id]
        meta = self._restore_group(group_id)
        if cache and meta is not None and self._cache is not None:
            self._cache[group_id] = meta
        return meta

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        """Return the GroupResult that :meth:`save_group` has stored, or None."""
        meta = self.get_group_meta(group_id, cache=cache)
        return None if meta is None else meta['result']

    def reload_group_result(self, group_id: str) -> None:
        """Read the group anew, though it is in memory."""
        if self._cache is not None:
            self._cache[group_id] = self.get_group_meta(group_id, cache=False)

    def delete_group(self, group_id: str) -> None:
        """Delete what :meth:`save_group` has stored."""
        if self._cache is not None:
            self._cache.pop(group_id, None)
        self._delete_group(group_id)

    def _save_group(self, group_id: str, result: Any) -> Any:
        raise NotImplementedError(f'{type(self).__name__} cannot save groups')

    def _restore_group(self, group_id: str) -> Any:
        raise NotImplementedError(f'{type(self).__name__} cannot restore groups')

    def _delete_group(self, group_id: str) -> Any:
        raise NotImplementedError(f'{type(self).__name__} cannot delete groups')

    # -- called by others ---------------------------------------------------------------------

    @property
    def reply_to(self) -> str | None:
        """Queue for the results of tasks sent from here; None if there is none."""
        return None

    def core_config(self) -> dict[str, Any] | None:
        """Return the configuration of ``_core.Results`` if a worker's machine may write the
        documents itself, else None."""
        return None

    def on_tasks_call(self, task_ids: list[str]) -> None:
        """Do what :meth:`on_task_call` does, for tasks that are sent together."""
        for task_id in task_ids:
            self.on_task_call(None, task_id)

    def on_task_call(self, producer: Any, task_id: str) -> Any:
        """Called before a task is sent whose result is wanted."""

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:
        """Called when somebody wants to be told that *result* is ready."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Called when nobody is interested in *result* any more."""
        return result

    def cleanup(self) -> None:
        """Delete old results; called by the task ``celery.backend_cleanup``."""

    def revoke_store(self) -> RevokeStore | None:
        """Return what keeps revoked ids in this store; None: it cannot."""
        return None

    def process_cleanup(self) -> None:
        """Called after each task that the worker has run."""


def unpickle_backend(cls: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return the backend of the current app, if it is the same store, else a new one."""
    app = get_current_app()
    own = app.backend
    return own if type(own) is cls and own.url == kwargs.get('url') else cls(*args, app=app, **kwargs)


class SyncBackendMixin:
    """Waiting, by looking again and again."""

    app: Any
    TimeoutError: Any
    READY_STATES: Any
    get_task_meta: Any

    def wait_for_pending(
        self, result: Any, timeout: float | None = None, interval: float = 0.5,
        no_ack: bool = True, on_message: Any = None, on_interval: Any = None,
        callback: Any = None, propagate: bool = True, **kwargs: Any,
    ) -> Any:
        """Wait for *result*; return its value or raise its error.

        :param timeout: seconds; None for ever.
        :param interval: seconds between two looks (T-214).
        :param on_interval: called after each look that found nothing.
        :raises TimeoutError: it did not get ready in time.
        :raises ImproperlyConfigured: *on_message* was given (C-042).
        """
        self._ensure_no_on_message(on_message)
        meta = self.wait_for(
            result.id, timeout=timeout, interval=interval, on_interval=on_interval,
            no_ack=no_ack)
        result._maybe_set_cache(meta)
        return result.maybe_throw(propagate=propagate, callback=callback)

    def _ensure_no_on_message(self, on_message: Any) -> None:
        if on_message is not None:
            raise ImproperlyConfigured('Backend does not support on_message callback')

    def wait_for(
        self, task_id: str, timeout: float | None = None, interval: float = 0.5,
        no_ack: bool = True, on_interval: Any = None,
    ) -> Any:
        """Return the meta dict of a task when it is ready.

        :raises TimeoutError: it did not get ready within *timeout* seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            meta = self.get_task_meta(task_id)
            if meta['status'] in self.READY_STATES:
                return meta
            if on_interval is not None:
                on_interval()
            left = interval if deadline is None else min(interval, deadline - time.monotonic())
            if left <= 0:
                raise self.TimeoutError('The operation timed out.')
            time.sleep(left)

    def iter_native(
        self, result: Any, timeout: float | None = None, interval: float = 0.5,
        no_ack: bool = True, on_message: Any = None, on_interval: Any = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta) of the members of the ResultSet *result* as they get ready."""
        self._ensure_no_on_message(on_message)
        results = result.results
        if not results:
            return iter(())
        return self.get_many(
            {r.id for r in results}, timeout=timeout, interval=interval, no_ack=no_ack,
            on_interval=on_interval)

    def get_many(
        self, task_ids: Iterable[str], timeout: float | None = None, interval: float = 0.5,
        no_ack: bool = True, on_message: Any = None, on_interval: Any = None,
        max_iterations: int | None = None, READY_STATES: Any = states.READY_STATES,  # noqa: N803
    ) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta dict) of each task when it is ready.

        :raises TimeoutError: not all were ready within *timeout* seconds, or after
            *max_iterations* looks.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting, looks = list(dict.fromkeys(task_ids)), 0
        while waiting:
            found = dict(self._ready_of(waiting, READY_STATES))
            for task_id, meta in found.items():
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            waiting = [task_id for task_id in waiting if task_id not in found]
            looks += 1
            if not waiting:
                return
            late = deadline is not None and time.monotonic() >= deadline
            if late or (max_iterations and looks >= max_iterations):
                raise self.TimeoutError(f'Operation timed out ({timeout})')
            if on_interval is not None:
                on_interval()
            time.sleep(interval)

    def _ready_of(self, task_ids: list[str], ready: Any) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta dict) of those whose state is one of *ready*."""
        for task_id in task_ids:
            meta = self.get_task_meta(task_id)
            if meta['status'] in ready:
                yield task_id, meta


class BaseBackend(Backend, SyncBackendMixin):
    """A store that is asked again and again."""


BaseDictBackend = BaseBackend


class DisabledBackend(BaseBackend):
    """Stands where no result backend is configured (T-208)."""

    def store_result(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def mark_as_started(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """Return ``disabled://``."""
        return 'disabled://'

    def ensure_chords_allowed(self) -> None:
        """Raise NotImplementedError: a chord has to know the results of its header."""
        raise NotImplementedError(
            'A chord needs a result backend, and none is configured: set result_backend')

    def _is_disabled(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            'No result backend is configured.\n'
            'Set result_backend, for example to "redis://localhost", "rpc://" or '
            '"sqlite:///results.db".')

    get_state = get_status = get_result = get_traceback = _is_disabled
    get_task_meta = get_task_meta_for = get_children = wait_for = get_many = _is_disabled
    wait_for_pending = iter_native = forget = _is_disabled
    save_group = restore_group = delete_group = get_group_meta = _is_disabled


def join_header(group: GroupResult, timeout: float) -> list[Any]:
    """Return the results of a chord's header; called in the task that ended last.

    :raises Exception: what a member of the header has raised.
    """
    with allow_join_result():
        join = group.join_native if group.supports_native_join else group.join
        return list(join(timeout=timeout, propagate=True))


def __getattr__(name: str) -> Any:
    # They are built on the classes above, so they can only be imported later.
    if name in ('KeyValueStoreBackend', 'BaseKeyValueStoreBackend'):
        from pyceleryc.backends import keyvalue

        return getattr(keyvalue, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
