"""The rules about who may import what, on both sides of the Python line."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pyceleryc"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Where Python meets the core. At most ten; a new one needs a reason.
CORE_USERS = {
    "app/drivers.py",
    "app/messages.py",
    "app/publisher.py",
    "app/shortcut.py",
    "app/trace.py",
    "app/transports.py",
    "backends/core.py",
    "states.py",
    "worker/machine.py",
    "worker/request.py",
}
FOREIGN = {"billiard", "celery", "vine"}
MAX_FILE, MAX_FUNCTION = 600, 50

IMPORT_EACH = """
import gc, os, subprocess, sys, traceback

# What is not ours is imported once and shared by all children, for speed.
ALL = "import sys, pyceleryc.bin.celery; print(*(name for name in sys.modules if not name.startswith(('pyceleryc', '__main__'))))"
for name in subprocess.run([sys.executable, "-c", ALL], capture_output=True, text=True, check=True).stdout.split():
    try:
        __import__(name)
    except ImportError:
        continue  # made by another module, not to be imported by itself

def missing_extra(exc):
    return isinstance(exc, ModuleNotFoundError) and not (exc.name or "").startswith("pyceleryc")

def visit(package):
    for name in names:
        if name.rpartition(".")[0] != package:
            continue
        if name in sys.modules:  # its package has imported it
            visit(name)
            continue
        gc.freeze()
        pid = os.fork()
        if not pid:
            try:
                __import__(name)
                visit(name)
            except BaseException as exc:
                if not missing_extra(exc):
                    print(name, traceback.format_exc())
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)

# Whoever imports a module first imports its packages before it: a process that has imported the package stands for all in it.
names = sys.argv[1:]
visit("")
"""


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) for `from module import name`, (module, "") for `import module`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module or "", alias.name) for alias in node.names)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_there_are_sources() -> None:
    assert SOURCES


def test_few_files_meet_the_core() -> None:
    users = {relative(path) for path in SOURCES if ("pyceleryc", "_core") in imports(path)}
    assert len(CORE_USERS) <= 10
    assert users <= CORE_USERS


def test_the_core_is_imported_in_one_way() -> None:
    other = [relative(path) for path in SOURCES
             for module, _ in imports(path) if module.startswith("pyceleryc._core")]
    assert other == []


def test_no_import_of_what_is_replaced() -> None:
    found = [(relative(path), module) for path in SOURCES
             for module, _ in imports(path) if module.split(".")[0] in FOREIGN]
    assert found == []


@pytest.mark.limit(150)
def test_every_module_can_be_imported_first() -> None:
    names = [module_name(path) for path in SOURCES]
    done = subprocess.run([sys.executable, "-c", IMPORT_EACH, *names],
                          capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_files_and_functions_are_short() -> None:
    long = [relative(path) for path in SOURCES if path.read_text().count("\n") > MAX_FILE]
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{relative(path)}:{node.name} {lines}"] * (lines > MAX_FUNCTION)
    assert long == []


@pytest.fixture
def csrc(tmp_path: Path) -> Path:
    """A core of one good file."""
    for layer in ("base", "wire", "io", "work", "py"):
        (tmp_path / "csrc" / layer).mkdir(parents=True)
    (tmp_path / "csrc/base/buf.h").write_text("int pc_buf(void);\n")
    return tmp_path / "csrc"


def check_layers(csrc: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "tools/check_layers.py", csrc.parent],
                          capture_output=True, text=True)


def test_a_good_core_passes(csrc: Path) -> None:
    (csrc / "io/url.c").write_text('#include "base/buf.h"\n/* exit(1) */\n')
    done = check_layers(csrc)
    assert (done.returncode, done.stdout) == (0, "layers: 2 files, all rules hold\n")


@pytest.mark.parametrize(("file", "text", "fault"), [
    ("base/a.c", '#include "io/b.h"', "base/ may not know io/"),
    ("base/a.c", '#include "buf.h"', "not written as"),
    ("work/a.c", "#include <Python.h>", "belongs to py/ only"),
    ("io/a.c", "#include <sqlite3.h>", "belongs to io/sqlite_db.c only"),
    ("py/a.c", "#include <openssl/ssl.h>", "belongs to io/tls.c only"),
    ("wire/a.c", "#define TRY(x) \\\n    if (x) \\\n        goto fail", "TRY hides a jump"),
    ("wire/a.c", "void f(void) { abort(); }", "abort() in the core"),
    ("wire/a.h", "size_t f(void);", "does not compile alone"),
    ("wire/a.c", "\n" * 601, "the limit is 600"),
])
def test_a_fault_is_found(csrc: Path, file: str, text: str, fault: str) -> None:
    (csrc / "io/b.h").write_text("int pc_b(void);\n")
    (csrc / file).write_text(text + "\n")
    done = check_layers(csrc)
    assert done.returncode == 1
    assert f"csrc/{file}: " in done.stdout
    assert fault in done.stdout
