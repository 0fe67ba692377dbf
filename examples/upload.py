"""A task that tells how far it is, and can be asked to give up.

    python examples/upload.py
"""

from __future__ import annotations

import time
from typing import Any

if __name__ == "__main__":
    from running import prepare

    SCRATCH = prepare()

from celery import Celery
from celery.contrib.abortable import AbortableTask

from examples.running import demonstration, queue_url

app = Celery("examples.upload", broker=queue_url(), backend=queue_url())
SECONDS = 0.05  # for one file


@app.task(bind=True, base=AbortableTask)
def upload_files(self: Any, filenames: list[str]) -> int:
    """Returns how many it has uploaded. Called as a function it has no id under which to store a state."""
    for number, _ in enumerate(filenames):
        if not self.request.called_directly:
            if self.is_aborted():
                return number
            self.update_state(state="PROGRESS", meta={"current": number, "total": len(filenames)})
        time.sleep(SECONDS)
    return len(filenames)


def watch(result: Any) -> int:
    """Waits for it; how many different states of progress were seen."""
    seen = set()
    while not result.ready():
        if result.state == "PROGRESS" and isinstance(result.info, dict):
            seen.add(result.info["current"])
        time.sleep(SECONDS / 5)
    return len(seen)


def main() -> None:
    files = [f"file-{number}" for number in range(20)]
    print(f"directly    {upload_files(files[:2])} files")
    with demonstration("examples.upload"):
        result = upload_files.delay(files)
        steps = watch(result)
        print(f"progress    {'seen' if steps > 3 else f'only {steps} steps seen'}")
        print(f"uploaded    {result.get(timeout=20)} files")
        aborted = upload_files.delay(files * 100)
        while aborted.state == "PENDING":
            time.sleep(SECONDS / 5)
        while not aborted.ready():
            aborted.abort()  # again, for the task may have stored its progress over it just then
            time.sleep(SECONDS * 2)
        print(f"aborted     {'early' if aborted.get() < 200 else 'too late'}")


if __name__ == "__main__":
    main()
