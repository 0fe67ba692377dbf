#!/usr/bin/env python3
"""Checks the rules of csrc/README.md that a compiler does not: who may include what.

Usage: tools/check_layers.py [root of the repository]
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LAYERS = ["base", "wire", "io", "work", "py"]  # a file includes its own folder and those before
OWNERS = {  # the one file that may include a foreign library
    r"yajl/|yajl_": "wire/json.c",
    r"amqp|rabbitmq-c/": "io/amqp_codec.c",
    r"hiredis/|hiredis\.h": "io/redis_reader.c",
    r"sqlite3": "io/sqlite_db.c",
    r"openssl/": "io/tls.c",
}
MAX_LINES = 600
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)((?:.*\\\n)*.*)", re.M)
FORBIDDEN = re.compile(r"(?<![\w.>])(?:exit|_exit|abort|printf|fprintf|puts|perror)\s*\(")
NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.S)


def check_include(csrc: Path, me: str, mark: str, name: str) -> Iterator[str]:
    """One #include line of the file `me` ("io/url.c")."""
    folder = me.split("/")[0]
    if mark == '"':
        above = name.split("/")[0]
        if above not in LAYERS or not (csrc / name).is_file():
            yield f'"{name}" is not written as "folder/file.h" of csrc'
        elif LAYERS.index(above) > LAYERS.index(folder):
            yield f"{folder}/ may not know {above}/ ({name})"
        return
    if name in ("Python.h", "structmember.h") and folder != "py":
        yield f"<{name}> belongs to py/ only"
    for library, owner in OWNERS.items():
        if re.match(library, name) and me != owner:
            yield f"<{name}> belongs to {owner} only"


def check_text(csrc: Path, me: str, text: str) -> Iterator[str]:
    """Everything that is seen in the text of one file."""
    if text.count("\n") > MAX_LINES:
        yield f"{text.count(chr(10))} lines; the limit is {MAX_LINES}"
    for mark, name in INCLUDE.findall(text):
        yield from check_include(csrc, me, mark, name)
    code = NOISE.sub(lambda m: "\n" * m.group().count("\n"), text)
    for name, body in MACRO.findall(code):
        if re.search(r"\b(return|goto|break)\b", body):
            yield f"the macro {name} hides a jump"
    if not me.startswith("py/") and (found := FORBIDDEN.search(code)):
        yield f"line {code[:found.start()].count(chr(10)) + 1}: {found.group()}) in the core"


def check_header(csrc: Path, me: str) -> Iterator[str]:
    """Does a header of the core compile alone? Without Python's include path."""
    command = [*shlex.split(os.environ.get("CC", "cc")), "@tools/cflags", "-fsyntax-only", "-I", str(csrc), "-x", "c"]
    done = subprocess.run([*command, "-include", me, "/dev/null"], capture_output=True, text=True)
    if done.returncode or done.stderr:
        yield "does not compile alone:\n" + done.stderr


def check(csrc: Path) -> Iterator[str]:
    for path in sorted(csrc.glob("*/*.[ch]")):
        me = f"{path.parent.name}/{path.name}"
        faults = list(check_text(csrc, me, path.read_text()))
        if path.suffix == ".h" and not me.startswith("py/"):
            faults += check_header(csrc, me)
        yield from (f"csrc/{me}: {fault}" for fault in faults)


def main() -> int:
    os.chdir(Path(__file__).parent.parent)
    csrc = Path(*sys.argv[1:2]) / "csrc"
    faults = list(check(csrc))
    print("\n".join(faults) or f"layers: {len(list(csrc.glob('*/*.[ch]')))} files, all rules hold")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
