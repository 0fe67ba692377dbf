"""RabbitMQ is killed while 30,000 tasks are published: every task whose delay() returned is executed, none is lost.

    python tests/soak/soak_broker_killed.py [TASKS]

The same with Celery, as it is by default, for comparison: it loses what was on its way.
"""

from __future__ import annotations

import sys
import tempfile
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from broker_killed import kill_while_publishing  # noqa: E402  after the path is set
from brokers import private_rabbitmq  # noqa: E402
from fleet import ours, theirs  # noqa: E402


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    lost = {}
    for side in (ours(), theirs()):
        with tempfile.TemporaryDirectory() as folder, private_rabbitmq() as server:
            lost[side.name] = kill_while_publishing(side, server, f"soak-{uuid.uuid4().hex[:8]}", count, Path(folder), 300)
    sys.exit(1 if lost["pyceleryc"] else 0)


if __name__ == "__main__":
    main()
