"""Chains: each task gets the result of the one before it (FEATURES 2.3)."""
from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce
from typing import Any

from kombu.utils.functional import is_list, maybe_list
from kombu.utils.uuid import uuid

from pyceleryc._state import get_current_worker_task
from pyceleryc.canvas.chord import _chord, first_parent
from pyceleryc.canvas.group import group
from pyceleryc.canvas.signature import Signature, app_of, maybe_signature
from pyceleryc.canvas.stamping import merged
from pyceleryc.utils.objects import getitem_property
from pyceleryc.utils.text import remove_repeating_from_task

__all__ = ('chain', 'join')


@Signature.register_type('chain')
class _chain(Signature):  # noqa: N801  the public name
    """The steps, in order; :class:`chain` makes them."""

    tasks = getitem_property('kwargs.tasks', 'The steps.')
    #: What freeze() prepared: steps and results, both last first.
    _frozen: Any = None

    @classmethod
    def from_dict(cls, d: Any, app: Any = None) -> Any:
        """Return the chain that *d* describes; the steps are copied."""
        steps = [maybe_signature(step, app=app, clone=True) for step in d['kwargs']['tasks']]
        made = _chain(*steps, app=app, **d.get('options') or {})
        made['args'], made['immutable'] = tuple(d.get('args') or ()), d.get('immutable', False)
        return made

    def __init__(self, *tasks: Any, **options: Any) -> None:
        steps = tasks[0] if len(tasks) == 1 and is_list(tasks[0]) else tasks
        super().__init__(
            'celery.chain', (), {'tasks': steps}, subtask_type='chain',
            app=options.pop('app', None), immutable=options.pop('immutable', False), **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply_async(args, kwargs) if self.tasks else None

    def _own_app(self) -> Any:
        return super()._own_app() or app_of(self.tasks)

    def unchain_tasks(self) -> list[Any]:
        """Return copies of the steps, with the links of the chain."""
        steps = [maybe_signature(step, app=self._app, clone=True) for step in self.tasks]
        for link in maybe_list(self.options.get('link')) or ():
            steps[-1].link(link)
        for errback in maybe_list(self.options.get('link_error')) or ():
            for step in steps:
                step.link_error(errback)
        return steps

    # -- sending ----------------------------------------------------------------------------

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, **options: Any,
    ) -> Any:
        """Send the first step, which carries the others; return the result of the last.

        Options are for the first step, *task_id* and *link* for the last, *link_error* for all.
        """
        app = self.app
        if app.send_settings.always_eager:
            # Imported here: pyceleryc.result imports the app package.
            from pyceleryc.result import allow_join_result
            with allow_join_result():
                return self.apply(args, kwargs, **options)
        given = {name: value for name, value in options.items() if value is not None}
        return self.run(args, kwargs, app=app, **{**self.options, **given})

    def run(
        self, args: Any = None, kwargs: Any = None, group_id: str | None = None,
        chord: Any = None, task_id: str | None = None, link: Any = None, link_error: Any = None,
        publisher: Any = None, producer: Any = None, root_id: str | None = None,
        parent_id: str | None = None, app: Any = None, group_index: int | None = None,
        **options: Any,
    ) -> Any:
        """Send the chain; see :meth:`apply_async`."""
        args, kwargs = self._call_arguments(args, kwargs)
        if not self.tasks:
            return None
        root_id, parent_id = self._family(root_id, parent_id)
        if self._frozen is None:
            steps, results = self.prepare_steps(
                (), {}, self.tasks, root_id, parent_id, None, app, task_id, group_id, chord,
                group_index=group_index)
        else:
            steps, results = self._frozen
        if link:
            steps[0].extend_list_option('link', link)
        for errback in maybe_list(link_error) or ():
            for step in steps:
                step.link_error(errback)
        # What follows the chain itself comes after its own steps; both lists are reversed.
        *rest, first = steps
        options['chain'] = [*(options.get('chain') or ()), *rest]
        first.apply_async(
            args, kwargs, producer=producer or publisher, root_id=root_id, parent_id=parent_id, **options)
        return results[0]

    def _call_arguments(self, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Return what the first step is called with besides its own arguments."""
        if self.immutable:
            return self.args, {}
        return (*(args or ()), *(self.args or ())), dict(kwargs or {})

    def _family(self, root_id: str | None, parent_id: str | None) -> tuple[Any, Any]:
        parent = get_current_worker_task()
        if parent is None:
            return root_id, parent_id
        request = parent.request
        return root_id or request.root_id or request.id, parent_id or request.id

    def freeze(
        self, _id: str | None = None, group_id: str | None = None, chord: Any = None,
        root_id: str | None = None, parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give all steps their ids; *_id*, *group_id* and *chord* are for the last."""
        self._frozen = self.prepare_steps(
            (), {}, self.tasks, root_id, parent_id, None, self._app, _id, group_id, chord,
            clone=False, group_index=group_index)
        steps, results = self._frozen
        self.tasks = list(reversed(steps))
        self.options['task_id'] = results[0].id
        return results[0]

    def prepare_steps(
        self, args: Any, kwargs: Any, tasks: Iterable[Any], root_id: str | None = None,
        parent_id: str | None = None, link_error: Any = None, app: Any = None,
        last_task_id: str | None = None, group_id: str | None = None, chord_body: Any = None,
        clone: bool = True, from_dict: Any = None, group_index: int | None = None,
    ) -> tuple[list[Any], list[Any]]:
        """Return the frozen steps and their results, both last first.

        Nested chains are flattened, and groups with something after them made chords.
        """
        steps: list[Any] = []
        for task in tasks:
            for step in unchained(maybe_signature(task, app=app, clone=clone)):
                append_step(steps, step)
        if args or kwargs:
            steps[0] = steps[0].clone(args, kwargs)
        results: list[Any] = []
        for step in steps:
            for errback in maybe_list(link_error) or ():
                step.link_error(errback)
            if step is steps[-1]:
                result = step.freeze(
                    last_task_id, root_id=root_id, group_id=group_id, chord=chord_body,
                    group_index=group_index)
            else:
                result = _freeze_between(step, root_id)
            if results:
                first_parent(result).parent = results[-1]
            results.append(result)
        return steps[::-1], results[::-1]

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the steps here, one after the other; return the last EagerResult."""
        last = None
        args, kwargs = self._call_arguments(args, kwargs)
        own = {**self.options, **options}
        at_end = {name: own.pop(name) for name in ('link', 'task_id') if name in own}
        steps: list[Any] = []
        for step in self.unchain_tasks():
            append_step(steps, step)
        for step in steps:
            if step is steps[-1]:
                own.update(at_end)
            if last is None:
                result = step.apply(args, kwargs, **own)
            else:
                result = step.apply((last.get(),), **own)
            if last is not None:
                first_parent(result).parent = last
            last = result
        return last

    # -- the object ---------------------------------------------------------------------------

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Put headers on all steps and links."""
        found = visitor.on_chain_start(self, **headers) if visitor else None
        headers = merged(headers, found)
        self.stamp_links(visitor, append_stamps, **headers)
        for step in self.tasks:
            step.stamp(visitor, append_stamps, **headers)
        if visitor:
            visitor.on_chain_end(self, **headers)
        return self

    def __repr__(self) -> str:
        if not self.tasks:
            return f'<{type(self).__name__.lstrip("_")}@{id(self):#x}: empty>'
        first = self.tasks[0]
        text = ' | '.join(repr(step) for step in self.tasks)
        name = first.get('task') or ''
        return remove_repeating_from_task(name, text)


class chain(_chain):  # noqa: N801  the public name
    """``chain(a.s(1), b.s(), c.s())``, the same as ``a.s(1) | b.s() | c.s()``."""

    def __new__(cls, *tasks: Any, **kwargs: Any) -> Any:
        if not kwargs and tasks and (len(tasks) > 1 or is_list(tasks[0])):
            steps = list(tasks[0]) if len(tasks) == 1 else tasks
            # Each | copies all on its left, so a long chain is not made with them.
            plain = all(getattr(type(step), '__or__', None) is Signature.__or__ for step in steps)
            joined = join(*steps) if plain and steps else reduce(operator.or_, steps, _chain())
            return joined if joined.get('subtask_type') else _chain(joined, app=joined._app)
        made = _chain.__new__(_chain, *tasks, **kwargs)
        made.__init__(*tasks, **kwargs)  # type: ignore[misc]
        return made


def join(*sigs: Any) -> Any:
    """Return a chain of signatures, one after the other; what ``|`` does.  They stay as they are."""
    steps: list[Any] = []
    app, seen = None, 0
    for index, sig in enumerate(sigs):
        if index > 1 and app is not None and len(steps) > 1:
            # What has been joined is a chain of that app, and so are its steps.
            for step in steps[seen:]:
                step._app = app
            seen = len(steps)
        for step in unchained(sig.clone()):
            append_step(steps, step)
        app = app or sig._own_app()
    return steps[0] if len(steps) == 1 else _chain(steps, app=app)


def unchained(sig: Any) -> list[Any]:
    """Return the steps of a chain, or *sig* alone."""
    if not isinstance(sig, _chain):
        return [sig]
    return [step for inner in sig.unchain_tasks() for step in unchained(inner)]


def append_step(steps: list[Any], step: Any) -> None:
    """Append to steps that nobody else holds: the last of them may be changed."""
    if not steps:
        steps.append(step)
        return
    if isinstance(step, group) and len(step.tasks) == 1:
        step = _only_member(step)
    last = steps[-1]
    if isinstance(last, group):
        steps[-1] = _chord(last, body=step, app=last._app)
    elif isinstance(last, _chord):
        last.body = step if last.body is None else join(last.body, step)
    else:
        steps.append(step)


def _freeze_between(step: Any, root_id: str | None) -> Any:
    options = step.options
    if not step.subtask_type and 'reply_to' not in options:
        task_id = options.setdefault('task_id', uuid())
        options['reply_to'] = step.app.expect_result(task_id, between=True)
    return step.freeze(root_id=root_id)


def _only_member(step: Any) -> Any:
    member = maybe_signature(step.tasks[0], app=step._app)
    return member.clone(step.args) if step.args else member
