"""A task message in the worker's hands, as signal handlers and remote control see it (FEATURES §2.10)."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from kombu import compression as codecs
from kombu.serialization import loads, prepare_accept_content

if TYPE_CHECKING:
    from pyceleryc import _core
    from pyceleryc.app.base import Celery
    from pyceleryc.app.task import Task


def _when(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)


class Request:
    """Read from the machine's job when made; stays valid afterwards."""

    def __init__(self, job: _core.Job, app: Celery, hostname: str) -> None:
        self.app = app
        self.hostname = hostname
        self.request_dict: dict[str, Any] = job.request()
        self.id = job.id
        self.name = job.name
        self.type = job.name
        self.eta = _when(job.eta)
        self.expires = _when(job.expires)
        self.body, self.content_type, self.content_encoding = job.body()
        self.delivery_info: dict[str, Any] = self.request_dict["delivery_info"]
        self.time_start = job.time_start
        self.worker_pid = job.worker_pid
        self.acknowledged = job.acknowledged
        self.utc = True

    @property
    def task(self) -> Task:
        return self.app.tasks[self.name]

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

    def __str__(self) -> str:
        return self.humaninfo

    def __repr__(self) -> str:
        return f"<Request: {self.humaninfo} {self.args} {self.kwargs}>"
