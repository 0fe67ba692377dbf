"""The application object (FEATURES 2.1, 1.2, 1.3)."""
from __future__ import annotations

import pickle
from typing import Any

import pytest

from pyceleryc import Celery, Task, current_app, shared_task
from pyceleryc._state import _set_current_app, get_current_app
from pyceleryc.exceptions import CeleryWarning, ImproperlyConfigured


@pytest.fixture
def app() -> Any:
    with Celery('proj', broker='memory://', set_as_current=False) as app:
        yield app


def sample(x: int, y: int = 0) -> int:
    """Doc."""
    return x + y


class TestTask:
    def test_bare_and_with_options(self, app: Any) -> None:
        bare, called = app.task(sample), app.task(name='other', foo=1)(sample)
        assert bare.name == f'{__name__}.sample'
        assert called.name == 'other' and called.foo == 1

    def test_is_a_lazy_task(self, app: Any) -> None:
        task = app.task(sample)
        assert not app.finalized and isinstance(task, Task)
        assert repr(task) == f'<@task: {__name__}.sample of proj at {id(app):#x}>'
        assert task(1, 2) == 3 and task.app is app

    def test_metadata(self, app: Any) -> None:
        task = app.task(sample)
        assert (task.__name__, task.__doc__, task.__module__) == ('sample', 'Doc.', __name__)
        assert task.__annotations__ == sample.__annotations__ and task.__wrapped__ is sample

    def test_errors(self, app: Any) -> None:
        with pytest.raises(TypeError, match='must be a callable'):
            app.task(1)
        with pytest.raises(TypeError, match='exactly 1 argument'):
            app.task(sample, sample)

    def test_first_of_a_name_wins(self, app: Any) -> None:
        first, second = app.task(name='a')(sample), app.task(name='a')(lambda: 1)
        with pytest.warns(CeleryWarning, match='registered already'):
            app.finalize()
        assert first._get_current_object() is second._get_current_object()

    def test_own_task_wins_over_that_of_another_app(self, app: Any) -> None:
        other = Celery('other', set_as_current=False)
        theirs, ours = other.task(name='same')(lambda: 1), app.task(name='same')(lambda: 2)
        assert (theirs(), ours(), app.tasks['same']()) == (1, 2, 2)
        assert theirs.name in Celery('third', set_as_current=False).tasks

    def test_bind_and_base(self, app: Any) -> None:
        class MyTask(Task):
            colour = 'red'

        @app.task(bind=True, base=MyTask)
        def bound(self: Any) -> Any:
            return self, self.request.called_directly

        assert isinstance(bound, MyTask)
        me, direct = bound()
        assert me is bound._get_current_object() and direct and me.colour == 'red'

    def test_name_of_main_module(self, app: Any) -> None:
        assert app.gen_task_name('f', '__main__') == 'proj.f'
        assert app.gen_task_name('f', 'mod.tasks') == 'mod.tasks.f'

    def test_register_class(self, app: Any) -> None:
        class Adder(Task):
            def run(self, x: int) -> int:
                return x + 1

        task = app.register_task(Adder())
        assert task.name == f'{__name__}.Adder' and app.tasks[task.name] is task
        assert task(1) == 2 and task.app is app

    def test_builtins(self, app: Any) -> None:
        wanted = {'accumulate', 'backend_cleanup', 'chain', 'chord', 'chord_unlock', 'chunks',
                  'group', 'map', 'starmap'}
        assert {f'celery.{name}' for name in wanted} <= set(app.tasks)

    def test_annotations_and_settings(self) -> None:
        app = Celery(set_as_current=False, task_acks_late=True, task_annotations={
            'a': {'rate_limit': '10/s'}, '*': {'colour': 'blue'}})
        task = app.task(name='a')(sample)
        assert (task.rate_limit, task.colour, task.acks_late) == ('10/s', 'blue', True)

    def test_autofinalize_off(self) -> None:
        app = Celery(autofinalize=False, set_as_current=False)
        with pytest.raises(RuntimeError):
            app.tasks  # noqa: B018


def test_shared_task_follows_the_current_app() -> None:
    before = current_app._get_current_object()

    @shared_task(name='shared.one')
    def one() -> int:
        return 1

    try:
        first = Celery('first')
        assert one.app is first
        second = Celery('second')
        assert one.app is second and one() == 1
        assert get_current_app() is second
    finally:
        _set_current_app(before)


class TestConfiguration:
    def test_constructor_wins_over_object(self) -> None:
        app = Celery(set_as_current=False, result_expires=60)
        app.config_from_object({'result_expires': 5, 'task_serializer': 'pickle'})
        assert app.conf.result_expires == 60 and app.conf.task_serializer == 'pickle'

    def test_lazy_until_read(self, app: Any) -> None:
        app.conf.task_default_queue = 'q'
        app.conf.update(my_setting=3)
        assert not app.configured
        assert app.conf.task_default_queue == 'q' and app.conf['my_setting'] == 3
        assert app.configured

    def test_namespace(self) -> None:
        app = Celery(set_as_current=False)
        app.config_from_object(
            {'CELERY_TASK_ALWAYS_EAGER': True, 'OTHER': 1}, namespace='CELERY')
        assert app.conf.task_always_eager is True

    def test_written_before_it_is_read(self) -> None:
        app = Celery(set_as_current=False)
        early = app.conf
        early.task_acks_late = True
        app.config_from_object({'CELERY_TASK_SERIALIZER': 'yaml'}, namespace='CELERY')
        app.conf.task_track_started = True
        assert app.conf.task_acks_late is True and app.conf.task_track_started is True
        assert early is app.conf and early.task_serializer == 'yaml'

    def test_environment_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        app = Celery(set_as_current=False, broker='amqp://a')
        monkeypatch.setenv('CELERY_BROKER_URL', 'memory://')
        assert app.conf.broker_url == 'memory://'

    def test_envvar(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ImproperlyConfigured, match='NOPE_X'):
            app.config_from_envvar('NOPE_X')
        assert app.config_from_envvar('NOPE_X', silent=True) is False

    def test_reading_again_keeps_conf(self, app: Any) -> None:
        conf = app.conf
        assert conf.task_serializer == 'json'
        app.config_from_object({'task_serializer': 'yaml'})
        assert conf is app.conf and conf.task_serializer == 'yaml'

    def test_add_defaults(self, app: Any) -> None:
        app.add_defaults({'foo': 10})
        app.add_defaults(lambda: {'bar': 20})
        assert (app.conf.foo, app.conf.bar) == (10, 20)

    def test_signals(self, app: Any) -> None:
        seen = []

        @app.on_configure.connect
        def on_configure(sender: Any, **_: Any) -> None:
            seen.append('configure')

        @app.on_after_configure.connect
        def after(sender: Any, source: Any, **_: Any) -> None:
            seen.append('after')
            sender.add_periodic_task(10.0, sender.signature('t', (1,)), name='every')

        @app.on_after_finalize.connect
        def finalized(sender: Any, **_: Any) -> None:
            seen.append('finalize')

        assert app.conf.beat_schedule['every']['task'] == 't'
        app.finalize()
        assert seen == ['configure', 'after', 'finalize']

    def test_periodic_before_configuration(self, app: Any) -> None:
        key = app.add_periodic_task(5, app.signature('t.x', (1,)), expires=3)
        entry = app.conf.beat_schedule[key]
        assert key == 't.x(1)'
        assert (entry['schedule'], entry['args'], entry['options']) == (5, (1,), {'expires': 3})

    def test_timezone(self, app: Any) -> None:
        assert app.uses_utc_timezone() and str(app.now().tzinfo) == 'UTC'
        app.conf.timezone = 'Europe/Paris'
        assert str(app.timezone) == 'Europe/Paris' and not app.uses_utc_timezone()


class TestObject:
    def test_pickle(self) -> None:
        app = Celery('q', broker='memory://', set_as_current=False, my_setting=1)
        copy = pickle.loads(pickle.dumps(app))
        assert copy.main == 'q' and copy.conf.broker_url == 'memory://' and copy.conf.my_setting == 1

    def test_subclass_hooks(self) -> None:
        class Mine(Celery):
            def on_init(self) -> None:
                self.started = True

            def gen_task_name(self, name: str, module: str | None) -> str:
                return f'short.{name}'

        app = Mine(set_as_current=False)
        assert app.started and app.task(sample).name == 'short.sample'
        assert repr(app).startswith('<Mine ')

    def test_ids(self, app: Any) -> None:
        assert app.oid != app.thread_oid == app.thread_oid

    def test_kombu_connection(self, app: Any) -> None:
        with app.connection() as connection:
            connection.ensure_connection(max_retries=1)
            assert connection.transport.driver_type == 'memory'
        with app.producer_or_acquire() as producer:
            assert producer.connection is not None
        with app.pool.acquire(block=True) as pooled:
            assert pooled.connected or pooled.connect()

    def test_worker_main_wants_the_command(self, app: Any) -> None:
        with pytest.raises(ValueError, match='worker sub-command'):
            app.worker_main(['beat'])

    def test_either(self, app: Any) -> None:
        assert app.either('task_default_queue', None, 'x') == 'x'
        assert app.either('task_default_queue') == 'celery'
