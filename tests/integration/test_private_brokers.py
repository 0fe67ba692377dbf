"""The private servers that the fault tests break: data and address survive kill, stop and start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from kombu import Connection

from brokers import (
    BrokerError,
    PrivateServer,
    answers,
    find_program,
    private_redis,
)

Unique = Callable[[str], str]


@pytest.fixture(params=["rabbitmq", "redis"], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[PrivateServer]:
    if request.param == "rabbitmq":
        yield request.getfixturevalue("breakable_rabbitmq")
        return
    with private_redis() as made:
        yield made


def put(url: str, queue: str, body: str) -> None:
    confirmed = Connection(url, transport_options={"confirm_publish": True})
    with confirmed as connection, connection.SimpleQueue(queue) as simple:
        simple.put(body, delivery_mode="persistent")


def take(url: str, queue: str) -> object:
    with Connection(url) as connection, connection.SimpleQueue(queue) as simple:
        message = simple.get(timeout=30)
        message.ack()
        return message.payload


@pytest.mark.limit(150)
def test_data_survives_every_way_to_end(server: PrivateServer, unique: Unique) -> None:
    queue, url = unique("queue"), server.url
    for end in (server.kill, server.stop):
        put(url, queue, end.__name__)
        end()
        assert not answers(url)
        server.start()
        assert server.url == url
        assert take(url, queue) == end.__name__


def test_a_paused_server_keeps_silent_until_it_is_resumed(server: PrivateServer) -> None:
    server.pause()
    assert not answers(server.url, timeout=0.5)
    server.resume()
    assert answers(server.url, timeout=10)


def test_nothing_is_left_running() -> None:
    with private_redis() as server:
        pid, directory = server.pid, server.directory
    assert not answers(server.url)
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_second_start_is_refused_and_a_second_stop_is_not() -> None:
    with private_redis() as server:
        with pytest.raises(AssertionError, match="running already"):
            server.start()
        server.stop()
        server.stop()


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(BrokerError, match="(?s)did not start.*no-such-value"), private_redis(
            {"maxmemory-policy": "no-such-value"}):
        raise AssertionError("unreachable")


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(BrokerError, match="apt-get install no-such-server"):
        find_program("no-such-server")


def test_shared_servers_answer(amqp_url: str, redis_url: str) -> None:
    assert answers(amqp_url)
    assert answers(redis_url)
