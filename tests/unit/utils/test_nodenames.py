from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import socket

import pytest

from pyceleryc.utils import nodenames as n
from pyceleryc.utils import processes


def test_names() -> None:
    host = socket.gethostname()
    assert n.nodename('w', 'h') == 'w@h'
    assert tuple(n.nodesplit('w@h.d')) == ('w', 'h.d') and n.nodesplit('h') == (None, 'h')
    assert n.default_nodename(None) == n.default_nodename('') == f'celery@{host}'
    assert n.default_nodename('h') == 'celery@h' and n.default_nodename('w@') == f'w@{host}'
    assert n.anon_nodename('h') == f'gen{os.getpid()}@h'


def test_worker_direct() -> None:
    queue = n.worker_direct('w@h')
    assert (queue.name, queue.exchange.name, queue.routing_key) == ('w@h.dq2', 'C.dq2', 'w@h')
    assert n.worker_direct(queue) is queue


def test_formats() -> None:
    assert n.host_format('w@%h', 'h.d') == 'w@h.d'
    assert n.host_format('%n|%d|%h', 'w1.example.com') == 'w1|example.com|w1.example.com'
    assert n.node_format('%n-%h-%d-%p', 'w1@host.dom.com') == (
        'w1-host.dom.com-dom.com-w1@host.dom.com')
    assert n.node_format('/var/%n%I.log', 'w1@h') == '/var/w1.log'
    assert n.node_format('%i', 'w1@h') == '0' and n.host_format(None) is None
    with pytest.raises(ValueError, match='Unknown format %N'):
        n.node_format('%N', 'a@b')


def test_formats_in_pool_processes() -> None:
    def child(pipe: multiprocessing.connection.Connection) -> None:
        processes.set_process_index(1)
        pipe.send((n.node_format('%n%I|%i', 'w1@h'), processes.process_index()))

    context = multiprocessing.get_context('fork')
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    assert ours.poll(20) and ours.recv() == ('w1-2|2', 2)
    process.join()
    assert processes.process_index() == 0
