"""Commands that tell something about a worker (FEATURES 2.11)."""
from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from kombu.utils.functional import maybe_list

from pyceleryc.concurrency import get_implementation
from pyceleryc.utils.debug import mem_rss
from pyceleryc.utils.url import hide_password
from pyceleryc.worker import state as worker_state
from pyceleryc.worker.panel import inspect_command, nok, ok

__all__ = (
    'report', 'conf', 'query_task', 'clock', 'hello', 'ping', 'stats', 'scheduled', 'reserved',
    'active', 'revoked', 'registered', 'active_queues', 'memsample', 'memdump', 'objgraph',
)

DEFAULT_TASK_INFO_ITEMS = ('exchange', 'routing_key', 'rate_limit')
#: Priority of timers in Celery; ours have none.
_PRIORITY = 6
_CONNECTION_SECRETS = frozenset({'password', 'transport_cls'})


# -- the worker ----------------------------------------------------------------------------

@inspect_command()
def report(state: Any) -> Any:
    """Information about the installation, for bug reports."""
    return ok(state.app.bugreport())


@inspect_command(alias='dump_conf', signature='[include_defaults=False]',
                 args=[('with_defaults', lambda text: text.lower() in ('1', 'true', 'yes', 'on'))])
def conf(state: Any, with_defaults: bool = False, **kwargs: Any) -> Any:
    """The settings, without secrets."""
    return plain(state.app.conf.table(with_defaults=with_defaults))


def plain(value: Any) -> Any:
    """Return *value* as JSON can carry it; what it can not, as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return str(value)


@inspect_command()
def ping(state: Any, **kwargs: Any) -> Any:
    """Is the worker there?"""
    return ok('pong')


@inspect_command()
def clock(state: Any, **kwargs: Any) -> Any:
    """The logical clock."""
    return {'clock': state.app.clock.value}


@inspect_command(visible=False)
def hello(state: Any, from_node: str, revoked: Any = None, **kwargs: Any) -> Any:
    """What a worker says that has just started, to learn what was revoked before (mingle)."""
    if from_node == state.hostname:
        return None
    if revoked:
        state.machine.learn_revoked(revoked)
    return {'revoked': worker_state.monotonic_times(worker_state.revoked), 'clock': state.app.clock.forward()}


# -- numbers -------------------------------------------------------------------------------

@inspect_command()
def stats(state: Any, **kwargs: Any) -> Any:
    """Numbers about the worker and its process."""
    machine = state.machine
    numbers = machine.core.stats()
    found = {
        'total': numbers['total'],
        'pid': os.getpid(),
        'clock': str(state.app.clock.value),
        'uptime': round(time.time() - machine.started),
        'pool': _pool(machine, numbers),
        'broker': _broker(state.app),
        'prefetch_count': numbers['prefetch'],
        'rusage': _rusage(),
    }
    if machine.autoscaler is not None:
        found['autoscaler'] = machine.autoscaler.info()
    return found


def _pool(machine: Any, numbers: dict[str, Any]) -> dict[str, Any]:
    hard, soft = machine.limits
    done = numbers['done']
    found: dict[str, Any] = {
        'implementation': _implementation(machine.pool),
        'max-concurrency': machine.concurrency,
        'processes': numbers['processes'] or [os.getpid()],
    }
    if machine.pool == 'prefork':
        # Per-process counts, which Celery shows here, are not kept.
        found |= {
            'max-tasks-per-child': machine.max_tasks_per_child or 'N/A',
            'put-guarded-by-semaphore': True,
            'timeouts': [soft or 0, hard or 0],
            'writes': {'total': done, 'avg': 'N/A', 'all': 'N/A', 'raw': str(done),
                       'strategy': 'fair', 'inqueues': {'total': 1, 'active': 0}},
        }
    return found


def _broker(app: Any) -> dict[str, Any]:
    info = app.connection_for_read(heartbeat=app.conf.broker_heartbeat).info()
    found = {key: value for key, value in info.items() if key not in _CONNECTION_SECRETS}
    found['alternates'] = [hide_password(url) for url in found.get('alternates') or ()]
    return dict(plain(found))


def _rusage() -> dict[str, Any]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {name[3:]: getattr(usage, name) for name in dir(usage) if name.startswith('ru_')}


# -- tasks ---------------------------------------------------------------------------------

@inspect_command(alias='dump_active')
def active(state: Any, safe: bool | None = False, **kwargs: Any) -> Any:
    """Tasks that run."""
    return _infos(state, 'active', safe)


@inspect_command(alias='dump_reserved')
def reserved(state: Any, **kwargs: Any) -> Any:
    """Tasks that the worker holds; without those that run or wait for their ETA."""
    return _infos(state, 'reserved')


@inspect_command(alias='dump_schedule')
def scheduled(state: Any, **kwargs: Any) -> Any:
    """Tasks that wait for their ETA."""
    return [{'eta': _iso(request.eta), 'priority': _PRIORITY, 'request': request.info()}
            for request in state.machine.jobs('scheduled')]


def _infos(state: Any, which: str, safe: bool | None = False) -> list[dict[str, Any]]:
    return [request.info(safe=bool(safe)) for request in state.machine.jobs(which)]


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(timezone.utc).isoformat()


@inspect_command(args=[('ids', str)], variadic='ids', signature='[id1 [id2 [... [idN]]]]')
def query_task(state: Any, ids: Any, **kwargs: Any) -> Any:
    """State and description of tasks that the worker knows."""
    wanted = set(maybe_list(ids) or ())
    return {request.id: [name, request.info()]
            for which, name in (('scheduled', 'reserved'), ('reserved', 'reserved'), ('active', 'active'))
            for request in state.machine.jobs(which) if request.id in wanted}


@inspect_command(alias='dump_revoked')
def revoked(state: Any, **kwargs: Any) -> Any:
    """Ids of revoked tasks."""
    return list(worker_state.revoked)


@inspect_command(alias='dump_tasks', variadic='taskinfoitems', signature='[attr1 [attr2 [... [attrN]]]]')
def registered(state: Any, taskinfoitems: Iterable[str] | None = None, builtins: bool = False,
               **kwargs: Any) -> Any:
    """Names of the registered tasks, with attributes."""
    items = list(taskinfoitems or DEFAULT_TASK_INFO_ITEMS)
    return [_describe(task, items) for name, task in sorted(state.app.tasks.items())
            if builtins or not name.startswith('celery.')]


def _describe(task: Any, items: list[str]) -> str:
    values = ((item, getattr(task, item, None)) for item in items)
    shown = ' '.join(f'{item}={value}' for item, value in values if value is not None)
    return f'{task.name} [{shown}]' if shown else str(task.name)


@inspect_command()
def active_queues(state: Any, **kwargs: Any) -> Any:
    """Queues that the worker consumes from."""
    return [plain(queue.as_dict(recurse=True)) for queue in state.machine.queues]


# -- memory --------------------------------------------------------------------------------

@inspect_command()
def memsample(state: Any, **kwargs: Any) -> Any:
    """Note how much memory the worker uses now."""
    used = mem_rss()
    if used is not None:
        state.machine.memory_samples.append(used)
    return used


@inspect_command(args=[('samples', int)], signature='[n_samples=10]')
def memdump(state: Any, samples: int = 10, **kwargs: Any) -> Any:
    """What memsample has noted; at most so many samples, evenly chosen."""
    notes = list(state.machine.memory_samples)
    step = max(1, -(-len(notes) // max(1, samples)))
    lines = [f'- rss: {value}' for value in notes[::step]]
    return '\n'.join([*lines, f'- rss (current): {mem_rss() or "(not known)"}.'])


@inspect_command(args=[('object_type', str), ('num', int), ('max_depth', int)],
                 signature='[object_type=Request] [num=200 [max_depth=10]]')
def objgraph(state: Any, num: int = 200, max_depth: int = 10, type: str = 'Request',  # noqa: A002
             object_type: str | None = None, **kwargs: Any) -> Any:
    """Draw what keeps objects of a type in memory, in a file; needs the package objgraph."""
    try:
        # Imported here: a tool for developers, that hardly any worker has.
        import objgraph as drawer
    except ImportError:
        return nok('the worker needs the package objgraph: pip install objgraph')
    path = f'objg{os.getpid()}-{int(time.time())}.png'
    objects = drawer.by_type(object_type or type)[:num]
    drawer.show_backrefs(objects, max_depth=max_depth, filename=path)
    return {'filename': path}


def _implementation(pool: str) -> str:
    cls = get_implementation(pool)
    return f'{cls.__module__}:{cls.__qualname__}'
