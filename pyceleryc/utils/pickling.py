"""The serializer ``pickle``: what is Celery's, too, goes by the names that Celery's programs know (PROTOCOL 3.5.1).

Exceptions in results, signatures and results in messages are written as ``celery.exceptions.Retry`` and so on, and read as
ours where there is no real Celery.  Everything else is pickled as ever.
"""
from __future__ import annotations

import importlib
import io
import pickle
import sys
from types import FunctionType
from typing import Any

from kombu import serialization
from kombu.serialization import pickle_protocol, registry

from pyceleryc import _billiard

__all__ = ('dumps', 'loads', 'register_pickle')

#: Modules of ours, and those in which Celery has the same names, made of the same arguments.
_PUBLIC = {
    'pyceleryc.exceptions': 'celery.exceptions',
    'pyceleryc.utils.serialization': 'celery.utils.serialization',
    **{f'pyceleryc.{name}': f'celery.{name}' for name in ('app.base', 'app.registry', 'backends.base', 'backends.redis')},
    **dict.fromkeys((f'pyceleryc.canvas.{name}' for name in ('signature', 'chain', 'chord', 'group', 'maps')), 'celery.canvas'),
}
_CONTENT_TYPE = 'application/x-python-serialize'


def _public_name(obj: Any) -> tuple[str, str] | None:
    """Return module and name of a class or function of ours as Celery has it, or None."""
    module, name = getattr(obj, '__module__', None), getattr(obj, '__qualname__', '')
    if _billiard.EXPORTS.get(name) is obj:
        return _billiard.MODULE_NAME, name
    public = _PUBLIC.get(module) if isinstance(module, str) else None
    return None if public is None or getattr(sys.modules.get(module or ''), name, None) is not obj else (public, name)


#: The pickler in Python, which lets one say how classes and functions are named.
_PythonPickler: Any = vars(pickle)['_Pickler']


class _Pickler(_PythonPickler):
    """Names our classes as Celery does."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        public = _public_name(obj)
        if public is None:
            super().save_global(obj, name)
        else:
            if self.proto >= 4:
                for part in public:
                    self.save(part)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + '{}\n{}\n'.format(*public).encode())
            self.memoize(obj)

    dispatch = {
        **_PythonPickler.dispatch, FunctionType: save_global, type(_billiard.Terminated): save_global}


def dumps(obj: Any, protocol: int = pickle_protocol) -> bytes:
    """Return *obj* pickled."""
    data = pickle.dumps(obj, protocol)
    if b'pyceleryc.' not in data:
        # Nothing of ours in it, in nearly all messages; and the pickler in C is 50 times as fast.
        return data
    file = io.BytesIO()
    try:
        _Pickler(file, protocol).dump(obj)
    except RecursionError:
        # So deep that only the one in C gets through.
        return data
    return file.getvalue()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if not _celery_is_here():
            if module == _billiard.MODULE_NAME and name in _billiard.EXPORTS:
                return _billiard.EXPORTS[name]
            if module.startswith('celery.'):
                module = f'pyceleryc.{module.removeprefix("celery.")}'
                importlib.import_module(module)
        return super().find_class(module, name)


def _celery_is_here() -> bool:
    """Tell whether this process has imported the real Celery, whose classes are meant then."""
    found = sys.modules.get('celery')
    return found is not None and found is not sys.modules['pyceleryc']


def loads(data: Any) -> Any:
    """Undo :func:`dumps`, also what Celery has pickled."""
    return _Unpickler(io.BytesIO(data)).load()


def register_pickle() -> None:
    """Make this kombu's serializer ``pickle``, unless somebody has registered one of his own."""
    codec = registry._encoders.get('pickle')
    if codec is None or getattr(codec.encoder, '__module__', None) == serialization.__name__:
        registry.register('pickle', dumps, loads, _CONTENT_TYPE, 'binary')
