"""What people see of URLs."""

from __future__ import annotations

from typing import Any

import pytest

from pyceleryc import Celery
from pyceleryc.utils.url import hide_password
from pyceleryc.worker.brokers import Brokers


@pytest.mark.parametrize("url, shown", [
    ("amqp://user:p@host:5672/v", "amqp://user:**@host:5672/v"),
    ("amqp://user:p@host//", "amqp://user:**@host//"),
    ("amqp://user@host", "amqp://user@host/"),
    ("redis://:p@host:1/0", "redis://:**@host:1/0"),
    ("redis+socket:///tmp/x", "redis+socket:///tmp/x"),
    ("db+postgresql://u:p@h/d?sslmode=require&password=p", "db+postgresql://u:**@h/d"),
    ("sqs://key:p%2Fq@", "sqs://key:**@/"),
    ("memory://", "memory:///"),
    ("", ""), ("host", "host"), (None, None),
    # several hosts, several URLs
    ("mongodb://u:p@a:1,b:2/db", "mongodb://u:**@a:1,b:2/db"),
    ("sentinel://:p@a:1;sentinel://:p@b:2", "sentinel://:**@a:1/;sentinel://:**@b:2/"),
    ("amqp://u:p@a/x;amqp://u:p@b/y", "amqp://u:**@a/x;amqp://u:**@b/y"),
    ("sentinel://a:1;b:2", "sentinel://a:1;b:2/"),
    ("redis://:p@[::1]:6379/0", "redis://:**@[::1]:6379/0"),
    # an at sign where there is no password
    ("filesystem:///a@b", "filesystem:///a@b"),
    ("redis://h:1/0?x=a@b", "redis://h:1/0"),
    ("redis://[::1]:6379/x@y", "redis://[::1]:6379/x@y"),
    # what should have been quoted
    ("amqp://u:p@p@h/", "amqp://u:**@h/"),
    ("amqp://u:p/p@h/v", "amqp://u:**@h/v"),
    ("amqp://u:p?p#p@h:1/v", "amqp://u:**@h:1/v"),
    ("amqp://u:p;p@h", "amqp://u:**@h/"),
    ("u:p@h", "u:**@h"),
])
def test_hide_password(url: Any, shown: Any) -> None:
    assert hide_password(url) == shown


def test_mask() -> None:
    assert hide_password("amqp://u:p@h/v", "*****") == "amqp://u:*****@h/v"


@pytest.mark.parametrize("broker, backend", [
    ("mongodb://u:s3cr@a:1,b:2/db", "mongodb://u:s3cr@a:1,b:2/db"),
    ("sentinel://:s3cr@a:1;sentinel://:s3cr@b:2", "sentinel://:s3cr@a:1;sentinel://:s3cr@b:2/0"),
    ("zookeeper://u:s3cr@a:1,b:2", "redis://u:s3cr@a/0"),
])
def test_where_they_are_shown(broker: str, backend: str) -> None:
    """In reports and in the worker's banner and log; nothing is raised."""
    app = Celery("shown", broker=broker, backend=backend, set_as_current=False)
    texts = [app.bugreport(), app.conf.humanize(), Brokers(app).uri()]
    if not backend.startswith("mongodb"):  # its client need not be installed
        texts.append(app.backend.as_uri())
    for text in texts:
        assert "s3cr" not in text and ":**" in text
