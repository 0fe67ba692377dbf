"""Clients and workers of both implementations on shared result stores: results, errors, groups, chords.

Run by soak_stores.sh; PEER_PYTHON is the interpreter of an environment with Celery and the client libraries.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import brokers  # noqa: E402
import stores  # noqa: E402
from fleet import Side, ours  # noqa: E402

SCRIPT = """
from celery import chord, group
sent = [tasks.add.delay(i, i) for i in range(20)]
values = [r.get(timeout=60) for r in sent]
bad = tasks.fail.delay("lost")
try:
    bad.get(timeout=60)
except KeyError as exc:
    values.append([exc.args, bad.state])
values.append(group([tasks.add.s(i, 1) for i in range(5)])().get(timeout=60))
values.append(chord([tasks.add.s(i, i) for i in range(5)])(tasks.total.s()).get(timeout=90))
try:
    chord([tasks.add.s(1, 1), tasks.fail.s("part")])(tasks.total.s()).get(timeout=90)
except Exception as exc:
    values.append("part" in str(exc))  # a ChordError, or the member's own error where that is seen first
saved = group([tasks.add.s(1, 1)])()
saved.save()
restored = tasks.app.GroupResult.restore(saved.id)
if isinstance(restored, list):  # so does Celery where results are in MongoDB
    restored = tasks.app.GroupResult(saved.id, restored)
values.append(restored.get(timeout=60))
sent[0].forget()
values.append(sent[0].state)
result = [values, sent[1].name, sent[1].args]
"""
EXPECTED = [[*(2 * i for i in range(20)), [["lost", 3], "FAILURE"], [1, 2, 3, 4, 5], 20, True, [2], "PENDING"],
            "shared_tasks.add", [1, 1]]


def check(store: str, url: str, settings: dict[str, Any], broker: str) -> None:
    mine, peer = ours(), Side("celery", os.environ["PEER_PYTHON"])
    for client, workers in ((mine, [peer]), (peer, [mine]), (mine, [mine, peer]), (peer, [mine, peer])):
        queue = f"shared-{uuid.uuid4().hex[:10]}"
        start = time.monotonic()
        env = client.env(broker, url, queue, FLEET_APP="shared_tasks", FLEET_SETTINGS=json.dumps(settings),
                         PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parents[1])]))
        with ExitStack() as stack:
            running = [stack.enter_context(worker.worker(env, "-c", "2")) for worker in workers]
            try:
                answer = client.client(SCRIPT, env, timeout=300)
            except Exception:
                print("\n".join(worker.text()[-3000:] for worker in running))
                raise
        brokers.Connection(broker).default_channel.queue_delete(queue)
        names = " and ".join(worker.name for worker in workers)
        if answer != EXPECTED:
            sys.exit(f"{store}: {client.name} client, {names}: {answer}")
        print(f"{store}: {client.name} client, {names} worker: good, {time.monotonic() - start:.1f} s", flush=True)


def main() -> None:
    with ExitStack() as stack:
        enter = stack.enter_context
        aws = functools.cache(lambda: stores.aws_settings(enter(stores.private(stores.PrivateMoto)).url))
        places: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
            "db+postgresql": lambda: (f"db+{enter(stores.postgresql_database())}", {}),
            "db+mysql": lambda: (f"db+{enter(stores.mariadb_database())}", {}),
            "memcached": lambda: (enter(stores.private_memcached()).url, {}),
            "s3": lambda: ("s3://", aws()),
            "dynamodb": lambda: ("dynamodb://key:s3cret@us-east-1/fleets", {"dynamodb_endpoint_url": aws()["dynamodb_endpoint_url"]}),
            "mongodb": lambda: (enter(stores.private(stores.PrivateMongoDB)).url, {}),
            "couchdb": lambda: (enter(stores.couchdb_database()), {}),
            "gs": lambda: (enter(stores.google()), {}),
            "azureblockblob": lambda: (enter(stores.private(stores.PrivateAzurite)).url, {}),
        }
        broker = enter(brokers.amqp_server())
        for store in sys.argv[1:] or places:
            check(store, *places[store](), broker)


if __name__ == "__main__":
    main()
