"""``rpc://`` results over Redis, between Celery and pyceleryc, both ways: messages in a list of the reply queue's name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brokers import private_redis
from fleet import Side, ours, theirs
from resp import Redis

pytestmark = pytest.mark.long

SCRIPT = """
seen = []
sent = [tasks.add.delay(i, i) for i in range(10)]
chained = (tasks.add.s(1, 1) | tasks.add.s(10)).delay()
failed = tasks.fail.delay('apple', 3)
result = [[each.get(timeout=20) for each in sent], chained.get(timeout=20), list(failed.get(timeout=20, propagate=False).args),
          tasks.flaky.delay(1).get(timeout=20, on_message=lambda meta: seen.append(meta['status'])), seen]
"""


@pytest.mark.parametrize(("client", "worker"), [(theirs, ours), (ours, theirs)], ids=["celery client, our worker", "our client, celery worker"])
def test_results_are_messages(client: Callable[[], Side], worker: Callable[[], Side]) -> None:
    with private_redis() as server:
        env = client().env(server.url, "rpc://", "mixed")
        with worker().worker(env):
            doubled, chained, failed, retried, seen = client().client(SCRIPT, env)
        assert doubled == [2 * i for i in range(10)]
        assert (chained, failed, retried, seen) == (12, ["apple", 3], 1, ["RETRY", "SUCCESS"])
        if client is ours:  # Celery's client gives results that it has read back to the list when it ends
            redis = Redis(server.url, 0)
            assert [key for key in redis("KEYS", "*") if "_kombu.binding" not in key] == []
            redis.close()
