"""Names of worker nodes, and the templates made of them."""
from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any

from kombu.entity import Exchange, Queue

from pyceleryc.utils.processes import process_index
from pyceleryc.utils.text import simple_format

__all__ = (
    'worker_direct', 'gethostname', 'nodename', 'anon_nodename', 'nodesplit',
    'default_nodename', 'node_format', 'host_format',
)

WORKER_DIRECT_EXCHANGE = Exchange('C.dq2')
WORKER_DIRECT_QUEUE_FORMAT = '{hostname}.dq2'
NODENAME_DEFAULT = 'celery'
NODENAME_SEP = '@'

gethostname = socket.gethostname


def worker_direct(hostname: Any) -> Queue:
    """Return the queue that only the worker called *hostname* reads (``worker_direct``)."""
    if isinstance(hostname, Queue):
        return hostname
    return Queue(
        WORKER_DIRECT_QUEUE_FORMAT.format(hostname=hostname), WORKER_DIRECT_EXCHANGE, hostname)


def nodename(name: str, hostname: str) -> str:
    """Return ``name@hostname``."""
    return f'{name}{NODENAME_SEP}{hostname}'


def anon_nodename(hostname: str | None = None, prefix: str = 'gen') -> str:
    """Return a node name for a process that is no worker, such as ``gen123@host``."""
    return nodename(f'{prefix}{os.getpid()}', hostname or gethostname())


def nodesplit(name: str) -> tuple[str | None, str]:
    """Split a node name into (name or None, hostname)."""
    head, separator, tail = name.partition(NODENAME_SEP)
    return (head, tail) if separator else (None, name)


def default_nodename(hostname: str | None) -> str:
    """Complete *hostname*: ``celery`` and this host stand for missing parts."""
    name, host = nodesplit(hostname or '')
    return nodename(name or NODENAME_DEFAULT, host or gethostname())


def _process_index(prefix: str = '', default: str = '0') -> str:
    index = process_index()
    return f'{prefix}{index}' if index else default


def node_format(s: str | None, name: str, **extra: Any) -> Any:
    """Expand ``%n %h %d %p %i %I`` in *s* for the node called *name*."""
    short, host = nodesplit(name)
    return host_format(s, host, short or NODENAME_DEFAULT, p=name, **extra)


def host_format(s: str | None, host: str | None = None, name: str | None = None,
                **extra: Any) -> Any:
    """Expand ``%h`` host, ``%n`` name, ``%d`` domain, ``%i``/``%I`` process index in *s*.

    :raises ValueError: another letter follows a percent sign.
    """
    host = host or gethostname()
    hname, _, domain = host.partition('.')
    keys: dict[str, Any] = {
        'h': host, 'n': name or hname, 'd': domain,
        'i': _process_index, 'I': partial(_process_index, '-', ''),
    }
    return simple_format(s, {**keys, **extra})
