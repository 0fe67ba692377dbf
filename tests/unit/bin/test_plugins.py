"""Commands of other packages: entry points in the group celery.commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = '''
import click
from celery.bin.base import CeleryCommand, handle_preload_options


@click.command("greet", cls=CeleryCommand)
@click.option("--name", default="you")
@click.pass_context
@handle_preload_options
def greet(ctx, name):
    """Say hello."""
    ctx.obj.echo(f"hello {name} from {ctx.obj.app.main}")
'''


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with an installed package, and one that cannot be imported."""
    (tmp_path / "greeter.py").write_text(COMMAND)
    info = tmp_path / "greeter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[celery.commands]\ngreet = greeter:greet\nbroken = not_there:command\n")
    (tmp_path / "proj.py").write_text("from celery import Celery\napp = Celery('proj', broker='memory://')\n")
    return tmp_path


def run(place: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-m", "pyceleryc", "-A", "proj", *arguments], cwd=place, text=True, timeout=50,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "PYTHONPATH": f"{root}:{place}", **environment})
    return done.returncode, done.stdout


def test_command_of_another_package(place: Path) -> None:
    assert run(place, "greet", "--name", "world") == (0, "hello world from proj\n")
    assert run(place, "greet", CELERY_GREET_NAME="all") == (0, "hello all from proj\n")


def test_broken_one_hides_no_other(place: Path) -> None:
    code, text = run(place, "--help")
    assert code == 0 and "Say hello." in text and "worker" in text
    code, text = run(place, "broken")
    assert code == 2 and "Cannot load the command 'broken'" in text and "No such command 'broken'" in text


def test_nearly_its_name(place: Path) -> None:
    code, text = run(place, "gret")
    assert code == 2 and "Did you mean greet" in text
