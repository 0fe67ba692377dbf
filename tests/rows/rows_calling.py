"""Tasks of the Calling guide and of canvas, for the worker of rows_tasks.py."""

from __future__ import annotations

import json
import os
import time

from celery import chord, group
from redis import Redis
from rows_tasks import add, app


def notes(key):
    """A list in Redis where tasks and errbacks say that they were called; see notes_of()."""
    return Redis.from_url(os.environ["FLEET_BACKEND"]), f"rows-notes-{key}"


def write_note(key, *values):
    client, name = notes(key)
    client.rpush(name, json.dumps(values, default=repr))
    client.expire(name, 120)


def notes_of(key, count=1, timeout=15.0):
    """The first `count` notes, or a failure; those that are left over are of interest, too."""
    client, name = notes(key)
    deadline = time.monotonic() + timeout
    while client.llen(name) < count:
        assert time.monotonic() < deadline, f"{client.llen(name)} of {count} notes for {key}"
        time.sleep(0.01)
    return [json.loads(note) for note in client.lrange(name, 0, -1)]


@app.task
def xsum(numbers):
    return sum(numbers)


@app.task
def ident(value):
    return value


@app.task
def note(*values, key):
    write_note(key, *values)
    return list(values)


@app.task
def break_with(key, seconds=0.0):
    time.sleep(seconds)
    raise KeyError(key)


@app.task
def on_error_details(request, exc, traceback, *, key=None):
    write_note(key or request.id, "details", request.id, type(exc).__name__, str(exc), type(traceback).__name__,
               type(request).__name__, request.task, request.delivery_info, bool(request.errbacks))


@app.task
def on_error_id(task_id, *, key=None):
    write_note(key or task_id, "id", task_id)


@app.task(bind=True)
def on_error_family(self, task_id):
    write_note(task_id, "family", self.request.parent_id, self.request.root_id)


@app.task
def on_error_broken(request, exc, traceback):
    raise RuntimeError("errback broke")


@app.task(bind=True)
def on_error_bound(self, request, exc, traceback):
    write_note(request.id, "bound")


@app.task(bind=True)
def family(self, *args):
    request = self.request
    return {"id": request.id, "root_id": request.root_id, "parent_id": request.parent_id, "args": list(args),
            "group": request.group, "group_index": request.group_index}


@app.task(bind=True)
def sends_children(self, keep):
    add.apply_async((1, 1), add_to_parent=keep)
    return [child.id for child in self.request.children]


@app.task
def clock():
    return time.time()


@app.task(bind=True)
def reports(self, key=None):
    """Waits until somebody listens, reports twice and fails if it is told to."""
    time.sleep(0.3)
    for percent in (50, 90):
        self.update_state(state="PROGRESS", meta={"progress": percent})
        time.sleep(0.05)
    if key:
        raise KeyError(key)
    return "done"


@app.task(bind=True, expires=60)
def retries_once(self):
    if not self.request.retries:
        raise self.retry(countdown=0.1)
    return [self.request.expires, self.request.eta is not None]


@app.task(ignore_result=True)
def ignored(value):
    return value


@app.task(bind=True)
def replaced_by_chain(self, x):
    raise self.replace(add.s(x, 10) | add.s(100))


@app.task(bind=True)
def replaced_by_group(self, x):
    raise self.replace(group(add.s(x, i) for i in range(3)))


@app.task(bind=True)
def replaced_by_task(self, x):
    raise self.replace(family.s(x))


@app.task(bind=True)
def joins_chord(self, x):
    """Adds one more task to the chord that it is in."""
    self.add_to_chord(add.s(x, 1000))
    return x


@app.task(bind=True)
def stamps(self, *args):
    return [self.request.stamped_headers, self.request.stamps]


@app.task(bind=True)
def sends_stamped(self):
    """A task sent from a stamped task has its stamps, too."""
    return stamps.delay().id


@app.task
def starts_chord():
    return chord([add.s(i, i) for i in range(3)])(xsum.s()).id


@app.task
def starts_workflow():
    return (family.s() | family.s()).apply_async().id
