"""The loader of apps that are made in code."""
from __future__ import annotations

from pyceleryc.loaders.base import BaseLoader

__all__ = ('AppLoader',)


class AppLoader(BaseLoader):
    """Reads what the app is told to read, and nothing else."""
