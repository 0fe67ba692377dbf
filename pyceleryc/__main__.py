"""``python -m pyceleryc`` and the program ``pyceleryc``."""
from __future__ import annotations

import sys

from pyceleryc._ping import quick_ping

__all__ = ('main',)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Probes call ``ping`` every few seconds: it goes without all that the other commands need.
    Projects may say ``import celery``: the alias is there before any of them is imported.
    """
    code = quick_ping(sys.argv[1:] if argv is None else argv)
    if code is not None:
        return code
    from pyceleryc import install_as_celery  # not before it is known that they are needed
    from pyceleryc.bin.celery import main as command

    install_as_celery()
    return int(command(args=argv, prog_name='pyceleryc', standalone_mode=True) or 0)


if __name__ == '__main__':
    sys.exit(main())
