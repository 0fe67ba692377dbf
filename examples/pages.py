"""Instead of tasks that wait for others: a chain, each task starting the next with its result.

    python examples/pages.py
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

if __name__ == "__main__":
    from running import prepare

    SCRATCH = prepare()

from celery import Celery

from examples.running import data_directory, demonstration, queue_url

app = Celery("examples.pages", broker=queue_url(), backend=queue_url())


def page_infos() -> sqlite3.Connection:
    db = sqlite3.connect(data_directory() / "pages.sqlite", timeout=10, isolation_level=None)
    db.execute("CREATE TABLE IF NOT EXISTS infos (url TEXT PRIMARY KEY, title TEXT, words INTEGER)")
    return db


@app.task()
def fetch_page(url: str) -> str:
    """Here the net is small."""
    return f"<title>Page of {url}</title><p>some words about {url}</p>"


@app.task()
def parse_page(page: str) -> dict[str, Any]:
    found = re.search(r"<title>(.*?)</title>", page)
    text = re.sub(r"<title>.*?</title>|<.*?>", " ", page)
    return {"title": found.group(1) if found else "", "words": len(text.split())}


@app.task()
def store_page_info(info: dict[str, Any], url: str) -> str:
    """The result of the task before comes first, then what was given."""
    with page_infos() as db:
        db.execute("INSERT OR REPLACE INTO infos VALUES (?, ?, ?)", (url, info["title"], info["words"]))
    return url


def update_page_info(url: str) -> Any:
    # fetch_page -> parse_page -> store_page_info
    chain = fetch_page.s(url) | parse_page.s() | store_page_info.s(url)
    return chain()


def main() -> None:
    with demonstration("examples.pages"):
        urls = [f"http://example.com/{number}" for number in range(3)]
        for result in [update_page_info(url) for url in urls]:
            print(f"stored      {result.get(timeout=20)}")
        for row in page_infos().execute("SELECT title, words FROM infos ORDER BY url"):
            print(f"page        {row[0]}, {row[1]} words")


if __name__ == "__main__":
    main()
