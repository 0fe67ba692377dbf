"""The next task of a chain, sent the short way, or not at all: by the worker, when a task has succeeded."""
from __future__ import annotations

from typing import Any

from pyceleryc.canvas.signature import Signature

__all__ = ('hand_over',)

#: Options of a link that was given its place by the chain and nothing else.
_PLACE = frozenset({'task_id', 'reply_to', 'root_id', 'parent_id'})
_OWN_FUNCTIONS = Signature.apply_async.__globals__


def hand_over(
    app: Any, link: Any, value: Any, embed: Any, root_id: str, parent_id: str, offer: Any = None,
) -> Any:
    """Send *link* with *value*, if nothing about it needs the long way.

    What is sent is what ``app.signature(link).apply_async((value,), chain=rest)`` sends.

    :param link: the signature, a dict as it is in messages.
    :param embed: what the message says of links; the text of it, or a dict.
    :param root_id: of the task that has succeeded, as *parent_id*, which is its id; it has no stamps.
    :param offer: is called with the arguments of ``Producer.send()`` first; True: the worker runs the
        link itself, and nothing is sent.
    :returns: the result of what was sent, or None: it has options, its task is unknown here
        or is not plain, or somebody wants to see each message.
    :raises TypeError: the arguments do not fit.
    :raises OperationalError: the broker cannot be reached.
    :raises EncodeError: the arguments cannot be serialized.
    """
    options = link.get('options') or {}
    if (not _PLACE.issuperset(options) or link.get('subtask_type') or not options.get('task_id')
            or not options.get('reply_to') or app.amqp.publisher is None
            or Signature.apply_async.__globals__ is not _OWN_FUNCTIONS):
        return None
    mould = _mould(app, link.get('task'))
    if mould is None:
        return None
    args, kwargs = link.get('args') or (), link.get('kwargs') or {}
    if not link.get('immutable'):
        args = (value, *args)
    mould.check(*args, **kwargs)
    task, task_id, reply_to = app.tasks[link['task']], options['task_id'], options['reply_to']
    taken = offer is not None and not task.acks_late and offer(
        mould.template, task_id, args, kwargs, reply_to, root_id, parent_id, 0, None, None, None,
        None, None, embed, None)
    if not taken and mould.deliver(
            task_id, args, kwargs, reply_to, root_id, parent_id, embed) is None:
        return None
    return task.AsyncResult(task_id)


def _mould(app: Any, name: Any) -> Any:
    # Imported here: the app package imports the canvas.
    from pyceleryc.app.shortcut import mould_of

    task = app.tasks.get(name)
    if task is None or task.app is not app or app.send_settings.inherit_parent_priority:
        return None
    return mould_of(task)
