"""Signatures: calls as values, to be passed around, linked and sent."""
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from kombu.utils.functional import maybe_list, reprcall
from kombu.utils.uuid import uuid

from pyceleryc import _state
from pyceleryc.canvas.stamping import merged, put_stamps
from pyceleryc.utils import abstract
from pyceleryc.utils.objects import getitem_property

__all__ = ('Signature', 'signature', 'maybe_signature', 'subtask', 'maybe_subtask')

#: Options that a call cannot change once they are set: the place in a workflow.
_FIXED_OPTIONS = frozenset({'group_id', 'stamped_headers'})


#: Parts of a signature, how to make them, and what they may be.
_PARTS: tuple[tuple[str, Any, tuple[type, ...]], ...] = (
    ('args', tuple, (list, tuple)), ('kwargs', dict, (dict,)), ('options', dict, (dict,)))


@abstract.CallableSignature.register
class Signature(dict):  # type: ignore[type-arg]
    """A task's name, arguments and options (Calling guide; FEATURES 2.3).

    It is a dict with the keys task, args, kwargs, options, subtask_type and immutable, so
    that it can be part of messages.

    :param task: a task, its name, or a dict to be made a signature.
    :param type: the task, if *task* is its name.
    :param immutable: results of other tasks are not added to the arguments.
    :param ex: more options.
    """

    #: subtask_type -> class.
    TYPES: dict[str, Any] = {}
    _app: Any = None
    _type: Any = None

    task = getitem_property('task', 'Name of the task.')
    args = getitem_property('args', 'Positional arguments.')
    kwargs = getitem_property('kwargs', 'Keyword arguments.')
    options = getitem_property('options', 'Options of apply_async.')
    subtask_type = getitem_property('subtask_type', 'Kind of canvas.')
    immutable = getitem_property('immutable', 'Ignores results of other tasks.')
    id = getitem_property('options.task_id', 'Id, when it is frozen.')
    parent_id = getitem_property('options.parent_id', 'Id of the task that sends it.')
    root_id = getitem_property('options.root_id', 'Id of the first task of the workflow.')

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[Any], Any]:
        """Return a decorator that makes a class known as *name*, a ``subtask_type``."""
        def register(subclass: Any) -> Any:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass
        return register

    @classmethod
    def from_dict(cls, d: Any, app: Any = None) -> Any:
        """Return the signature, of the right class, that *d* describes."""
        kind = d.get('subtask_type')
        if not kind or cls.TYPES.get(kind) is cls:
            return Signature(d, app=app)
        if kind not in cls.TYPES:
            raise KeyError(f'signature {d.get("task")!r}: there is no subtask_type {kind!r}; known: '
                           + ', '.join(sorted(cls.TYPES)))
        if not isinstance(d.get('kwargs'), dict):
            raise TypeError(f'signature {d.get("task")!r}: kwargs of a {kind} must be a dict; it is {d.get("kwargs")!r}')
        try:
            return cls.TYPES[kind].from_dict(d, app=app)
        except (KeyError, AttributeError) as exc:
            raise TypeError(f'signature {d.get("task")!r} is no {kind}: {exc!r}') from exc

    def __init__(
        self, task: Any = None, args: Any = None, kwargs: Any = None, options: Any = None,
        type: Any = None,  # noqa: A002  the public name
        subtask_type: str | None = None, immutable: bool = False, app: Any = None, **ex: Any,
    ) -> None:
        self._app = app
        if isinstance(task, dict):
            super().__init__(task)
            # Messages made by hand may leave things out.
            for key, default, kinds in _PARTS:
                value = self.get(key)
                if value is None:
                    self[key] = default()
                elif not isinstance(value, kinds):
                    raise TypeError(
                        f'signature {self.get("task")!r}: {key} must be a '
                        f'{" or ".join(kind.__name__ for kind in kinds)}; it is {value!r}')
            return
        name = task
        if task is not None and not isinstance(task, str):
            name, self._type = task.name, task
        if type is not None:
            self._type = type
        super().__init__(
            task=name, args=tuple(args or ()), kwargs=kwargs or {},
            options=dict(options or {}, **ex), subtask_type=subtask_type, immutable=immutable)

    # -- the task -------------------------------------------------------------------------

    @property
    def app(self) -> Any:
        """The app that sends it: its own, that of its task or its members, or the current."""
        return self._own_app() or _state.get_current_app()

    def _own_app(self) -> Any:
        if self._app is not None:
            return self._app
        return self._type.app if self._type is not None else None

    @property
    def type(self) -> Any:
        """The task; NotRegistered if it is not known here."""
        return self._type or self.app.tasks[self['task']]

    @property
    def name(self) -> str:
        """Name of the task."""
        return self['task']

    def _known_type(self) -> Any:
        """Return the task, or None if it is not registered here."""
        return self._type if self._type is not None else self.app.tasks.get(self.get('task'))

    @property
    def AsyncResult(self) -> Any:  # noqa: N802  the public name
        """Makes the result, given an id."""
        return (self._known_type() or self.app).AsyncResult

    # -- calling --------------------------------------------------------------------------

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Run the task here, as a function."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs, None)
        return self.type(*args, **kwargs)

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Send it, with more arguments."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any,
    ) -> Any:
        """Send it, with more arguments and options; see :meth:`Task.apply_async`.

        Options that are None count as not given.
        """
        given = {name: value for name, value in options.items() if value is not None}
        args, kwargs, merged_options = self._merge(args, kwargs, given)
        if route_name is not None:
            merged_options['route_name'] = route_name
        task = self._known_type()
        if task is None:
            if not isinstance(self.get('task'), str):
                raise TypeError(f'a signature must have the name of a task; its task is {self.get("task")!r}')
            return self.app.send_task(self['task'], args, kwargs, **merged_options)
        return task.apply_async(args, kwargs, **merged_options)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run it here and return its EagerResult."""
        args, kwargs, options = self._merge(args, kwargs, options)
        return self.type.apply(args, kwargs, **options)

    def _merge(
        self, args: Any = None, kwargs: Any = None, options: Any = None, force: bool = False,
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Return arguments, keywords and options of a call with more of them.

        :param force: add arguments although it is immutable.
        """
        own = self['options']
        new_options = dict(own)
        fixed = _FIXED_OPTIONS.union(own.get('stamped_headers') or ())
        for name, value in (options or {}).items():
            if not (name in fixed and name in own):
                new_options[name] = value
        if self.get('immutable') and not force:
            return self['args'], self['kwargs'], new_options
        return (
            (*(args or ()), *self['args']), {**self['kwargs'], **(kwargs or {})}, new_options)

    # -- variations -------------------------------------------------------------------------

    def clone(self, args: Any = None, kwargs: Any = None, **opts: Any) -> Any:
        """Return a copy, with more arguments and options."""
        args, kwargs, opts = self._merge(args, kwargs, opts)
        copy = Signature.from_dict({
            'task': self['task'], 'args': tuple(args), 'kwargs': kwargs,
            'options': deepcopy(opts) if opts else {},
            'subtask_type': self.get('subtask_type'), 'immutable': self.get('immutable', False),
        }, app=self._app)
        copy._type = self._type
        return copy

    partial = clone

    def replace(self, args: Any = None, kwargs: Any = None, options: Any = None) -> Any:
        """Return a copy with other arguments or options."""
        copy = self.clone()
        for key, value in (('args', args), ('kwargs', kwargs), ('options', options)):
            if value is not None:
                copy[key] = value
        return copy

    def set(self, immutable: bool | None = None, **options: Any) -> Any:
        """Set options; return self."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Set whether results of other tasks are ignored."""
        self.immutable = immutable

    def freeze(
        self, _id: str | None = None, group_id: str | None = None, chord: Any = None,
        root_id: str | None = None, parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give it an id and its place in a workflow; return the result of that id."""
        options = self['options']
        task_id = options.setdefault('task_id', _id or uuid())
        if root_id:
            options['root_id'] = root_id
        if parent_id:
            options['parent_id'] = parent_id
        if 'reply_to' not in options:
            options['reply_to'] = self.app.expect_result(task_id)
        if group_id:
            options.setdefault('group_id', group_id)
        if chord:
            options['chord'] = chord
        if group_index is not None:
            options['group_index'] = group_index
        return self.AsyncResult(task_id)

    _freeze = freeze

    # -- links --------------------------------------------------------------------------------

    def _with_list_option(self, key: str) -> list[Any]:
        items = self.options.setdefault(key, [])
        if not isinstance(items, list):
            items = self.options[key] = [items]
        return items

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add *value* to the option, which is a list, unless it is in it; return *value*."""
        items = self._with_list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add each of *value* to the option."""
        self._with_list_option(key).extend(maybe_list(value) or ())

    def link(self, callback: Any) -> Any:
        """Send *callback* after success; return it."""
        return self.append_to_list_option('link', callback)

    def link_error(self, errback: Any) -> Any:
        """Send *errback* after failure; return it."""
        return self.append_to_list_option('link_error', errback)

    def on_error(self, errback: Any) -> Any:
        """Like :meth:`link_error`, but return self."""
        self.link_error(errback)
        return self

    def flatten_links(self) -> list[Any]:
        """Return this and all links, and their links."""
        links = (maybe_signature(link, app=self._app)
                 for link in maybe_list(self.options.get('link')) or ())
        return [self, *itertools.chain.from_iterable(link.flatten_links() for link in links)]

    # -- stamps ---------------------------------------------------------------------------------

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put headers on it and its links.

        :param visitor: a :class:`StampingVisitor`.
        :param append_stamps: keep older values, too.
        """
        self.stamp_links(visitor, append_stamps, **headers)
        own = merged(headers, visitor.on_signature(self, **headers) if visitor else None)
        put_stamps(self, own, append_stamps)
        return self

    def stamp_links(self, visitor: Any, append_stamps: bool = False, **headers: Any) -> None:
        """Put headers on the links only."""
        for key, hook in (('link', 'on_callback'), ('link_error', 'on_errback')):
            links = [maybe_signature(link, app=self._app)
                     for link in maybe_list(self.options.get(key)) or ()]
            for link in links:
                found = getattr(visitor, hook)(link, **headers) if visitor else None
                link.stamp(visitor, append_stamps, **merged(headers, found))
            if links:
                self.options[key] = links

    # -- operators ----------------------------------------------------------------------------

    def __or__(self, other: Any) -> Any:
        # Imported here: the chain is a subclass.
        from pyceleryc.canvas.chain import join
        return join(self, other) if isinstance(other, Signature) else NotImplemented

    def __ior__(self, other: Any) -> Any:
        return self.__or__(other)

    def __invert__(self) -> Any:
        return self.apply_async().get()

    def election(self) -> Any:
        """Send it through an election among workers; return its result."""
        app, result = self.app, self.freeze()
        app.control.election(result.id, 'task', self.clone(
            task_id=result.id, reply_to=app.thread_oid))
        return result

    # -- the object -----------------------------------------------------------------------------

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return the call as text, with more arguments."""
        args, kwargs, _ = self._merge(args, kwargs, {}, force=True)
        return str(reprcall(self['task'], args, kwargs))

    def __repr__(self) -> str:
        return self.reprcall()

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # As a plain dict, so that apps and tasks need not be pickled.
        return signature, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self)] = self
        copy = Signature.from_dict(deepcopy(dict(self), memo), app=self._app)
        copy._type = self._type
        return copy


def signature(varies: Any, *args: Any, **kwargs: Any) -> Any:
    """Return a signature of a task, a task's name, or what a dict describes."""
    app = kwargs.get('app')
    if isinstance(varies, dict):
        if isinstance(varies, Signature):
            return varies.clone()
        return Signature.from_dict(varies, app=app)
    return Signature(varies, *args, **kwargs)


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """Return a dict as a signature; None stays None.

    :param clone: copy what is a signature already.
    """
    if d is None:
        return None
    if isinstance(d, Signature):
        d = d.clone() if clone else d
    elif isinstance(d, dict):
        d = signature(d)
    if app is not None and isinstance(d, Signature):
        d._app = app
    return d


def app_of(items: Iterable[Any]) -> Any:
    """Return the app of the first signature that has one, or None."""
    apps = (item._own_app() for item in items if isinstance(item, Signature))
    return next((app for app in apps if app is not None), None)


subtask = signature
maybe_subtask = maybe_signature
