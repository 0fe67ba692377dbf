"""Groups of plain tasks, sent without copying and freezing each signature (D17)."""
from __future__ import annotations

from typing import Any, NamedTuple

from kombu.exceptions import EncodeError
from kombu.utils.functional import maybe_list
from kombu.utils.uuid import uuid

from pyceleryc._state import get_current_worker_task
from pyceleryc.canvas.signature import Signature

__all__ = ('PlainGroup',)

#: Options that say where the group is; others are for the members, which are not plain then.
_PLACE = frozenset({'task_id', 'group_id', 'root_id', 'parent_id', 'add_to_parent'})
_OWN_FUNCTIONS = Signature.apply_async.__globals__
_NO_LINKS = {'callbacks': None, 'errbacks': None, 'chain': None}
#: Options of a member that differ from message to message.
_OF_A_MESSAGE = frozenset({'link', 'link_error', 'countdown', 'eta', 'expires'})
#: Options of a member that messages have in common; there is a template for each set of them.
_OF_A_TEMPLATE = frozenset({
    'queue', 'exchange', 'routing_key', 'priority', 'delivery_mode', 'time_limit', 'soft_time_limit'})
_OF_A_MEMBER = _OF_A_MESSAGE | _OF_A_TEMPLATE


class _Kind(NamedTuple):
    """What some members have in common."""

    template: Any
    check: Any
    task: Any


class PlainGroup:
    """Stands for a group while it is sent; made by :meth:`of`.

    The messages are those that the members' ``apply_async`` would make.  It has the methods
    of a group that a chord calls.
    """

    def __init__(self, app: Any, tasks: Any, options: dict[str, Any], partial: Any) -> None:
        self.app = app
        self.tasks = tasks
        self.options = options
        self.partial = tuple(partial or ())
        self.result: Any = None
        #: Task name, and options of the template -> kind; None: not plain.
        self._kinds: dict[Any, _Kind | None] = {}
        self._kind_of_each: list[_Kind] = []

    @classmethod
    def of(cls, app: Any, tasks: Any, options: dict[str, Any], partial: Any) -> PlainGroup | None:
        """Return the group, or None if it is not plain.

        Plain means: tasks of this app, not nested canvas, without stamps, ids or unusual
        options, with nothing between them and the broker that wants to see each of them.

        :param partial: arguments that are put before those of each member.
        """
        if not _PLACE.issuperset(options) or Signature.apply_async.__globals__ is not _OWN_FUNCTIONS:
            return None
        found = cls(app, tasks, options, partial)
        return found if tasks and found._is_plain() else None

    def _is_plain(self) -> bool:
        if self.app.amqp.publisher is None:
            return False
        for sig in self.tasks:
            kind = None
            if sig.__class__ is Signature and not sig.get('subtask_type'):
                kind = self._kind(sig)
            if kind is None:
                return False
            self._kind_of_each.append(kind)
        return True

    def _kind(self, sig: Any) -> _Kind | None:
        options = sig['options']
        key = sig['task']
        if options:
            if not _OF_A_MEMBER.issuperset(options):
                return None
            key = (key, *sorted((name, value) for name, value in options.items() if name in _OF_A_TEMPLATE))
        try:
            return self._kinds[key]
        except KeyError:
            found = self._kinds[key] = self._new_kind(sig)
            return found
        except TypeError:
            # A queue that is no name, say.
            return None

    def _new_kind(self, sig: Any) -> _Kind | None:
        # Imported here: the app package imports the canvas.
        from pyceleryc.app.options import check_call
        from pyceleryc.app.shortcut import mould_of, template_with

        app, task = self.app, self.app.tasks.get(sig['task'])
        if task is None or sig._own_app() not in (None, app) or task.app is not app:
            return None
        mould = mould_of(task)
        if mould is None:
            return None
        own = {name: value for name, value in sig['options'].items()
               if name in _OF_A_TEMPLATE and value is not None}
        check_call(task.name, **own)
        template = template_with(task, own) if own else mould.template
        return None if template is None else _Kind(template, mould.check, task)

    # -- as a group -----------------------------------------------------------------------------

    def freeze(
        self, group_id: str | None = None, chord: Any = None, root_id: str | None = None,
        parent_id: str | None = None,
    ) -> Any:
        """Collect the messages, with which the ids are given; return the GroupResult."""
        parent = get_current_worker_task()
        if parent is not None:
            request = parent.request
            root_id = root_id or request.root_id or request.id
            parent_id = parent_id or request.id
        group_id = group_id or uuid()
        with self.app.amqp.batch() as batch:
            ids = self._collect(batch, group_id, chord, root_id, parent_id)
            if self.app.backend.wants_task_call:
                batch.expect_all(self.app.backend, ids)
        self.result = self.app.GroupResult(group_id, self._results(ids))
        return self.result

    def apply_async(self, *args: Any, add_to_parent: bool = True, **kwargs: Any) -> Any:
        """Return the GroupResult; the messages are made, the arguments known already."""
        parent = get_current_worker_task()
        if add_to_parent and parent is not None:
            parent.add_trail(self.result)
        return self.result

    def _collect(
        self, batch: Any, group_id: str, chord: Any, root_id: str | None, parent_id: str | None,
    ) -> list[str]:
        # Imported here: the app package imports the canvas.
        from pyceleryc.app.messages import cannot_encode

        send, partial, reply_to = batch.core.send, self.partial, self.app._reply_to(False)
        # The same text in each message, so it is made once.
        embed = None if chord is None else _json({**_NO_LINKS, 'chord': chord})
        ids = []
        for index, (sig, kind) in enumerate(zip(self.tasks, self._kind_of_each, strict=True)):
            args, kwargs, options = sig['args'], sig['kwargs'], sig['options']
            if partial and not sig.get('immutable'):
                args = (*partial, *args)
            elif args.__class__ is not tuple:
                args = tuple(args)
            kind.check(*args, **kwargs)
            own = (None, None, None, None, embed)
            if options and not _OF_A_TEMPLATE.issuperset(options):
                own = self._own(kind.task.name, options, chord, embed)
            task_id, eta, expires, expiration, parts = own
            try:
                ids.append(send(
                    kind.template, task_id, args, kwargs, reply_to, root_id, parent_id, 0, eta,
                    expires, expiration, None, None, parts, None, group_id, index))
            except Exception as exc:
                raise cannot_encode(kind.task.name, args, kwargs, exc) from exc
        return ids

    def _own(self, name: str, options: dict[str, Any], chord: Any, embed: Any) -> tuple[Any, ...]:
        """Return id, eta, expires, expiration and embedded parts of one message."""
        from pyceleryc.app.options import check_call

        app, task_id, expiration = self.app, None, None
        expires = options.get('expires')
        if expires is not None:
            task_id = uuid()
            expiration = str(int(app._expiration(expires, name, task_id) * 1000))
        eta, expires = app.amqp._times(
            name, options.get('countdown'), options.get('eta'), expires, None, None)
        check_call(name, link=options.get('link'), link_error=options.get('link_error'))
        links, errbacks = maybe_list(options.get('link')), maybe_list(options.get('link_error'))
        if links or errbacks:
            embed = {'callbacks': links, 'errbacks': errbacks, 'chain': None, 'chord': chord}
        return task_id, eta, expires, expiration, embed

    def _results(self, ids: list[str]) -> list[Any]:
        make = self.app.AsyncResult
        parts = {kind: (kind.task.backend, kind.task.name) for kind in set(self._kind_of_each)}
        return [make(task_id, *parts[kind])
                for task_id, kind in zip(ids, self._kind_of_each, strict=True)]


def _json(data: dict[str, Any]) -> Any:
    # Imported here: the app package imports the canvas.
    from pyceleryc.app.messages import cannot_encode, encode

    try:
        return encode(data, 'json')[2]
    except EncodeError as exc:
        body = data['chord']
        raise cannot_encode(body['task'], body['args'], body['kwargs'], exc) from exc
