"""Import by name, and the names of what was imported."""
from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from kombu.utils import imports as kombu_imports

__all__ = (
    'NotAPackage', 'qualname', 'instantiate', 'symbol_by_name', 'cwd_in_path', 'find_module',
    'import_from_cwd', 'reload_from_cwd', 'module_file', 'gen_task_name',
    'load_extension_class_names', 'load_extension_classes',
)

#: File of the main module in a process that was started by exec; see T-043.
MP_MAIN_FILE = os.environ.get('MP_MAIN_FILE')


class NotAPackage(Exception):  # the public name
    """A dotted path goes through a module that is not a package."""


def qualname(obj: Any) -> str:
    """Return the dotted name of a class or function, or of the class of an instance."""
    named = obj if hasattr(obj, '__name__') and hasattr(obj, '__qualname__') else type(obj)
    name: str = named.__qualname__
    return name if '.' in name else f'{named.__module__}.{name}'


def symbol_by_name(
    name: Any, aliases: dict[str, Any] | None = None, imp: Callable[..., Any] | None = None,
    package: str | None = None, sep: str = '.', default: Any = None, **kwargs: Any,
) -> Any:
    """Return the object called ``module.attr`` or ``module:attr``.

    A name in ``celery.`` means this package, so that settings written for Celery
    work as they are.

    :param aliases: short names and what they stand for.
    :param default: returned instead of an ImportError or AttributeError.
    """
    if isinstance(name, str):
        name = (aliases or {}).get(name) or name
    if isinstance(name, str) and name.startswith('celery.'):
        name = f'pyceleryc.{name[len("celery."):]}'
    return kombu_imports.symbol_by_name(
        name, imp=imp, package=package, sep=sep, default=default, **kwargs)


get_cls_by_name = symbol_by_name


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the class called *name* with the arguments."""
    return symbol_by_name(name)(*args, **kwargs)


@contextmanager
def cwd_in_path() -> Iterator[None]:
    """Have the working directory on the import path inside the block."""
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        cwd = ''
    if not cwd or cwd in sys.path:
        yield
        return
    sys.path.insert(0, cwd)
    try:
        yield
    finally:
        if cwd in sys.path:
            sys.path.remove(cwd)


def find_module(
    module: str, path: str | None = None, imp: Callable[..., Any] | None = None,
) -> Any:
    """Import *module*, with the working directory on the path.

    :raises NotAPackage: a parent in the dotted name is a plain module.
    """
    load = imp or importlib.import_module
    with cwd_in_path():
        try:
            return load(module)
        except ImportError:
            # The import says the same, but names the whole path instead of the culprit.
            parent = module.split('.', 1)[0]
            if '.' in module and not hasattr(load(parent), '__path__'):
                raise NotAPackage(parent) from None
            raise


def import_from_cwd(
    module: str, imp: Callable[..., Any] | None = None, package: str | None = None,
) -> Any:
    """Import *module*, with the working directory on the path."""
    with cwd_in_path():
        return (imp or importlib.import_module)(module, package=package)


def reload_from_cwd(
    module: ModuleType, reloader: Callable[[ModuleType], Any] | None = None,
) -> Any:
    """Reload *module*, with the working directory on the path."""
    with cwd_in_path():
        return (reloader or importlib.reload)(module)


def module_file(module: ModuleType) -> str:
    """Return the source file of *module*."""
    name = str(module.__file__)
    return name[:-1] if name.endswith('.pyc') else name


def _is_main(module_name: str) -> bool:
    if module_name == '__main__':
        return True
    main_file = MP_MAIN_FILE
    module = sys.modules.get(module_name)
    return bool(main_file and module and getattr(module, '__file__', None) == main_file)


def gen_task_name(app: Any, name: str, module_name: str | None) -> str:
    """Return the automatic name of a task (T-041, T-043).

    The main module is called ``__main__`` in one process and by its name in
    others, so it is replaced by ``app.main``.
    """
    module_name = module_name or '__main__'
    if app.main and _is_main(module_name):
        return f'{app.main}.{name}'
    return f'{module_name}.{name}'


def load_extension_class_names(namespace: str) -> Iterator[tuple[str, str]]:
    """Yield (name, ``module:attr``) of the entry points of group *namespace*."""
    for point in entry_points(group=namespace):
        yield point.name, point.value


def load_extension_classes(namespace: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, class) of the entry points of group *namespace*.

    One that cannot be imported is skipped with a warning.
    """
    for name, class_name in load_extension_class_names(namespace):
        try:
            cls = symbol_by_name(class_name)
        except (ImportError, SyntaxError) as exc:
            warnings.warn(
                f'Cannot load {namespace} extension {class_name!r}: {exc!r}', stacklevel=2)
        else:
            yield name, cls
