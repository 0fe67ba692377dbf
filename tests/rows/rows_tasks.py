"""Tasks of the rows that need a running worker; one section for each chapter of the guides."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("rows", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(task_default_queue=os.environ["FLEET_QUEUE"], result_expires=600, broker_connection_retry_on_startup=True)


@app.task
def add(x, y):
    return x + y


# -- Calling guide (C-) and canvas: in a file of their own ------------------------------------------------------------------

import rows_calling as calling  # noqa: E402, F401  it needs the app


# ---- tasks guide: automatic retry, options, states, exceptions, predicates, classes, tips (T-150..T-350) --------------

import errno  # noqa: E402  each chapter has its own imports
import json  # noqa: E402
import time  # noqa: E402
from datetime import date  # noqa: E402
from typing import Optional  # noqa: E402

from celery import Task, states  # noqa: E402
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded  # noqa: E402,F401
from celery.utils.log import get_task_logger  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from redis import Redis  # noqa: E402

notes = Redis.from_url(os.environ["FLEET_BACKEND"])


def note(key, *values):
    """Tells the test, which reads the list `rows-note-<key>`: nothing of this is part of what is tested."""
    notes.rpush(f"rows-note-{key}", json.dumps(values))
    notes.expire(f"rows-note-{key}", 600)


def noted(key, count=1, timeout=20):
    """For the tests: what was noted under `key`, as soon as there are `count` notes."""
    deadline = time.monotonic() + timeout
    while len(found := notes.lrange(f"rows-note-{key}", 0, -1)) < count:
        assert time.monotonic() < deadline, f"{found} instead of {count} notes"
        time.sleep(0.01)
    return [json.loads(item) for item in found]


def go(name):
    """For the tests: lets a task that waits under this name go on."""
    notes.rpush(f"rows-go-{name}", "go")
    notes.expire(f"rows-go-{name}", 60)


class FailWhaleError(Exception):
    """The exception of the guide's example."""


class HttpError(Exception):
    """The guide's good exception: what it is made of is in .args."""

    def __init__(self, status_code, headers=None, body=None):
        self.status_code = status_code
        self.headers = headers
        self.body = body
        super().__init__(status_code, headers, body)


class Stubborn(Exception):
    """The guide's bad exception: its constructor wants what its .args don't have."""

    def __init__(self, status_code, reason):
        super().__init__()
        self.status_code = status_code
        self.reason = reason


class NotJson:
    def __repr__(self):
        return "<no JSON>"


def runs(task):
    """How often this task id has run, this time included."""
    count = notes.incr(f"rows-runs-{task.request.id}")
    notes.expire(f"rows-runs-{task.request.id}", 600)
    return int(count)


@app.task(bind=True, autoretry_for=(FailWhaleError,), retry_kwargs={"max_retries": 5, "countdown": 0})
def refresh_timeline(self, failures):
    if self.request.retries < failures:
        raise FailWhaleError(self.request.retries)
    return self.request.retries


@app.task(bind=True)
def refresh_by_hand(self, failures):
    try:
        if self.request.retries < failures:
            raise FailWhaleError(self.request.retries)
    except FailWhaleError as exc:
        raise self.retry(exc=exc, max_retries=5, countdown=0) from exc
    return self.request.retries


@app.task(bind=True, autoretry_for=(Exception,), retry_kwargs={"countdown": 0}, max_retries=1)
def retries_all(self, kind):
    note(self.request.id, self.request.retries)
    raise {"ignore": Ignore(), "reject": Reject("no", requeue=False), "error": KeyError("k")}[kind]


@app.task(bind=True)
def retries_badly(self):
    raise self.retry(countdown="soon")


@app.task(rate_limit="5/s")
def paced():
    return time.time()


@app.task(bind=True, autoretry_for=(FailWhaleError,), retry_backoff=True, retry_jitter=False, max_retries=1)
def backs_off(self):
    note(self.request.id, time.time())
    if not self.request.retries:
        raise FailWhaleError
    return self.request.retries


@app.task(bind=True, throws=(KeyError, HttpError))
def expected(self, kind):
    raise {"key": KeyError("expected key"), "value": ValueError("unexpected value")}[kind]


@app.task(bind=True, ignore_result=True)
def ignored(self, fail=False):
    note(self.request.id, "ran")
    if fail:
        raise ValueError("nobody asks")
    return "nobody sees this"


@app.task(ignore_result=True, store_errors_even_if_ignored=True)
def ignored_but_errors(fail):
    if fail:
        raise ValueError("kept")
    return "not kept"


@app.task(bind=True, ignore_result=True, store_errors_even_if_ignored=True)
def ignored_but_retries(self):
    raise self.retry(exc=ValueError("kept"), countdown=300)


def wait_for_go(name, seconds=20):
    deadline = time.monotonic() + seconds
    while not notes.lpop(f"rows-go-{name}") and time.monotonic() < deadline:
        time.sleep(0.01)


@app.task(bind=True, track_started=True)
def waits(self, name, seconds=20):
    """Until the test says so: RPUSH rows-go-<name>."""
    wait_for_go(name, seconds)
    return os.getpid()


@app.task(bind=True)
def waits_untracked(self, name):
    note(self.request.id, "running")
    wait_for_go(name)
    return "done"


@app.task
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task
def raises(kind):
    raise {"http": HttpError(404, {"a": 1}, "gone"), "stubborn": Stubborn(500, "why"), "args": ValueError("text", NotJson()),
           "plain": ValueError("plain"), "local": FailWhaleError("deep")}[kind]


@app.task(serializer="pickle")
def unpickled(kind):
    raise {"http": HttpError(404), "stubborn": Stubborn(500, "why")}[kind]


@app.task(bind=True)
def will_retry(self):
    raise self.retry(exc=ValueError("next time"), countdown=300)


@app.task(bind=True)
def upload_files(self, filenames, name=None):
    for number, _ in enumerate(filenames):
        if not self.request.called_directly:
            self.update_state(state="PROGRESS", meta={"current": number, "total": len(filenames)})
    if name:
        wait_for_go(name)
    return len(filenames)


@app.task(bind=True)
def sets_state(self, task_id, state, meta):
    self.update_state(task_id=task_id, state=state, meta=meta)
    return state


@app.task(bind=True)
def succeeds_then_sets(self):
    self.update_state(state="SUCCESS", meta="first")
    self.update_state(state="PROGRESS", meta="second")
    return "third"


@app.task(bind=True)
def some_task(self):
    """The guide's example of Ignore, with Redis."""
    note(self.request.id, "ran")
    if notes.sismember("rows-tasks.revoked", self.request.id):
        raise Ignore
    return "not revoked"


@app.task(bind=True)
def get_tweets(self, user):
    """The guide's example of a result stored by hand."""
    timeline = [f"tweet of {user}"]
    if not self.request.called_directly:
        self.update_state(state=states.SUCCESS, meta=timeline)
    raise Ignore


@app.task(bind=True, acks_late=True)
def requeues(self):
    """The guide's example of a message put back."""
    note(self.request.id, self.request.delivery_info["redelivered"])
    if not self.request.delivery_info["redelivered"]:
        raise Reject("no reason", requeue=True)
    print("received two times")
    return "received two times"


@app.task(bind=True)
def requeues_early(self):
    note(self.request.id, self.request.delivery_info["redelivered"])
    raise Reject("no reason", requeue=True)


@app.task(bind=True, acks_late=True)
def render_scene(self, kind):
    """The guide's example of Reject."""
    note(self.request.id, self.request.retries)
    try:
        if not self.request.retries:
            raise {"memory": MemoryError(), "enomem": OSError(errno.ENOMEM, "too big"), "other": ValueError("other")}[kind]
        return "rendered"
    except MemoryError as exc:
        raise Reject(exc, requeue=False) from exc
    except OSError as exc:
        if exc.errno == errno.ENOMEM:
            raise Reject(exc, requeue=False) from exc
    except Exception as exc:
        raise self.retry(exc=exc, countdown=0) from exc


class NaiveAuthenticateServer(Task):
    """The guide's class-based task; counts its calls and constructors."""

    name = "rows_tasks.authenticate"

    def __init__(self):
        self.users = {"george": "password"}
        self.calls = 0

    def run(self, username, password):
        self.calls += 1
        try:
            return [self.users[username] == password, self.calls, os.getpid()]
        except KeyError:
            return [False, self.calls, os.getpid()]


authenticate = app.register_task(NaiveAuthenticateServer())


class DatabaseTask(Task):
    """The guide's base class with a resource that is opened once in each process."""

    _db = None

    @property
    def db(self):
        if self._db is None:
            self._db = [f"{os.getpid()}-{time.monotonic()}"]
        return self._db


@app.task(base=DatabaseTask)
def process_rows():
    return [os.getpid(), process_rows.db[0]]


class Counting(Task):
    """Has a __call__ of its own."""

    def __call__(self, *args, **kwargs):
        note(self.request.id, "call", self.request.id, self.request.called_directly)
        return super().__call__(*args, **kwargs)


@app.task(base=Counting, bind=True)
def counted(self, x):
    return [x, self.request.id, self.request.called_directly]


def _seen(einfo):
    if einfo is None:
        return None
    return {"exception": repr(getattr(einfo.exception, "exc", einfo.exception)), "type": einfo.type.__name__, "traceback": "Traceback" in einfo.traceback,
            "same": str(einfo) == einfo.traceback}


class Handlers(Task):
    """Notes each handler's arguments, and returns something that must not matter."""

    def before_start(self, task_id, args, kwargs):
        note(task_id, "before_start", [task_id, args, kwargs], os.getpid(), type(args).__name__)
        return "ignored"

    def on_success(self, retval, task_id, args, kwargs):
        stored = notes.exists(f"celery-task-meta-{task_id}")
        note(task_id, "on_success", [retval, task_id, args, kwargs], os.getpid(), bool(stored))
        return "ignored"

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        stored = notes.exists(f"celery-task-meta-{task_id}")
        note(task_id, "on_failure", [repr(exc), task_id, args, kwargs], os.getpid(), bool(stored), _seen(einfo))
        return "ignored"

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note(task_id, "on_retry", [repr(exc), task_id, args, kwargs], os.getpid(), None, _seen(einfo))
        return "ignored"

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(task_id, "after_return", [status, repr(retval), task_id, args, kwargs], os.getpid())
        return "ignored"

    def on_replace(self, sig):
        note(self.request.id, "on_replace", sig.task)
        return super().on_replace(sig)


@app.task(base=Handlers, bind=True)
def handled(self, what, **kwargs):
    note(self.request.id, "body", None, os.getpid())
    if what == "fail":
        raise ValueError("bad")
    if what == "retry" and not self.request.retries:
        raise self.retry(exc=KeyError("again"), countdown=0)
    if what == "ignore":
        raise Ignore
    if what == "reject":
        raise Reject("no", requeue=False)
    if what == "replace":
        raise self.replace(add.s(20, 2))
    if what == "hang":
        time.sleep(30)
    return what


@app.task(base=Handlers)
def handled_chained(x):
    return x


@app.task
def fetch_page(url):
    return f"<page of {url}>"


@app.task()
def parse_page(page):
    return {"length": len(page)}


@app.task(bind=True, ignore_result=True)
def store_page_info(self, info, url, key):
    note(key, info, url)


@app.task
def update_page_info(url, key):
    chain = fetch_page.s(url) | parse_page.s() | store_page_info.s(url, key)
    chain()


@app.task
def waits_for_another(allowed):
    if allowed:
        return add.delay(1, 2).get(disable_sync_subtasks=False, timeout=15)
    return add.delay(1, 2).get(timeout=15)


@app.task(bind=True)
def spam_filter(self, comment_id, remote_addr=None):
    get_task_logger(__name__).info("Running spam filter for comment %s", comment_id)
    return comment_id % 2 == 0


# --- Tasks guide §1.1–§1.8 ---------------------------------------------------------------------------------------------

import functools  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

from celery import Task  # noqa: E402
from celery.exceptions import Ignore, Reject  # noqa: E402
from celery.utils.log import get_task_logger  # noqa: E402

task_log = get_task_logger(__name__)


def plus_one(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) + 1

    return wrapper


@app.task
@plus_one
@plus_one
def basics_doubled(x):
    return 2 * x


@app.task(bind=True)
def basics_my_id(self):
    return self.request.id


@app.task
def basics_my_id_unbound():
    return basics_my_id_unbound.request.id


@app.task
def basics_retry_unbound():
    if basics_retry_unbound.request.retries == 0:
        raise basics_retry_unbound.retry(countdown=0)
    return basics_retry_unbound.request.retries


class SaysFailures(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        print(f"basics: {task_id} failed with {exc!r}")


@app.task(base=SaysFailures)
def basics_fails():
    raise KeyError("nobody")


@app.task(name="sum-of-two-numbers")
def names_sum(x, y):
    return x + y


REQUEST_ATTRIBUTES = (
    "id group chord correlation_id args kwargs origin retries is_eager eta expires hostname delivery_info reply_to called_directly "
    "timelimit callbacks errbacks utc headers root_id parent_id chain group_index properties replaced_task_nesting shadow stamps "
    "stamped_headers ignore_result task lang argsrepr kwargsrepr logfile loglevel taskset").split()


@app.task(bind=True)
def request_show(self, *args, **kwargs):
    return {name: self.request.get(name) for name in REQUEST_ATTRIBUTES}


@app.task(bind=True)
def request_limits(self):
    return [self.request.time_limit, self.request.soft_time_limit]


@app.task(bind=True)
def request_again(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return {name: self.request.get(name) for name in REQUEST_ATTRIBUTES}


@app.task(bind=True)
def request_parent(self):
    child = request_show.delay()
    return [self.request.id, child.id]


@app.task(bind=True, trail=False)
def request_no_trail(self):
    return add.delay(1, 1).id


@app.task(bind=True)
def request_names(self):
    try:
        self.request.no_such_attribute
    except AttributeError:
        return [self.request.get("no_such_attribute", 5), self.request.get("id"), self.request.trace]
    return None


@app.task
def request_inner(x):
    return [request_inner.request.id, list(request_inner.request.args)]


@app.task(bind=True)
def request_outer(self, x):
    return [request_inner(x + 1), self.request.id, list(self.request.args)]


@app.task(bind=True)
def dump_context(self, x, y):
    return "Executing task id {0.id}, args: {0.args!r} kwargs: {0.kwargs!r}".format(self.request)


def _mark(path):
    with open(path, "ab", buffering=0) as file:
        file.write(f"{os.getpid()}\n".encode())


def _runs(path):
    with open(path, "rb") as file:
        return len(file.readlines())


def _end(how):
    if how == "exit":
        sys.exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def concept_dies_early(path, how):
    _mark(path)
    _end(how)


@app.task(acks_late=True)
def concept_dies_late(path, how):
    _mark(path)
    _end(how)


@app.task(acks_late=True, reject_on_worker_lost=True)
def concept_dies_once(path):
    _mark(path)
    if _runs(path) == 1:
        _end("kill")
    return "second run"


def _wait_until_removed(path):
    _mark(f"{path}.runs")
    while os.path.exists(path):
        time.sleep(0.02)


@app.task
def concept_holds(path):
    _wait_until_removed(path)
    return os.getpid()


@app.task(acks_late=True)
def concept_holds_late(path):
    _wait_until_removed(path)
    return os.getpid()


@app.task(bind=True, acks_late=True)
def concept_outlives(self, path):
    """Waits in its first run, for the worker to be killed; returns whether the message was delivered again."""
    _mark(path)
    if _runs(path) == 1:
        time.sleep(60)
    return self.request.delivery_info["redelivered"]


@app.task(time_limit=1)
def concept_too_long(path):
    _mark(path)
    time.sleep(60)


class Out(Exception):
    """Expected."""


@app.task(bind=True)
def logging_retries(self):
    if self.request.retries == 0:
        raise self.retry(exc=ValueError("a"), countdown=0.1)


@app.task
def logging_raises():
    raise KeyError("b")


@app.task(throws=(Out,))
def logging_raises_expected():
    raise Out("c")


@app.task
def logging_ignores():
    raise Ignore


@app.task
def logging_rejects():
    raise Reject("why", requeue=False)


@app.task
def logging_logs(word):
    task_log.info("Says %s", word)
    return [task_log.name, task_log.parent.name]


@app.task
def logging_logs_of_the_library(word):
    from celery.utils.log import get_logger

    get_logger("celery.rows").warning("Plainly %s", word)


@app.task
def logging_prints(word):
    print(word)
    sys.stderr.write(f"stderr {word}\n")
    return [sys.stdout.isatty(), sys.stderr.isatty(), [hasattr(sys.stdout, name) for name in ("writelines", "flush", "close")]]


@app.task(bind=True)
def logging_redirects(self, x, y):
    """The example of the guide."""
    old_outs = sys.stdout, sys.stderr
    level = self.app.conf.worker_redirect_stdouts_level
    try:
        self.app.log.redirect_stdouts_to_logger(task_log, level)
        print(f"Adding {x} + {y}")
        return [x + y, level]
    finally:
        sys.stdout, sys.stderr = old_outs


@app.task(typing=False)
def arguments_unchecked(x, y):
    return x + y


@app.task
def arguments_charge(account, card, amount=0):
    return [card, amount]


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def retrying_always(self, path):
    _mark(path)
    raise self.retry(exc=OSError("still closed"))


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def retrying_until_exceeded(self, path, key=None):
    _mark(path)
    raise self.retry()


@app.task(bind=True)
def retrying_limit_of_the_call(self, path):
    _mark(path)
    raise self.retry(countdown=0, max_retries=4, exc=OSError("no"))


@app.task(bind=True, max_retries=None, default_retry_delay=0)
def retrying_for_ever(self, path):
    _mark(path)
    if self.request.retries < 6:
        self.retry()
    return self.request.retries


@app.task(bind=True)
def retrying_in_a_while(self):
    try:
        raise ValueError("not now")
    except ValueError as exc:
        raise self.retry(exc=exc, countdown=30)


@app.task(bind=True)
def retrying_code_after(self, path):
    if self.request.retries == 0:
        self.retry(countdown=0)
        _mark(path)
    return self.request.retries


@app.task(bind=True)
def retrying_without_throw(self, path):
    _mark(path)
    if self.request.retries == 0:
        found = self.retry(countdown=1.5, throw=False)
        return type(found).__name__
    return "second run"


@app.task(bind=True)
def retrying_with_others(self, x, y=0):
    if self.request.retries == 0:
        raise self.retry(args=(x * 10,), kwargs={"y": y + 1}, countdown=0)
    return [x, y, self.request.id]


@app.task(bind=True)
def retrying_same_queue(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return {name: self.request.get(name) for name in REQUEST_ATTRIBUTES}


@app.task(bind=True)
def retrying_given_chained(self):
    try:
        raise KeyError("current")
    except KeyError:
        raise self.retry(exc=ValueError("given"), max_retries=0)


# -- pydantic models (T-188)


class Order(BaseModel):
    number: int
    due: date | None = None


@app.task(pydantic=True)
def double_order(order: Order, again: Optional[Order] = None, plain: dict | None = None) -> Order:
    assert isinstance(order, Order) and (again is None or isinstance(again, Order)) and not isinstance(plain, BaseModel)
    return Order(number=2 * order.number, due=order.due)


@app.task(bind=True, pydantic=True, pydantic_strict=True, pydantic_dump_kwargs={"exclude_none": True})
def strict_order(self, order: Order) -> Order:
    return Order(number=self.request.retries + order.number)
