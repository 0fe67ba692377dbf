"""What went wrong, in a form that survives pickling (T-319): served as `billiard.einfo` where billiard is absent."""

from __future__ import annotations

import sys
import traceback as tracebacks
from types import TracebackType
from typing import Any

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class ExceptionInfo:
    """An exception with the text of its traceback.

    Parameters: `exc_info`, a triple as sys.exc_info() gives (default: the exception being handled);
    `internal`, true when the failure is ours and not the task's.
    Attributes: `type`, `exception`, `traceback` (str), `internal`, `exc_info`.
    """

    def __init__(self, exc_info: ExcInfo | None = None, internal: bool = False) -> None:
        kind, exception, trace = exc_info or sys.exc_info()
        self.type: type[BaseException] | None = kind
        self.exception: BaseException | None = exception
        self.traceback: str = "".join(tracebacks.format_exception(kind, exception, trace))
        self.internal = internal
        self.tb: TracebackType | None = trace

    @classmethod
    def of(cls, exc: BaseException, internal: bool = False) -> ExceptionInfo:
        return cls((type(exc), exc, exc.__traceback__), internal)

    @property
    def exc_info(self) -> tuple[Any, Any, Any]:
        return self.type, self.exception, self.tb

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "tb": None}

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"


class ExceptionWithTraceback(Exception):
    """An exception whose traceback text travels with it as its cause (name known from billiard.einfo)."""

    def __init__(self, exc: BaseException, tb: str = "") -> None:
        super().__init__(exc, tb)
        self.exc = exc
        self.tb = tb
