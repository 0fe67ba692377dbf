"""Prints, as JSON, what an implementation says about many crontabs over two years; the same questions for each (see the test).

Usage: crontab_simulation.py pyceleryc|celery
"""

from __future__ import annotations

import json
import random
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

if sys.argv[1] == "pyceleryc":
    import pyceleryc

    pyceleryc.install_as_celery()

from celery import Celery
from celery.schedules import crontab

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]
CRONTABS, STEPS = 400, 50
START = datetime(2024, 1, 1, tzinfo=timezone.utc)
LENGTH = 2 * 366 * 86400
MINUTES = ["*", "0", "30", "*/5", "*/15", "*/7", "1,31", "10-20", "50-10/5", "59"]
HOURS = ["*", "*", "0", "1", "2", "3", "4", "*/2", "*/6", "8-17", "22-3", "1,2,3", "23"]
WEEKDAYS = ["*", "*", "*", "mon-fri", "sun", "sat-mon", "1,3", "*/2", "fri"]
DAYS = ["*", "*", "*", "1", "31", "29", "1-7", "*/10", "15,30", "28-2"]
MONTHS = ["*", "*", "*", "*/3", "2", "mar", "oct-nov", "jan,jul", "11-2"]


def questions(random_: random.Random):
    """Per crontab: its fields and, as seconds from START, moments of a last run with delays until it is looked at."""
    for _ in range(CRONTABS):
        fields = [random_.choice(kind) for kind in (MINUTES, HOURS, WEEKDAYS, DAYS, MONTHS)]
        if fields[3] == "31" and fields[4] == "2":
            fields[3] = "*"
        zone = random_.choice(ZONES)
        asked = [(random_.randrange(LENGTH), random_.choice([1, 40, 3599, 7200, 86400 * 3])) for _ in range(STEPS)]
        yield fields, zone, asked


def main() -> None:
    clock = [START]
    apps = {}
    for zone in ZONES:
        apps[zone] = Celery(zone, broker="memory://", set_as_current=False)
        apps[zone].conf.timezone = zone
    answers = []
    for fields, zone, asked in questions(random.Random(20240331)):
        cron = crontab(*fields, nowfun=lambda zone=zone: clock[0].astimezone(ZoneInfo(zone)), app=apps[zone])
        for second, delay in asked:
            last = (START + timedelta(seconds=second)).astimezone(ZoneInfo(zone))
            clock[0] = last
            remaining = cron.remaining_estimate(last).total_seconds()
            clock[0] = last.astimezone(timezone.utc) + timedelta(seconds=delay)
            due, pause = cron.is_due(last)
            answers.append([" ".join(fields), zone, second, delay, remaining, due, pause])
    print(json.dumps(answers))


main()
