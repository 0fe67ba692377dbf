"""The worker: from settings to the machine."""
from __future__ import annotations

from pyceleryc.worker.worker import WorkController

__all__ = ("WorkController",)
