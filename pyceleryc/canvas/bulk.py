"""Groups of plain tasks, sent without copying and freezing each signature (D17)."""
from __future__ import annotations

from typing import Any

from kombu.exceptions import EncodeError
from kombu.utils.uuid import uuid

from pyceleryc._state import get_current_worker_task
from pyceleryc.canvas.signature import Signature

__all__ = ('PlainGroup',)

#: Options that say where the group is; others are for the members, which are not plain then.
_PLACE = frozenset({'task_id', 'group_id', 'root_id', 'parent_id', 'add_to_parent'})
_OWN_FUNCTIONS = Signature.apply_async.__globals__
_NO_LINKS = {'callbacks': None, 'errbacks': None, 'chain': None}


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
        self._moulds: dict[str, Any] = {}

    @classmethod
    def of(cls, app: Any, tasks: Any, options: dict[str, Any], partial: Any) -> PlainGroup | None:
        """Return the group, or None if it is not plain.

        Plain means: tasks of this app, not nested canvas, without options, links or stamps,
        with nothing between them and the broker that wants to see each of them.

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
            if (sig.__class__ is not Signature or sig['options'] or sig.get('subtask_type')
                    or not (sig['task'] in self._moulds or self._add_mould(sig))):
                return False
        return True

    def _add_mould(self, sig: Any) -> bool:
        # Imported here: the app package imports the canvas.
        from pyceleryc.app.shortcut import mould_of

        app, task = self.app, self.app.tasks.get(sig['task'])
        if task is None or sig._own_app() not in (None, app) or task.app is not app:
            return False
        mould = mould_of(task)
        self._moulds[sig['task']] = mould, task
        return mould is not None

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
        send, partial, reply_to = batch.core.send, self.partial, self.app._reply_to(False)
        # The same text in each message, so it is made once.
        embed = None if chord is None else _json({**_NO_LINKS, 'chord': chord})
        moulds = {name: mould for name, (mould, _) in self._moulds.items()}
        ids = []
        for index, sig in enumerate(self.tasks):
            mould, args, kwargs = moulds[sig['task']], sig['args'], sig['kwargs']
            if partial and not sig.get('immutable'):
                args = (*partial, *args)
            elif args.__class__ is not tuple:
                args = tuple(args)
            mould.check(*args, **kwargs)
            try:
                ids.append(send(
                    mould.template, None, args, kwargs, reply_to, root_id, parent_id, 0, None,
                    None, None, None, None, embed, None, group_id, index))
            except Exception as exc:
                raise EncodeError(str(exc)) from exc
        return ids

    def _results(self, ids: list[str]) -> list[Any]:
        make = self.app.AsyncResult
        parts = {name: (task.backend, name) for name, (_, task) in self._moulds.items()}
        return [make(task_id, *parts[sig['task']])
                for task_id, sig in zip(ids, self.tasks, strict=True)]


def _json(data: Any) -> Any:
    # Imported here: the app package imports the canvas.
    from pyceleryc.app.messages import encode

    return encode(data, 'json')[2]
