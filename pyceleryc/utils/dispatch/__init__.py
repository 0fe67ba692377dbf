"""Observer pattern: see :class:`Signal`."""
from __future__ import annotations

from pyceleryc.utils.dispatch.signal import Signal

__all__ = ('Signal',)
