"""``python -m pyceleryc`` and the program ``pyceleryc``."""
from __future__ import annotations

import sys

from pyceleryc import install_as_celery
from pyceleryc.bin.celery import main as command

__all__ = ('main',)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Projects may say ``import celery``: the alias is there before any of them is imported.
    """
    install_as_celery()
    return int(command(args=argv, prog_name='pyceleryc', standalone_mode=True) or 0)


if __name__ == '__main__':
    sys.exit(main())
