"""django-celery-results (PyPI) as the result store of a worker and a client: its entry points, rows, chords.

Run by soak_stores.sh, in an environment where the distribution `celery` is installed, too, as that package demands it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from sqlalchemy.engine import make_url  # noqa: E402

import brokers  # noqa: E402
import stores  # noqa: E402
from fleet import ours  # noqa: E402

PROJECT = '''
import json
import os
import django
from django.conf import settings

directory = os.environ["FLEET_DIRECTORY"]
settings.configure(
    INSTALLED_APPS=["django_celery_results"], USE_TZ=True, SECRET_KEY="x",
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **json.loads(os.environ["FLEET_DATABASE"])}},
    CACHES={"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": f"{directory}/cache"}})
django.setup()

from celery import Celery

app = Celery("project", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(task_default_queue=os.environ["FLEET_QUEUE"], result_extended=True)


@app.task
def add(x, y):
    return x + y


@app.task
def fail(item):
    raise KeyError(item)


@app.task
def total(numbers):
    return sum(numbers)
'''
SCRIPT = """
from celery import chord, group
first = tasks.add.delay(2, 3)
bad = tasks.fail.delay("lost")
result = [type(tasks.app.backend).__module__, first.get(timeout=30), repr(bad.get(timeout=30, propagate=False)), bad.state]
"""
DATABASE = """
result.append(chord([tasks.add.s(i, i) for i in range(5)])(tasks.total.s()).get(timeout=60))
from django_celery_results.models import TaskResult
row = TaskResult.objects.get(task_id=first.id)
result.append([row.status, row.task_name, row.result, row.worker is not None])
tasks.app.backend.cleanup()
first.forget()
result.append(TaskResult.objects.filter(task_id=first.id).count())
"""
COMMON = [5, "KeyError('lost')", "FAILURE"]
EXPECTED = {
    "django-db": ["django_celery_results.backends.database", *COMMON, 20, ["SUCCESS", "project_tasks.add", "5", True], 0],
    "django-cache": ["django_celery_results.backends.cache", *COMMON],
}


def main() -> None:
    side = ours()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        broker = stack.enter_context(brokers.amqp_server())
        url = make_url(stack.enter_context(stores.postgresql_database()))
        database = {"NAME": url.database, "HOST": url.host, "PORT": url.port, "USER": url.username}
        Path(directory, "project_tasks.py").write_text(PROJECT)
        for backend, expected in EXPECTED.items():
            queue = f"django-{uuid.uuid4().hex[:10]}"
            env = side.env(broker, backend, queue, FLEET_APP="project_tasks", FLEET_DIRECTORY=directory, FLEET_DATABASE=json.dumps(database),
                           PYTHONPATH=os.pathsep.join([directory, str(HERE.parents[1])]))
            side.client("from django.core.management import call_command\ncall_command('migrate', verbosity=0)\nresult = None", env)
            with side.worker(env, "-c", "2") as worker:
                try:
                    answer = side.client(SCRIPT + (DATABASE if backend == "django-db" else ""), env)
                except Exception:
                    print(worker.text()[-4000:])
                    raise
            brokers.Connection(broker).default_channel.queue_delete(queue)
            if answer != expected:
                sys.exit(f"{backend}: {answer}, not {expected}")
            print(f"{backend}: good")


if __name__ == "__main__":
    main()
