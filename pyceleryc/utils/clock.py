"""The logical clock of an app, in memory that the C core counts in, too."""
from __future__ import annotations

from array import array

from kombu.clocks import LamportClock

__all__ = ('LogicalClock',)

#: Of these there is one per event or message; more than that nobody has ever sent.
LATEST = 2**53


class LogicalClock(LamportClock):
    """Kombu's clock; :attr:`cell` is where its value lives, 8 bytes."""

    def __init__(self, initial_value: int = 0) -> None:
        self.cell = array('Q', [0])
        super().__init__(initial_value)

    @property
    def value(self) -> int:
        """The time."""
        return self.cell[0]

    @value.setter
    def value(self, value: int) -> None:
        self.cell[0] = max(int(value), 0)

    def adjust(self, other: int) -> int:
        """Take over the time of somebody else's message if it is later.

        :raises ValueError: no clock can have come that far; ours would never find back.
        """
        if other > LATEST:
            raise ValueError(f'{other} is no logical time')
        return super().adjust(other)
