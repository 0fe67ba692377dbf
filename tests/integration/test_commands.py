"""What operators try on the command line: options, variables, and what is said when something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import Start, project, start  # noqa: F401  fixtures

#: In the place of a package that is not installed.
MISSING = "raise ModuleNotFoundError(\"No module named 'redis'\", name='redis')\n"


@pytest.mark.parametrize("arguments", [["worker"], ["status"], ["events", "--dump"], ["list", "bindings"]])
def test_redis_without_its_client(start: Start, project: Path, arguments: list[str]) -> None:
    (project / "redis.py").write_text(MISSING)
    command = start("-A", "proj", *arguments, BROKER="redis://127.0.0.1:1/0", BACKEND="disabled://")
    assert command.end() == 1
    assert 'pip install "pyceleryc[redis]"' in command.output and "Traceback" not in command.output
