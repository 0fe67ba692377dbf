"""All settings: new name, default, type, old name (FEATURES 2.8)."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from pyceleryc.utils.serialization import strtobool

__all__ = ('Option', 'NAMESPACES', 'DEFAULTS', 'SETTING_KEYS', 'flatten', 'find')

DEFAULT_POOL = 'prefork'
DEFAULT_ACCEPT_CONTENT = ('json',)
DEFAULT_SECURITY_DIGEST = 'sha256'
DEFAULT_PROCESS_LOG_FMT = '[%(asctime)s: %(levelname)s/%(processName)s] %(message)s'
DEFAULT_TASK_LOG_FMT = (
    '[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s'
)

#: (name, default, type, old name).  The part of the name before the first underscore is
#: its namespace, except for those of the first group.
_SETTINGS: tuple[tuple[str, Any, str, str], ...] = (
    # general
    ('accept_content', ('json',), 'list', 'CELERY_ACCEPT_CONTENT'),
    ('result_accept_content', None, 'list', 'RESULT_ACCEPT_CONTENT'),
    ('enable_utc', True, 'bool', 'ENABLE_UTC'),
    ('imports', (), 'tuple', 'CELERY_IMPORTS'),
    ('include', (), 'tuple', 'CELERY_INCLUDE'),
    ('timezone', None, 'string', 'CELERY_TIMEZONE'),
    # beat
    ('beat_max_loop_interval', 0, 'float', 'CELERYBEAT_MAX_LOOP_INTERVAL'),
    ('beat_schedule', {}, 'dict', 'CELERYBEAT_SCHEDULE'),
    ('beat_scheduler', 'pyceleryc.beat:PersistentScheduler', 'string', 'CELERYBEAT_SCHEDULER'),
    ('beat_schedule_filename', 'celerybeat-schedule', 'string', 'CELERYBEAT_SCHEDULE_FILENAME'),
    ('beat_sync_every', 0, 'int', 'CELERYBEAT_SYNC_EVERY'),
    ('beat_lease', None, 'string', 'CELERYBEAT_LEASE'),
    ('beat_lease_timeout', 30.0, 'float', 'CELERYBEAT_LEASE_TIMEOUT'),
    ('beat_cron_starting_deadline', None, 'int', 'CELERYBEAT_CRON_STARTING_DEADLINE'),
    # broker
    ('broker_url', None, 'string', 'BROKER_URL'),
    ('broker_read_url', None, 'string', 'BROKER_READ_URL'),
    ('broker_write_url', None, 'string', 'BROKER_WRITE_URL'),
    ('broker_transport', None, 'string', 'BROKER_TRANSPORT'),
    ('broker_transport_options', {}, 'dict', 'BROKER_TRANSPORT_OPTIONS'),
    ('broker_connection_timeout', 4, 'float', 'BROKER_CONNECTION_TIMEOUT'),
    ('broker_connection_retry', True, 'bool', 'BROKER_CONNECTION_RETRY'),
    ('broker_connection_retry_on_startup', None, 'bool', 'BROKER_CONNECTION_RETRY_ON_STARTUP'),
    ('broker_connection_max_retries', 100, 'int', 'BROKER_CONNECTION_MAX_RETRIES'),
    ('broker_channel_error_retry', False, 'bool', 'BROKER_CHANNEL_ERROR_RETRY'),
    ('broker_failover_strategy', None, 'string', 'BROKER_FAILOVER_STRATEGY'),
    ('broker_heartbeat', 120, 'int', 'BROKER_HEARTBEAT'),
    ('broker_heartbeat_checkrate', 3.0, 'int', 'BROKER_HEARTBEAT_CHECKRATE'),
    ('broker_login_method', None, 'string', 'BROKER_LOGIN_METHOD'),
    (
        'broker_native_delayed_delivery_queue_type', 'quorum', 'string',
        'BROKER_NATIVE_DELAYED_DELIVERY_QUEUE_TYPE',
    ),
    ('broker_pool_limit', 10, 'int', 'BROKER_POOL_LIMIT'),
    ('broker_pool_acquire_timeout', None, 'float', 'BROKER_POOL_ACQUIRE_TIMEOUT'),
    ('broker_use_ssl', False, 'bool', 'BROKER_USE_SSL'),
    ('broker_host', None, 'string', 'BROKER_HOST'),
    ('broker_port', None, 'int', 'BROKER_PORT'),
    ('broker_user', None, 'string', 'BROKER_USER'),
    ('broker_password', None, 'string', 'BROKER_PASSWORD'),
    ('broker_vhost', None, 'string', 'BROKER_VHOST'),
    # cache
    ('cache_backend', None, 'string', 'CELERY_CACHE_BACKEND'),
    ('cache_backend_options', {}, 'dict', 'CELERY_CACHE_BACKEND_OPTIONS'),
    # control
    ('control_queue_ttl', 300.0, 'float', 'CONTROL_QUEUE_TTL'),
    ('control_queue_expires', 10.0, 'float', 'CONTROL_QUEUE_EXPIRES'),
    ('control_queue_exclusive', True, 'bool', 'CONTROL_QUEUE_EXCLUSIVE'),
    ('control_queue_durable', False, 'bool', 'CONTROL_QUEUE_DURABLE'),
    ('control_exchange', 'celery', 'string', 'CONTROL_EXCHANGE'),
    # event
    ('event_queue_expires', 60.0, 'float', 'CELERY_EVENT_QUEUE_EXPIRES'),
    ('event_queue_ttl', 5.0, 'float', 'CELERY_EVENT_QUEUE_TTL'),
    ('event_queue_prefix', 'celeryev', 'string', 'CELERY_EVENT_QUEUE_PREFIX'),
    ('event_queue_exclusive', True, 'bool', 'CELERY_EVENT_QUEUE_EXCLUSIVE'),
    ('event_queue_durable', False, 'bool', 'CELERY_EVENT_QUEUE_DURABLE'),
    ('event_serializer', 'json', 'string', 'CELERY_EVENT_SERIALIZER'),
    ('event_exchange', 'celeryev', 'string', 'CELERY_EVENT_EXCHANGE'),
    # redis
    ('redis_backend_use_ssl', None, 'dict', 'CELERY_REDIS_BACKEND_USE_SSL'),
    ('redis_db', None, 'int', 'CELERY_REDIS_DB'),
    ('redis_host', None, 'string', 'CELERY_REDIS_HOST'),
    ('redis_max_connections', None, 'int', 'CELERY_REDIS_MAX_CONNECTIONS'),
    ('redis_username', None, 'string', 'CELERY_REDIS_USERNAME'),
    ('redis_password', None, 'string', 'CELERY_REDIS_PASSWORD'),
    ('redis_port', None, 'int', 'CELERY_REDIS_PORT'),
    ('redis_socket_timeout', 120.0, 'float', 'CELERY_REDIS_SOCKET_TIMEOUT'),
    ('redis_socket_connect_timeout', None, 'float', 'CELERY_REDIS_SOCKET_CONNECT_TIMEOUT'),
    ('redis_retry_on_timeout', False, 'bool', 'CELERY_REDIS_RETRY_ON_TIMEOUT'),
    ('redis_socket_keepalive', False, 'bool', 'CELERY_REDIS_SOCKET_KEEPALIVE'),
    # result
    ('result_backend', None, 'string', 'CELERY_RESULT_BACKEND'),
    ('result_cache_max', -1, 'int', 'CELERY_MAX_CACHED_RESULTS'),
    ('result_compression', None, 'str', 'CELERY_RESULT_COMPRESSION'),
    ('result_exchange', 'celeryresults', 'string', 'CELERY_RESULT_EXCHANGE'),
    ('result_exchange_type', 'direct', 'string', 'CELERY_RESULT_EXCHANGE_TYPE'),
    ('result_expires', timedelta(days=1), 'float', 'CELERY_TASK_RESULT_EXPIRES'),
    ('result_persistent', None, 'bool', 'CELERY_RESULT_PERSISTENT'),
    ('result_extended', False, 'bool', 'CELERY_RESULT_EXTENDED'),
    ('result_serializer', 'json', 'string', 'CELERY_RESULT_SERIALIZER'),
    ('result_backend_transport_options', {}, 'dict', 'CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS'),
    ('result_chord_retry_interval', 1.0, 'float', 'CELERY_RESULT_CHORD_RETRY_INTERVAL'),
    ('result_chord_join_timeout', 3.0, 'float', 'CELERY_RESULT_CHORD_JOIN_TIMEOUT'),
    (
        'result_backend_max_sleep_between_retries_ms', 10000, 'int',
        'CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS',
    ),
    ('result_backend_max_retries', float('inf'), 'float', 'CELERY_RESULT_BACKEND_MAX_RETRIES'),
    (
        'result_backend_base_sleep_between_retries_ms', 10, 'int',
        'CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS',
    ),
    ('result_backend_always_retry', False, 'bool', 'CELERY_RESULT_BACKEND_ALWAYS_RETRY'),
    # security
    ('security_certificate', None, 'string', 'CELERY_SECURITY_CERTIFICATE'),
    ('security_cert_store', None, 'string', 'CELERY_SECURITY_CERT_STORE'),
    ('security_key', None, 'string', 'CELERY_SECURITY_KEY'),
    ('security_key_password', None, 'bytes', 'CELERY_SECURITY_KEY_PASSWORD'),
    ('security_digest', 'sha256', 'string', 'CELERY_SECURITY_DIGEST'),
    # database
    ('database_url', None, 'string', 'CELERY_RESULT_DBURI'),
    (
        'database_engine_options', {'pool_pre_ping': True, 'pool_recycle': 3600}, 'dict',
        'CELERY_RESULT_ENGINE_OPTIONS',
    ),
    ('database_engine_callback', None, 'any', 'DATABASE_ENGINE_CALLBACK'),
    ('database_short_lived_sessions', False, 'bool', 'CELERY_RESULT_DB_SHORT_LIVED_SESSIONS'),
    ('database_table_schemas', None, 'dict', 'DATABASE_TABLE_SCHEMAS'),
    ('database_table_names', None, 'dict', 'CELERY_RESULT_DB_TABLENAMES'),
    ('database_create_tables_at_setup', True, 'bool', 'DATABASE_CREATE_TABLES_AT_SETUP'),
    # task
    ('task_acks_late', False, 'bool', 'CELERY_ACKS_LATE'),
    ('task_acks_on_failure_or_timeout', True, 'bool', 'CELERY_ACKS_ON_FAILURE_OR_TIMEOUT'),
    ('task_acks_on_failure', None, 'bool', 'CELERY_ACKS_ON_FAILURE'),
    ('task_acks_on_timeout', None, 'bool', 'CELERY_ACKS_ON_TIMEOUT'),
    ('task_always_eager', False, 'bool', 'CELERY_ALWAYS_EAGER'),
    ('task_annotations', None, 'any', 'CELERY_ANNOTATIONS'),
    ('task_compression', None, 'string', 'CELERY_MESSAGE_COMPRESSION'),
    ('task_create_missing_queues', True, 'bool', 'CELERY_CREATE_MISSING_QUEUES'),
    ('task_create_missing_queue_type', 'classic', 'string', 'CELERY_CREATE_MISSING_QUEUE_TYPE'),
    (
        'task_create_missing_queue_exchange_type', None, 'string',
        'CELERY_CREATE_MISSING_QUEUE_EXCHANGE_TYPE',
    ),
    ('task_inherit_parent_priority', False, 'bool', 'CELERY_INHERIT_PARENT_PRIORITY'),
    ('task_default_delivery_mode', 2, 'string', 'CELERY_DEFAULT_DELIVERY_MODE'),
    ('task_default_queue', 'celery', 'string', 'CELERY_DEFAULT_QUEUE'),
    ('task_default_queue_type', 'classic', 'string', 'CELERY_DEFAULT_QUEUE_TYPE'),
    ('task_default_exchange', None, 'string', 'CELERY_DEFAULT_EXCHANGE'),
    ('task_default_exchange_type', 'direct', 'string', 'CELERY_DEFAULT_EXCHANGE_TYPE'),
    ('task_default_routing_key', None, 'string', 'CELERY_DEFAULT_ROUTING_KEY'),
    ('task_default_rate_limit', None, 'string', 'CELERY_DEFAULT_RATE_LIMIT'),
    ('task_default_priority', None, 'string', 'CELERY_DEFAULT_PRIORITY'),
    ('task_eager_propagates', False, 'bool', 'CELERY_EAGER_PROPAGATES_EXCEPTIONS'),
    ('task_ignore_result', False, 'bool', 'CELERY_IGNORE_RESULT'),
    ('task_store_eager_result', False, 'bool', 'CELERY_STORE_EAGER_RESULT'),
    ('task_protocol', 2, 'int', 'CELERY_TASK_PROTOCOL'),
    ('task_publish_retry', True, 'bool', 'CELERY_TASK_PUBLISH_RETRY'),
    (
        'task_publish_retry_policy',
        {'max_retries': 3, 'interval_start': 0, 'interval_max': 1, 'interval_step': 0.2},
        'dict', 'CELERY_TASK_PUBLISH_RETRY_POLICY',
    ),
    ('task_queues', None, 'dict', 'CELERY_QUEUES'),
    ('task_queue_max_priority', None, 'int', 'CELERY_QUEUE_MAX_PRIORITY'),
    ('task_reject_on_worker_lost', None, 'bool', 'CELERY_REJECT_ON_WORKER_LOST'),
    ('task_remote_tracebacks', False, 'bool', 'CELERY_REMOTE_TRACEBACKS'),
    ('task_routes', None, 'any', 'CELERY_ROUTES'),
    ('task_send_sent_event', False, 'bool', 'CELERY_SEND_TASK_SENT_EVENT'),
    ('task_serializer', 'json', 'string', 'CELERY_TASK_SERIALIZER'),
    ('task_soft_time_limit', None, 'float', 'CELERYD_TASK_SOFT_TIME_LIMIT'),
    ('task_time_limit', None, 'float', 'CELERYD_TASK_TIME_LIMIT'),
    ('task_store_errors_even_if_ignored', False, 'bool', 'CELERY_STORE_ERRORS_EVEN_IF_IGNORED'),
    ('task_track_started', False, 'bool', 'CELERY_TRACK_STARTED'),
    (
        'task_allow_error_cb_on_chord_header', False, 'bool',
        'CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER',
    ),
    # worker
    ('worker_chain_shortcut', True, 'bool', 'WORKER_CHAIN_SHORTCUT'),
    ('worker_agent', None, 'string', 'CELERYD_AGENT'),
    ('worker_autoscaler', 'pyceleryc.worker.autoscale:Autoscaler', 'string', 'CELERYD_AUTOSCALER'),
    (
        'worker_cancel_long_running_tasks_on_connection_loss', False, 'bool',
        'CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS',
    ),
    ('worker_soft_shutdown_timeout', 0.0, 'float', 'CELERYD_SOFT_SHUTDOWN_TIMEOUT'),
    ('worker_enable_soft_shutdown_on_idle', False, 'bool', 'CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE'),
    ('worker_concurrency', None, 'int', 'CELERYD_CONCURRENCY'),
    ('worker_consumer', 'pyceleryc.worker.consumer:Consumer', 'string', 'CELERYD_CONSUMER'),
    ('worker_direct', False, 'bool', 'CELERY_WORKER_DIRECT'),
    ('worker_disable_rate_limits', False, 'bool', 'CELERY_DISABLE_RATE_LIMITS'),
    ('worker_deduplicate_successful_tasks', False, 'bool', 'CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS'),
    ('worker_durable_revokes', False, 'bool', 'CELERYD_DURABLE_REVOKES'),
    ('worker_durable_revokes_expires', 10800.0, 'float', 'CELERYD_DURABLE_REVOKES_EXPIRES'),
    ('worker_enable_remote_control', True, 'bool', 'CELERY_ENABLE_REMOTE_CONTROL'),
    ('worker_hijack_root_logger', True, 'bool', 'CELERYD_HIJACK_ROOT_LOGGER'),
    ('worker_http_address', None, 'string', 'WORKER_HTTP_ADDRESS'),
    ('worker_log_color', None, 'bool', 'CELERYD_LOG_COLOR'),
    ('worker_log_format', DEFAULT_PROCESS_LOG_FMT, 'string', 'CELERYD_LOG_FORMAT'),
    ('worker_lost_wait', 10.0, 'float', 'CELERYD_WORKER_LOST_WAIT'),
    ('worker_max_memory_per_child', None, 'int', 'CELERYD_MAX_MEMORY_PER_CHILD'),
    ('worker_max_tasks_per_child', None, 'int', 'CELERYD_MAX_TASKS_PER_CHILD'),
    ('worker_park_eta_after', 900.0, 'float', 'CELERYD_PARK_ETA_AFTER'),
    ('worker_pool', 'prefork', 'string', 'CELERYD_POOL'),
    ('worker_pool_putlocks', True, 'bool', 'CELERYD_POOL_PUTLOCKS'),
    ('worker_pool_restarts', False, 'bool', 'CELERYD_POOL_RESTARTS'),
    ('worker_proc_alive_timeout', 4.0, 'float', 'CELERYD_PROC_ALIVE_TIMEOUT'),
    ('worker_prefetch_multiplier', 4, 'int', 'CELERYD_PREFETCH_MULTIPLIER'),
    ('worker_eta_task_limit', None, 'int', 'CELERYD_ETA_TASK_LIMIT'),
    (
        'worker_enable_prefetch_count_reduction', True, 'bool',
        'CELERYD_ENABLE_PREFETCH_COUNT_REDUCTION',
    ),
    ('worker_disable_prefetch', False, 'bool', 'CELERYD_DISABLE_PREFETCH'),
    ('worker_redirect_stdouts', True, 'bool', 'CELERY_REDIRECT_STDOUTS'),
    ('worker_redirect_stdouts_level', 'WARNING', 'string', 'CELERY_REDIRECT_STDOUTS_LEVEL'),
    ('worker_send_task_events', False, 'bool', 'CELERY_SEND_EVENTS'),
    ('worker_state_db', None, 'string', 'CELERYD_STATE_DB'),
    ('worker_task_log_format', DEFAULT_TASK_LOG_FMT, 'string', 'CELERYD_TASK_LOG_FORMAT'),
    ('worker_timer', None, 'string', 'CELERYD_TIMER'),
    ('worker_timer_precision', 1.0, 'float', 'CELERYD_TIMER_PRECISION'),
    ('worker_detect_quorum_queues', True, 'bool', 'CELERYD_DETECT_QUORUM_QUEUES'),
    # cassandra
    ('cassandra_entry_ttl', None, 'float', 'CASSANDRA_ENTRY_TTL'),
    ('cassandra_keyspace', None, 'string', 'CASSANDRA_KEYSPACE'),
    ('cassandra_port', None, 'string', 'CASSANDRA_PORT'),
    ('cassandra_read_consistency', None, 'string', 'CASSANDRA_READ_CONSISTENCY'),
    ('cassandra_servers', None, 'list', 'CASSANDRA_SERVERS'),
    ('cassandra_bundle_path', None, 'string', 'CASSANDRA_BUNDLE_PATH'),
    ('cassandra_table', None, 'string', 'CASSANDRA_TABLE'),
    ('cassandra_write_consistency', None, 'string', 'CASSANDRA_WRITE_CONSISTENCY'),
    ('cassandra_auth_provider', None, 'string', 'CASSANDRA_AUTH_PROVIDER'),
    ('cassandra_auth_kwargs', None, 'string', 'CASSANDRA_AUTH_KWARGS'),
    ('cassandra_options', {}, 'dict', 'CASSANDRA_OPTIONS'),
    # s3
    ('s3_access_key_id', None, 'string', 'S3_ACCESS_KEY_ID'),
    ('s3_secret_access_key', None, 'string', 'S3_SECRET_ACCESS_KEY'),
    ('s3_bucket', None, 'string', 'S3_BUCKET'),
    ('s3_base_path', None, 'string', 'S3_BASE_PATH'),
    ('s3_endpoint_url', None, 'string', 'S3_ENDPOINT_URL'),
    ('s3_region', None, 'string', 'S3_REGION'),
    # azureblockblob
    ('azureblockblob_container_name', 'celery', 'string', 'AZUREBLOCKBLOB_CONTAINER_NAME'),
    (
        'azureblockblob_retry_initial_backoff_sec', 2, 'int',
        'AZUREBLOCKBLOB_RETRY_INITIAL_BACKOFF_SEC',
    ),
    ('azureblockblob_retry_increment_base', 2, 'int', 'AZUREBLOCKBLOB_RETRY_INCREMENT_BASE'),
    ('azureblockblob_retry_max_attempts', 3, 'int', 'AZUREBLOCKBLOB_RETRY_MAX_ATTEMPTS'),
    ('azureblockblob_base_path', '', 'string', 'AZUREBLOCKBLOB_BASE_PATH'),
    ('azureblockblob_connection_timeout', 20, 'int', 'AZUREBLOCKBLOB_CONNECTION_TIMEOUT'),
    ('azureblockblob_read_timeout', 120, 'int', 'AZUREBLOCKBLOB_READ_TIMEOUT'),
    # gcs
    ('gcs_bucket', None, 'string', 'GCS_BUCKET'),
    ('gcs_project', None, 'string', 'GCS_PROJECT'),
    ('gcs_base_path', '', 'string', 'GCS_BASE_PATH'),
    ('gcs_ttl', 0, 'float', 'GCS_TTL'),
    # couchbase
    ('couchbase_backend_settings', None, 'dict', 'CELERY_COUCHBASE_BACKEND_SETTINGS'),
    # arangodb
    ('arangodb_backend_settings', None, 'dict', 'CELERY_ARANGODB_BACKEND_SETTINGS'),
    # mongodb
    ('mongodb_backend_settings', None, 'dict', 'CELERY_MONGODB_BACKEND_SETTINGS'),
    # cosmosdbsql
    ('cosmosdbsql_database_name', 'celerydb', 'string', 'COSMOSDBSQL_DATABASE_NAME'),
    ('cosmosdbsql_collection_name', 'celerycol', 'string', 'COSMOSDBSQL_COLLECTION_NAME'),
    ('cosmosdbsql_consistency_level', 'Session', 'string', 'COSMOSDBSQL_CONSISTENCY_LEVEL'),
    ('cosmosdbsql_max_retry_attempts', 9, 'int', 'COSMOSDBSQL_MAX_RETRY_ATTEMPTS'),
    ('cosmosdbsql_max_retry_wait_time', 30, 'int', 'COSMOSDBSQL_MAX_RETRY_WAIT_TIME'),
    # elasticsearch
    ('elasticsearch_retry_on_timeout', None, 'bool', 'CELERY_ELASTICSEARCH_RETRY_ON_TIMEOUT'),
    ('elasticsearch_max_retries', None, 'int', 'CELERY_ELASTICSEARCH_MAX_RETRIES'),
    ('elasticsearch_timeout', None, 'float', 'CELERY_ELASTICSEARCH_TIMEOUT'),
    ('elasticsearch_save_meta_as_text', True, 'bool', 'CELERY_ELASTICSEARCH_SAVE_META_AS_TEXT'),
)

_GENERAL = frozenset({
    'accept_content', 'result_accept_content', 'enable_utc', 'imports', 'include', 'timezone',
})

#: Settings that are read where they are used and have no default here.
EXTRA_SETTINGS = frozenset({
    'redis_backend_health_check_interval', 'redis_backend_credential_provider',
    'redis_client_name', 'result_backend_thread_safe', 'override_backends',
    *(f'{command}_{option}'
      for command in ('worker', 'beat', 'events')
      for option in ('logfile', 'pidfile', 'uid', 'gid', 'umask', 'executable', 'log_level')),
})


class Option:
    """A setting: its default and type.

    :param default: value when it is not set.
    :param type: one of the names in :attr:`typemap`.
    :param old: its old upper-case name.
    """

    typemap: dict[str, Callable[[Any], Any]] = {
        'string': str, 'str': str, 'int': int, 'float': float, 'bytes': bytes, 'dict': dict,
        'list': list, 'tuple': tuple, 'bool': strtobool, 'any': lambda value: value,
    }
    alt: str | None = None
    deprecate_by: str | None = None
    remove_by: str | None = None

    def __init__(
        self, default: Any = None, type: str = 'string', old: str = '',
    ) -> None:
        self.default = default
        self.type = type
        self.old = {old.lower()} if old else set()

    def to_python(self, value: Any) -> Any:
        """Convert text, as from the command line, to the type of the setting."""
        return self.typemap[self.type](value)

    def __repr__(self) -> str:
        return f'<Option: type->{self.type} default->{self.default!r}>'


class searchresult(NamedTuple):  # the public name
    """What :func:`find` found."""

    namespace: str | None
    key: str
    type: Any


def _build_namespaces() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, default, kind, old in _SETTINGS:
        option = Option(default, kind, old)
        if name in _GENERAL:
            tree[name] = option
        else:
            namespace, _, key = name.partition('_')
            tree.setdefault(namespace, {})[key] = option
    return tree


#: Namespace -> key -> :class:`Option`; general settings are on the first level.
NAMESPACES: dict[str, Any] = _build_namespaces()


def flatten(d: Mapping[str, Any], root: str = '') -> Iterator[tuple[str, Any]]:
    """Yield (full name, option) of a tree such as :data:`NAMESPACES`."""
    for key, value in d.items():
        name = f'{root}_{key}' if root else key
        if isinstance(value, Mapping):
            yield from flatten(value, name)
        else:
            yield name, value


DEFAULTS: dict[str, Any] = {name: default for name, default, _, _ in _SETTINGS}
OPTIONS: dict[str, Option] = dict(flatten(NAMESPACES))
SETTING_KEYS = frozenset(DEFAULTS)
_TO_OLD_KEY: dict[str, str] = {name: old for name, _, _, old in _SETTINGS}
_TO_NEW_KEY: dict[str, str] = {old: name for name, _, _, old in _SETTINGS}
_OLD_DEFAULTS: dict[str, Any] = {old: default for _, default, _, old in _SETTINGS}
_OLD_SETTING_KEYS = frozenset(_TO_NEW_KEY)


def find(name: str, namespace: str = 'celery') -> searchresult:
    """Find a setting by its full name, or by its key in *namespace* or any other.

    :raises KeyError: there is none.
    """
    name = name.lower()
    inner = NAMESPACES.get(namespace.lower())
    if isinstance(inner, Mapping) and name in inner:
        return searchresult(namespace.lower(), name, inner[name])
    for space, options in NAMESPACES.items():
        if isinstance(options, Option):
            if space == name:
                return searchresult(None, name, options)
        elif name in options:
            return searchresult(space, name, options[name])
    return searchresult(None, name, OPTIONS[name])
