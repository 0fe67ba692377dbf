"""The C core: what it offers to the Python package (and only to it: everything is private).

Arguments are positional only; defaults and keywords live in the Python modules that call these.
Times are seconds (float) unless the name says otherwise; a timeout of None means "the configured one".

Errors: `CoreError` subclasses below carry `.code`; the Python package maps them to kombu's and Celery's exceptions
where it calls. Bad argument types raise TypeError, as any C function does.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeAlias, final

# --- errors (created by the module, one class per kind) ---------------------------------------------------------
class CoreError(Exception):
    code: int
class ConnectionLost(CoreError, ConnectionError): ...      # PC_EIO, PC_EPROTO
class AccessRefused(CoreError): ...                        # PC_EAUTH
class Timeout(CoreError, TimeoutError): ...                # PC_ETIMEOUT
class WindowFull(CoreError): ...                           # PC_EFULL: window full or blocked by the broker
class NotFound(CoreError): ...                             # PC_ENOTFOUND
class BadData(CoreError, ValueError): ...                  # PC_EDATA, PC_ELIMIT
class Unsupported(CoreError): ...                          # PC_EUNSUP, PC_ESTATE

# --- JSON, byte for byte as kombu writes it ---------------------------------------------------------------------
def json_dumps(obj: Any) -> str: ...
"""kombu's JSON of `obj`. Plain types are written in C; anything else makes the whole document go through
kombu.utils.json.dumps. Errors are kombu's/Python's."""
def json_loads(data: str | bytes | bytearray | memoryview) -> Any: ...
"""Inverse; `__type__` objects are decoded by kombu's registered decoders."""

# --- state names ------------------------------------------------------------------------------------------------
STATES: tuple[str, ...]  # index = the C enum pc_state

# --- task headers -----------------------------------------------------------------------------------------------
def task_headers(
    task: str, id: str, shadow: str | None, eta: str | None, expires: str | None, group: str | None,
    group_index: int | None, retries: int, time_limit: float | None, soft_time_limit: float | None,
    root_id: str | None, parent_id: str | None, argsrepr: str | None, kwargsrepr: str | None, origin: str | None,
    ignore_result: bool, replaced_task_nesting: int, /,
) -> dict[str, Any]: ...
"""The protocol-2 headers (the one copy of the layout is wire/proto2.c), for paths that need them as a dict."""

def iso_to_timestamp(text: str, /) -> float: ...
"""Unix time of an ISO-8601 text; without offset it is UTC. BadData when malformed."""

# --- publishing -------------------------------------------------------------------------------------------------
SCHEMES: frozenset[str]  # broker URL schemes with a C driver: amqp, amqps, sqlite, memory (pyamqp & librabbitmq are aliases made by Python)

@final
class Hub:
    """The in-memory broker and result store; all users of one `memory://` share one."""
    def __new__(cls) -> Self: ...
    def abandon(self) -> None: ...
    """In a forked child, where nobody uses the parent's any more: as new."""
    def seal(self) -> None: ...
    """From now on publishing and declaring fail: in a child of the prefork pool nobody would take it out."""

@final
class Feed:
    """Messages from a broker that only Python can talk to, for one worker: its config is {"scheme": "kombu", "feed": Feed}.

    The target is told what the machine wants: connect(), add(queue), drop(queue), prefetch(count), settle([(tag, 0 ack | 1 reject |
    2 requeue)]), pause(), close(seconds); all at once return, except close()."""
    def __new__(cls, target: Any, /) -> Self: ...
    def push(
        self, exchange: str, routing_key: str, body: bytes | str, headers: Mapping[str, Any], properties: Mapping[str, Any],
        redelivered: bool, /,
    ) -> int: ...
    """A delivery; returns the tag by which it will be settled. TypeError, ValueError: no message can be made of it."""
    def up(self) -> None: ...
    def down(self, reason: str, refused: bool, /) -> None: ...
    """refused: at the first connect the machine gives up."""
    def cancelled(self, queue: str, /) -> None: ...

@final
class TaskTemplate:
    """What is the same in every message of a task sent with the same options."""
    def __new__(
        cls, task: str, exchange: str, routing_key: str, origin: str, delivery_mode: int, priority: int,
        time_limit: float | None, soft_time_limit: float | None, ignore_result: bool, /,
    ) -> Self: ...

@final
class Producer:
    """Thread-safe publisher on one connection (kept, reconnected). The GIL is released while it works.

    config keys: scheme, host, port, vhost (sqlite: path), user, password, login_method, ssl (None or dict of ca_file,
    ca_path, cert_file, key_file, key_password, ciphers, server_name, verify, check_hostname), heartbeat, connect_timeout,
    client_name, publish_timeout, window, confirm (0/1/2), synchronous, hub (Hub); for Redis also sentinel (None or dict of
    hosts ("host:port;host:port"), master_name, user, password, ssl).
    notice(level, text): what is to be logged, messages that were refused above all; called by a later method, with the GIL."""
    def __new__(cls, config: Mapping[str, Any], notice: Callable[[int, str], object] | None = None, /) -> Self: ...
    def connect(self, timeout: float | None, /) -> None: ...
    def send(
        self, template: TaskTemplate, task_id: str | None, args: Sequence[Any], kwargs: Mapping[str, Any],
        reply_to: str, root_id: str | None, parent_id: str | None, retries: int, eta: str | None, expires: str | None,
        expiration: str | None, argsrepr: str | None, kwargsrepr: str | None, embed: Mapping[str, Any] | None, timeout: float | None, /,
    ) -> str: ...
    """The fast path: JSON, no compression, no extra headers. task_id None: a new uuid4; root_id None: the id.
    reprs None: made here (saferepr rules, T-123). Returns the id. Raises kombu EncodeError's cause (TypeError, ValueError…) when args are not JSON."""
    def publish(
        self, exchange: str, routing_key: str, body: bytes | str, headers: Mapping[str, Any], properties: Mapping[str, Any],
        mandatory: bool, due: float | None, timeout: float | None, /,
    ) -> None: ...
    """properties: content_type, content_encoding, delivery_mode, priority, correlation_id, reply_to, expiration (str ms),
    message_id, timestamp (int), type, user_id, app_id, cluster_id. `due`: unix time, for drivers that hold messages (sqlite)."""
    def publish_batch(self, batch: Batch, timeout: float | None, /) -> None: ...
    """Publishes what the batch has and has not published yet: one write, or one transaction. After a failure it may be called
    again, also on another Producer of the same kind of broker, for the rest."""
    def flush(self, timeout: float | None, /) -> None: ...
    def unconfirmed(self) -> int: ...
    def declare(self, queue: Mapping[str, Any], timeout: float | None, /) -> None: ...
    """queue keys: name, exchange, exchange_type, routing_key, durable, exclusive, auto_delete, no_ack, no_declare, exchange_durable,
    exchange_auto_delete, passive, queue_arguments, exchange_arguments, binding_arguments, consumer_arguments (dicts or None)."""
    def size(self, queue: str, timeout: float | None, /) -> tuple[int, int]: ...
    def purge(self, queue: str, timeout: float | None, /) -> int: ...
    def remove(self, queue: str, timeout: float | None, /) -> None: ...
    def get(self, queue: str, timeout: float | None, /) -> tuple[bytes, dict[str, Any], dict[str, Any], dict[str, Any]] | None: ...
    """(body, headers, properties, delivery_info), acknowledged; None when empty."""
    def close(self, timeout: float | None, /) -> None: ...
    def pause(self) -> None: ...
    """Before fork: ends the thread that sends unconfirmed messages again, if it is there."""
    def resume(self) -> None: ...
    """After fork in the parent: undoes pause()."""
    def abandon(self) -> None: ...
    """After fork in the child: drop descriptors, speak no protocol. The object is closed then."""

@final
class Batch:
    """Messages collected by one thread, to be published together; for producers of the same kind as the one given."""
    def __new__(cls, producer: Producer, /) -> Self: ...
    def send(
        self, template: TaskTemplate, task_id: str | None, args: Sequence[Any], kwargs: Mapping[str, Any],
        reply_to: str, root_id: str | None, parent_id: str | None, retries: int, eta: str | None, expires: str | None,
        expiration: str | None, argsrepr: str | None, kwargsrepr: str | None, embed: Mapping[str, Any] | str | None,
        timeout: None, group: str | None, group_index: int | None, /,
    ) -> str: ...
    """As Producer.send(), plus the place in a group. An `embed` that is a str is JSON already."""
    def publish(
        self, exchange: str, routing_key: str, body: bytes | str, headers: Mapping[str, Any], properties: Mapping[str, Any],
        mandatory: bool, due: float | None, /,
    ) -> None: ...
    def truncate(self, length: int, /) -> None: ...
    """Forgets all but the first messages; those that are published stay."""
    def unsent(self) -> int: ...
    def __len__(self) -> int: ...

# --- results: a program's side ----------------------------------------------------------------------------------
@final
class Results:
    """Thread-safe client of a result store. Documents are bytes.

    config keys: scheme (redis, rpc, sqlite, memory), host, port, unix_path, sentinel, db, user, password, ssl, key_prefix,
    connect_timeout, socket_timeout, expires, path, broker (a Producer config), persistent, reply_queue, hub."""
    def __new__(cls, config: Mapping[str, Any], /) -> Self: ...
    def set(self, id: str, state: str, document: bytes | str, content_type: str, content_encoding: str,
            reply_to: str | None, correlation_id: str | None, timeout: float | None, /) -> None: ...
    def get(self, id: str, timeout: float | None, /) -> bytes | None: ...
    def watch(self, id: str, /) -> None: ...
    def watch_many(self, ids: Sequence[str], /) -> None: ...
    """As watch() for each, in one write."""
    def news(self, seen: int, timeout: float | None, /) -> int | None: ...
    """Waits until anything has happened to any watched id since `seen` (0 at first); returns the new `seen`, after the timeout
    too. It does not tell to which: read those of interest. None: this store cannot tell."""
    def wait(self, id: str, timeout: float | None, /) -> bytes: ...
    """The next document for the id (see io/store.h); raises Timeout. Runs signal handlers while waiting. timeout None: for ever."""
    def unwatch(self, id: str, /) -> None: ...
    def forget(self, id: str, timeout: float | None, /) -> None: ...
    def abandon(self) -> None: ...

@final
class Redis:
    """Thread-safe blocking Redis commands for everything else (groups, chord counters). config as Results."""
    def __new__(cls, config: Mapping[str, Any], /) -> Self: ...
    def run(self, commands: Sequence[Sequence[str | bytes | int | float]], transaction: bool, timeout: float | None, /) -> list[Any]: ...
    def abandon(self) -> None: ...

# --- running tasks ----------------------------------------------------------------------------------------------
# flags of a task record
TASK_ENTER: int          # call hooks.enter(task, request) before the body
TASK_SUCCESS: int        # call hooks.succeed(task, request, retval) instead of making the document in C
TASK_LEAVE: int          # call hooks.leave(task, request, retval, state) at the end
TASK_LOG: int            # call hooks.log_success(task, request, retval, runtime) after success
TASK_IGNORE_RESULT: int  # default when the message does not say
TASK_CUSTOM_CALL: int    # call the task object, not its run()
TASK_COROUTINE: int      # hooks.run_coroutine(coro) gives the return value
TASK_AROUND: int         # nothing but hooks.around(task, request) -> Outcome is called
TASK_LATE: int           # hooks.flush() before the outcome; else a pool's child confirms when it has time (hooks.publisher())
TASK_ONCE: int           # hooks.done_before() is asked about messages that are redelivered

# flags of an outcome (third element of the outcome tuple)
OUT_REQUEUE: int         # Reject(requeue=True), or another reason to requeue
OUT_REFUSED: int         # the message could not be accepted (content type, format): reject without requeue whatever acks_late says
OUT_UNDECODABLE: int     # the body could not be decoded: ack
_Outcome: TypeAlias = tuple[int, bytes | None, int]
"""(state index in STATES, document to be stored by the worker or None, flags)"""

@final
class Tracer:
    """Runs task messages in this process or thread. One per worker; usable from many threads, and in forked children.

    hooks (all called with the GIL, rarely):
      decode(body: bytes, content_type: str|None, content_encoding: str|None, compression: str|None) -> Any
          for bodies that are not plain JSON; returns the decoded [args, kwargs, embed]
      bad_message(exc, headers, properties, delivery_info, body) -> _Outcome    any failure before the task could be found and its arguments were known
      around(task, request) -> (_Outcome, return value or exception)    the whole run, of tasks with TASK_AROUND
      done_before(task, request) -> _Outcome | None    before the whole run, of tasks with TASK_ONCE: its outcome, if it is not to run
      enter(task, request) -> None; succeed(task, request, retval) -> Outcome; fail(task, request, exc) -> _Outcome
      hand_over(task, link, retval, embed: str, root_id: str, task_id: str, tracer: Tracer | None) -> str | None    before the
          result of a chain's task is written, instead of succeed(): sends the next link, unless the tracer takes the offer of it; its
          children as JSON, or None: succeed() is to do all
      leave(task, request, retval, state: str) -> None; log_success(task, request, retval, runtime) -> None
      now_iso() -> str     date_done text; only called when the app's timezone is not UTC
      run_coroutine(coro) -> Any
      flush() -> None      called after a body that published something
    `request` is a Context (see make_request)."""
    def __new__(cls, hooks: Any, make_request: Callable[[dict[str, Any]], Any], hostname: str, utc: bool, task_stack: Any, /) -> Self: ...
    def register(self, name: str, task: Any, run: Callable[..., Any], request_stack: Any, flags: int, /) -> None: ...
    def call(self, name: str, request: Any, args: Sequence[Any], kwargs: Mapping[str, Any], /) -> tuple[int, Any, _Outcome]: ...
    """Eager run with a ready Context: (state, retval or exception, outcome)."""
    def offer(self, template: TaskTemplate, task_id: str, args: Any, kwargs: Any, reply_to: str, root_id: str | None, parent_id: str | None,
              retries: int, eta: None, expires: None, expiration: None, argsrepr: None, kwargsrepr: None, embed: Any, timeout: None, /) -> bool:
        """Only from inside hand_over(): as Producer.send(). True: the worker runs it next, and it is not to be sent."""

@final
class LazyRequest:
    """What the tracer pushes on task.request_stack: the context is only built when somebody looks."""
    def context(self) -> Any: ...
    """The Context (made once by make_request(dict) with all headers, properties, delivery_info, args, kwargs, callbacks, errbacks,
    chain, chord, hostname, is_eager=False, called_directly=False)."""

@final
class Run:
    """A run of a task on its way through the event loop of the pool asyncio. hand_in() ends it: nothing else may be called then."""
    live: Any                # whatever the event loop's side keeps of it; None at first, and when it is handed in
    @property
    def plain(self) -> bool: ...   # it is to be run by whole(), in a thread
    @property
    def enters(self) -> bool: ...  # begin() calls hooks, which may wait
    @property
    def over(self) -> bool: ...    # begin() has found that an earlier delivery has done it: there is no body and no end
    @property
    def title(self) -> str: ...    # name[id]
    def start(self) -> None: ...
    """From now on the task may have done something: its message may be acknowledged, its limits count."""
    def begin(self) -> Any: ...
    """Up to the body; returns or raises what that does: for a coroutine function a coroutine."""
    def end_plainly(self, value: Any, /) -> bool: ...
    """What comes after the body, if it neither calls a hook that may wait nor publishes; else False, and end() is to be called."""
    def end(self, value: Any, error: BaseException | None, /) -> None: ...
    """What comes after the body. In the context in which begin() was called, and any thread; does not confirm what was published."""
    def whole(self) -> None: ...
    """All of it, start() as well, in the calling thread."""
    def has_sent(self) -> bool: ...
    """Has this process published anything since begin()?"""
    def hand_in(self, lost: bool, /) -> None: ...
    """The outcome goes to the machine; lost: there is none, it was ended by force. What has not started goes back then."""

@final
class Line:
    """What the machine has for the event loop of the pool asyncio."""
    def fileno(self) -> int: ...
    """Readable when there is something to take."""
    def take(self) -> list[tuple[str, Run]]: ...
    """Pairs of a word and a run, until there are none: run (a new one), soft (its soft limit has passed), kill (it is to end, and to
    be handed in as lost), quit (with None: everything is)."""

# --- the worker -------------------------------------------------------------------------------------------------
@final
class Job:
    """A message in the worker's hands, as hooks see it (valid only during the hook, except id and name)."""
    id: str
    name: str
    def request(self) -> dict[str, Any]: ...      # headers merged with delivery_info, properties, correlation_id, reply_to
    def body(self) -> tuple[bytes, str | None, str | None]: ...   # raw body, content type, encoding
    def headers(self) -> dict[str, Any]: ...
    def properties(self) -> dict[str, Any]: ...
    def delivery_info(self) -> dict[str, Any]: ...
    eta: float | None        # unix time
    expires: float | None
    worker_pid: int | None
    time_start: float | None
    acknowledged: bool
    limits: tuple[float | None, float | None]   # hard, soft: seconds, as they apply

@final
class Worker:
    """The machine: source → schedule → pool → store → ack. run() turns the loop in the calling thread.

    config keys: broker (Producer config), store (Results config, or None: nothing is stored by the machine), pool ("prefork", "threads",
    "asyncio", "solo"), concurrency, prefetch (messages, 0 unlimited), log_level (int), accept (list of content types, None: any),
    max_tasks_per_child, max_memory_per_child (KiB), start_timeout, retry (bool), retry_on_startup (bool), end_if_refused (bool), max_retries (int|None), eta_task_limit (int|None), park_after (seconds|None),
    fair (bool), disable_rate_limits, result_content_type, result_content_encoding, want_received (bool: call hooks.received), want_accepted (bool)
    hooks: see pyceleryc/worker/machine.py, class MachineHooks.
    """
    def __new__(cls, config: Mapping[str, Any], tracer: Tracer, hooks: Any, /) -> Self: ...
    def task(self, name: str, options: Mapping[str, Any], /) -> None: ...
    """Registers or changes a task. options: acks_late, acks_on_failure, acks_on_timeout, reject_on_worker_lost, ignore_result,
    time_limit, soft_time_limit, rate (tasks per second, 0: none), watched (hooks.received is called for each message; it returns
    None, or "ack", "reject" or "requeue": then the message does not run and is settled thus; "stop": and the worker stops)"""
    def run(self) -> None: ...
    """Until stop(); signal handlers run in between; an exception raised by one of them (WorkerShutdown…) leaves through run(), and run() may be called again."""
    def step(self, max_wait: float, /) -> bool: ...
    def stop(self, how: int, timeout: float, /) -> None: ...
    """how: 0 warm (finish what runs, give back the rest), 1 cold (cancel what runs). Any thread."""
    def wake(self) -> None: ...
    def close(self) -> None: ...
    def add_queue(self, queue: Mapping[str, Any], /) -> None: ...
    def drop_queue(self, name: str, /) -> None: ...
    def revoke(self, ids: Sequence[str], terminate: bool, signum: int, /) -> list[str]: ...
    """Marks ids revoked; returns those that were held or running here."""
    def jobs(self, which: str, /) -> list[Any]: ...   # what hooks.describe(job) returned for each
    #   # "active", "reserved", "scheduled"
    def stats(self) -> dict[str, Any]: ...
    def redirect(self, broker: Mapping[str, Any], /) -> None: ...
    """From the next attempt to connect on, another broker (a Producer config) of the same kind; for the hook down. Unsupported unless AMQP."""
    def prefetch(self, count: int, /) -> None: ...
    def resize(self, size: int, /) -> None: ...
    def restart_pool(self) -> None: ...
    """Replaces the processes, each when its tasks are done; other pools have none."""
    # events: who sends them, whether those about tasks are wanted, what they leave through; a type, its routing key, its fields
    def events_identity(self, hostname: str, utcoffset: int, pid: int, exchange: str, clock: Any, /) -> None: ...
    def events_on(self, on: bool, /) -> None: ...
    def events_open(self, producer: Any, /) -> None: ...
    def events_close(self) -> None: ...
    def event(self, type: str, routing_key: str | None, fields: dict[str, Any], /) -> Any: ...
    def http(self, host: str, port: int, /) -> int: ...
    """Answers /livez, /readyz and /metrics there (port 0: any), from a thread that never needs the GIL. Once, before run(). Returns the
    port; ConnectionLost when the address cannot be had."""
    def wakeup_fd(self, fd: int, /) -> None: ...
    """Wakes up when this descriptor (see signal.set_wakeup_fd) is readable, and drains it."""
    def add_reader(self, fd: int, callback: Callable[[], object], /) -> None: ...
    """Calls back from the loop, in its thread, whenever the descriptor is readable."""
    def remove_reader(self, fd: int, /) -> bool: ...
    def call_later(self, seconds: float, callback: Callable[[], object], /) -> None: ...
    """Calls back once. A callback that wants to be called again says so itself."""
    def soft_due(self) -> bool: ...
    """In a pool's child, from a signal handler: has the soft limit of the task that runs now passed?"""
    def want(self, received: bool, accepted: bool, /) -> None: ...
