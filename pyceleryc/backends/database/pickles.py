"""The pickles in Celery's tables: plain data is read from them, nothing else is built.

A column of a database that others may write to must not be able to run code here, so other classes
need ``pickle`` in ``result_accept_content``.  Saved groups are always read, by naming the few classes
that Celery writes into them.
"""
from __future__ import annotations

import io
import pickle
from typing import Any

from kombu.exceptions import ContentDisallowed, EncodeError
from sqlalchemy.dialects.mysql import LONGBLOB
from sqlalchemy.types import LargeBinary, TypeDecorator

from pyceleryc.result import GroupResult
from pyceleryc.utils import pickling

__all__ = ('Pickled', 'PickledResult', 'dump_group', 'dump_result', 'load_group', 'load_result')

PLAIN = frozenset({
    ('builtins', 'set'), ('builtins', 'frozenset'), ('builtins', 'bytearray'), ('builtins', 'complex'),
    ('builtins', 'range'), ('builtins', 'slice'),
    ('datetime', 'date'), ('datetime', 'datetime'), ('datetime', 'time'), ('datetime', 'timedelta'),
    ('datetime', 'timezone'), ('zoneinfo', 'ZoneInfo._unpickle'),
    ('decimal', 'Decimal'), ('fractions', 'Fraction'), ('uuid', 'UUID'), ('uuid', 'SafeUUID'),
    ('collections', 'OrderedDict'), ('_codecs', 'encode'),
})
REFUSED = (
    'The stored result has an object of {0}.{1}: only plain data is read from pickles. Add "pickle" to '
    'result_accept_content (or accept_content) if you trust all who can write to the database, or let '
    'the task return plain data')


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in PLAIN:
            raise ContentDisallowed(REFUSED.format(module, name))
        return super().find_class(module, name)


class Pickled(bytes):
    """A result that :func:`dump_result` has pickled."""


def load_result(data: bytes, trusted: bool) -> Any:
    """Return the value in the pickle *data*.

    :param trusted: may it name any class?
    :raises ContentDisallowed: it is not plain data.
    """
    return pickling.loads(data) if trusted else _Plain(io.BytesIO(data)).load()


def dump_result(value: Any, trusted: bool) -> Pickled:
    """Return *value* pickled.

    :raises kombu.exceptions.EncodeError: it cannot be pickled, or could not be read again.
    """
    try:
        data = pickling.dumps(value, pickle.HIGHEST_PROTOCOL)
        if not trusted:
            load_result(data, trusted)
    except Exception as exc:
        raise EncodeError(f'The result cannot be stored: {exc}') from exc
    return Pickled(data)


class PickledResult(TypeDecorator[Any]):
    """A column with a pickled value.

    :param trusted: may it be of any class?
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(self, trusted: bool, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trusted = trusted

    def load_dialect_impl(self, dialect: Any) -> Any:
        """Return the column's type: MySQL's plain BLOB ends at 64 KiB."""
        mysql = dialect.name in ('mysql', 'mariadb')
        return dialect.type_descriptor(LONGBLOB() if mysql else LargeBinary())

    def process_bind_param(self, value: Any, dialect: Any) -> bytes | None:
        """Pickle *value* if that is still to be done."""
        if value is None or isinstance(value, Pickled):
            return value
        return dump_result(value, self.trusted)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """Unpickle *value*."""
        return None if value is None else load_result(value, self.trusted)


# -- groups: Celery pickles the GroupResult itself ------------------------------------------------

_APPATTR = ('celery.app.base', '_unpickle_appattr')


def dump_group(result: Any) -> bytes:
    """Return a GroupResult as the pickle that Celery reads; without the backends of its members.

    It is put together by hand: to pickle the objects would name classes of ours, and to name
    Celery's they would have to be there.
    """
    return b'\x80\x02' + _dump_member(result) + b'.'


def _dump_member(result: Any) -> bytes:
    if result is None:
        return b'N'
    if isinstance(result, GroupResult):
        members = b''.join(_dump_member(member) for member in result.results)
        return _call('GroupResult', _text(str(result.id)) + b'](' + members + b'e')
    parent = _dump_member(result.parent)
    return _call('AsyncResult', _text(str(result.id)) + b'NNN' + parent)


def _call(name: str, arguments: bytes) -> bytes:
    """Opcodes of ``_unpickle_appattr(name, (arguments...))``."""
    function = 'c{}\n{}\n'.format(*_APPATTR).encode()
    return function + b'(' + _text(name) + b'(' + arguments + b'ttR'


def _text(text: str) -> bytes:
    data = text.encode()
    return b'X' + len(data).to_bytes(4, 'little') + data


def load_group(data: bytes, app: Any) -> Any:
    """Undo :func:`dump_group`, also for a group that Celery has stored.

    :raises ContentDisallowed: the pickle names something else than results.
    """
    return _GroupReader(io.BytesIO(data), app).load()


class _GroupReader(_Plain):
    def __init__(self, file: Any, app: Any) -> None:
        super().__init__(file)
        self.app = app

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _APPATTR:
            return self._result
        if module.startswith('celery.backends.'):
            # Where the writer had its results; ours are here.
            return _nothing
        return super().find_class(module, name)

    def _result(self, name: str, args: tuple[Any, ...]) -> Any:
        if name == 'GroupResult':
            return self.app.GroupResult(*args)
        if name == 'AsyncResult':
            return self.app.AsyncResult(args[0], parent=args[4] if len(args) > 4 else None)
        raise ContentDisallowed(f'A stored group has a member of the kind {name!r}')


def _nothing(*args: Any) -> None:
    return None
