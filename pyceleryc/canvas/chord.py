"""Chords: a task that gets the results of a group (FEATURES 2.3)."""
from __future__ import annotations

import warnings
from typing import Any

from kombu.utils.functional import is_list
from kombu.utils.uuid import uuid

from pyceleryc.canvas.bulk import PlainGroup
from pyceleryc.canvas.group import descend, group
from pyceleryc.canvas.signature import Signature, app_of, maybe_signature
from pyceleryc.canvas.stamping import merged
from pyceleryc.exceptions import CPendingDeprecationWarning
from pyceleryc.utils.functional import regen
from pyceleryc.utils.objects import getitem_property
from pyceleryc.utils.text import remove_repeating_from_task

__all__ = ('chord',)

#: Options of a call that are for the join, not for the tasks.
_JOIN_OPTIONS = ('interval', 'countdown', 'max_retries')


#: Options of a call that are for the body only.
_FOR_BODY = ('chain', 'link', 'link_error', 'group_id', 'group_index', 'chord')
#: With these options the tasks of the header may be plain.
_AFTER_BODY = frozenset({*_FOR_BODY, 'root_id', 'parent_id', 'add_to_parent'})


@Signature.register_type('chord')
class _chord(Signature):  # noqa: N801  the public name
    """``chord(header, body)``, or ``chord(header)(body)``.

    :param header: a group or an iterable of signatures.
    :param body: the signature that gets the list of their results, in order.
    """

    tasks = getitem_property('kwargs.header', 'The header.')
    body = getitem_property('kwargs.body', 'The body.')

    @classmethod
    def from_dict(cls, d: Any, app: Any = None) -> Any:
        """Return the chord that *d* describes; header and body are copied."""
        parts = d['kwargs']
        header = parts.get('header')
        if is_list(header):
            header = [maybe_signature(task, app=app, clone=True) for task in header]
        else:
            header = maybe_signature(header, app=app, clone=True)
        return _chord(
            header, maybe_signature(parts.get('body'), app=app, clone=True),
            kwargs=parts.get('kwargs'), args=d.get('args'), app=app, **d.get('options') or {})

    def __init__(
        self, header: Any, body: Any = None, task: str = 'celery.chord', args: Any = None,
        kwargs: Any = None, app: Any = None, **options: Any,
    ) -> None:
        options.pop('subtask_type', None)
        super().__init__(
            task, args, {
                'kwargs': kwargs or {}, 'header': _header_of(header, app),
                'body': maybe_signature(body, app=app)},
            app=app, subtask_type='chord', **options)

    def __call__(self, body: Any = None, **options: Any) -> Any:
        return self.apply_async((), {'body': body} if body else {}, **options)

    def _own_app(self) -> Any:
        return super()._own_app() or app_of((self.body, *self._header_tasks()))

    def _header_group(self) -> Any:
        """Return a copy of the header as a group."""
        header = self.tasks
        return header.clone() if isinstance(header, group) else group(
            [maybe_signature(task, app=self._app, clone=True) for task in header or ()],
            app=self._app)

    # -- sending ------------------------------------------------------------------------------

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None,
        producer: Any = None, publisher: Any = None, connection: Any = None, router: Any = None,
        result_cls: Any = None, **options: Any,
    ) -> Any:
        """Send the header; return the result of the body, whose parent is that of the header.

        :param args: added to the header's tasks.
        :param options: for header and body.
        """
        kwargs = dict(kwargs or {})
        body = maybe_signature(kwargs.pop('body', None) or self.body, app=self._app, clone=True)
        args = (*(args or ()), *(self.args or ()))
        if self.app.send_settings.always_eager:
            return self.apply(args, kwargs, body=body, task_id=task_id, **options)
        given = {name: value for name, value in options.items() if value is not None}
        merged_options = {**self.options, **given}
        merged_options.pop('task_id', None)
        merged_options.update((name, value) for name, value in (
            ('producer', producer or publisher), ('connection', connection), ('router', router),
        ) if value is not None)
        header = self._plain_header(args, kwargs, merged_options)
        if header is None:
            header = self._header_group()
        return self.run(
            header, body, args, app=self.app, task_id=task_id, kwargs=kwargs, **merged_options)

    def _plain_header(self, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Return the header if it can be sent without copying it, else None."""
        header = self.tasks
        own: dict[str, Any] = {}
        if isinstance(header, group):
            if header.args:
                return None
            header, own = header.tasks, header.options
        for_all = {name: value for name, value in options.items() if name not in _JOIN_OPTIONS}
        if kwargs or not _AFTER_BODY.issuperset(for_all):
            return None
        return PlainGroup.of(self.app, header, own, args)

    def run(
        self, header: Any, body: Any, partial_args: Any, app: Any = None,
        interval: float | None = None, countdown: float = 1, max_retries: int | None = None,
        eager: bool = False, task_id: str | None = None, kwargs: Any = None, **options: Any,
    ) -> Any:
        """Send *header* so that *body* follows; see :meth:`apply_async`."""
        app = app or self.app
        with app.amqp.batch():
            return self._run(
                header, body, partial_args, app, interval, countdown, max_retries, task_id,
                kwargs, options)

    def _run(
        self, header: Any, body: Any, partial_args: Any, app: Any, interval: float | None,
        countdown: float, max_retries: int | None, task_id: str | None, kwargs: Any,
        options: dict[str, Any],
    ) -> Any:
        options.pop('add_to_parent', None)
        transport: dict[str, Any] = {name: options.pop(name) for name in ('producer', 'connection', 'router')
                     if name in options}
        group_id = header.options.get('task_id') or uuid()
        # What comes after the chord comes after its body, not after the header's tasks.
        body.options.update(options)
        for name in _FOR_BODY:
            options.pop(name, None)
        if not header.tasks:
            return body.apply_async(([],), task_id=task_id, **transport)
        body_result = body.freeze(task_id, root_id=options.get('root_id'))
        body.options.setdefault('group_id', group_id)
        header_result = header.freeze(
            group_id=group_id, chord=body, root_id=options.get('root_id'),
            parent_id=options.get('parent_id'))
        app.backend.apply_chord(
            (group_id, header_result.results), body, interval=interval, countdown=countdown,
            max_retries=max_retries)
        # Before the header is sent: it may be done before we are.  Groups that its chains end
        # with are part of the same group, so only the chord itself knows the size.
        app.backend.set_chord_size(group_id, sum(map(descend, header.tasks)))
        options = {**options, **transport, 'task_id': group_id}
        body_result.parent = header.apply_async(partial_args, kwargs, **options)
        return body_result

    def apply(
        self, args: Any = None, kwargs: Any = None, propagate: bool = True, body: Any = None,
        **options: Any,
    ) -> Any:
        """Run header and body here; return the EagerResult of the body."""
        body = self.body if body is None else body
        for name in ('add_to_parent', 'producer', *_JOIN_OPTIONS):
            options.pop(name, None)
        header_result = self._header_group().apply(args, kwargs)
        result = body.apply((header_result.get(propagate=propagate),), **options)
        result.parent = header_result
        return result

    def freeze(
        self, _id: str | None = None, group_id: str | None = None, chord: Any = None,
        root_id: str | None = None, parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give header and body their ids; the place is that of the body."""
        header = self._header_group()
        result = self.body.freeze(
            _id, group_id=group_id, chord=chord, root_id=root_id, group_index=group_index)
        first_parent(result).parent = header.freeze(chord=self.body, root_id=root_id, parent_id=parent_id)
        self.tasks = header
        # Workers take it for the id of the header's group.
        self.options['task_id'] = header.options['task_id']
        if root_id:
            self.options['root_id'] = root_id
        return result

    _freeze = freeze

    @classmethod
    def _descend(cls, sig_obj: Any) -> int:
        return descend(sig_obj)

    def __length_hint__(self) -> int:
        return sum(descend(maybe_signature(task)) for task in self._header_group().tasks)

    # -- changing -----------------------------------------------------------------------------

    def link(self, callback: Any) -> Any:
        """Send *callback* after the body succeeded."""
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Send *errback* after the body failed, and after a failure of the header (C-032)."""
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for task in self._header_tasks():
                # Not immutable, whatever C-032 says: an errback gets the error as arguments.
                task.link_error(errback.clone())
        else:
            warnings.warn(CPendingDeprecationWarning(
                'task_allow_error_cb_on_chord_header will be True by default: errbacks of a '
                'chord will be called for tasks of its header, too'), stacklevel=2)
        self.body.link_error(errback)
        return errback

    def _header_tasks(self) -> Any:
        return self.tasks.tasks if isinstance(self.tasks, group) else self.tasks or ()

    def set_immutable(self, immutable: bool) -> None:
        """Set whether the header's tasks ignore results of other tasks."""
        for task in self._header_tasks():
            task.set_immutable(immutable)

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put headers on the tasks of the header and on the body."""
        self.tasks = self._header_group()
        found = visitor.on_chord_header_start(self, **headers) if visitor else None
        for task in self.tasks.tasks:
            task.stamp(visitor, append_stamps, **merged(headers, found))
        if visitor:
            visitor.on_chord_header_end(self, **headers)
        if self.body is not None:
            found = visitor.on_chord_body(self, **headers) if visitor else None
            self.body.stamp(visitor, append_stamps, **merged(headers, found))
        return self

    def __repr__(self) -> str:
        if self.body is None:
            return f'<chord without body: {self.tasks!r}>'
        if isinstance(self.body, Signature) and self.body.subtask_type is None:
            header = self._header_tasks()
            text = self.body.reprcall(list(header))
            return '%' + remove_repeating_from_task(self.body.get('task') or '', text)
        return f'%({self.body!r})({self.tasks!r})'


def first_parent(result: Any) -> Any:
    """Return the result that *result*, which may be that of a chain, begins with."""
    while result.parent is not None:
        result = result.parent
    return result


def _header_of(header: Any, app: Any) -> Any:
    if isinstance(header, dict):
        header = maybe_signature(header, app=app)
        return header if isinstance(header, group) else [header]
    if is_list(header):
        return [maybe_signature(task, app=app) for task in header]
    return regen(header if header is not None else ())


#: The public name.
chord = _chord
