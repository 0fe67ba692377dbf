"""Load of the machine and room on its disks."""
from __future__ import annotations

import os
from functools import cached_property

__all__ = ('load_average', 'df')


def load_average() -> tuple[float, ...]:
    """Return the load of the last 1, 5 and 15 minutes, rounded up to 0.01."""
    return tuple(int(value * 100 + 0.999999) / 100 for value in os.getloadavg())


class df:  # the public name
    """Use of the file system that holds *path*."""

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        self.path = path

    @cached_property
    def stat(self) -> os.statvfs_result:
        """What the system says, asked once."""
        return os.statvfs(os.path.abspath(self.path))

    @property
    def total_blocks(self) -> float:
        """Size in KiB."""
        return self.stat.f_blocks * self.stat.f_frsize / 1024

    @property
    def available(self) -> int:
        """Blocks free for ordinary users."""
        return self.stat.f_bavail

    @property
    def capacity(self) -> int:
        """Percentage in use."""
        used = self.stat.f_blocks - self.stat.f_bfree
        room = used + self.stat.f_bavail
        return -(-100 * used // room) if room else 0
