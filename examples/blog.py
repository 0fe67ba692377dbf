"""The comments of a blog, checked for spam in the background so that who writes one need not wait.

The model does what Django's would: objects.get(pk=…), objects.create(…), save(). The task is given the comment's id and not the
comment, which may have changed when the task runs.

    python examples/blog.py
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

if __name__ == "__main__":
    from running import prepare

    SCRATCH = prepare()

from celery import Celery
from celery.utils.log import get_task_logger

from examples.running import data_directory, demonstration, queue_url

app = Celery("examples.blog", broker=queue_url(), backend=queue_url())
logger = get_task_logger(__name__)
COLUMNS = "name, email_address, comment, is_spam"


# ---- models.py ------------------------------------------------------------------------------------------------------

class DoesNotExist(LookupError):
    """There is no such comment."""


class Comments:
    """The model's manager."""

    def connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(data_directory() / "blog.sqlite", timeout=10, isolation_level=None)
        db.execute(f"CREATE TABLE IF NOT EXISTS comments (id INTEGER PRIMARY KEY, {COLUMNS})")
        return db

    def get(self, pk: int) -> Comment:
        row = self.connect().execute(f"SELECT id, {COLUMNS} FROM comments WHERE id = ?", (pk,)).fetchone()
        if row is None:
            raise DoesNotExist(f"comment {pk}")
        return Comment(*row[:4], is_spam=bool(row[4]))

    def create(self, name: str, email_address: str, comment: str) -> Comment:
        values = (name, email_address, comment, False)
        cursor = self.connect().execute(f"INSERT INTO comments ({COLUMNS}) VALUES (?, ?, ?, ?)", values)
        return Comment(int(cursor.lastrowid or 0), name, email_address, comment)


@dataclass
class Comment:
    id: int
    name: str
    email_address: str
    comment: str
    is_spam: bool = False

    def save(self) -> None:
        self.objects.connect().execute("UPDATE comments SET is_spam = ? WHERE id = ?", (self.is_spam, self.id))


Comment.objects = Comments()  # type: ignore[attr-defined]


# ---- tasks.py -------------------------------------------------------------------------------------------------------

class Akismet:
    """A service that knows spam, as far as an example needs one."""

    def __init__(self, key: str, blog_url: str) -> None:
        self.key = key
        self.blog_url = blog_url

    def verify_key(self) -> bool:
        return bool(self.key)

    def comment_check(self, user_ip: str | None, comment_content: str, comment_author: str, comment_author_email: str) -> bool:
        return "cheap watches" in comment_content.lower()


@app.task
def spam_filter(comment_id: int, remote_addr: str | None = None) -> bool:
    """Marks the comment if it is spam; returns whether it is."""
    logger.info("Running spam filter for comment %s", comment_id)
    comment = Comment.objects.get(pk=comment_id)  # type: ignore[attr-defined]
    akismet = Akismet("key", "http://example.com")
    if not akismet.verify_key():
        raise ValueError("Invalid AKISMET_KEY")
    is_spam = akismet.comment_check(user_ip=remote_addr, comment_content=comment.comment, comment_author=comment.name,
                                    comment_author_email=comment.email_address)
    if is_spam:
        comment.is_spam = True
        comment.save()
    return is_spam


# ---- views.py -------------------------------------------------------------------------------------------------------

def add_comment(form: dict[str, str], remote_addr: str) -> tuple[int, Any]:
    """Saves the comment and has it checked; its id, and the result of the check, which a web page would not wait for."""
    comment = Comment.objects.create(**form)  # type: ignore[attr-defined]
    return comment.id, spam_filter.delay(comment_id=comment.id, remote_addr=remote_addr)


def main() -> None:
    with demonstration("examples.blog"):
        for name, text in (("Ann", "A fine article."), ("Bob", "Buy CHEAP WATCHES here!")):
            number, check = add_comment({"name": name, "email_address": f"{name}@example.com", "comment": text}, "127.0.0.1")
            spam = check.get(timeout=20)
            stored = Comment.objects.get(pk=number)  # type: ignore[attr-defined]
            print(f"comment {number}   of {stored.name}: {'spam' if spam else 'welcome'}, stored as {'spam' if stored.is_spam else 'welcome'}")


if __name__ == "__main__":
    main()
