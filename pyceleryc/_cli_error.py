"""The one exception that needs click, apart so that others need not import it."""
from __future__ import annotations

from click import ClickException


class CeleryCommandException(ClickException):
    """A command failed: click prints *message* and exits with *exit_code*."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


CeleryCommandException.__module__ = 'pyceleryc.exceptions'
