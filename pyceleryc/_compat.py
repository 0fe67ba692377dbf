"""``install_as_celery``: let ``import celery`` mean this package (DESIGN 1)."""
from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ('install_as_celery',)

#: Served only where the real package is missing.
_BILLIARD = {
    'billiard': 'pyceleryc._billiard',
    'billiard.exceptions': 'pyceleryc._billiard',
    'billiard.einfo': 'pyceleryc.einfo',
    'billiard.pool': 'pyceleryc._billiard_pool',
}


class _Alias(Loader):
    """Loads a module by handing out the one that is called *target*."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.target)
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It was executed under its own name.  The import system has given it the spec of the
        # alias; with that it could not be reloaded, and relative imports would warn.
        module.__spec__ = self.own_spec


class _Finder(MetaPathFinder):
    """Finds modules of this package under other names."""

    def our_name(self, fullname: str) -> str | None:
        """Return the name that the module *fullname* has here, or None."""
        package, dot, rest = fullname.partition('.')
        return f'pyceleryc{dot}{rest}' if package == 'celery' else None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None,
    ) -> ModuleSpec | None:
        ours = self.our_name(fullname)
        if ours is None or importlib.util.find_spec(ours) is None:
            return None
        is_package = fullname in ('celery', 'billiard')
        return importlib.util.spec_from_loader(fullname, _Alias(ours), is_package=is_package)


class _BilliardFinder(_Finder):
    """The same for billiard, and for what pip knows of celery; it is asked last, so that real ones win."""

    def our_name(self, fullname: str) -> str | None:
        return _BILLIARD.get(fullname)

    def find_distributions(self, context: Any) -> list[Any]:
        """Answer ``importlib.metadata.version('celery')``: instrumentation asks for it before it does anything."""
        if context.name != 'celery':
            return []
        # Imported here: most programs never ask, and it takes as long as all the rest of this module.
        return [importlib.import_module('pyceleryc._metadata').CeleryDistribution()]


def install_as_celery() -> None:
    """Let ``celery`` and ``celery.*`` be the modules of this package: the same objects.

    Call it before anything imports celery.  It works where the real Celery is installed,
    too.  ``billiard.exceptions`` and ``billiard.einfo`` are served if billiard is missing.

    :raises RuntimeError: the real Celery was imported already.
    """
    known = sys.modules.get('celery')
    if known is not None and known is not sys.modules['pyceleryc']:
        raise RuntimeError(
            f'celery was already imported from {getattr(known, "__file__", "somewhere")}: '
            'call pyceleryc.install_as_celery() before the first "import celery"')
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        sys.meta_path.append(_BilliardFinder())
    importlib.import_module('celery')
