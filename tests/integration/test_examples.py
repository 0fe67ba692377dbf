"""The examples do what they say, as programs and as modules of a project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

OUTPUT = {
    "twitter": ["sent        5 tweets, numbers [1, 2, 3, 4, 5]",
                "timeline    ['tweet 0', 'tweet 1', 'tweet 2', 'tweet 3', 'tweet 4']",
                "by hand     {'author': 'george', 'tweets': 5}", "connected   once in each process"],
    "upload": ["directly    2 files", "progress    seen", "uploaded    20 files", "aborted     early"],
    "pages": ["stored      http://example.com/0", "stored      http://example.com/1", "stored      http://example.com/2",
              *(f"page        Page of http://example.com/{number}, 4 words" for number in range(3))],
    "blog": ["comment 1   of Ann: welcome, stored as welcome", "comment 2   of Bob: spam, stored as spam"],
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*OUTPUT, "running", "demo"}


@pytest.mark.parametrize("name", OUTPUT)
def test_example(name: str, tmp_path: Path) -> None:
    """Run from another directory: it finds its parts and leaves nothing behind."""
    done = subprocess.run([sys.executable, str(ROOT / "examples" / f"{name}.py")], cwd=tmp_path, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == OUTPUT[name]
    assert "ERROR" not in done.stderr
    assert list(tmp_path.iterdir()) == []


EAGER = """
from pyceleryc import install_as_celery
install_as_celery()
from examples import blog, pages, twitter, upload
for module in (blog, pages, twitter, upload):
    module.app.conf.task_always_eager = True
number, check = blog.add_comment({"name": "Bob", "email_address": "b@example.com", "comment": "cheap watches"}, "127.0.0.1")
print(check.get(), blog.Comment.objects.get(pk=number).is_spam)
print(pages.update_page_info("http://example.com").get())
print(twitter.send_twitter_status.apply(("george", "hello")).get(), twitter.refresh_timeline.apply(("george",)).get())
print(upload.upload_files(["a", "b"]))
try:
    blog.spam_filter(comment_id=99)
except blog.DoesNotExist as exc:
    print(repr(exc))
"""


def test_examples_without_a_worker(tmp_path: Path) -> None:
    """Imported, and run eagerly as a project's own tests do."""
    done = subprocess.run([sys.executable, "-c", EAGER], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=50, env={**os.environ, "PYTHONPATH": str(ROOT), "EXAMPLES_DATA": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "True True", "http://example.com", "1 ['hello']", "2", "DoesNotExist('comment 99')"]
