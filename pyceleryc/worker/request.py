"""A task message in the worker's hands, as signal handlers and remote control see it (FEATURES §2.10).

A task may have a class of its own (``Task.Request``): then its messages take the way through Python, and the methods ``on_*`` are
called in the worker's main process (Tasks guide, "Custom requests"). The machine stores results and settles messages all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from kombu import compression as codecs
from kombu.serialization import loads, prepare_accept_content

from pyceleryc.utils.iso8601 import parse_iso8601

if TYPE_CHECKING:
    from pyceleryc import _core
    from pyceleryc.app.base import Celery
    from pyceleryc.app.task import Task

logger = logging.getLogger("celery.worker.request")


def _when(value: float | str | None) -> datetime | None:
    if isinstance(value, str):
        return parse_iso8601(value)
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(value, timezone.utc)
    except (ValueError, OverflowError, OSError):  # in a year that Python does not know, but the machine does
        return (datetime.min if value < 0 else datetime.max).replace(tzinfo=timezone.utc)


class Request:
    """What a worker knows of one message of a task.

    Parameters: `message`, a message with headers, properties, delivery_info, body, content_type and content_encoding; `on_ack` and
    `on_reject`, called by acknowledge() and reject(); `hostname`, the node; `eventer`, `connection_errors` are kept;
    `request_dict`, headers and properties together, where they are known already; `body` and `headers` in place of the message's.
    """

    #: Has it been accepted by the pool?  Subclasses may override what they are told of that.
    begun = False

    def __init__(self, message: Any, on_ack: Callable[..., Any] | None = None, hostname: str | None = None, eventer: Any = None,
                 app: Celery | None = None, connection_errors: Any = None, request_dict: dict[str, Any] | None = None,
                 task: Task | None = None, on_reject: Callable[..., Any] | None = None, body: Any = None,
                 headers: Any = None, decoded: bool = False, utc: bool = True, **options: Any) -> None:
        self.message = message
        self.app: Any = app or getattr(task, "app", None)
        self.hostname, self.eventer, self.connection_errors, self.utc = hostname, eventer, connection_errors, utc
        self.request_dict: dict[str, Any] = request_dict or _merged(message, headers)
        self.id: Any = self.request_dict.get("id")
        self.name: Any = self.request_dict.get("task")
        self.type = self.name
        self.eta = _when(getattr(message, "eta", None) or self.request_dict.get("eta"))
        self.expires = _when(getattr(message, "expires", None) or self.request_dict.get("expires"))
        self.body = message.body if body is None else body
        self.content_type, self.content_encoding = message.content_type, message.content_encoding
        self.delivery_info: dict[str, Any] = self.request_dict.get("delivery_info") or {}
        self.time_start: float | None = None
        self.worker_pid: int | None = None
        self.acknowledged = False
        self._task, self._decoded = task, decoded
        self._on_ack, self._on_reject = on_ack, on_reject

    @classmethod
    def of_job(cls, job: _core.Job, app: Celery, hostname: str) -> Request:
        """Read from the machine's job; the request stays valid afterwards."""
        self = cls(_Body(job), app=app, hostname=hostname, request_dict=job.request())
        self.id, self.name, self.type = job.id, job.name, job.name
        self.time_start, self.worker_pid, self.acknowledged = job.time_start, job.worker_pid, job.acknowledged
        return self

    @property
    def task(self) -> Task:
        return self._task if self._task is not None else self.app.tasks[self.name]

    def __getattr__(self, name: str) -> Any:
        """Headers: argsrepr, kwargsrepr, root_id, parent_id, correlation_id, reply_to, stamps, …"""
        try:
            return self.__dict__["request_dict"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    @property
    def args(self) -> str:
        return str(self.request_dict.get("argsrepr"))

    @property
    def kwargs(self) -> str:
        return str(self.request_dict.get("kwargsrepr"))

    @property
    def humaninfo(self) -> str:
        return f"{self.name}[{self.id}]"

    def _payload(self) -> tuple[Any, Any]:
        """The arguments; where they can't be decoded here, as the sender represented them."""
        try:
            if self._decoded:
                args, kwargs, _ = self.body
                return args, kwargs
            body = self.body
            if self.request_dict.get("compression"):
                body = codecs.decompress(body, self.request_dict["compression"])
            args, kwargs, _ = loads(body, self.content_type, self.content_encoding,
                                    accept=prepare_accept_content(self.app.conf.accept_content))
        except Exception:  # of any serializer: whoever runs the task will say so
            return self.args, self.kwargs
        return args, kwargs

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `inspect active` shows; `safe`: the arguments as the sender represented them."""
        args, kwargs = (self.args, self.kwargs) if safe else self._payload()
        return {"id": self.id, "name": self.name, "args": args, "kwargs": kwargs, "type": self.type,
                "hostname": self.hostname, "time_start": self.time_start, "acknowledged": self.acknowledged,
                "delivery_info": self.delivery_info, "worker_pid": self.worker_pid}

    # --- settled by strategies ------------------------------------------------------------------------------------------

    def acknowledge(self) -> None:
        """Calls on_ack, once."""
        if not self.acknowledged:
            self.acknowledged = True
            if self._on_ack is not None:
                self._on_ack(logger, self.connection_errors)

    def reject(self, requeue: bool = False) -> None:
        """Calls on_reject, once."""
        if not self.acknowledged:
            self.acknowledged = True
            if self._on_reject is not None:
                self._on_reject(logger, self.connection_errors, requeue)

    # --- told by the machine, for subclasses ----------------------------------------------------------------------------

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """It begins, in the process `pid`, at the Unix time `time_accepted`."""
        self.worker_pid, self.time_start = pid, time_accepted
        self.acknowledged = self.acknowledged or not self.task.acks_late

    def on_success(self, failed__retval__runtime: tuple[bool, str, float], **kwargs: Any) -> None:
        """It has succeeded: (False, representation of the return value, seconds)."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """It has raised, also Retry, Ignore and Reject, or its process is gone (`return_ok` is False then).

        `exc_info` is an ExceptionInfo. What is to be stored was stored.
        """
        if type(exc_info.exception).__name__ == "Retry":
            self.on_retry(exc_info)

    def on_retry(self, exc_info: Any) -> None:
        """It will be tried again."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """It runs longer than the limit of so many seconds; says so in the log."""
        if soft:
            logger.warning("Soft time limit (%ss) exceeded for %s", timeout, self.humaninfo)
        else:
            logger.error("Hard time limit (%ss) exceeded for %s", timeout, self.humaninfo)

    def __str__(self) -> str:
        return self.humaninfo

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.humaninfo} {self.args} {self.kwargs}>"


class _Body:
    """The parts of a job that are read when a request is made."""

    def __init__(self, job: _core.Job) -> None:
        self.body, self.content_type, self.content_encoding = job.body()
        self.eta, self.expires = job.eta, job.expires


def _merged(message: Any, headers: Any) -> dict[str, Any]:
    known = getattr(message, "request_dict", None)
    if known is not None and headers is None:
        return dict(known)
    properties = getattr(message, "properties", None) or {}
    return {**(message.headers if headers is None else headers), "delivery_info": message.delivery_info,
            "properties": properties, "reply_to": properties.get("reply_to"), "correlation_id": properties.get("correlation_id")}
