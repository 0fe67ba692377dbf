"""Timelines: a class that opens its database once in each process, automatic retries, retries by hand, results stored by hand.

    python examples/twitter.py
"""

from __future__ import annotations

import random
import sqlite3
from typing import Any

if __name__ == "__main__":
    from running import prepare

    SCRATCH = prepare()

from celery import Celery, Task, states
from celery.exceptions import Ignore

from examples.running import data_directory, demonstration, queue_url

app = Celery("examples.twitter", broker=queue_url(), backend=queue_url())
SCHEMA = "CREATE TABLE IF NOT EXISTS tweets (id INTEGER PRIMARY KEY, author TEXT, text TEXT)"


class FailWhaleError(Exception):
    """The service is over capacity."""


class DatabaseTask(Task):
    """Base of tasks that use the database: connected at the first use, then kept, in each process."""

    abstract = True
    _db: sqlite3.Connection | None = None

    @property
    def db(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(data_directory() / "tweets.sqlite", timeout=10, isolation_level=None)
            self._db.execute(SCHEMA)
        return self._db


def over_capacity(retries: int) -> bool:
    """The service fails the first time, and later now and then."""
    return retries == 0 or random.random() < 0.1


@app.task(bind=True, base=DatabaseTask, max_retries=None, default_retry_delay=30 * 60)
def send_twitter_status(self: Any, author: str, tweet: str) -> int:
    """Retries by hand: how long to wait is decided here, not by the task's default."""
    try:
        if over_capacity(self.request.retries):
            raise FailWhaleError("try again later")
    except FailWhaleError as exc:
        raise self.retry(exc=exc, countdown=0.1) from exc
    return int(self.db.execute("INSERT INTO tweets (author, text) VALUES (?, ?)", (author, tweet)).lastrowid)


@app.task(bind=True, base=DatabaseTask, autoretry_for=(FailWhaleError,), retry_kwargs={"max_retries": 50, "countdown": 0.1})
def refresh_timeline(self: Any, author: str) -> list[str]:
    """Retried by itself whenever the service is over capacity."""
    if over_capacity(self.request.retries):
        raise FailWhaleError("try again later")
    return [text for text, in self.db.execute("SELECT text FROM tweets WHERE author = ? ORDER BY id", (author,))]


@app.task(bind=True, base=DatabaseTask)
def get_tweets(self: Any, author: str) -> None:
    """Stores its result itself, and tells the worker to store nothing."""
    count = self.db.execute("SELECT count(*) FROM tweets WHERE author = ?", (author,)).fetchone()[0]
    if not self.request.called_directly:
        self.update_state(state=states.SUCCESS, meta={"author": author, "tweets": count})
    raise Ignore


@app.task(base=DatabaseTask)
def connections() -> int:
    """The identity of this process's connection: the same in every call."""
    return id(connections.db)


def main() -> None:
    with demonstration("examples.twitter"):
        sent = [send_twitter_status.delay("george", f"tweet {number}") for number in range(5)]
        ids = sorted(result.get(timeout=20) for result in sent)
        print(f"sent        {len(ids)} tweets, numbers {ids}")
        print(f"timeline    {sorted(refresh_timeline.delay('george').get(timeout=20))}")
        print(f"by hand     {get_tweets.delay('george').get(timeout=20)}")
        kept = {result.get(timeout=20) for result in [connections.delay() for _ in range(20)]}
        print(f"connected   {'once' if len(kept) <= 2 else 'again and again'} in each process")


if __name__ == "__main__":
    main()
