"""Groups: tasks that run side by side (FEATURES 2.3)."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kombu.utils.functional import fxrange, is_list
from kombu.utils.uuid import uuid

from pyceleryc._state import get_current_worker_task
from pyceleryc.canvas.bulk import PlainGroup
from pyceleryc.canvas.signature import Signature, app_of, maybe_signature
from pyceleryc.canvas.stamping import merged
from pyceleryc.utils.functional import regen
from pyceleryc.utils.objects import getitem_property
from pyceleryc.utils.text import remove_repeating_from_task

__all__ = ('group', 'descend')

#: Options that say where the group itself is; not for its members as they are.
_PLACE = frozenset({'task_id', 'group_id', 'group_index', 'chord', 'root_id', 'parent_id'})


@Signature.register_type()
class group(Signature):  # noqa: N801  the public name
    """``group(a.s(1), b.s(2))``, or of an iterable of signatures.

    An iterator is read only when it is needed.
    """

    tasks = getitem_property('kwargs.tasks', 'The members.')

    @classmethod
    def from_dict(cls, d: Any, app: Any = None) -> Any:
        """Return the group that *d* describes; the members are copied."""
        members = [maybe_signature(task, app=app, clone=True) for task in d['kwargs']['tasks']]
        made = group(members, app=app, **d.get('options') or {})
        made['args'], made['immutable'] = tuple(d.get('args') or ()), d.get('immutable', False)
        return made

    def __init__(self, *tasks: Any, **options: Any) -> None:
        super().__init__(
            'celery.group', (), {'tasks': _members_of(tasks)}, subtask_type='group',
            app=options.pop('app', None), immutable=options.pop('immutable', False), **options)

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        return self.apply_async(partial_args, **options)

    def _own_app(self) -> Any:
        return super()._own_app() or app_of(self.tasks)

    def _flat(self) -> Iterator[Any]:
        """Yield copies of the members, those of nested groups in their place."""
        for task in self.tasks:
            sig = maybe_signature(task, app=self._app, clone=True)
            if not isinstance(sig, group):
                yield sig
                continue
            own = {k: v for k, v in sig.options.items() if k not in _PLACE}
            for member in sig._flat():
                yield member.clone(sig.args, **own) if sig.args or own else member

    # -- sending ------------------------------------------------------------------------------

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, add_to_parent: bool = True,
        producer: Any = None, link: Any = None, link_error: Any = None, **options: Any,
    ) -> Any:
        """Send all members at once; return their GroupResult.

        :raises TypeError: *link* or *link_error* is given: a group is no task.
        """
        if link is not None:
            raise TypeError('Cannot add link to group: use a chord')
        if link_error is not None:
            raise TypeError('Cannot add link to group: do that on individual tasks')
        app = self.app
        if app.send_settings.always_eager:
            return self.apply(args, kwargs, **options)
        if not self.tasks:
            return self.freeze()
        given = {name: value for name, value in options.items() if value is not None}
        options = {**self.options, **given}
        args = self._merge(args, None, None)[0]
        plain = None
        if producer is None and not kwargs:
            plain = PlainGroup.of(app, self.tasks, options, args)
        with app.amqp.batch():
            if plain is not None:
                result = plain.freeze(
                    options.get('task_id') or options.get('group_id'), None,
                    options.get('root_id'), options.get('parent_id'))
            else:
                result = self._send_each(args, kwargs, producer, options)
        parent = get_current_worker_task()
        if add_to_parent and parent is not None:
            parent.add_trail(result)
        return result

    def _send_each(self, args: Any, kwargs: Any, producer: Any, options: dict[str, Any]) -> Any:
        members, result, options = self._prepare(options)
        for member in members:
            member.apply_async(args, kwargs, producer=producer, add_to_parent=False, **options)
        return result

    def _prepare(self, options: dict[str, Any]) -> tuple[list[Any], Any, dict[str, Any]]:
        """Return the frozen members, their result and the options for each of them."""
        place = {name: options.get(name) for name in _PLACE}
        parent = get_current_worker_task()
        if parent is not None:
            request = parent.request
            place['root_id'] = place['root_id'] or request.root_id or request.id
            place['parent_id'] = place['parent_id'] or request.id
        group_id = place['task_id'] or place['group_id'] or uuid()
        members = list(self._flat())
        results = freeze_members(
            members, group_id, place['chord'], place['root_id'], place['parent_id'])
        others = {name: value for name, value in options.items() if name not in _PLACE}
        return members, self.app.GroupResult(group_id, results), others

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the members here, one after the other; return their GroupResult."""
        if not self.tasks:
            return self.freeze()
        members, result, others = self._prepare({**self.options, **options})
        args = self._merge(args, None, None)[0]
        for name in ('add_to_parent', 'producer'):
            others.pop(name, None)
        return self.app.GroupResult(
            result.id, [member.apply(args, kwargs, **others) for member in members])

    def freeze(
        self, _id: str | None = None, group_id: str | None = None, chord: Any = None,
        root_id: str | None = None, parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give all members their ids and place; return their GroupResult."""
        options = self.options
        gid = options.setdefault('task_id', group_id or _id or uuid())
        place = {'group_id': group_id, 'chord': chord, 'group_index': group_index,
                 'root_id': root_id, 'parent_id': parent_id}
        options.update((name, value) for name, value in place.items() if value is not None)
        self.tasks = list(self._flat())
        # Their group id is given when they are sent, unless they are part of another group.
        results = freeze_members(self.tasks, group_id, chord, root_id, parent_id)
        return self.app.GroupResult(gid, results)

    _freeze = freeze

    # -- changing -----------------------------------------------------------------------------

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Any:
        """Give the members growing countdowns; return self."""
        countdowns = fxrange(start, stop, step, repeatlast=True)
        for task in self.tasks:
            task.set(countdown=next(countdowns))
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Set whether the members ignore results of other tasks."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, sig: Any) -> Any:
        """Send *sig*, without a result, after the first member succeeded."""
        return self.tasks[0].link(sig.clone().set(immutable=True))

    def link_error(self, sig: Any) -> Any:
        """Send *sig* after any member failed."""
        errback = sig.clone()
        for task in self.tasks:
            task.link_error(errback.clone())
        return errback

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put headers on all members."""
        found = visitor.on_group_start(self, **headers) if visitor else None
        headers = merged(headers, found)
        self.tasks = [maybe_signature(task, app=self._app) for task in self.tasks]
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor:
            visitor.on_group_end(self, **headers)
        return self

    def __len__(self) -> int:
        return len(self.tasks)

    def __repr__(self) -> str:
        if not self.tasks:
            return 'group(<empty>)'
        return remove_repeating_from_task(
            self.tasks[0].get('task') or '', f'group({self.tasks!r})')


def _members_of(tasks: Any) -> Any:
    """Return what the constructor was given as a list, tuple or lazy list of members."""
    if len(tasks) != 1:
        return tasks
    only = tasks[0]
    if isinstance(only, group):
        return only.tasks
    if isinstance(only, Signature):
        return [only.clone()]
    if isinstance(only, dict):
        return [maybe_signature(only)]
    if isinstance(only, Iterable) and not is_list(only):
        return regen(only)
    return only if isinstance(only, (list, tuple)) else regen(only)


def freeze_members(
    members: Iterable[Any], group_id: str | None, chord: Any, root_id: Any, parent_id: Any,
) -> list[Any]:
    """Freeze each member; return the results."""
    return [
        member.freeze(group_id=group_id, chord=chord, root_id=root_id, parent_id=parent_id,
                      group_index=index)
        for index, member in enumerate(members)
    ]


def descend(sig: Any) -> int:
    """Return how many results *sig* gives to the chord that it is in."""
    kind = sig.get('subtask_type')
    if kind == 'group':
        return sum(descend(maybe_signature(task)) for task in sig['kwargs']['tasks'])
    if kind == 'chain':
        steps = sig['kwargs']['tasks']
        return descend(maybe_signature(steps[-1])) if steps else 0
    if kind == 'chord':
        body = sig['kwargs'].get('body')
        return descend(maybe_signature(body)) if body is not None else 0
    return 1
