"""Remote control, the worker's side: commands that change something (FEATURES 2.11).

User code adds commands of its own with :func:`control_command` and :func:`inspect_command`.
"""
from __future__ import annotations

import logging
from typing import Any

from kombu.utils.encoding import safe_repr
from kombu.utils.functional import maybe_list

from pyceleryc.app.options import check_options
from pyceleryc.exceptions import NotRegistered
from pyceleryc.platforms import signals as signal_numbers
from pyceleryc.utils.log import get_logger
from pyceleryc.utils.time import rate
from pyceleryc.worker.inspection import (
    active,
    active_queues,
    clock,
    conf,
    hello,
    memdump,
    memsample,
    objgraph,
    ping,
    query_task,
    registered,
    report,
    reserved,
    revoked,
    scheduled,
    stats,
)
from pyceleryc.worker.panel import NO_REPLY, CommandInfo, Panel, control_command, inspect_command, nok, ok

__all__ = (
    'Panel', 'CommandInfo', 'control_command', 'inspect_command', 'ok', 'nok',
    'revoke', 'revoke_by_stamped_headers', 'terminate', 'rate_limit', 'time_limit', 'heartbeat',
    'election', 'enable_events', 'disable_events', 'pool_grow', 'pool_shrink', 'pool_restart',
    'autoscale', 'shutdown', 'add_consumer', 'cancel_consumer',
    'report', 'conf', 'query_task', 'clock', 'hello', 'ping', 'stats', 'scheduled', 'reserved',
    'active', 'revoked', 'registered', 'active_queues', 'memsample', 'memdump', 'objgraph',
)

logger: logging.Logger = get_logger('celery.worker.control')


# -- revoking ------------------------------------------------------------------------------

@control_command(variadic='task_id', signature='[id1 [id2 [... [idN]]]]')
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, durable: bool = False, **kwargs: Any) -> Any:
    """Revoke tasks by id: they will not run.

    :param durable: has the sender stored the ids already?
    """
    # A set, for Celery's text of the reply is that of a set.
    ids = {str(item) for item in maybe_list(task_id) or ()}
    signum = _signal_number(signal)
    running = state.machine.revoke(ids, terminate, signum, stored=durable)
    if not terminate:
        logger.info('Tasks flagged as revoked: %s', ', '.join(sorted(ids)))
        return ok(f'tasks {ids} flagged as revoked')
    if not running:
        return ok('terminate: tasks unknown')
    logger.info('Terminating %s (%d)', ', '.join(running), signum)
    return ok(f'terminate: {", ".join(running)}')


def _signal_number(signal: Any) -> int:
    return int(signal_numbers.signum(signal or 'TERM'))


@control_command(args=[('signal', str)], variadic='task_id', signature='<signal> [id1 [id2 [... [idN]]]]')
def terminate(state: Any, signal: Any = None, task_id: Any = (), **kwargs: Any) -> Any:
    """Revoke tasks by id, and end those that run."""
    return revoke(state, task_id, terminate=True, signal=signal)


@control_command(variadic='headers', signature='[key1=value1 [key2=value2 [... [keyN=valueN]]]]')
def revoke_by_stamped_headers(state: Any, headers: Any, terminate: bool = False, signal: Any = None,
                              **kwargs: Any) -> Any:
    """Revoke tasks that carry one of these stamps."""
    wanted = dict(headers) if isinstance(headers, dict) else dict(_pair(text) for text in maybe_list(headers) or ())
    ended = state.machine.revoke_stamped(wanted, terminate, _signal_number(signal))
    if not terminate:
        return ok(f'headers {wanted} flagged as revoked, but not terminated')
    if not ended:
        return ok(f'headers {wanted} were not terminated')
    logger.info('Terminating %s (%d)', ', '.join(ended), _signal_number(signal))
    return ok(f'headers {wanted} revoked')


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition('=')
    if not found:
        raise ValueError(f'write name=value, not {text!r}')
    return name, value


# -- tasks ---------------------------------------------------------------------------------

@control_command(args=[('task_name', str), ('rate_limit', str)],
                 signature='<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>')
def rate_limit(state: Any, task_name: str, rate_limit: Any, **kwargs: Any) -> Any:
    """Change the rate limit of a task."""
    try:
        rate(rate_limit)
    except (TypeError, ValueError) as exc:
        return nok(f'Invalid rate limit string: {exc!r}')
    task = _task(state, task_name, 'rate limit')
    if task is None:
        return nok('unknown task')
    try:
        check_options(task.name, {'rate_limit': rate_limit})
    except (TypeError, ValueError) as exc:
        return nok(f'Invalid rate limit: {exc}')
    task.rate_limit = rate_limit
    state.machine.register(task)
    if not rate_limit:
        logger.info('Rate limits disabled for tasks of type %s', task_name)
        return ok('rate limit disabled successfully')
    logger.info('New rate limit for tasks of type %s: %s.', task_name, rate_limit)
    return ok('new rate limit set successfully')


@control_command(args=[('task_name', str), ('soft', float), ('hard', float)],
                 signature='<task_name> <soft_secs> [hard_secs]')
def time_limit(state: Any, task_name: str | None = None, hard: float | None = None,
               soft: float | None = None, **kwargs: Any) -> Any:
    """Change the time limits of a task, for runs that begin from now on."""
    task = _task(state, task_name, 'time limit')
    if task is None:
        return nok('unknown task')
    try:
        check_options(task.name, {'soft_time_limit': soft, 'time_limit': hard})
    except (TypeError, ValueError) as exc:
        return nok(f'Invalid time limit: {exc}')
    task.soft_time_limit, task.time_limit = soft, hard
    state.machine.register(task)
    logger.info('New time limits for tasks of type %s: soft=%s hard=%s', task_name, soft, hard)
    return ok('time limits set successfully')


def _task(state: Any, name: str | None, what: str) -> Any:
    try:
        return state.app.tasks[name]
    except NotRegistered:
        logger.error('The %s of an unknown task was to be changed: %s', what, name)
        return None


# -- queues --------------------------------------------------------------------------------

@control_command(args=[('queue', str), ('exchange', str), ('exchange_type', str), ('routing_key', str)],
                 signature='<queue> [exchange [type [routing_key]]]')
def add_consumer(state: Any, queue: str, exchange: str | None = None, exchange_type: str | None = None,
                 routing_key: str | None = None, **options: Any) -> Any:
    """Consume from a queue."""
    state.machine.add_consumer(queue, exchange, exchange_type or 'direct', routing_key, **options)
    return ok(f'add consumer {queue}')


@control_command(args=[('queue', str)], signature='<queue>')
def cancel_consumer(state: Any, queue: str, **kwargs: Any) -> Any:
    """Stop consuming from a queue."""
    state.machine.cancel_consumer(queue)
    return ok(f'no longer consuming from {queue}')


# -- pool ----------------------------------------------------------------------------------

@control_command(args=[('n', int)], signature='[N=1]')
def pool_grow(state: Any, n: int = 1, **kwargs: Any) -> Any:
    """Add processes or threads to the pool."""
    if state.machine.autoscaler is not None:
        return nok('pool_grow is not supported with autoscale. Adjust autoscale range instead.')
    state.machine.resize(state.machine.concurrency + n)
    return ok('pool will grow')


@control_command(args=[('n', int)], signature='[N=1]')
def pool_shrink(state: Any, n: int = 1, **kwargs: Any) -> Any:
    """Remove processes or threads from the pool, when they are free."""
    if state.machine.autoscaler is not None:
        return nok('pool_shrink is not supported with autoscale. Adjust autoscale range instead.')
    state.machine.resize(state.machine.concurrency - n)
    return ok('pool will shrink')


@control_command()
def pool_restart(state: Any, modules: Any = None, reload: bool = False, reloader: Any = None,
                 **kwargs: Any) -> Any:
    """Replace the processes of the pool, after importing or reloading modules."""
    if not state.app.conf.worker_pool_restarts:
        raise ValueError('Pool restarts not enabled')
    if modules is None and reload:
        modules = sorted({task.__module__ for task in state.app.tasks.values() if not task.name.startswith('celery.')})
    state.machine.restart_pool(modules or (), reload, reloader)
    return ok('reload started')


@control_command(args=[('max', int), ('min', int)], signature='[max [min]]')
def autoscale(state: Any, max: int | None = None, min: int | None = None, **kwargs: Any) -> Any:  # noqa: A002
    """Change the bounds of a pool that scales by itself."""
    scaler = state.machine.autoscaler
    if scaler is None:
        raise ValueError('Autoscale not enabled')
    high, low = scaler.update(max, min)
    return ok(f'autoscale now max={high} min={low}')


@control_command()
def shutdown(state: Any, msg: str = 'Got shutdown from remote', **kwargs: Any) -> Any:
    """Finish what runs, and exit; there is no reply."""
    logger.warning('%s', msg)
    state.machine.end()
    return NO_REPLY


# -- events --------------------------------------------------------------------------------

@control_command()
def enable_events(state: Any, **kwargs: Any) -> Any:
    """Send events about tasks."""
    if not state.machine.events.enable():
        return ok('task events already enabled')
    logger.info('Events of group {task} enabled by remote.')
    return ok('task events enabled')


@control_command()
def disable_events(state: Any, **kwargs: Any) -> Any:
    """Do not send events about tasks."""
    if not state.machine.events.disable():
        return ok('task events already disabled')
    logger.info('Events of group {task} disabled by remote.')
    return ok('task events disabled')


@control_command()
def heartbeat(state: Any, **kwargs: Any) -> None:
    """Send a heartbeat event now."""
    logger.debug('Heartbeat requested by remote.')
    state.machine.events.beat(freq=5)


@control_command(args=[('id', str), ('topic', str), ('action', str)], signature='<id> <topic> [action]')
def election(state: Any, id: str, topic: str, action: Any = None, **kwargs: Any) -> None:  # noqa: A002
    """Elect one of the workers that gossip, to do something."""
    gossip = state.consumer.gossip
    if gossip is None:
        logger.debug('No candidate in the election %s of topic %s, for there is no gossip: %s', id, topic, safe_repr(action))
    else:
        gossip.election(id, topic, action)
