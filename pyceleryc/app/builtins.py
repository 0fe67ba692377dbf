"""The tasks that every app has (T-331)."""
from __future__ import annotations

from typing import Any

from pyceleryc import canvas
from pyceleryc.exceptions import ChordError, ImproperlyConfigured

__all__ = ('add_builtin_tasks',)


def add_builtin_tasks(app: Any) -> None:
    """Register the built-in tasks with *app*."""
    for name, fun, options in (
        ('celery.backend_cleanup', backend_cleanup, {'bind': True}),
        ('celery.accumulate', accumulate, {'bind': True}),
        ('celery.map', xmap, {'bind': True}),
        ('celery.starmap', xstarmap, {'bind': True}),
        ('celery.chunks', chunks, {'bind': True}),
        ('celery.group', group, {'bind': True}),
        ('celery.chain', chain, {'bind': True}),
        ('celery.chord', chord, {'bind': True, 'ignore_result': False}),
        ('celery.chord_unlock', chord_unlock, {
            'bind': True, 'max_retries': None, 'default_retry_delay': 1, 'ignore_result': True}),
    ):
        app.task(name=name, shared=False, lazy=False, **options)(fun)


def backend_cleanup(self: Any) -> None:
    """Remove expired results; beat sends it once a day."""
    self.app.backend.cleanup()


def accumulate(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the arguments; with *index* that one of them."""
    index = kwargs.get('index')
    return args if index is None else args[index]


def _task_of(self: Any, task: Any) -> Any:
    return canvas.signature(task, app=self.app).type


def xmap(self: Any, task: Any, it: Any) -> list[Any]:
    """Call the task with each item."""
    run = _task_of(self, task)
    return [run(item) for item in it]


def xstarmap(self: Any, task: Any, it: Any) -> list[Any]:
    """Call the task with each item's arguments."""
    run = _task_of(self, task)
    return [run(*item) for item in it]


def chunks(self: Any, task: Any, it: Any, n: int) -> Any:
    """Send the messages of a ``chunks`` signature."""
    return canvas.chunks.apply_chunks(task, it, n, app=self.app)


def group(self: Any, tasks: Any, result: Any, group_id: str, partial_args: Any,
          add_to_parent: bool = True) -> Any:
    """Send the tasks of a group, as workers of older versions ask for it."""
    members = [canvas.maybe_signature(task, app=self.app).clone(partial_args) for task in tasks]
    sent = canvas.group(members, app=self.app).apply_async(
        task_id=group_id, add_to_parent=add_to_parent)
    return sent


def chain(self: Any, *args: Any, **kwargs: Any) -> None:
    """Stands for chains in messages; never sent as a task.

    :raises ImproperlyConfigured: always.
    """
    raise ImproperlyConfigured('a chain is run by its first task, not by celery.chain')


def chord(self: Any, header: Any, body: Any, partial_args: Any = (), interval: Any = None,
          countdown: float = 1, max_retries: int | None = None, eager: bool = False,
          **kwargs: Any) -> Any:
    """Send a chord, as workers of older versions ask for it."""
    sig = canvas.chord(header, body, app=self.app)
    return sig.run(
        sig._header_group(), canvas.maybe_signature(body, app=self.app), tuple(partial_args or ()),
        app=self.app, interval=interval, countdown=countdown, max_retries=max_retries, **kwargs)


def chord_unlock(
    self: Any, group_id: str, callback: Any, interval: float | None = None,
    max_retries: int | None = None, result: Any = None, result_cls: Any = None,
    GroupResult: Any = None, result_from_tuple: Any = None,  # noqa: N803  the public names
    **kwargs: Any,
) -> None:
    """Send the body of a chord when its header is done, for backends that cannot count.

    :param interval: seconds between looks; default ``result_chord_retry_interval``.
    :param result: the header's results as tuples.
    """
    # Imported here: the module imports the app package.
    from pyceleryc import result as results

    app = self.app
    body = canvas.maybe_signature(callback, app=app)
    make = result_from_tuple or results.result_from_tuple
    members = [make(each, app=app) for each in result or ()]
    header = (GroupResult or app.GroupResult)(group_id, members)
    if interval is None:
        interval = app.conf.result_chord_retry_interval
    try:
        ready = header.ready()
    except Exception as exc:
        raise self.retry(exc=exc, countdown=interval, max_retries=max_retries) from exc
    if not ready:
        raise self.retry(countdown=interval, max_retries=max_retries)
    _join_and_send(app, header, body, group_id, results)


def _join_and_send(app: Any, header: Any, body: Any, group_id: str, results: Any) -> None:
    try:
        with results.allow_join_result():
            values = header.join(
                timeout=app.conf.result_chord_join_timeout, propagate=True)
    except Exception as exc:
        culprit = next(header._failed_join_report(), None)
        reason = repr(exc) if culprit is None else f'Dependency {culprit.id} raised {exc!r}'
        app.backend.chord_error_from_stack(body, ChordError(reason))
        return
    try:
        body.delay(values)
    except Exception as exc:
        app.backend.chord_error_from_stack(
            body, ChordError(f'Callback error: {exc!r}'))
    finally:
        header.delete()
