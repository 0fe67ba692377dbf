"""An app whose messages no worker takes: tests read back what it has sent to RabbitMQ."""

from __future__ import annotations

import time
import uuid
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.exceptions import ChannelError
from kombu.serialization import loads, prepare_accept_content

EVERYTHING = prepare_accept_content(["json", "pickle", "yaml", "msgpack"])


class Sent:
    """A message as it lay in its queue; `raw` may be compressed."""

    def __init__(self, message: Any) -> None:
        self.raw = message.body if isinstance(message.body, bytes) else message.body.encode()
        self.properties: dict[str, Any] = {name: value for name, value in message.properties.items() if name != "application_headers"}
        self.headers: dict[str, Any] = message.properties.get("application_headers") or {}
        self.delivery_info: dict[str, Any] = message.delivery_info
        self.content_type = message.properties["content_type"]
        self.content_encoding = message.properties["content_encoding"]

    @property
    def body(self) -> Any:
        return loads(self.raw, self.content_type, self.content_encoding, accept=EVERYTHING)

    @property
    def args(self) -> Any:
        return self.body[0]

    @property
    def kwargs(self) -> Any:
        return self.body[1]

    @property
    def embed(self) -> Any:
        return self.body[2]


class Letterbox:
    """`app` sends to a queue of its own; `take()` returns the next message."""

    def __init__(self, amqp_url: str, backend: str | None = None, **settings: Any) -> None:
        self.queue = f"letterbox-{uuid.uuid4().hex[:12]}"
        self.app = Celery("box", broker=amqp_url, backend=backend, set_as_current=False)
        self.app.conf.update(task_default_queue=self.queue, **settings)
        self.connection = Connection(amqp_url)
        self.used = {self.queue}

    def take(self, queue: str | None = None, timeout: float = 30) -> Sent:
        """The oldest message; fails if there is none within `timeout` seconds."""
        queue = queue or self.queue
        self.used.add(queue)
        deadline = time.monotonic() + timeout
        while (message := self._get(queue)) is None:
            assert time.monotonic() < deadline, f"nothing was sent to {queue}"
            time.sleep(0.01)
        return Sent(message)

    def take_all(self, count: int, queue: str | None = None) -> list[Sent]:
        return [self.take(queue) for _ in range(count)]

    def wait_for(self, count: int, timeout: float = 30) -> None:
        """Until so many messages are in the queue."""
        deadline = time.monotonic() + timeout
        while (found := self.connection.default_channel.queue_declare(self.queue, passive=True).message_count) < count:
            assert time.monotonic() < deadline, f"{found} of {count} messages in {self.queue}"
            time.sleep(0.01)

    def is_empty(self) -> bool:
        """Whether nothing more arrives; a message sent afterwards comes first if something does."""
        self.app.send_task("marker")
        return bool(self.take().headers["task"] == "marker")

    def _get(self, queue: str) -> Any:
        try:
            return self.connection.default_channel.basic_get(queue, no_ack=True)
        except ChannelError:  # the queue does not exist yet; that closed the channel
            self.connection.default_channel.close()
            self.connection._default_channel = None
            return None

    def close(self) -> None:
        self.app.close()
        for queue in self.used:
            self.connection.default_channel.queue_delete(queue)
        self.connection.release()
