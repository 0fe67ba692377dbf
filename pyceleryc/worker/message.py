"""A task message as strategies and requests see it, with the attributes of kombu's messages."""
from __future__ import annotations

from typing import Any

from kombu import compression as codecs
from kombu.serialization import loads, prepare_accept_content

__all__ = ('TaskMessage',)


class TaskMessage:
    """Made of a job of the machine's; stays valid afterwards.

    :ivar fate: None, or what is to become of it: ``ack``, ``reject`` or ``requeue``. The strategy decides while
        it is called; later the machine does, and a change has no effect.
    :ivar wanted: has a strategy handed it on to run?
    """

    def __init__(self, job: Any, accept: Any = None) -> None:
        self.headers: dict[str, Any] = job.headers()
        self.properties: dict[str, Any] = job.properties()
        self.delivery_info: dict[str, Any] = job.delivery_info()
        self.body, self.content_type, self.content_encoding = job.body()
        self.accept = accept
        self.request_dict: dict[str, Any] = job.request()
        self.eta, self.expires = job.eta, job.expires
        self.fate: str | None = None
        self.wanted = False
        self._settled = job.acknowledged

    @property
    def acknowledged(self) -> bool:
        """Is its fate decided?"""
        return self._settled or self.fate is not None

    @property
    def payload(self) -> Any:
        """The decoded body: ``[args, kwargs, embed]``."""
        return self.decode()

    def decode(self) -> Any:
        """Return the decoded body.

        :raises DecodeError: it cannot be decoded; *ContentDisallowed*: its type is not accepted.
        """
        body = self.body
        if self.headers.get('compression'):
            body = codecs.decompress(body, self.headers['compression'])
        return loads(body, self.content_type, self.content_encoding, accept=prepare_accept_content(self.accept))

    def ack(self, *args: Any, **kwargs: Any) -> None:
        """Acknowledge it instead of running it."""
        self.fate = 'ack'

    def reject(self, requeue: bool = False, *args: Any, **kwargs: Any) -> None:
        """Drop it, or let it become a dead letter."""
        self.fate = 'requeue' if requeue is True else 'reject'

    def requeue(self) -> None:
        """Put it back into its queue."""
        self.fate = 'requeue'

    def ack_log_error(self, logger: Any = None, errors: Any = None, multiple: bool = False) -> None:
        """The same as :meth:`ack`."""
        self.ack()

    def reject_log_error(self, logger: Any = None, errors: Any = None, requeue: bool = False) -> None:
        """The same as :meth:`reject`."""
        self.reject(requeue)
