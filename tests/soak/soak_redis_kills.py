"""kill -9 of the whole worker, 40 times at random under 16,000 late-ack tasks on Redis: pyceleryc, then Celery beside it.

    python tests/soak/soak_redis_kills.py [--tasks 16000] [--kills 40] [--pool prefork] [--only pyceleryc]

pyceleryc runs with its defaults and must lose nothing, and run nothing again that was not in flight at a kill. Celery gets a
visibility_timeout of five seconds and a new worker every eight (it looks for abandoned messages when it starts, then rarely),
so that the experiment ends. The Redis is private: nobody else could have taken a message.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

import brokers  # noqa: E402  after the path is set
from fleet import Side, ours, theirs  # noqa: E402
from redis_kills import Experiment, Report  # noqa: E402
from resp import Redis  # noqa: E402

LONGEST = 0.004  # seconds a task takes at most
UP_TO = 0.6  # seconds until a worker is killed


def run(side: Side, tasks: int, kills: int, pool: str, restart: float | None, **options: object) -> Report:
    with brokers.private_redis({"save": "", "appendonly": "no"}) as server, tempfile.TemporaryDirectory() as directory:
        marks = Path(directory) / "marks"
        marks.touch()
        env = side.env(server.url, None, f"kills-{uuid.uuid4().hex[:8]}", FLEET_MARKS=str(marks),
                       FLEET_OPTIONS=json.dumps(options))
        redis = Redis(server.url, 0)
        report = Experiment(side, env, redis, marks, pool=pool).run(tasks, kills, LONGEST, UP_TO, 180, restart)
        print(f"{side.name}: {report}", flush=True)
        print(f"    keys left: {sorted(redis('KEYS', '*'))}")
        redis.close()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=16000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--pool", default="prefork", choices=["prefork", "threads", "solo"])
    parser.add_argument("--only", choices=["pyceleryc", "celery"])
    given = parser.parse_args()
    if given.only != "celery":
        report = run(ours(), given.tasks, given.kills, given.pool, None)
        if report.lost or report.beyond:
            sys.exit(f"lost {report.lost}; run again without having been in flight: {report.beyond[:20]}")
    if given.only != "pyceleryc":
        run(theirs(), given.tasks, given.kills, given.pool, 8.0, visibility_timeout=5)


if __name__ == "__main__":
    main()
