"""The tests of tests/rows on the real Celery: what fails there must be a decision of ours (docs/DIFFERENCES.md)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]


def expected_differences() -> set[str]:
    """Names of tests in docs/DIFFERENCES.md, written as `test_name`."""
    return set(re.findall(r"`(test_\w+)", (ROOT / "docs" / "DIFFERENCES.md").read_text()))


@pytest.mark.limit(600)
def test_rows_on_celery(peer_python: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    subprocess.run([peer_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "tests/rows"],
                   cwd=ROOT, env={**os.environ, "ROWS_IMPL": "celery", "C_FORCE_ROOT": "1"}, stdout=subprocess.PIPE, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {str(case.get("name")).partition("[")[0] for case in cases
              if case.find("failure") is not None or case.find("error") is not None}
    assert len(cases) > 0
    assert failed == expected_differences()
