"""Signed messages between Celery and pyceleryc, and those that a worker has to refuse (C-098)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet import Side, peer_python
from signers import make_signer

SIDES = {"pyceleryc": Side("pyceleryc", sys.executable), "celery": Side("celery", "")}

TALK = """
from celery import chord
results = [tasks.add.delay(1, 2).get(timeout=30), (tasks.add.s(1, 1) | tasks.add.s(5)).delay().get(timeout=30),
           chord([tasks.add.s(n, n) for n in range(5)])(tasks.total.s()).get(timeout=30)]
failed = tasks.fail.delay()
failed.get(timeout=30, propagate=False)
result = [*results, failed.state, type(failed.result).__name__]
"""

#: A message in plain JSON, one by a stranger, one by somebody whose certificate has expired, one that was changed on
#: its way, and at last a good one.
REFUSED = """
import base64
from kombu.serialization import registry, dumps
from celery.security.serialization import SecureSerializer
from celery.security.certificate import Certificate
from celery.security.key import PrivateKey

def signer(name):
    read = lambda end: open(f"{tasks._dir}/{name}.{end}").read()
    return SecureSerializer(PrivateKey(read("key")), Certificate(read("pem")))

queue = tasks.app.conf.task_default_queue
def send(encode, name):
    registry.register(name, encode, lambda text: text, content_type="application/data", content_encoding="utf-8")
    tasks.add.apply_async((0, 0), serializer=name, task_id=name)

tasks.add.apply_async((0, 0), serializer="json", task_id="plain")
send(signer("stranger").serialize, "stranger")
send(signer("old").serialize, "old")
def change(data):
    text = base64.b64decode(signer(tasks._name).serialize(data))
    return base64.b64encode(text.replace(b"0, 0", b"0, 9")).decode()
send(change, "changed")
send(lambda data: "###", "garbage")
tasks.app.setup_security()
result = tasks.add.delay(20, 3).get(timeout=30)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("auth")
    (made / "trusted").mkdir()
    for name in ("client", "worker"):
        make_signer(made, name)
        shutil.copy(made / f"{name}.pem", made / "trusted")
    make_signer(made, "stranger")
    make_signer(made, "old", days=-1)
    return made


@pytest.fixture
def environments(amqp_url: str, redis_url: str, unique: Callable[[str], str], folder: Path) -> Callable[..., dict[str, str]]:
    queue = unique("auth")
    SIDES["celery"].python = peer_python()

    def make(side: Side, name: str) -> dict[str, str]:
        return side.env(amqp_url, redis_url, queue, FLEET_APP="auth_tasks", AUTH_DIR=str(folder), AUTH_NAME=name,
                        AUTH_TRUSTED=str(folder / "trusted"))

    return make


@pytest.mark.limit(120)
@pytest.mark.parametrize(("client", "worker"), [("celery", "pyceleryc"), ("pyceleryc", "celery")])
def test_they_understand_each_other(client: str, worker: str, environments: Callable[..., dict[str, str]]) -> None:
    with SIDES[worker].worker(environments(SIDES[worker], "worker")) as process:
        found = SIDES[client].client(TALK, environments(SIDES[client], "client"))
        assert found == [3, 7, 20, "FAILURE", "KeyError"], process.text()


@pytest.mark.limit(120)
def test_refused_and_the_worker_lives(environments: Callable[..., dict[str, str]]) -> None:
    ours = SIDES["pyceleryc"]
    with ours.worker(environments(ours, "worker")) as process:
        assert ours.client(REFUSED, environments(ours, "client")) == 23
        text = process.text()
    assert "Refusing to deserialize untrusted content of type json" in text
    for name, why in (("stranger", "Unknown certificate"), ("changed", "Bad signature"), ("garbage", "Unable to deserialize"),
                      ("old", "Unknown certificate")):
        (line,) = [line for line in text.splitlines() if f"[{name}]" in line and "refused" in line]
        assert why in line
    assert "0, 9" not in text and "###" not in text  # no bodies in logs
