"""The C harness and the symbol check, shown what they must find."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CFLAGS = ["@tools/cflags", "-Wno-missing-prototypes", "-Icsrc", "-Itests/c"]

FAILING = r"""
#include "harness.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/mem.h"

static void *kept;
static int leaks(void *arg)
{
    void *first = pc_alloc(1), *second = pc_alloc(1);
    (void)arg;
    pc_free(second);
    if (!second) return -1;
    pc_free(first);
    return first ? 0 : -1;
}
void test_ok(void) { printf("never shown\n"); }
void test_assert(void) { PC_ASSERT(1 > 2, "because of %d", 17); }
void test_int(void) { PC_ASSERT_INT(3 - 4, 7); }
void test_str(void) { PC_ASSERT_STR("abc", NULL); }
void test_mem(void) { PC_ASSERT_MEM("abcd", "abXd", 4); }
void test_leak(void) { kept = pc_alloc(10); }
void test_oom(void) { PC_OOM(leaks, NULL); }
void test_crash(void) { raise_it: abort(); goto raise_it; }
void test_hang(void) { printf("before\n"); fflush(stdout); if (!fork()) pause(); pause(); }
"""

EXPECTED = {
    "test_assert": "not true: 1 > 2 because of 17",
    "test_int": "3 - 4 is -1, not 7",
    "test_str": "got  abc\n  want (null)",
    "test_mem": "differs from byte 2 of 4",
    "test_leak": "no block is left at the end: 1",
    "test_oom": "1 blocks left after allocation 2 failed (returned -1)",
    "test_crash": "(Aborted)",
    "test_hang": "(longer than 1 s)\nbefore",
}


def compile_c(*arguments: str | Path) -> None:
    subprocess.run(["cc", *CFLAGS, *arguments], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the harness prints about the tests above."""
    here = tmp_path_factory.mktemp("harness")
    (here / "test_failing.c").write_text(FAILING)
    compile_c("-c", here / "test_failing.c", "-o", here / "test_failing.o")
    table = subprocess.run([ROOT / "tools/ct_table.sh", here / "test_failing.o"],
                           capture_output=True, text=True, check=True)
    (here / "table.c").write_text(table.stdout)
    compile_c("tests/c/harness.c", "csrc/base/mem.c", here / "table.c", here / "test_failing.o",
              "-o", here / "run")
    done = subprocess.run([here / "run"], env={"CT_TIMEOUT": "1", "TMPDIR": str(here)},
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert not list(here.glob("pc-ct-*")), "a test's directory is left"
    return done.stdout


@pytest.mark.parametrize("name", EXPECTED)
def test_a_failure_is_shown_with_its_reason(output: str, name: str) -> None:
    part = re.search(rf"^FAIL test_failing:{name}\b(.*?)(?=^FAIL|^\d+ passed)", output, re.M | re.S)
    assert part and EXPECTED[name] in part.group(1)


def test_the_last_line_counts(output: str) -> None:
    assert output.endswith(f"\n1 passed, {len(EXPECTED)} failed\n")
    assert "never shown" not in output


def check_symbols(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "tools/check_symbols.sh", directory],
                          capture_output=True, text=True)


def test_constants_are_no_globals(tmp_path: Path) -> None:
    source = tmp_path / "good.c"
    source.write_text('#include <stdlib.h>\nint (*const fns[])(int) = {abs};\n'
                      'const char *const names[] = {"a"};\n')
    compile_c("-fPIC", "-c", source, "-o", tmp_path / "good.o")
    done = check_symbols(tmp_path)
    assert done.stdout == "symbols: 1 objects, no writable globals\n"


@pytest.mark.parametrize("text", [
    "int seen;", "int seen = 1;", "static int seen; int f(void) { return seen++; }",
    "int f(void) { static int seen; return seen++; }",
    "static int seen = 1; int f(void) { return seen++; }",
])
def test_a_writable_global_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.c").write_text(text)
    compile_c("-fPIC", "-c", tmp_path / "bad.c", "-o", tmp_path / "bad.o")
    done = check_symbols(tmp_path)
    assert done.returncode == 1
    assert "bad.o: writable global: seen" in done.stdout


def test_a_second_export_is_found(tmp_path: Path) -> None:
    shown = '__attribute__((visibility("default"))) int {0}(void); int {0}(void) {{ return 0; }}\n'
    (tmp_path / "two.c").write_text(shown.format("PyInit__core") + shown.format("pc_leaked"))
    compile_c("-fPIC", "-c", tmp_path / "two.c", "-o", tmp_path / "two.o")
    compile_c("-shared", tmp_path / "two.o", "-o", tmp_path / "_core.so")
    done = check_symbols(tmp_path)
    assert done.returncode == 1
    assert "only PyInit__core may be seen" in done.stdout
