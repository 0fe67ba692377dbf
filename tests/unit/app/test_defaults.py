from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pyceleryc.app import defaults
from pyceleryc.utils.imports import qualname


@pytest.mark.parametrize(('name', 'value', 'old'), [
    ('accept_content', ('json',), 'CELERY_ACCEPT_CONTENT'),
    ('broker_url', None, 'BROKER_URL'),
    ('broker_connection_timeout', 4, 'BROKER_CONNECTION_TIMEOUT'),
    ('result_expires', timedelta(days=1), 'CELERY_TASK_RESULT_EXPIRES'),
    ('result_backend_max_retries', float('inf'), 'CELERY_RESULT_BACKEND_MAX_RETRIES'),
    ('database_url', None, 'CELERY_RESULT_DBURI'),
    ('task_soft_time_limit', None, 'CELERYD_TASK_SOFT_TIME_LIMIT'),
    ('worker_prefetch_multiplier', 4, 'CELERYD_PREFETCH_MULTIPLIER'),
    ('worker_redirect_stdouts_level', 'WARNING', 'CELERY_REDIRECT_STDOUTS_LEVEL'),
    ('beat_schedule', {}, 'CELERYBEAT_SCHEDULE'),
    ('s3_bucket', None, 'S3_BUCKET'),
    ('timezone', None, 'CELERY_TIMEZONE'),
])
def test_values(name: str, value: Any, old: str) -> None:
    assert defaults.DEFAULTS[name] == value
    assert defaults._TO_OLD_KEY[name] == old and defaults._TO_NEW_KEY[old] == name


def test_tables_agree() -> None:
    flat = dict(defaults.flatten(defaults.NAMESPACES))
    assert set(flat) == set(defaults.DEFAULTS) == defaults.SETTING_KEYS
    assert len(defaults._TO_NEW_KEY) == len(defaults.DEFAULTS) > 190
    for name, option in flat.items():
        assert option.default == defaults.DEFAULTS[name] and option.type in option.typemap


def test_publish_retry_policy() -> None:
    assert defaults.DEFAULTS['task_publish_retry_policy'] == {
        'max_retries': 3, 'interval_start': 0, 'interval_max': 1, 'interval_step': 0.2}


def test_find() -> None:
    assert defaults.find('acks_late', 'task')[:2] == ('task', 'acks_late')
    assert defaults.find('CONCURRENCY')[:2] == ('worker', 'concurrency')
    assert defaults.find('timezone')[:2] == (None, 'timezone')
    assert defaults.find('broker_url').key == 'broker_url'
    with pytest.raises(KeyError):
        defaults.find('no_such_setting')


@pytest.mark.parametrize(('kind', 'text', 'value'), [
    ('int', '3', 3), ('float', '1.5', 1.5), ('bool', 'no', False), ('string', 'x', 'x'),
    ('any', '3', '3'),
])
def test_conversion(kind: str, text: str, value: Any) -> None:
    assert defaults.Option(None, kind).to_python(text) == value


def test_repr() -> None:
    option = defaults.Option(False, 'bool', 'OLD')
    assert repr(option) == '<Option: type->bool default->False>' and option.old == {'old'}
    assert qualname(option) == 'pyceleryc.app.defaults.Option'
