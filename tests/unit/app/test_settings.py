from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from modules import forgotten

from pyceleryc import Celery
from pyceleryc.app import utils
from pyceleryc.app._spelling import distance, suggest
from pyceleryc.app.defaults import _OLD_SETTING_KEYS
from pyceleryc.app.utils import Settings, detect_settings
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.collections import DictAttribute


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('BROKER_URL', 'BROKER_READ_URL', 'BROKER_WRITE_URL', 'RESULT_BACKEND'):
        monkeypatch.delenv(f'CELERY_{name}', raising=False)


def settings(prefix: str | None = None, given: Any = None, **source: Any) -> Settings:
    return detect_settings(source, {} if given is None else given, prefix=prefix)


# -- names -----------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['task_acks_late', 'CELERY_ACKS_LATE'])
def test_new_and_old_names(name: str) -> None:
    conf = settings(**{name: True})
    assert conf.task_acks_late is True and conf.CELERY_ACKS_LATE is True
    assert conf['task_acks_late'] is True and conf.get('CELERY_ACKS_LATE') is True
    conf.task_acks_late = 'changed'
    assert conf.CELERY_ACKS_LATE == 'changed'


def test_mixing_names_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r'CELERY_IGNORE_RESULT +-> task_ignore_result'):
        settings(task_acks_late=True, task_serializer='json', CELERY_IGNORE_RESULT=True)
    with pytest.raises(ImproperlyConfigured, match=r'task_serializer +-> CELERY_TASK_SERIALIZER'):
        settings(CELERY_ACKS_LATE=True, CELERY_IGNORE_RESULT=True, task_serializer='json')
    with pytest.raises(ImproperlyConfigured, match='to the new format'):
        settings(CELERY_ACKS_LATE=True, task_serializer='json')


def test_mixing_is_fine_when_both_are_set() -> None:
    assert settings(
        task_acks_late=True, task_serializer='json', CELERY_ACKS_LATE=True).task_acks_late


def test_constructor_wins_and_does_not_count_as_mixing() -> None:
    conf = settings(given={'task_serializer': 'pickle'}, CELERY_TASK_SERIALIZER='yaml',
                    CELERY_ACKS_LATE=True)
    assert conf.task_serializer == 'pickle' and conf.task_acks_late


@pytest.mark.parametrize('prefix', ['CELERY', 'CELERY_'])
def test_namespace(prefix: str) -> None:
    conf = settings(
        prefix, CELERY_BROKER_URL='redis://', CELERY_TASK_ACKS_LATE=True,
        CELERYD_CONCURRENCY=3, DEBUG=1, TIME_ZONE='Europe/Paris')
    assert (conf.broker_url, conf.task_acks_late) == ('redis://', True)
    assert conf.worker_concurrency is None
    assert conf.timezone == 'Europe/Paris' and conf.CELERY_BROKER_URL == 'redis://'
    assert conf.DEBUG == 1


def test_lower_case_namespace_and_objects() -> None:
    source = DictAttribute(SimpleNamespace(celery_broker_url='redis://', other=1))
    assert detect_settings(source, {}, prefix='celery').broker_url == 'redis://'


def test_unknown_settings_are_kept() -> None:
    conf = settings(my_setting=1)
    assert conf.my_setting == conf['my_setting'] == 1 and 'my_setting' in conf
    assert conf.get('nothing', 5) == 5
    with pytest.raises(AttributeError, match="'Settings' object has no attribute 'nothing'"):
        conf.nothing
    with pytest.raises(KeyError):
        conf['nothing']


# -- spelling --------------------------------------------------------------------------------

@pytest.mark.parametrize(('wrong', 'right'), [
    ('task_acks_lat', 'task_acks_late'), ('broker_ulr', 'broker_url'),
    ('task_route', 'task_routes'), ('worker_concurency', 'worker_concurrency'),
    ('task_anotations', 'task_annotations'), ('result_backnd', 'result_backend'),
    ('worker_prefetch_multipler', 'worker_prefetch_multiplier'),
    ('CELERY_ALWAYS_EAGR', 'CELERY_ALWAYS_EAGER'),
])
def test_misspelled_settings(wrong: str, right: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"'{wrong}': did you mean '{right}'"):
        settings(**{wrong: 1})


def test_misspelled_in_namespace_and_constructor() -> None:
    with pytest.raises(ImproperlyConfigured, match="did you mean 'CELERY_BROKER_URL'"):
        settings('CELERY', CELERY_BROKER_ULR='x')
    with pytest.raises(ImproperlyConfigured, match="did you mean 'task_always_eager'"):
        settings(given={'task_always_eagr': True})


@pytest.mark.parametrize('name', [
    'broker_urls', 'broker_url2', 'task_routes_v2', 'redis_url', 'redis_hosts', 'database_uri',
    'database_name', 'my_broker_url', 'mytask_routes', 'task_owner', 'worker_name', 'result_ttl',
    'celery_foo', 'CELERY_QUEUE', 'BROKER_URLS', 'DATABASES', 'CACHES', 'REDIS_URL', 'timezones',
    'worker_logfile', 'worker_gid', 'beat_pidfile', 's3_buckets', 'import_path', 'event_bus_url',
    'task_max_attempts', 'redis_client_name', 'security_token', 'control_room',
])
def test_own_settings_are_left_alone(name: str) -> None:
    assert settings(**{name: 1})[name] == 1


@pytest.mark.parametrize('name', [
    *sorted(_OLD_SETTING_KEYS), 'CELERY_TASK_EAGER_PROPAGATES_EXCEPTIONS', 'CELERY_RESULT_ENGINE',
    'CELERY_REDIS_URL', 'CELERY_TASK_TIMEOUT', 'CELERY_BEAT_TZ', 'CELERYBEAT_X', 'CELERY_ENABLED',
])
def test_other_names_in_a_namespace_are_kept(name: str) -> None:
    assert settings('CELERY', **{name: 1})[name] == 1


def test_no_known_setting_looks_misspelled() -> None:
    assert all(suggest(name) is None for name in settings())


@pytest.mark.parametrize(('a', 'b', 'edits'), [
    ('abc', 'abc', 0), ('abc', 'acb', 1), ('abc', 'ab', 1), ('abc', 'xbc', 1), ('abc', 'xyz', 3),
    ('', 'ab', 2), ('abcd', 'badc', 2),
])
def test_distance(a: str, b: str, edits: int) -> None:
    assert distance(a, b, 3) == distance(b, a, 3) == edits
    assert distance('completely', 'different!', 2) == 3


# -- values ----------------------------------------------------------------------------------

def test_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    conf = settings(given={'result_backend': 'redis://given'}, broker_url='redis://source')
    assert (conf.broker_url, conf.broker_read_url, conf.broker_write_url) == ('redis://source',) * 3
    monkeypatch.setenv('CELERY_BROKER_URL', 'amqp://env')
    monkeypatch.setenv('CELERY_RESULT_BACKEND', 'redis://env')
    monkeypatch.setenv('CELERY_BROKER_READ_URL', 'amqp://read')
    assert (conf.broker_url, conf['broker_url'], conf.get('broker_url')) == ('amqp://env',) * 3
    assert (conf.broker_read_url, conf.broker_write_url) == ('amqp://read', 'amqp://env')
    assert conf.result_backend == conf['result_backend'] == 'redis://env'


def test_fallbacks() -> None:
    conf = settings(task_default_queue='q', broker_read_url='redis://r', broker_host='host')
    assert (conf.task_default_exchange, conf.task_default_routing_key) == ('q', 'q')
    assert (conf.broker_url, conf.broker_read_url) == ('host', 'redis://r')
    conf.task_default_exchange = 'e'
    assert conf['task_default_exchange'] == 'e'


def test_defaults_are_not_shared_between_apps() -> None:
    one, two = settings(), settings()
    one.beat_schedule['job'] = 1
    assert two.beat_schedule == {}


def test_writes_reach_observers() -> None:
    conf = settings()
    seen: list[Any] = []
    conf.bind_to(lambda **changes: seen.append(changes))
    conf.task_routes = {'a': 'b'}
    conf.update(task_serializer='yaml')
    assert seen == [{'task_routes': {'a': 'b'}}, {'task_serializer': 'yaml'}]
    assert conf.setdefault('mine', 3) == 3 and conf.mine == 3


def test_copies() -> None:
    conf = settings(task_acks_late=True, broker_url='x')
    for other in (copy.copy(conf), copy.deepcopy(conf), pickle.loads(pickle.dumps(conf))):
        assert isinstance(other, Settings) and dict(other) == dict(conf)
        other.task_acks_late = False
        assert other.CELERY_ACKS_LATE is False and conf.task_acks_late is True


def test_lookups() -> None:
    conf = settings(task_acks_late=True)
    assert conf.find_value_for_key('acks_late', 'task') is True
    assert conf.get_by_parts('task', None, 'acks', 'late') is True
    assert conf.find_option('acks_late', 'task').type.type == 'bool'
    assert conf.value_set_for('task_acks_late') and not conf.value_set_for('task_serializer')
    assert dict(conf.without_defaults()) == {'task_acks_late': True}
    assert conf.finalize() is conf and not conf.maybe_warn_deprecated_settings()


# -- what people see ---------------------------------------------------------------------------

def test_secrets_are_hidden() -> None:
    conf = settings(
        broker_url='redis://:pw@h/0;redis://:pw@i/0', api_token='t', SECRET_KEY='y',
        result_backend='db+postgresql://u:pw@h/d', broker_transport_options={'password': 'pw'},
        own=[1])
    table = conf.table()
    assert 'pw' not in str(table) and table['own'] == [1]
    assert table['broker_url'].count('********') == 2
    assert table['api_token'] == table['SECRET_KEY'] == '********'
    assert conf.table(censored=False)['api_token'] == 't'
    assert 'task_serializer' in conf.table(with_defaults=True)
    assert "api_token: '********'" in conf.humanize().splitlines()


def test_appstr() -> None:
    app = SimpleNamespace(main='proj')
    assert utils.appstr(app) == f'proj at {id(app):#x}'
    assert utils.appstr(SimpleNamespace(main=None)).startswith('__main__ at 0x')


# -- finding the app ------------------------------------------------------------------------------

APP = """
class App:
    loader = None
    def finalize(self): return self
    def send_task(self): return self
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with forgotten(tmp_path):
        yield tmp_path


@pytest.mark.parametrize(('files', 'name'), [
    ({'fa_mod.py': 'app = App()'}, 'fa_mod'),
    ({'fa_mod.py': 'celery = App()'}, 'fa_mod'),
    ({'fa_mod.py': 'other = App()'}, 'fa_mod'),
    ({'fa_mod.py': 'other = App()'}, 'fa_mod:other'),
    ({'fa_mod.py': 'other = App()'}, 'fa_mod.other'),
    ({'fa_pkg/__init__.py': '', 'fa_pkg/celery.py': 'app = App()'}, 'fa_pkg'),
    ({'fa_pkg/__init__.py': '', 'fa_pkg/work.py': 'app = App()'}, 'fa_pkg.work'),
    ({'fa_pkg/__init__.py': 'import fa_pkg.celery', 'fa_pkg/celery.py': 'app = App()'}, 'fa_pkg'),
])
def test_find_app(project: Path, files: dict[str, str], name: str) -> None:
    for path, text in files.items():
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text(APP + text)
    found = utils.find_app(name)
    assert type(found).__name__ == 'App' and not isinstance(found, ModuleType)


@pytest.mark.parametrize(('text', 'name', 'message'), [
    (None, 'fa_nope', 'The module fa_nope was not found.'),
    ('x = 1', 'fa_none', "Module 'fa_none' has no attribute 'celery'"),
    ('x = 1', 'fa_none:y', "Module 'fa_none' has no attribute 'y'"),
    ('import fa_missing_dependency', 'fa_bad', None),
    ('raise ValueError', 'fa_bad', None),
    ('import os; os.nonesuch', 'fa_bad', None),
    ('raise AttributeError("celery")', 'fa_bad', None),
])
def test_find_app_fails(project: Path, text: str | None, name: str, message: str | None) -> None:
    if text is not None:
        (project / f'{name.partition(":")[0]}.py').write_text(text)
    with pytest.raises((ImportError, AttributeError, ValueError)) as info:
        utils.find_app(name)
    told = utils.find_app_error(name, info.value)
    assert told == (message and f'\nUnable to load celery application.\n{message}')


def test_settings_that_are_not_read_yet() -> None:
    """What was written is seen by all ways of looking; setdefault() alone does not read the rest."""
    app = Celery('early', broker='memory://', set_as_current=False)
    assert app.conf.without_defaults()['broker_url'] == 'memory://' and app.conf.value_set_for('broker_url')
    app = Celery('early', broker='memory://', set_as_current=False)
    assert app.conf.humanize() == "broker_url: 'memory:///'"
    app = Celery('early', set_as_current=False, task_serializer='pickle')
    assert app.conf.setdefault('worker_concurrency', 4) == 4 and app.conf.setdefault('task_serializer', 'yaml') == 'pickle'
    assert not app.configured
    assert app.conf.worker_concurrency == 4 and app.conf.task_serializer == 'pickle'
    assert app.conf.setdefault('mine', 5) == 5 == app.conf.mine and app.conf.setdefault('result_serializer', 'yaml') == 'json'
