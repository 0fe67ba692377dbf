"""The tests of tests/rows on the real Celery: what fails there must be a decision of ours (docs/DIFFERENCES.md).

    python tests/soak/soak_rows_on_celery.py         # about five minutes: Celery's workers start slowly
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]


def expected_differences() -> set[str]:
    """Names of tests in docs/DIFFERENCES.md, written as `test_name`."""
    return set(re.findall(r"`(test_\w+)", (ROOT / "docs" / "DIFFERENCES.md").read_text()))


def failing_on_celery(report: Path) -> set[str]:
    peer = subprocess.run([str(ROOT / "tools" / "peer.sh")], stdout=subprocess.PIPE, check=True, text=True)
    python = peer.stdout.strip().splitlines()[-1]
    subprocess.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", f"--junitxml={report}", "tests/rows"],
                   cwd=ROOT, env={**os.environ, "ROWS_IMPL": "celery", "C_FORCE_ROOT": "1"}, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))
    if not cases:
        sys.exit("no test ran")
    return {str(case.get("name")).partition("[")[0] for case in cases
            if case.find("failure") is not None or case.find("error") is not None}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        failed = failing_on_celery(Path(directory) / "report.xml")
    expected = expected_differences()
    print(f"{len(failed)} tests differ on Celery, {len(expected)} are listed")
    if failed != expected:
        sys.exit(f"not listed: {sorted(failed - expected)}; listed, but the same on Celery: {sorted(expected - failed)}")


if __name__ == "__main__":
    main()
