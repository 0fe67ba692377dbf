from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyceleryc.utils import imports as i
from pyceleryc.utils.collections import LimitedSet


class Outer:
    class Inner:
        def method(self) -> None: ...


def test_qualname() -> None:
    assert i.qualname(LimitedSet) == 'pyceleryc.utils.collections.LimitedSet'
    assert i.qualname(LimitedSet()) == 'pyceleryc.utils.collections.LimitedSet'
    assert i.qualname(Outer.Inner) == 'Outer.Inner'
    assert i.qualname(3) == 'builtins.int'
    assert i.qualname(i.qualname) == 'pyceleryc.utils.imports.qualname'


def test_symbol_by_name() -> None:
    assert i.symbol_by_name('os.path:join') is i.symbol_by_name('os.path.join') is os.path.join
    assert i.symbol_by_name('short', {'short': 'os:getpid'}) is os.getpid
    assert i.symbol_by_name(os.getpid) is os.getpid
    assert i.symbol_by_name('no_such.thing', default=1) == 1
    with pytest.raises(ModuleNotFoundError):
        i.symbol_by_name('no_such.thing')
    with pytest.raises(AttributeError):
        i.symbol_by_name('os:no_such_thing')


def test_names_of_celery_mean_this_package() -> None:
    assert i.symbol_by_name('celery.utils.collections:LimitedSet') is LimitedSet
    limited = i.instantiate('celery.utils.collections.LimitedSet', maxlen=3)
    assert type(limited) is LimitedSet and limited.maxlen == 3


def test_import_from_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'mod_in_cwd.py').write_text('VALUE = 1\n')
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    module = i.import_from_cwd('mod_in_cwd')
    assert module.VALUE == 1 and sys.path == before
    (tmp_path / 'mod_in_cwd.py').write_text('VALUE = 22\n')
    assert i.reload_from_cwd(module).VALUE == 22
    assert i.module_file(module).endswith('mod_in_cwd.py')
    del sys.modules['mod_in_cwd']


def test_find_module() -> None:
    assert i.find_module('os.path') is os.path
    with pytest.raises(i.NotAPackage, match='os'):
        i.find_module('os.path.foo')
    with pytest.raises(ModuleNotFoundError):
        i.find_module('no_such_module_at_all')


def test_gen_task_name() -> None:
    app: Any = SimpleNamespace(main='proj')
    assert i.gen_task_name(app, 'add', 'mod.tasks') == 'mod.tasks.add'
    assert i.gen_task_name(app, 'add', '__main__') == 'proj.add'
    assert i.gen_task_name(app, 'add', None) == 'proj.add'
    assert i.gen_task_name(SimpleNamespace(main=None), 'add', '__main__') == '__main__.add'


def test_entry_points() -> None:
    assert list(i.load_extension_classes('no.such.group')) == []
    assert list(i.load_extension_class_names('no.such.group')) == []
