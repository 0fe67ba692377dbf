"""Remote control of workers, the client's side (FEATURES 2.11, PROTOCOL 3.8)."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kombu.matcher import match
from kombu.pidbox import Mailbox
from kombu.utils.functional import maybe_list

from pyceleryc.app.drivers import has_fanout
from pyceleryc.exceptions import DuplicateNodenameWarning, ImproperlyConfigured
from pyceleryc.utils.locks import shared_property
from pyceleryc.utils.text import pluralize

__all__ = ('Inspect', 'Control', 'flatten_reply')

def flatten_reply(reply: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Merge replies, a dict per node, into one; two nodes of one name are warned about."""
    nodes: dict[str, Any] = {}
    seen: set[str] = set()
    double: set[str] = set()
    for item in reply:
        double.update(seen.intersection(item))
        seen.update(item)
        nodes.update(item)
    if double:
        warnings.warn(DuplicateNodenameWarning(
            f'Received multiple replies from node {pluralize(len(double), "name")} '
            f'{", ".join(sorted(double))}: give each worker a name of its own with -n.'), stacklevel=3)
    return nodes


class Inspect:
    """Asks workers about themselves: ``app.control.inspect()``.

    Every method returns what the nodes said, by node name, or None if nobody replied.  With a
    single name as *destination* it returns what that node said.

    :param destination: node name, or several; default: all workers.
    :param timeout: seconds to wait for replies.
    :param callback: called with each reply when it arrives.
    :param limit: do not wait for more replies than this.
    :param pattern: of node names, in the language *matcher*: ``glob`` or ``pcre``.
    """

    app: Any = None

    def __init__(
        self, destination: Any = None, timeout: float = 1.0,
        callback: Callable[[Any], Any] | None = None, connection: Any = None, app: Any = None,
        limit: int | None = None, pattern: str | None = None, matcher: str | None = None,
    ) -> None:
        self.app = app or self.app
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.connection = connection
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _prepare(self, reply: Any) -> Any:
        if not reply:
            return None
        by_node = flatten_reply(reply)
        if self.destination and not isinstance(self.destination, (list, tuple)):
            return by_node.get(self.destination)
        if self.pattern:
            return {node: said for node, said in by_node.items()
                    if match(node, self.pattern, self.matcher)}
        return by_node

    def _request(self, command: str, **kwargs: Any) -> Any:
        return self._prepare(self.app.control.broadcast(
            command, arguments=kwargs, destination=self.destination, callback=self.callback,
            connection=self.connection, limit=self.limit, timeout=self.timeout, reply=True,
            pattern=self.pattern, matcher=self.matcher))

    def report(self) -> Any:
        """Return what a bug report should tell about each worker."""
        return self._request('report')

    def clock(self) -> Any:
        """Return the logical clocks."""
        return self._request('clock')

    def active(self, safe: bool | None = None) -> Any:
        """Return the tasks that run.  *safe*: arguments as the sender has represented them."""
        return self._request('active', safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """Return the tasks that wait for their ETA."""
        return self._request('scheduled')

    def reserved(self, safe: bool | None = None) -> Any:
        """Return the tasks that the workers hold and that neither run nor wait for an ETA."""
        return self._request('reserved')

    def stats(self) -> Any:
        """Return numbers about the workers."""
        return self._request('stats')

    def revoked(self) -> Any:
        """Return the ids of revoked tasks."""
        return self._request('revoked')

    def registered(self, *taskinfoitems: str) -> Any:
        """Return the names of the registered tasks, with the attributes *taskinfoitems*."""
        return self._request('registered', taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def ping(self, destination: Any = None) -> Any:
        """Return ``{'ok': 'pong'}`` for each worker that is there."""
        if destination:
            self.destination = destination
        return self._request('ping')

    def active_queues(self) -> Any:
        """Return the queues that are consumed."""
        return self._request('active_queues')

    def query_task(self, *ids: Any) -> Any:
        """Return ``{id: [state, info]}`` of those tasks that the workers know."""
        if len(ids) == 1 and isinstance(ids[0], (list, tuple)):
            ids = tuple(ids[0])
        return self._request('query_task', ids=ids)

    def conf(self, with_defaults: bool = False) -> Any:
        """Return the settings, without secrets."""
        return self._request('conf', with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """Exchange revoked ids and clocks."""
        return self._request('hello', from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Note the memory that the workers use now."""
        return self._request('memsample')

    def memdump(self, samples: int = 10) -> Any:
        """Return what :meth:`memsample` has noted."""
        return self._request('memdump', samples=samples)

    def objgraph(self, type: str = 'Request', n: int = 200, max_depth: int = 10) -> Any:  # noqa: A002
        """Have a graph of objects drawn; the workers need the package objgraph."""
        return self._request('objgraph', num=n, max_depth=max_depth, type=type)


class Control:
    """Tells workers what to do: ``app.control``."""

    Mailbox = Mailbox

    def __init__(self, app: Any = None) -> None:
        self.app = app

    def make_mailbox(self, producer_pool: Any = None) -> Any:
        """Return a mailbox as the settings ``control_*`` want it."""
        conf = self.app.conf
        return self.Mailbox(
            conf.control_exchange, type='fanout', accept=conf.accept_content, clock=self.app.clock,
            serializer=conf.task_serializer, producer_pool=producer_pool,
            queue_ttl=conf.control_queue_ttl, queue_expires=conf.control_queue_expires,
            queue_durable=conf.control_queue_durable, queue_exclusive=conf.control_queue_exclusive,
            reply_queue_ttl=conf.control_queue_ttl, reply_queue_expires=conf.control_queue_expires)

    @shared_property
    def mailbox(self) -> Any:
        """The mailbox of this program (kombu.pidbox)."""
        return self.make_mailbox()

    @shared_property
    def inspect(self) -> Any:
        """Class :class:`Inspect` for this app."""
        return self.app.subclass_with_self(Inspect, reverse='control.inspect')

    # -- sending ---------------------------------------------------------------------------

    def broadcast(
        self, command: str, arguments: Any = None, destination: Any = None,
        connection: Any = None, reply: bool = False, timeout: float = 1.0,
        limit: int | None = None, callback: Any = None, channel: Any = None,
        pattern: str | None = None, matcher: str | None = None, **extra_kwargs: Any,
    ) -> Any:
        """Send *command* to all workers, or to those of *destination* or *pattern*.

        :param arguments: of the command; so are other keywords.
        :param reply: wait up to *timeout* seconds for replies, for *limit* of them at most.
        :returns: list of ``{node name: reply}``; None without *reply*.
        :raises ImproperlyConfigured: the broker has no way to reach all workers.
        :raises OperationalError: the broker cannot be reached.
        """
        if connection is None and channel is None and not has_fanout(self.app.conf.broker_write_url):
            raise ImproperlyConfigured(
                f'Remote control ({command}) is not possible with this broker: it cannot reach all '
                'workers at once. Use RabbitMQ or Redis as broker_url.')
        arguments = dict(arguments or {}, **extra_kwargs)
        if destination is not None and not isinstance(destination, (list, tuple)):
            destination = [destination]
        with self.app.connection_or_acquire(connection) as conn:
            return self.mailbox(conn)._broadcast(
                command, arguments, destination, reply, timeout, limit, callback,
                channel=channel, pattern=pattern, matcher=matcher)

    # -- tasks -----------------------------------------------------------------------------

    def revoke(
        self, task_id: Any, destination: Any = None, terminate: bool = False,
        signal: Any = 'SIGTERM', **kwargs: Any,
    ) -> Any:
        """Have a task (or a list of them) not run; it is ignored if it has run.

        With ``worker_durable_revokes`` the ids are stored first, for workers that start later.

        :param task_id: its id, or several.
        :param terminate: end it if it runs, by *signal* to its process.
        :raises OperationalError: the broker, or the store of revoked ids, cannot be reached.
        """
        arguments = {'task_id': task_id, 'terminate': terminate, 'signal': signal}
        if self.app.conf.worker_durable_revokes:
            self.durable_revokes.add(
                [str(item) for item in maybe_list(task_id) or ()], self.app.conf.worker_durable_revokes_expires)
            arguments['durable'] = True  # the workers need not do that once more
        return self.broadcast('revoke', destination=destination, arguments=arguments, **kwargs)

    @shared_property
    def durable_revokes(self) -> Any:
        """Where revoked ids are kept (:class:`~pyceleryc.backends.revokes.RevokeStore`); None without ``worker_durable_revokes``."""
        # The backend must be imported when it is wanted only.
        from pyceleryc.backends.revokes import durable_revokes

        return durable_revokes(self.app)

    def revoke_by_stamped_headers(
        self, headers: dict[str, Any], destination: Any = None, terminate: bool = False,
        signal: Any = 'SIGTERM', **kwargs: Any,
    ) -> Any:
        """Have tasks not run that carry one of the stamps *headers*."""
        result = self.broadcast('revoke_by_stamped_headers', destination=destination, arguments={
            'headers': headers, 'terminate': terminate, 'signal': signal}, **kwargs)
        ids = {task_id for replies in result or () for said in replies.values()
               if isinstance(said.get('ok'), (list, set, tuple)) for task_id in said['ok']}
        return self.revoke(list(ids), destination, terminate, signal, **kwargs) if ids else result

    def terminate(
        self, task_id: Any, destination: Any = None, signal: Any = 'SIGTERM', **kwargs: Any,
    ) -> Any:
        """Revoke a task and end it if it runs."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **kwargs)

    def rate_limit(
        self, task_name: str, rate_limit: Any, destination: Any = None, **kwargs: Any,
    ) -> Any:
        """Change the rate limit of a task: ``'10/m'``, 0 for none."""
        return self.broadcast('rate_limit', destination=destination, arguments={
            'task_name': task_name, 'rate_limit': rate_limit}, **kwargs)

    def time_limit(
        self, task_name: str, soft: float | None = None, hard: float | None = None,
        destination: Any = None, **kwargs: Any,
    ) -> Any:
        """Change the time limits of a task; seconds."""
        return self.broadcast('time_limit', destination=destination, arguments={
            'task_name': task_name, 'hard': hard, 'soft': soft}, **kwargs)

    # -- queues ----------------------------------------------------------------------------

    def add_consumer(
        self, queue: str, exchange: str | None = None, exchange_type: str = 'direct',
        routing_key: str | None = None, options: dict[str, Any] | None = None,
        destination: Any = None, **kwargs: Any,
    ) -> Any:
        """Have a queue consumed.  *options*: of the queue, as in ``Queue.from_dict``."""
        return self.broadcast('add_consumer', destination=destination, arguments={
            'queue': queue, 'exchange': exchange, 'exchange_type': exchange_type,
            'routing_key': routing_key, **(options or {})}, **kwargs)

    def cancel_consumer(self, queue: str, destination: Any = None, **kwargs: Any) -> Any:
        """Have a queue not consumed any more."""
        return self.broadcast(
            'cancel_consumer', destination=destination, arguments={'queue': queue}, **kwargs)

    def purge(self, connection: Any = None) -> int:
        """Delete all messages in the queues of this app; return how many there were.

        :raises OperationalError: the broker cannot be reached.
        """
        publisher = self.app.amqp.publisher
        if connection is None and publisher is not None:
            return sum(_purge_queue(publisher, queue)
                       for queue in self.app.amqp.queues.consume_from.values())
        with self.app.connection_for_write() if connection is None else connection as conn:
            return int(self.app.amqp.TaskConsumer(conn).purge() or 0)

    discard_all = purge

    # -- workers ---------------------------------------------------------------------------

    def ping(self, destination: Any = None, timeout: float = 1.0, **kwargs: Any) -> Any:
        """Return ``[{node name: {'ok': 'pong'}}, ...]``."""
        return self.broadcast(
            'ping', reply=True, arguments={}, destination=destination, timeout=timeout, **kwargs)

    def enable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have events about tasks sent."""
        return self.broadcast('enable_events', arguments={}, destination=destination, **kwargs)

    def disable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have them not sent any more."""
        return self.broadcast('disable_events', arguments={}, destination=destination, **kwargs)

    def pool_grow(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """Have *n* more processes or threads."""
        return self.broadcast('pool_grow', arguments={'n': n}, destination=destination, **kwargs)

    def pool_shrink(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """Have *n* fewer processes or threads."""
        return self.broadcast('pool_shrink', arguments={'n': n}, destination=destination, **kwargs)

    def autoscale(self, max: int, min: int, destination: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        """Change the bounds of a pool that scales by itself."""
        return self.broadcast(
            'autoscale', arguments={'max': max, 'min': min}, destination=destination, **kwargs)

    def pool_restart(
        self, modules: Sequence[str] | None = None, reload: bool = False,
        reloader: Any = None, destination: Any = None, **kwargs: Any,
    ) -> Any:
        """Have the processes of the pool replaced."""
        return self.broadcast('pool_restart', destination=destination, arguments={
            'modules': modules, 'reload': reload, 'reloader': reloader}, **kwargs)

    def heartbeat(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have a heartbeat event sent now."""
        return self.broadcast('heartbeat', arguments={}, destination=destination, **kwargs)

    def election(
        self, id: str, topic: str, action: Any = None, connection: Any = None,  # noqa: A002
    ) -> Any:
        """Start an election among the workers that gossip: the winner does *action*."""
        return self.broadcast('election', connection=connection, destination=None, arguments={
            'id': id, 'topic': topic, 'action': action})

    def shutdown(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have workers finish what runs, and exit."""
        return self.broadcast('shutdown', arguments={}, destination=destination, **kwargs)


def _purge_queue(publisher: Any, queue: Any) -> int:
    publisher.declare(queue)
    return int(publisher.core.purge(queue.name, None))
