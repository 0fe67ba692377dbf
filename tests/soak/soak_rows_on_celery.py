"""The tests of tests/rows on the real Celery: what fails there must be a decision of ours (docs/DIFFERENCES.md).

    python tests/soak/soak_rows_on_celery.py         # about six minutes: Celery's workers start slowly
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]


def expected_differences() -> set[str]:
    """Names of tests in the first table of docs/DIFFERENCES.md."""
    first = (ROOT / "docs" / "DIFFERENCES.md").read_text().partition("\n## ")[0]
    return set(re.findall(r"^\| `(test_\w+)", first, re.MULTILINE))


def failing_in(python: str, file: Path, directory: str) -> set[str]:
    report = Path(directory) / f"{file.stem}.xml"
    subprocess.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", f"--junitxml={report}", str(file)],
                   cwd=ROOT, env={**os.environ, "ROWS_IMPL": "celery", "C_FORCE_ROOT": "1"}, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))
    if not cases:
        sys.exit(f"no test of {file.name} ran")
    return {str(case.get("name")).partition("[")[0] for case in cases
            if case.find("failure") is not None or case.find("error") is not None}


def failing_on_celery() -> set[str]:
    """Each file in a process of its own: what one leaves behind in Celery's modules is not the next one's business."""
    peer = subprocess.run([str(ROOT / "tools" / "peer.sh")], stdout=subprocess.PIPE, check=True, text=True)
    python = peer.stdout.strip().splitlines()[-1]
    files = sorted((ROOT / "tests" / "rows").glob("test_*.py"))
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(2) as pool:
        return set().union(*pool.map(lambda file: failing_in(python, file, directory), files))


def main() -> None:
    failed = failing_on_celery()
    expected = expected_differences()
    print(f"{len(failed)} tests differ on Celery, {len(expected)} are listed")
    if failed != expected:
        sys.exit(f"not listed: {sorted(failed - expected)}; listed, but the same on Celery: {sorted(expected - failed)}")


if __name__ == "__main__":
    main()
