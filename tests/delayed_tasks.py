"""Tasks with a quorum queue behind a topic exchange: both implementations run this module (see fleet.py)."""
import os

from celery import Celery
from kombu import Exchange, Queue

queue = os.environ["FLEET_QUEUE"]
app = Celery("delayed", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.task_queues = [Queue(queue, Exchange(queue, type="topic"), routing_key=queue, queue_arguments={"x-queue-type": "quorum"})]
app.conf.update(task_default_queue=queue, control_exchange=f"{queue}-control", event_exchange=f"{queue}-events")


@app.task(bind=True, max_retries=1)
def where(self, countdown=None):
    """From which exchanges it came: the first run's, and that of its retry after `countdown` seconds."""
    exchange = self.request.delivery_info["exchange"]
    if countdown is None:
        return [exchange]
    if not self.request.retries:
        raise self.retry(countdown=countdown)
    return [exchange, self.request.retries]
