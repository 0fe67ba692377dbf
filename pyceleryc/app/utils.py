"""Settings as the app sees them, the bug report, and finding an app by name."""
from __future__ import annotations

import os
import platform as _platform
import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from types import ModuleType
from typing import Any


from pyceleryc import __version__
from pyceleryc.app._spelling import check_spelling
from pyceleryc.app.defaults import (
    _OLD_SETTING_KEYS,
    _TO_NEW_KEY,
    _TO_OLD_KEY,
    DEFAULTS,
    SETTING_KEYS,
    find,
)
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.platforms import pyimplementation
from pyceleryc.utils.collections import ConfigurationView
from pyceleryc.utils.imports import import_from_cwd, qualname, symbol_by_name
from pyceleryc.utils.text import pretty
from pyceleryc.utils.url import hide_password

__all__ = (
    'Settings', 'appstr', 'bugreport', 'filter_hidden_settings', 'find_app', 'find_app_error',
    'detect_settings',
)

HIDDEN = '********'
HIDDEN_SETTINGS = re.compile('API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE',
                             re.IGNORECASE)
#: Parts of connection strings as Azure's services take them.
SECRETS_OF_CONNECTIONS = re.compile(r'(AccountKey|SharedAccessKey|SharedAccessSignature)=[^;]*', re.IGNORECASE)
_URL_SETTINGS = re.compile('broker_(read_|write_)?url|result_backend|backend_url|^backend$',
                           re.IGNORECASE)

E_MIX_OLD_INTO_NEW = """
Old and new names of settings are mixed.  Most of yours are new,
so rename these to the new format:

{renames}
"""
E_MIX_NEW_INTO_OLD = """
Old and new names of settings are mixed.  Most of yours are old,
so rename these to the old format:

{renames}

or, better, give all the others their new names.
"""


def appstr(app: Any) -> str:
    """Return how an app is shown inside other reprs: ``proj at 0x7f...``."""
    return f'{app.main or "__main__"} at {id(app):#x}'


# -- settings ---------------------------------------------------------------------------------

class Settings(ConfigurationView):
    """The settings of an app: what was set, what the source says, the defaults.

    Every setting can be read by its new and its old name.  ``broker_url``,
    ``broker_read_url``, ``broker_write_url`` and ``result_backend`` are overridden by
    the environment (``CELERY_BROKER_URL`` and so on).
    """

    def __init__(
        self, *args: Any, deprecated_settings: Iterable[str] | None = None, **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__['deprecated_settings'] = set(deprecated_settings or ())

    def __getitem__(self, key: str) -> Any:
        computed = _COMPUTED.get(key)
        return super().__getitem__(key) if computed is None else computed(self)

    def _stored(self, *keys: str) -> Any:
        for key in keys:
            try:
                value = super().__getitem__(key)
            except KeyError:
                continue
            if value is not None:
                return value
        return None

    @property
    def broker_url(self) -> Any:
        """URL (or list of them) of the broker."""
        return os.environ.get('CELERY_BROKER_URL') or self._stored('broker_url', 'broker_host')

    @property
    def broker_read_url(self) -> Any:
        """URL to consume from."""
        return (os.environ.get('CELERY_BROKER_READ_URL') or self._stored('broker_read_url')
                or self.broker_url)

    @property
    def broker_write_url(self) -> Any:
        """URL to publish to."""
        return (os.environ.get('CELERY_BROKER_WRITE_URL') or self._stored('broker_write_url')
                or self.broker_url)

    @property
    def result_backend(self) -> Any:
        """URL or name of the result backend."""
        return (os.environ.get('CELERY_RESULT_BACKEND')
                or self._stored('result_backend', 'CELERY_BACKEND'))

    @property
    def task_default_exchange(self) -> Any:
        """Name of the default exchange, that of the default queue if not set."""
        return self._stored('task_default_exchange', 'task_default_queue')

    @property
    def task_default_routing_key(self) -> Any:
        """Routing key of the default queue, its name if not set."""
        return self._stored('task_default_routing_key', 'task_default_queue')

    @property
    def timezone(self) -> Any:
        """Name of the time zone; Django's ``TIME_ZONE`` if not set."""
        return self._stored('timezone', 'TIME_ZONE', 'time_zone')

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def without_defaults(self) -> Settings:
        """Return the settings that were set, as settings."""
        self.finalize()
        return Settings({}, self.maps[:-1], keys=self._keys, prefix=self.prefix)

    def value_set_for(self, key: str) -> bool:
        """Tell whether *key* has another value than by default."""
        return key in self.without_defaults()

    def find_option(self, name: str, namespace: str = '') -> Any:
        """Find the option called *name*; see :func:`pyceleryc.app.defaults.find`."""
        return find(name, namespace)

    def find_value_for_key(self, name: str, namespace: str = 'celery') -> Any:
        """Return the value of the setting *name* of *namespace*."""
        found = self.find_option(name, namespace)
        return self.get_by_parts(found.namespace, found.key)

    def get_by_parts(self, *parts: str | None) -> Any:
        """Return the setting whose name is made of *parts*: ``('task', 'acks', 'late')``."""
        return self['_'.join(part for part in parts if part)]

    def finalize(self) -> Settings:
        """Read the configuration now, where that was put off; return self."""
        self.get('imports')
        return self

    def maybe_warn_deprecated_settings(self) -> bool:
        """Tell whether settings are in use that will be removed."""
        return bool(self.deprecated_settings)

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Return the settings as a dict, secrets hidden if *censored*."""
        source = self if with_defaults else self.without_defaults()
        rows = {
            key: source.get(key) for key in source
            if isinstance(key, str) and not key.startswith('_')
        }
        return filter_hidden_settings(rows) if censored else rows

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return the settings as text, a line each."""
        return '\n'.join(
            f'{key}: {pretty(value, width=50)}'
            for key, value in self.table(with_defaults, censored).items())


_COMPUTED: dict[str, Callable[[Settings], Any]] = {
    name: vars(Settings)[name].fget
    for name in (
        'broker_url', 'broker_read_url', 'broker_write_url', 'result_backend',
        'task_default_exchange', 'task_default_routing_key', 'timezone',
    )
}


def _other_names(key: str) -> tuple[str, ...]:
    """Return the old name of a new setting and the other way round."""
    other = _TO_OLD_KEY.get(key) or _TO_NEW_KEY.get(key)
    return (other,) if other else ()


def _new_name(key: str) -> tuple[str, ...]:
    """Return the new name of an old setting; with a prefix only new names are read."""
    return (_TO_NEW_KEY[key],) if key in _TO_NEW_KEY else ()


def _reject_mix(have: set[str]) -> None:
    new, old = have & SETTING_KEYS, have & _OLD_SETTING_KEYS
    mostly_old = len(old) > len(new)
    names = _TO_OLD_KEY if mostly_old else _TO_NEW_KEY
    wrong = sorted(key for key in (new if mostly_old else old) if names[key] not in have)
    if wrong:
        template = E_MIX_NEW_INTO_OLD if mostly_old else E_MIX_OLD_INTO_NEW
        raise ImproperlyConfigured(template.format(
            renames='\n'.join(f'{key:<36} -> {names[key]}' for key in wrong)))


def _spelled(names: Iterable[Any]) -> list[str]:
    return [name for name in names if isinstance(name, str) and not name.startswith('_')]


def detect_settings(
    conf: Any, preconf: Mapping[str, Any] | None = None, ignore_keys: Iterable[str] | None = None,
    prefix: str | None = None, all_keys: Any = None, old_keys: Any = None,
) -> Settings:
    """Make the settings of a source and of what was set before it was read.

    :param conf: mapping of settings.
    :param preconf: settings of the constructor; they win.
    :param ignore_keys: names in *conf* that are no settings, such as those of a module.
    :param prefix: only names with it count (``CELERY_``), and they are new names.
    :param all_keys: known new names; *old_keys*: known old names (for subclasses).
    :raises ImproperlyConfigured: old and new names are mixed, or a name is misspelled.
    """
    source = {} if conf is None else conf
    changes = {} if preconf is None else preconf
    have = set(_spelled(source)) - set(ignore_keys or ())
    if prefix and not prefix.endswith('_'):
        prefix = f'{prefix}_'
    known = set(all_keys or ()) | set(old_keys or ())
    check_spelling(have - known, prefix or '')
    check_spelling(set(_spelled(changes)) - known)
    if not prefix:
        _reject_mix(have)
    names = _new_name if prefix else _other_names
    return Settings(changes, [source, deepcopy(DEFAULTS)], (names,), prefix=prefix)


# -- censoring and reports --------------------------------------------------------------------

def _censor(key: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return filter_hidden_settings(value)
    if not isinstance(key, str):
        return value
    if HIDDEN_SETTINGS.search(key):
        return HIDDEN
    if _URL_SETTINGS.search(key):
        return _censor_url(value)
    return value


def _censor_url(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_censor_url, value))
    if not isinstance(value, str):
        return value
    if SECRETS_OF_CONNECTIONS.search(value):
        return hide_secrets_of_connection(value, HIDDEN)
    return hide_password(value, HIDDEN)


def hide_secrets_of_connection(text: str, mask: str = '**') -> str:
    """Return Azure's connection string *text* without its keys."""
    return SECRETS_OF_CONNECTIONS.sub(rf'\1={mask}', text)


def filter_hidden_settings(conf: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a copy of *conf* with secrets replaced by asterisks."""
    return {key: _censor(key, value) for key, value in conf.items()}


def _version_of(package: str) -> str:
    try:
        return package_version(package)
    except PackageNotFoundError:
        return 'unknown'


def _transport_rows(app: Any) -> list[tuple[str, str]]:
    try:
        with app.connection() as connection:
            transport = connection.transport
            return [('transport', connection.transport_cls),
                    ('driver', f'{transport.driver_name} {transport.driver_version()}')]
    except Exception as exc:
        # A report on a broken installation must not break, too.
        return [('transport', f'unusable: {exc!r}')]


def bugreport(app: Any) -> str:
    """Return what a bug report should tell about this installation: a section per subject, secrets left out."""
    sections = {
        'versions': [
            ('pyceleryc', f'{_version_of("pyceleryc")} (as celery {__version__})'),
            ('kombu', _version_of('kombu')),
            ('python', f'{pyimplementation()} {_platform.python_version()}'),
        ],
        'system': [('kernel', f'{_platform.system()} {_platform.release()}'), ('machine', _platform.machine())],
        'app': [
            ('loader', qualname(app.loader.__class__)),
            *_transport_rows(app),
            ('results', _censor_url(app.conf.result_backend) or 'disabled'),
        ],
    }
    shown = {title: '\n'.join(f'{name}: {value}' for name, value in rows) for title, rows in sections.items()}
    return '\n\n'.join(f'[{title}]\n{text}' for title, text in {**shown, 'settings': app.conf.humanize()}.items())


# -- pickling -----------------------------------------------------------------------------------

class AppPickler:
    """Makes an app again from what its ``__reduce_args__`` returned, one value for each of :attr:`fields`.

    Subclasses may change the keywords of the constructor, or what happens before and after.
    """

    fields = ('main', 'changes', 'loader', 'backend', 'amqp', 'events', 'log', 'control', None, 'config_source')

    def __call__(self, cls: type, *args: Any) -> Any:
        kwargs = self.build_kwargs(*args)
        app = self.construct(cls, **kwargs)
        self.prepare(app, **kwargs)
        return app

    def build_kwargs(self, *args: Any) -> dict[str, Any]:
        """Return the keywords for the constructor."""
        return self.build_standard_kwargs(*args)

    def build_standard_kwargs(self, *args: Any) -> dict[str, Any]:
        """Give the values their names; the one that has none is no longer used."""
        if not len(self.fields) - 1 <= len(args) <= len(self.fields):
            raise TypeError(f'an app is made of {len(self.fields)} values, not {len(args)}')
        named = {'config_source': None, **dict(zip(self.fields, args)), 'set_as_current': False}
        return {name: value for name, value in named.items() if name}

    def construct(self, cls: type, **kwargs: Any) -> Any:
        """Make the app."""
        return cls(**kwargs)

    def prepare(self, app: Any, **kwargs: Any) -> None:
        """Apply the changed settings."""
        app.conf.update(kwargs['changes'])


def _unpickle_app(cls: type, pickler: Callable[[], Any], *args: Any) -> Any:
    return pickler()(cls, *args)


def _unpickle_app_v2(cls: Any, kwargs: dict[str, Any]) -> Any:
    return cls(**{**kwargs, 'set_as_current': False})


# -- finding the app ----------------------------------------------------------------------------

def _is_app(obj: Any) -> bool:
    # By what it can do, because this module is below the one that defines the class.
    if isinstance(obj, type):
        # The class itself, imported to make the app.
        return False
    return hasattr(obj, 'finalize') and hasattr(obj, 'send_task') and hasattr(obj, 'loader')


def _app_of_module(module: Any, name: str, find_again: Callable[[str], Any]) -> Any:
    for attribute in ('app', 'celery'):
        found = getattr(module, attribute, None)
        if _is_app(found):
            return found
    if getattr(module, '__path__', None):
        try:
            return find_again(f'{name}.celery')
        except ImportError as exc:
            if getattr(exc, 'name', None) not in (None, f'{name}.celery'):
                raise
    for found in list(vars(module).values()):
        if not isinstance(found, ModuleType) and _is_app(found):
            return found
    raise AttributeError(f"module {name!r} has no attribute 'celery'")


def find_app_error(app: str, exc: BaseException) -> str | None:
    """Return what to tell the user when :func:`find_app` raised *exc*.

    None means that the error is inside the module, so its traceback is what helps.
    """
    head = '\nUnable to load celery application.\n'
    module, _, attribute = app.partition(':')
    if isinstance(exc, ModuleNotFoundError) and exc.name in _parents_and_self(module):
        return f'{head}The module {app} was not found.'
    if isinstance(exc, AttributeError) and _looked_up_by_us(exc):
        return f'{head}Module {module!r} has no attribute {attribute or "celery"!r}'
    return None


def _looked_up_by_us(exc: BaseException) -> bool:
    """Tell whether *exc* comes from looking for the app, rather than from code of the module."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = trace.tb_frame.f_globals.get('__name__', '') if trace is not None else ''
    return where.partition('.')[0] in ('kombu', 'pyceleryc')


def _parents_and_self(module: str) -> set[str]:
    parts = module.split('.')
    return {'.'.join(parts[:count]) for count in range(1, len(parts) + 1)}


def find_app(
    app: str, symbol_by_name: Callable[..., Any] = symbol_by_name,
    imp: Callable[..., Any] = import_from_cwd,
) -> Any:
    """Return the app that ``-A`` names: ``module``, ``module:attribute`` or a package.

    In a module the attributes ``app`` and ``celery`` are looked at, then the submodule
    ``celery`` of a package, then any other app in the module.

    :raises ImportError: the module cannot be found.
    :raises AttributeError: there is no app in it.
    """
    try:
        found = symbol_by_name(app, imp=imp)
    except AttributeError:
        # The last part of "pkg.mod" was looked up as an attribute: it is a submodule.
        if ':' in app:
            raise
        found = imp(app)
    if isinstance(found, ModuleType) and ':' not in app:
        return _app_of_module(
            found, app, lambda name: find_app(name, symbol_by_name=symbol_by_name, imp=imp))
    return found
