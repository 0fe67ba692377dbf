"""Apps that publish while the broker is slow, stopped or not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyceleryc import Celery

NewSender = Callable[..., Any]


@pytest.fixture
def new_sender() -> Iterator[NewSender]:
    """Makes apps with a task `t.add`: `new_sender(url, deadline, **broker_transport_options)`. What they could not send is dropped at the
    end of the test, without a word and without waiting."""
    made: list[Any] = []

    def make(url: str, deadline: float, **options: Any) -> Any:
        app = Celery("sender", broker=url, set_as_current=False)
        app.conf.broker_transport_options = {"publish_timeout": deadline, **options}
        app.conf.broker_connection_timeout = deadline
        app.task(name="t.add", shared=False)(lambda x: x)
        made.append(app)
        return app

    yield make
    for app in made:
        app.amqp.publisher.after_fork()  # as a child does with its parent's connection
        app.close()
