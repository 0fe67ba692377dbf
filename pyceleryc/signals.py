"""The signals of tasks, workers, beat and logging (FEATURES 2.6)."""
from __future__ import annotations

from pyceleryc.utils.dispatch import Signal

__all__ = (
    'before_task_publish', 'after_task_publish', 'task_internal_error', 'task_prerun',
    'task_postrun', 'task_success', 'task_received', 'task_rejected', 'task_unknown',
    'task_retry', 'task_failure', 'task_revoked', 'task_sent', 'celeryd_init',
    'celeryd_after_setup', 'worker_init', 'worker_before_create_process', 'worker_process_init',
    'worker_process_shutdown', 'worker_ready', 'worker_shutdown', 'worker_shutting_down',
    'import_modules', 'setup_logging', 'after_setup_logger', 'after_setup_task_logger',
    'beat_init', 'beat_embedded_init', 'heartbeat_sent', 'eventlet_pool_started',
    'eventlet_pool_preshutdown', 'eventlet_pool_postshutdown', 'eventlet_pool_apply',
    'user_preload_options',
)


def _signal(name: str, *providing_args: str) -> Signal:
    return Signal(name=name, providing_args=providing_args)


# Publishing.  The sender is the name of the task.
before_task_publish = _signal(
    'before_task_publish', 'body', 'exchange', 'routing_key', 'headers', 'properties',
    'declare', 'retry_policy')
after_task_publish = _signal(
    'after_task_publish', 'body', 'exchange', 'routing_key', 'headers')
task_sent = _signal('task_sent', 'task_id', 'task', 'args', 'kwargs', 'eta', 'taskset')

# Running.  The sender is the task, or the consumer where there is none yet.
task_received = _signal('task_received', 'request')
task_prerun = _signal('task_prerun', 'task_id', 'task', 'args', 'kwargs')
task_postrun = _signal('task_postrun', 'task_id', 'task', 'args', 'kwargs', 'retval', 'state')
task_success = _signal('task_success', 'result')
task_retry = _signal('task_retry', 'request', 'reason', 'einfo')
task_failure = _signal(
    'task_failure', 'task_id', 'exception', 'args', 'kwargs', 'traceback', 'einfo')
task_internal_error = _signal(
    'task_internal_error', 'task_id', 'args', 'kwargs', 'request', 'exception', 'traceback',
    'einfo')
task_revoked = _signal('task_revoked', 'request', 'terminated', 'signum', 'expired')
task_rejected = _signal('task_rejected', 'message', 'exc')
task_unknown = _signal('task_unknown', 'message', 'exc', 'name', 'id')

# The worker.
celeryd_init = _signal('celeryd_init', 'instance', 'conf', 'options')
celeryd_after_setup = _signal('celeryd_after_setup', 'instance', 'conf')
import_modules = _signal('import_modules')
worker_init = _signal('worker_init')
worker_before_create_process = _signal('worker_before_create_process')
worker_process_init = _signal('worker_process_init')
worker_process_shutdown = _signal('worker_process_shutdown', 'pid', 'exitcode')
worker_ready = _signal('worker_ready')
worker_shutdown = _signal('worker_shutdown')
worker_shutting_down = _signal('worker_shutting_down', 'sig', 'how', 'exitcode')
heartbeat_sent = _signal('heartbeat_sent')

# Logging.  A receiver of setup_logging does all of it (T-091).
setup_logging = _signal('setup_logging', 'loglevel', 'logfile', 'format', 'colorize')
after_setup_logger = _signal(
    'after_setup_logger', 'logger', 'loglevel', 'logfile', 'format', 'colorize')
after_setup_task_logger = _signal(
    'after_setup_task_logger', 'logger', 'loglevel', 'logfile', 'format', 'colorize')

# Beat.
beat_init = _signal('beat_init')
beat_embedded_init = _signal('beat_embedded_init')

# Pools of green threads.
eventlet_pool_started = _signal('eventlet_pool_started')
eventlet_pool_preshutdown = _signal('eventlet_pool_preshutdown')
eventlet_pool_postshutdown = _signal('eventlet_pool_postshutdown')
eventlet_pool_apply = _signal('eventlet_pool_apply', 'target', 'args', 'kwargs')

# The command line.
user_preload_options = _signal('user_preload_options', 'app', 'options')
