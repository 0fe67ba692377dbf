from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modules import forgotten

from pyceleryc import signals
from pyceleryc.exceptions import NotConfigured
from pyceleryc.loaders import get_loader_cls
from pyceleryc.loaders.app import AppLoader
from pyceleryc.loaders.base import BaseLoader, autodiscover_tasks, find_related_module
from pyceleryc.loaders.default import Loader
from pyceleryc.utils.imports import NotAPackage


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv('CELERY_CONFIG_MODULE', raising=False)
    with forgotten(tmp_path):
        yield tmp_path


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / (name.replace('__', '/') + '.py')
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.parents:
            if folder == root:
                break
            (folder / '__init__.py').touch()
        path.write_text(text)


def loader(cls: type[BaseLoader] = AppLoader, **conf: Any) -> BaseLoader:
    return cls(SimpleNamespace(conf=SimpleNamespace(**{'imports': (), 'include': (), **conf})))


def test_aliases() -> None:
    assert get_loader_cls('app') is AppLoader and get_loader_cls('default') is Loader
    assert get_loader_cls('celery.loaders.app:AppLoader') is AppLoader
    assert get_loader_cls(AppLoader) is AppLoader


def test_default_modules_are_imported_once(project: Path) -> None:
    write(project, tl_one='', tl_two='')
    found = loader(imports='tl_one', include=['tl_two'])
    found.init_worker()
    found.init_worker()
    assert {'tl_one', 'tl_two'} <= set(sys.modules)
    assert found.task_modules == {'tl_one', 'tl_two'} and found.worker_initialized


def test_error_of_an_import_modules_receiver_is_raised() -> None:
    def receiver(**kwargs: Any) -> None:
        raise ImportError('inside')

    signals.import_modules.connect(receiver)
    try:
        with pytest.raises(ImportError, match='inside'):
            loader().import_default_modules()
    finally:
        signals.import_modules.disconnect(receiver)


def test_now() -> None:
    utc = datetime.now(timezone.utc).replace(tzinfo=None)
    assert abs(loader().now() - utc) < timedelta(seconds=5)
    assert loader().now(utc=False).tzinfo is None


# -- autodiscovery -------------------------------------------------------------------------

def test_autodiscovery(project: Path) -> None:
    write(project, ad_shop__tasks='X = 1', ad_shop__apps='class ShopConfig: ...',
          ad_empty__views='')
    found = loader()
    found.autodiscover_tasks(['ad_shop', 'ad_empty'])
    assert found.task_modules == {'ad_shop.tasks'}
    assert find_related_module('ad_shop.apps.ShopConfig', 'tasks') is sys.modules['ad_shop.tasks']
    assert find_related_module('ad_shop', None) is sys.modules['ad_shop']
    assert find_related_module('ad_empty', 'tasks') is None
    assert autodiscover_tasks(None) == []


def test_autodiscovery_shows_errors(project: Path) -> None:
    write(project, ae_bad__tasks='import ae_missing_dependency', ae_init__x='')
    (project / 'ae_init' / '__init__.py').write_text('import ae_other_missing')
    with pytest.raises(ModuleNotFoundError, match='ae_missing_dependency'):
        find_related_module('ae_bad', 'tasks')
    with pytest.raises(ModuleNotFoundError, match='ae_other_missing'):
        find_related_module('ae_init', 'tasks')
    with pytest.raises(ModuleNotFoundError, match='ae_nope'):
        find_related_module('ae_nope', 'tasks')


# -- configuration -------------------------------------------------------------------------

def test_config_from_object(project: Path) -> None:
    write(project, cf_mod='broker_url = "x"\nclass Config: broker_url = "y"')
    found = loader()
    assert found.conf == {}
    for source, url in (('cf_mod', 'x'), ('cf_mod:Config', 'y'), ('cf_mod.Config', 'y'),
                        ({'broker_url': 'z'}, 'z'), (SimpleNamespace(broker_url='o'), 'o')):
        assert found.config_from_object(source) is True
        assert found.conf['broker_url'] == url
    assert found.config_from_object('cf_nope', silent=True) is False
    with pytest.raises(ImportError):
        found.config_from_object('cf_nope')
    with pytest.raises(AttributeError):
        found.config_from_object('cf_mod:Nope')


def test_override_backends() -> None:
    found = loader()
    found.config_from_object({'override_backends': {'db': 'my.mod:Backend'}})
    assert found.override_backends == {'db': 'my.mod:Backend'}


def test_default_loader(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = loader(Loader)
    assert found.read_configuration() == {} and not found.configured
    monkeypatch.setenv('C_WNOCONF', '1')
    with pytest.warns(NotConfigured, match='No celeryconfig module'):
        found.read_configuration()
    write(project, celeryconfig='broker_url = "default"', other='broker_url = "other"')
    assert loader(Loader).conf['broker_url'] == 'default'
    monkeypatch.setenv('CELERY_CONFIG_MODULE', 'other')
    assert loader(Loader).conf['broker_url'] == 'other'
    assert loader().conf['broker_url'] == 'other'
    monkeypatch.setenv('CELERY_CONFIG_MODULE', 'dl_nope')
    with pytest.raises(ModuleNotFoundError):
        loader(Loader).read_configuration()
    monkeypatch.setenv('CELERY_CONFIG_MODULE', 'other.py')
    with pytest.raises(NotAPackage, match="Did you mean 'other'"):
        loader(Loader).read_configuration()


def test_default_loader_shows_errors_in_the_module(project: Path) -> None:
    write(project, celeryconfig='import dl_missing')
    with pytest.raises(ModuleNotFoundError, match='dl_missing'):
        loader(Loader).read_configuration()


def test_settings_on_the_command_line() -> None:
    parse = loader().cmdline_config_parser
    assert parse(['worker.prefetch_multiplier=3', 'task.acks_late=yes', 'broker_url=a=b',
                  'result_expires=(int)30', 'task_queues={"a": 1}']) == {
        'worker_prefetch_multiplier': 3, 'task_acks_late': True, 'broker_url': 'a=b',
        'result_expires': 30, 'task_queues': {'a': 1}}
    assert parse(['.concurrency=4'], namespace='worker') == {'worker_concurrency': 4}
    with pytest.raises(KeyError):
        parse(['no_such=1'])
    with pytest.raises(ValueError, match='write name=value'):
        parse(['broker_url'])
    with pytest.raises(ValueError, match='unknown type'):
        parse(['broker_url=(odd)1'])
