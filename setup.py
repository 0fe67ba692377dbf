"""Builds pyceleryc._core from csrc/*/*.c; everything else is said in pyproject.toml."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LIBRARIES = {  # pkg-config name: Debian package
    "librabbitmq": "librabbitmq-dev", "yajl": "libyajl-dev", "hiredis": "libhiredis-dev",
    "sqlite3": "libsqlite3-dev", "openssl": "libssl-dev",
}


def pkg_config(option: str) -> list[str]:
    """What pkg-config says for all libraries; ends with one clear message when it cannot."""
    missing = [] if shutil.which("pkg-config") else ["pkg-config"]
    missing += [deb for name, deb in LIBRARIES.items()
                if missing or subprocess.run(["pkg-config", "--exists", name]).returncode]
    if missing:
        sys.exit(f"pyceleryc: cannot build without {', '.join(missing)}. On Debian or Ubuntu:\n"
                 f"    apt-get install gcc python3-dev pkg-config {' '.join(LIBRARIES.values())}")
    return shlex.split(subprocess.check_output(["pkg-config", option, *LIBRARIES], text=True))


class build_core(build_ext):
    """Compiles only what is older than its source or than any header."""

    def run(self) -> None:
        self.build_temp = os.path.abspath(f"build/{sys.implementation.cache_tag}")
        self.extensions[0].extra_compile_args += pkg_config("--cflags")
        self.extensions[0].extra_link_args += pkg_config("--libs")
        super().run()

    def build_extensions(self) -> None:
        compile_one, depends = self.compiler._compile, self.extensions[0].depends

        def compile_changed(obj: str, src: str, *rest: object) -> None:
            newest = max(map(os.path.getmtime, [src, *depends]))
            if not os.path.exists(obj) or os.path.getmtime(obj) < newest:
                compile_one(obj, src, *rest)

        self.compiler._compile = compile_changed
        super().build_extensions()


FLAGS = ["@tools/cflags", "-isystem", sysconfig.get_path("include")]  # no warnings for Python.h
FLAGS += ["-Werror"] * (os.environ.get("PYCELERYC_WERROR") == "1")
DEPENDS = [*glob("csrc/*/*.h"), "setup.py", "tools/cflags"]
CORE = Extension("pyceleryc._core", sorted(glob("csrc/*/*.c")), include_dirs=["csrc"],
                 depends=DEPENDS, extra_compile_args=FLAGS)
setup(cmdclass={"build_ext": build_core}, ext_modules=[CORE])
