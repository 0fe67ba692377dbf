"""Tasks of a worker that accepts every serializer, one of the project's own, and has two queues."""

from __future__ import annotations

import codecs
import os

from celery import Celery
from kombu import compression, serialization

REVERSED = "application/x-row-reversed"


def reverse(value):
    import json

    return json.dumps(value)[::-1]


def restore(text):
    import json

    return json.loads((text.decode() if isinstance(text, bytes) else text)[::-1])


serialization.register("row-reversed", reverse, restore, content_type=REVERSED, content_encoding="utf-8")
compression.register(lambda data: codecs.encode(data, "hex"), lambda data: codecs.decode(data, "hex"),
                     "application/x-row-hex", aliases=["row-hex"])

app = Celery("formats", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(task_default_queue=os.environ["FLEET_QUEUE"], result_expires=600, broker_connection_retry_on_startup=True,
                accept_content=["json", "pickle", "yaml", "application/x-msgpack", "row-reversed"],
                result_extended=True)


@app.task
def kinds(*args, **kwargs):
    return [[type(arg).__name__ for arg in args], {str(name): type(value).__name__ for name, value in kwargs.items()}]


@app.task
def echo(value):
    return value


@app.task
def unencodable():
    return object()


@app.task(bind=True)
def retried(self, value, queue):
    raise self.retry(countdown=0, queue=queue)


@app.task(bind=True)
def where(self):
    return [self.request.delivery_info["routing_key"], self.request.delivery_info["exchange"]]


@app.task(ignore_result=True)
def ignored():
    return "ignored"


@app.task
def kept():
    return "kept"
