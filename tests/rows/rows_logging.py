"""A project that logs in its own way: for the workers of test_t_logging.py and test_t_arguments.py."""

from __future__ import annotations

import json
import logging
import os

from celery import Celery
from celery.signals import after_setup_logger, after_setup_task_logger

app = Celery("rows_logging", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(
    task_default_queue=os.environ["FLEET_QUEUE"], result_expires=600, broker_connection_retry_on_startup=True,
    worker_redirect_stdouts=False, task_send_sent_event="ROWS_EVENTS" in os.environ,
)

own = logging.getLogger("a_project_of_ours")
own.addHandler(logging.StreamHandler())
own.setLevel(logging.ERROR)
own.propagate = False


class DataHandler(logging.Handler):
    """Writes `record.data` of all records that have it as lines of JSON (T-101)."""

    def emit(self, record):
        if hasattr(record, "data"):
            line = json.dumps({"logger": record.name, "message": record.getMessage(), "data": record.data}, default=str)
            with open(os.environ["ROWS_DATA"], "a") as file:
                file.write(line + "\n")


@after_setup_logger.connect
def add_data_handler(logger, loglevel, **kwargs):
    if "ROWS_DATA" in os.environ:
        logger.addHandler(DataHandler(level=loglevel))


@after_setup_task_logger.connect
def tell(logger, **kwargs):
    logger.warning("task logger is %s, propagates: %s", logger.name, bool(logger.propagate))


@app.task
def charge(account, card, amount=0):
    return len(card)


@app.task
def fails(word):
    raise KeyError(word)


@app.task
def prints(word):
    print(word, flush=True)


@app.task
def own_logger():
    return [[type(one).__name__ for one in own.handlers], own.level, own.propagate]
