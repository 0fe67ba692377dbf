"""Which queue a task goes to: ``task_routes`` and the routers in it (C-142)."""
from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any

from kombu import Queue

from pyceleryc.exceptions import QueueNotFound
from pyceleryc.utils.collections import lpmerge
from pyceleryc.utils.functional import maybe_evaluate, mlazy
from pyceleryc.utils.imports import symbol_by_name

__all__ = ('MapRoute', 'Router', 'expand_router_string', 'prepare')


class MapRoute:
    """A router made of a mapping: task name, glob or compiled regex to route.

    :param map: a mapping or (pattern, route) pairs; a plain name wins over
        patterns, patterns are tried in order.
    """

    def __init__(self, map: Any) -> None:  # noqa: A002  the public name
        pairs = map.items() if isinstance(map, Mapping) else iter(map)
        self.map: dict[str, Any] = {}
        self.patterns: dict[re.Pattern[str], Any] = {}
        for key, route in pairs:
            if isinstance(key, re.Pattern):
                self.patterns[key] = route
            elif '*' in key:
                self.patterns[re.compile(fnmatch.translate(key))] = route
            else:
                self.map[key] = route

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Return the route of the task *name*, or None."""
        if name in self.map:
            return _as_route(self.map[name])
        for pattern, route in self.patterns.items():
            if pattern.match(name):
                return _as_route(route)
        return None


def _as_route(route: Any) -> dict[str, Any]:
    """Return a route as a dict; a string or a Queue means that queue."""
    return dict(route) if isinstance(route, Mapping) else {'queue': route}


class Router:
    """Finds the options that routing adds to a message.

    :param routes: what :func:`prepare` returned.
    :param queues: the :class:`~pyceleryc.app.amqp.Queues` of the app.
    :param create_missing: make queues that are not in *queues*.
    :param app: whose default queue is used when nothing else says where to.
    """

    def __init__(
        self, routes: Iterable[Any] | None = None, queues: Any = None,
        create_missing: bool = False, app: Any = None,
    ) -> None:
        self.app = app
        self.queues = {} if queues is None else queues
        self.routes = [] if routes is None else routes
        self.create_missing = create_missing

    def route(
        self, options: dict[str, Any], name: str, args: Any = (), kwargs: Any = None,
        task_type: Any = None,
    ) -> dict[str, Any]:
        """Return *options* completed by the route of the task; *options* win.

        :raises QueueNotFound: the queue is unknown and must not be created.
        """
        try:
            merged = self._merged(options, name, args, kwargs, task_type)
        except QueueNotFound as exc:
            raise QueueNotFound(f'task {name!r}: {exc.args[0]}') from None
        if 'queue' not in merged and self.app is not None:
            merged['queue'] = self.app.amqp.default_queue
        return merged

    def _merged(
        self, options: dict[str, Any], name: str, args: Any, kwargs: Any, task_type: Any,
    ) -> dict[str, Any]:
        merged = self.expand_destination(options)
        found = self.lookup_route(name, args, kwargs, options, task_type) if self.routes else None
        if found:
            if not isinstance(found, (Mapping, str, Queue)):
                raise TypeError(f'task {name!r}: its route is {found!r}; it must be a dict of options, or a queue')
            found = _as_route(found)
            if 'queue' in merged:
                # Not even looked up: it may not exist, and it is not wanted.
                found.pop('queue', None)
            merged = lpmerge(self.expand_destination(found), merged)
        return merged

    def expand_destination(self, route: Any) -> dict[str, Any]:
        """Return *route* as a dict of options, its queue as a Queue object."""
        expanded = {} if not route else _as_route(route)
        queue = expanded.pop('queue', None)
        if queue:
            expanded['queue'] = queue if isinstance(queue, Queue) else self._queue(queue)
        return expanded

    def _queue(self, name: str) -> Queue:
        try:
            return self.queues[name]
        except KeyError:
            raise QueueNotFound(f'Queue {name!r} missing from task_queues') from None

    def lookup_route(
        self, name: str, args: Any = None, kwargs: Any = None, options: Any = None,
        task_type: Any = None,
    ) -> Any:
        """Return the answer of the first router that has one, or None."""
        for router in self.routes:
            answer = self.query_router(
                router, name, args or (), kwargs or {}, options or {}, task_type)
            if answer is not None:
                return answer
        return None

    def query_router(
        self, router: Any, task: str, args: Any, kwargs: Any, options: Any, task_type: Any,
    ) -> Any:
        """Ask one router, which may be a function or have ``route_for_task``."""
        router = maybe_evaluate(router)
        if hasattr(router, 'route_for_task'):
            return router.route_for_task(task, args, kwargs)
        return router(task, args, kwargs, options, task=task_type)


def expand_router_string(router: str) -> Any:
    """Import the router called *router*; a class is made into an instance."""
    found = symbol_by_name(router)
    return found() if isinstance(found, type) else found


def _prepare_one(route: Any) -> Any:
    if isinstance(route, (Mapping, list, tuple)):
        return MapRoute(route)
    if isinstance(route, str):
        # Imported at first use: it may well be in a module that imports the app.
        return mlazy(expand_router_string, route)
    return route


def _is_pair(item: Any) -> bool:
    return (isinstance(item, tuple) and len(item) == 2
            and isinstance(item[0], (str, re.Pattern)) and isinstance(item[1], (Mapping, str)))


def prepare(routes: Any) -> list[Any]:
    """Return the routers of the setting ``task_routes``."""
    if routes is None:
        return []
    if not isinstance(routes, (list, tuple)) or all(map(_is_pair, routes)):
        # A list of (pattern, route) is one router.
        routes = (routes,)
    return [_prepare_one(route) for route in routes]
