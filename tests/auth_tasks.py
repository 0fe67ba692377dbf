"""Tasks whose messages are signed: one module for both implementations, written for Celery.

AUTH_DIR has the signers' files, AUTH_NAME says who this process is, AUTH_TRUSTED is the folder of certificates.
"""

from __future__ import annotations

import os

from celery import Celery

_dir, _name = os.environ["AUTH_DIR"], os.environ["AUTH_NAME"]

app = Celery("auth", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(
    task_default_queue=os.environ["FLEET_QUEUE"], task_serializer="auth", accept_content=["auth"], result_serializer="auth",
    event_serializer="auth", result_expires=60, security_key=f"{_dir}/{_name}.key",
    security_certificate=f"{_dir}/{_name}.pem", security_cert_store=os.environ["AUTH_TRUSTED"],
    broker_connection_retry_on_startup=True, worker_hijack_root_logger=True)
app.setup_security()


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fail():
    raise KeyError("no")
