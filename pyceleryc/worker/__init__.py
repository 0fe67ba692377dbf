"""The worker: from settings to the machine.

Commands that talk to workers import modules of this package, too; what a worker consists of they do not need.
"""
from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyceleryc.worker.worker import WorkController

__all__ = ("WorkController",)


def __getattr__(name: str) -> Any:
    if name == "WorkController":
        value = import_module(f"{__name__}.worker").WorkController
    elif not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        value = import_module(f"{__name__}.{name}")  # "celery.worker.state" after "import celery.worker": Celery has imported it by then
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
