from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from pyceleryc.fixups import django


def test_without_settings_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('DJANGO_SETTINGS_MODULE', raising=False)
    assert django.fixup(SimpleNamespace()) is None


def test_warns_when_django_is_missing() -> None:
    code = (
        'import os, sys, warnings\n'
        'sys.modules["django"] = None\n'
        'os.environ["DJANGO_SETTINGS_MODULE"] = "settings"\n'
        'from pyceleryc.exceptions import FixupWarning\n'
        'from pyceleryc.fixups.django import fixup\n'
        'with warnings.catch_warnings(record=True) as seen:\n'
        '    warnings.simplefilter("always")\n'
        '    assert fixup(None) is None\n'
        'assert seen[0].category is FixupWarning and "isn\'t installed" in str(seen[0].message)\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
