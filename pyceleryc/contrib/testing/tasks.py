"""The task that tells whether a worker is there."""
from __future__ import annotations

from pyceleryc import shared_task

__all__ = ('ping',)


@shared_task(name='celery.ping')
def ping() -> str:
    """Return ``pong``."""
    return 'pong'
