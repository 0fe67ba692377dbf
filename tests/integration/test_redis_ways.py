"""The ways to a Redis server: TLS with certificates, a socket file, ACL users, other databases."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from brokers import PrivateRedis, free_port, private_redis
from fleet import ours, theirs
from resp import Redis

FAIL = "try:\n    tasks.add.apply_async((1, 2), retry=False)\n    result = 'sent'\nexcept Exception as exc:\n    result = repr(exc)"


def openssl(directory: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


def make_certificates(directory: Path) -> None:
    """An authority, what it signed for the server and for a client, and another authority nobody knows."""
    for name in ("ca", "stranger"):
        openssl(directory, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.crt")
    (directory / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(directory, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "san", "-out", f"{name}.crt")


@dataclass
class Ways:
    """A server that can be reached in all ways."""

    server: PrivateRedis
    directory: Path
    tls_port: int

    def tls(self, database: int = 0, **query: str) -> str:
        words = "&".join(f"{key}={value}" for key, value in query.items())
        return f"rediss://127.0.0.1:{self.tls_port}/{database}?{words}"

    def trusted(self) -> dict[str, str]:
        files = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "client.crt", "ssl_keyfile": "client.key"}
        return {"ssl_cert_reqs": "required", **{key: str(self.directory / name) for key, name in files.items()}}


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    directory = tmp_path_factory.mktemp("tls")
    make_certificates(directory)
    port = free_port()
    options = {"tls-port": str(port), "tls-cert-file": str(directory / "server.crt"), "tls-key-file": str(directory / "server.key"),
               "tls-ca-cert-file": str(directory / "ca.crt"), "tls-auth-clients": "yes", "unixsocket": str(directory / "s")}
    with private_redis(options) as server:
        probe = Redis(server.url, 0)
        probe("ACL", "SETUSER", "guarded", "on", ">p@ss/word", "~*", "&*", "+@all", "-@dangerous")  # no CLIENT LIST
        probe.close()
        yield Ways(server, directory, port)


@pytest.mark.parametrize("way", ["tls", "socket", "guarded"])
@pytest.mark.limit(90)
def test_task_and_result(way: str, ways: Ways, unique: Callable[[str], str]) -> None:
    url = {"tls": ways.tls(3, **ways.trusted()), "socket": f"redis+socket://{ways.directory}/s?virtual_host=3",
           "guarded": f"redis://guarded:p%40ss%2Fword@127.0.0.1:{ways.server.port}/3"}[way]
    queue = unique("ways")
    env = ours().env(url, url, queue)
    with ours().worker(env, "-P", "solo") as worker:
        client = theirs() if way == "tls" else ours()
        assert client.client("result = tasks.add.delay(2, 3).get(timeout=20)", env) == 5
        probe = Redis(ways.server.url, 3)
        assert probe("SISMEMBER", f"_kombu.binding.{queue}", f"{queue}\x06\x16\x06\x16{queue}") == 1
        probe.close()
        text = worker.text()
    assert "p@ss" not in text and "p%40ss" not in text
    assert ("without CLIENT LIST" in text) <= (way == "guarded")


@pytest.mark.parametrize(("change", "said"), [
    ({"ssl_ca_certs": "stranger.crt"}, "certificate"),
    ({"ssl_certfile": None, "ssl_keyfile": None}, ""),
    ({"ssl_ca_certs": "missing.crt"}, "missing.crt")], ids=["strange-ca", "no-client-certificate", "no-file"])
def test_tls_that_is_refused(change: dict[str, str | None], said: str, ways: Ways, unique: Callable[[str], str]) -> None:
    given = {**ways.trusted(), **{key: value and str(ways.directory / value) for key, value in change.items()}}
    env = ours().env(ways.tls(**{key: value for key, value in given.items() if value}), None, unique("ways"))
    found = ours().client(FAIL, env)
    assert "Error" in found and said in found and found != "sent"


def test_certificates_may_go_unchecked(ways: Ways, unique: Callable[[str], str]) -> None:
    given = {**ways.trusted(), "ssl_cert_reqs": "none"}
    del given["ssl_ca_certs"]
    url = ways.tls(**given)
    env = ours().env(url, url, unique("ways"))
    assert ours().client("tasks.add.delay(1, 2)\nresult = tasks.app.amqp.producer.size(tasks.app.conf.task_default_queue, None)[0]", env) == 1


def test_plain_text_to_a_tls_port(ways: Ways, unique: Callable[[str], str]) -> None:
    env = ours().env(f"redis://127.0.0.1:{ways.tls_port}/0", None, unique("ways"))
    assert "OperationalError" in ours().client(FAIL, env)
