"""What ``importlib.metadata`` is told about celery where this package stands for it."""
from __future__ import annotations

from importlib.metadata import Distribution
from os import PathLike
from pathlib import Path

from pyceleryc import __version__

__all__ = ('CeleryDistribution',)


class CeleryDistribution(Distribution):
    """Name and version; no files, no entry points."""

    def read_text(self, filename: str) -> str | None:
        """Return the text of a metadata file, None if there is no such file."""
        if filename != 'METADATA':
            return None
        return f'Metadata-Version: 2.1\nName: celery\nVersion: {__version__}\nSummary: provided by pyceleryc\n'

    def locate_file(self, path: str | PathLike[str]) -> Path:
        """Return where a file of the distribution would be."""
        return Path(__file__).parent / path
