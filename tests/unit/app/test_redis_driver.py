"""What the C driver for Redis is told, from URLs and options."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from pyceleryc import Celery
from pyceleryc.app.drivers import broker_config, scheme_of
from pyceleryc.app.redis_driver import redis_config
from pyceleryc.exceptions import ImproperlyConfigured


def config(url: str, **settings: Any) -> dict[str, Any]:
    app = Celery("test", set_as_current=False)
    app.conf.update(settings)
    return redis_config(app.conf, url)


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "redis+socket:///tmp/redis.sock"])
def test_schemes_of_the_driver(url: str) -> None:
    assert scheme_of(url) == "redis"
    found = broker_config(Celery("test", set_as_current=False).conf, url)
    assert found is not None
    assert found["scheme"] == "redis"
    assert found["publish_timeout"] == 30.0


@pytest.mark.parametrize(("url", "want"), [
    ("redis://", ("127.0.0.1", 6379, 0, None, None)),
    ("redis://h:1/5", ("h", 1, 5, None, None)),
    ("redis://:p%40ss@h/", ("h", 6379, 0, None, "p@ss")),
    ("redis://me:secret@h:1/9", ("h", 1, 9, "me", "secret")),
])
def test_where(url: str, want: tuple[Any, ...]) -> None:
    found = config(url)
    assert tuple(found[key] for key in ("host", "port", "db", "user", "password")) == want


def test_unix_socket() -> None:
    found = config("redis+socket://:pw@/run/redis.sock?virtual_host=3")
    assert (found["unix_path"], found["db"], found["password"]) == ("/run/redis.sock", 3, "pw")


def test_database_must_be_a_number() -> None:
    with pytest.raises(ImproperlyConfigured, match="not /a"):
        config("redis://h/a")


def test_options() -> None:
    found = config("redis://", broker_transport_options={
        "visibility_timeout": 60, "priority_steps": [5, 0], "sep": ":", "queue_order_strategy": "sorted",
        "global_keyprefix": "p", "unacked_key": "u", "unacked_index_key": "i", "unacked_mutex_key": "m",
        "socket_timeout": 3, "fanout_prefix": "x.", "fanout_patterns": False, "lease": 5,
    })
    assert found["visibility_timeout"] == 60.0
    assert found["priority_steps"] == "0,5"
    assert found["lease"] == 5.0
    assert found["fanout_plain"] is True
    texts = {key: found[key] for key in ("sep", "queue_order", "key_prefix", "unacked_key", "unacked_index_key",
                                         "unacked_mutex_key", "fanout_prefix")}
    assert texts == {"sep": ":", "queue_order": "sorted", "key_prefix": "p", "unacked_key": "u",
                     "unacked_index_key": "i", "unacked_mutex_key": "m", "fanout_prefix": "x."}


def test_fanout_prefix_may_be_off() -> None:
    assert config("redis://", broker_transport_options={"fanout_prefix": False})["fanout_prefix"] == ""
    assert "fanout_prefix" not in config("redis://")


def test_tls_checks_certificates_unless_told_otherwise() -> None:
    assert config("rediss://h")["ssl"] == {"verify": True}
    assert config("rediss://h?ssl_cert_reqs=none")["ssl"] == {"verify": False, "check_hostname": False}
    settings = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "c.pem", "ssl_keyfile": "k.pem", "ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert config("rediss://h", broker_use_ssl=settings)["ssl"] == {
        "ca_file": "ca.pem", "cert_file": "c.pem", "key_file": "k.pem", "verify": True}
    assert "ssl" not in config("redis://h")
