"""Lists the rows of the guides (tests/rows/rows.txt) that no test names: `python tools/rows.py [T|C]`; exit code 1 if any.

A test names a row by its id in the name (test_t040_…, test_c015_c016_…) or in a docstring (T-040, or T-040..T-045).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def wanted(prefix: str) -> dict[str, str]:
    rows = {}
    for line in (ROOT / "tests" / "rows" / "rows.txt").read_text().splitlines():
        row, _, subject = line.partition(" ")
        if row.startswith(prefix or ("T-", "C-")) and " -- " not in subject:
            rows[row] = subject
    return rows


def named() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        for name in re.findall(r"def test_((?:[tc]\d{3}_)+)", text):
            found.update(f"{part[0].upper()}-{part[1:]}" for part in name.strip("_").split("_"))
        for letter, first, last in re.findall(r"\b([TC])-(\d{3})\.\.(?:[TC]-)?(\d{3})", text):
            found.update(f"{letter}-{number:03}" for number in range(int(first), int(last) + 1))
        found.update(re.findall(r"\b[TC]-\d{3}\b", text))
    return found


def main() -> int:
    seen = named()
    missing = {row: subject for row, subject in wanted(sys.argv[1] if len(sys.argv) > 1 else "").items() if row not in seen}
    for row, subject in missing.items():
        print(row, subject)
    print(f"{len(missing)} rows without a test")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
