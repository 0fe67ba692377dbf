"""django-celery-beat and celery-redbeat from PyPI, unchanged, as schedulers of `pyceleryc beat`.

Both depend on the distribution celery, so the throw-away environment has the real one, too; the command line must serve ours.
Needs PyPI, and Redis at PYCELERYC_TEST_REDIS or on the standard port.  Run: make soak
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REDIS = os.environ.get("PYCELERYC_TEST_REDIS", "redis://127.0.0.1:6379/0")
PREFIX = f"soak-{uuid.uuid4().hex[:10]}:"
PACKAGES = ["celery[redis]==5.6.*", "django-celery-beat>=2.8", "celery-redbeat>=2.3"]
SETTINGS = """
SECRET_KEY = "soak"
USE_TZ = True
INSTALLED_APPS = ["django_celery_beat"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.db"}}
CELERY_BROKER_URL = "sqlite:///tasks.db"
CELERY_BEAT_SCHEDULE = {"conf": {"task": "t", "schedule": 1.0}}
"""
DJANGO_APP = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
from celery import Celery
app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
"""
FILL = """
import django
django.setup()
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask
every = IntervalSchedule.objects.create(every=1, period="seconds")
PeriodicTask.objects.create(name="db", task="t", interval=every)
PeriodicTask.objects.create(name="cron", task="t", crontab=CrontabSchedule.objects.create(minute="*", timezone="Europe/Berlin"))
"""
COUNT = """
import django
django.setup()
from django_celery_beat.models import PeriodicTask
print(PeriodicTask.objects.get(name="db").total_run_count)
"""
REDBEAT_APP = f"""
from celery import Celery
app = Celery("proj", broker="sqlite:///tasks.db")
app.conf.update(redbeat_redis_url={REDIS!r}, redbeat_key_prefix={PREFIX!r}, redbeat_lock_timeout=20, beat_max_loop_interval=1)
app.conf.beat_schedule = {{"conf": {{"task": "t", "schedule": 1.0}}}}
"""
CLEAN = f"""
import redis
client = redis.Redis.from_url({REDIS!r})
for key in client.scan_iter({PREFIX!r} + "*"):
    client.delete(key)
"""


def run(python: Path, where: Path, *arguments: str) -> str:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{where}", "DJANGO_SETTINGS_MODULE": "settings"}
    return subprocess.run([str(python), *arguments], cwd=where, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def beat(python: Path, where: Path, scheduler: str, names: list[str]) -> None:
    """Runs beat until each of the entries was sent three times; it must end well on SIGTERM."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{where}"}
    log = where / f"{scheduler}.log"
    with log.open("wb") as out:
        process = subprocess.Popen([str(python), "-m", "pyceleryc", "-A", "proj", "beat", "-S", scheduler, "-l", "INFO"],
                                   cwd=where, env=env, stdout=out, stderr=out)
    deadline = time.monotonic() + 40
    try:
        while any(log.read_text().count(f"Sending due task {name} (t)") < 3 for name in names):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, log.read_text()
    finally:
        process.kill()
    assert "Traceback" not in log.read_text(), log.read_text()
    print(f"{scheduler}: sent by pyceleryc beat, ended well")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="soak-beat-") as directory:
        where = Path(directory)
        subprocess.run([sys.executable, "-m", "venv", str(where / "venv")], check=True)
        python = where / "venv" / "bin" / "python"
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES], check=True)
        (where / "settings.py").write_text(SETTINGS)
        (where / "proj.py").write_text(DJANGO_APP)
        run(python, where, "-m", "django", "migrate")
        run(python, where, "-c", FILL)
        beat(python, where, "django", ["db", "conf"])
        assert int(run(python, where, "-c", COUNT)) >= 3
        (where / "proj.py").write_text(REDBEAT_APP)
        try:
            beat(python, where, "redbeat.RedBeatScheduler", ["conf"])
        finally:
            run(python, where, "-c", CLEAN)


main()
