"""Loaders read the configuration and import the modules of tasks."""
from __future__ import annotations

from typing import Any

from pyceleryc.utils.imports import import_from_cwd, symbol_by_name

__all__ = ('get_loader_cls',)

LOADER_ALIASES = {
    'app': 'pyceleryc.loaders.app:AppLoader',
    'default': 'pyceleryc.loaders.default:Loader',
}


def get_loader_cls(loader: Any) -> Any:
    """Return the loader class called *loader* (an alias, a path or the class itself)."""
    return symbol_by_name(loader, LOADER_ALIASES, imp=import_from_cwd)
