"""What consumes messages, and the steps of that."""
from __future__ import annotations

from pyceleryc.worker.consumer.agent import Agent
from pyceleryc.worker.consumer.connection import Connection
from pyceleryc.worker.consumer.consumer import Consumer
from pyceleryc.worker.consumer.control import Control
from pyceleryc.worker.consumer.delayed_delivery import DelayedDelivery
from pyceleryc.worker.consumer.events import Events
from pyceleryc.worker.consumer.gossip import Gossip
from pyceleryc.worker.consumer.heart import Heart
from pyceleryc.worker.consumer.mingle import Mingle
from pyceleryc.worker.consumer.tasks import Tasks

__all__ = (
    'Consumer', 'Agent', 'Connection', 'Control', 'DelayedDelivery', 'Events', 'Gossip', 'Heart', 'Mingle', 'Tasks',
)
