"""Mappings with attributes, layered configuration, and a set with limits."""
from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Any

__all__ = (
    'AttributeDictMixin', 'AttributeDict', 'DictAttribute', 'ChainMap', 'ConfigurationView',
    'LimitedSet', 'OrderedDict', 'force_mapping', 'lpmerge',
)

_MISSING = object()


def force_mapping(m: Any) -> Any:
    """Return *m* if it is a mapping, else a mapping view of its attributes."""
    return m if isinstance(m, Mapping) else DictAttribute(m)


def lpmerge(L: dict[Any, Any], R: Mapping[Any, Any]) -> dict[Any, Any]:
    """Update *L* by those items of *R* that are not None; return *L*."""
    L.update((key, value) for key, value in R.items() if value is not None)
    return L


class AttributeDictMixin:
    """Gives a mapping its items as attributes."""

    def __getattr__(self, k: str) -> Any:
        try:
            return self[k]  # type: ignore[index]
        except KeyError:
            raise AttributeError(f'{type(self).__name__!r} object has no attribute {k!r}') from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


class AttributeDict(dict[str, Any], AttributeDictMixin):
    """A dict whose items are attributes too."""


class DictAttribute(MutableMapping[str, Any]):
    """Mapping view of the attributes of *obj*, such as a module of settings."""

    obj: Any

    def __init__(self, obj: Any) -> None:
        object.__setattr__(self, 'obj', obj)

    def __getattr__(self, key: str) -> Any:
        return getattr(self.obj, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self.obj, key)
        except AttributeError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __delitem__(self, key: str) -> None:
        try:
            delattr(self.obj, key)
        except AttributeError:
            raise KeyError(key) from None

    def __contains__(self, key: object) -> bool:
        return hasattr(self.obj, str(key))

    def __iter__(self) -> Iterator[str]:
        return iter(dir(self.obj))

    def __len__(self) -> int:
        return len(dir(self.obj))

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.obj!r})'


class ChainMap(MutableMapping[Any, Any]):
    """Several mappings read as one; the first wins, and writes go to the first."""

    maps: list[Any]
    changes: Any
    defaults: list[Any]
    _observers: list[Callable[..., Any]]

    def __init__(self, *maps: Any, **kwargs: Any) -> None:
        layers = list(maps or [{}])
        self.__dict__.update(
            kwargs, maps=layers, changes=layers[0], defaults=layers[1:], _observers=[],
        )

    def add_defaults(self, d: Any) -> None:
        """Put *d* (a mapping or an object) directly behind the changes."""
        layer = force_mapping(d)
        self.defaults.insert(0, layer)
        self.maps.insert(1, layer)

    def bind_to(self, callback: Callable[..., Any]) -> None:
        """Call ``callback(**changes)`` after every write."""
        self._observers.append(callback)

    def _notify(self, changes: Mapping[Any, Any]) -> None:
        for callback in self._observers:
            callback(**{str(key): value for key, value in changes.items()})

    def __missing__(self, key: Any) -> Any:
        raise KeyError(key)

    def __getitem__(self, key: Any) -> Any:
        for layer in self.maps:
            try:
                return layer[key]
            except KeyError:
                continue
        return self.__missing__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes[key] = value
        self._notify({key: value})

    def __delitem__(self, key: Any) -> None:
        try:
            del self.changes[key]
        except KeyError:
            raise KeyError(f'key not found in the changes: {key!r}') from None

    def __contains__(self, key: Any) -> bool:
        return any(key in layer for layer in self.maps)

    def __iter__(self) -> Iterator[Any]:
        return iter(dict.fromkeys(chain.from_iterable(reversed(self.maps))))

    def __len__(self) -> int:
        return len(set().union(*self.maps))

    def __bool__(self) -> bool:
        return any(self.maps)

    def clear(self) -> None:
        self.changes.clear()

    def update(self, *args: Any, **kwargs: Any) -> None:
        new = dict(*args, **kwargs)
        self.changes.update(new)
        self._notify(new)

    def copy(self) -> Any:
        """Return a copy: the changes are copied, the defaults shared."""
        return type(self)(dict(self.changes), *self.defaults)

    __copy__ = copy

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], *args: Any) -> Any:
        """Return a new map with one layer of those keys."""
        return cls(dict.fromkeys(iterable, *args))

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(map(repr, self.maps))})'


class ConfigurationView(ChainMap, AttributeDictMixin):
    """Layered settings with attribute access and several names per key.

    :param changes: the layer that writes go to.
    :param defaults: further layers, the most important first.
    :param keys: functions from a key to a list of its other names (or None).
    :param prefix: also look for ``prefix + key``, in the case of the prefix.
    """

    def __init__(
        self, changes: Any, defaults: Iterable[Any] | None = None,
        keys: Iterable[Callable[[str], Any]] | None = None, prefix: str | None = None,
    ) -> None:
        super().__init__(
            changes, *(defaults or ()), _keys=tuple(keys or ()), prefix=prefix or '',
            _names={},
        )

    def __getattr__(self, k: str) -> Any:
        # No setting begins so; copy and pickle ask for such names before there is a state.
        if k.startswith('_'):
            raise AttributeError(k)
        return super().__getattr__(k)

    def copy(self) -> Any:
        """Return a copy: the changes are copied, the defaults shared."""
        other = type(self)({}, keys=self._keys, prefix=self.prefix)
        layers = [dict(self.changes), *self.maps[1:]]
        other.__dict__.update(maps=layers, changes=layers[0], defaults=layers[1:])
        return other

    __copy__ = copy

    def _to_keys(self, key: str) -> tuple[str, ...]:
        """Return the names under which *key* may be found, the most specific first."""
        try:
            return self._names[key]
        except KeyError:
            self._names[key] = names = self._find_names(key)
            return names

    def _find_names(self, key: str) -> tuple[str, ...]:
        names = [key]
        for alternatives in self._keys:
            names.extend(alternatives(key) or ())
        if self.prefix:
            names = [self._prefixed(name) for name in names] + names
        return tuple(dict.fromkeys(names))

    def _prefixed(self, name: str) -> str:
        if name.startswith(self.prefix):
            return name
        prefix: str = self.prefix
        return prefix + (name.upper() if prefix.isupper() else name)

    def __getitem__(self, key: str) -> Any:
        names = self._to_keys(key)
        for layer in self.maps:
            for name in names:
                # get(), because raising for each miss is what costs.
                value = layer.get(name, _MISSING)
                if value is not _MISSING:
                    return value
        return self.__missing__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(self._prefixed(key) if self.prefix else key, value)

    def __contains__(self, key: object) -> bool:
        names = self._to_keys(str(key))
        return any(name in layer for layer in self.maps for name in names)

    def first(self, *keys: str) -> Any:
        """Return the first value of *keys* that is not None."""
        return next((v for v in map(self.get, keys) if v is not None), None)

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def setdefault(self, key: str, default: Any = None) -> Any:
        # Nothing but the changes is there before the configuration has been read, and this is no reason to read it.
        return self.changes.setdefault(key, default) if len(self.maps) == 1 else super().setdefault(key, default)

    def clear(self) -> None:
        """Forget the changes; the defaults stay."""
        self.changes.clear()

    def swap_with(self, other: ConfigurationView) -> None:
        """Become a view of the same layers as *other*."""
        self.__dict__.update(
            changes=other.changes, defaults=other.defaults, maps=other.maps,
            _keys=other._keys, prefix=other.prefix, _names={},
        )


# -- LimitedSet ----------------------------------------------------------------------------

def _epoch_time(item: Any, inserted: Any) -> float:
    if not isinstance(inserted, (int, float)):
        raise ValueError(f'the time of {item!r} must be a number, not {inserted!r}')
    # Celery counts from the boot of its host.  Taken literally a revoked task of a
    # peer would be decades old and forgotten at once.
    return inserted if inserted > 1e9 else time.time()


class LimitedSet:
    """A set that forgets its oldest members (revoked task ids, for instance).

    :param maxlen: most members; 0 means no limit.
    :param expires: seconds after which a member may be forgotten; 0 means never.
    :param data: another set of this kind, a dict of insertion times, or an iterable.
    :param minlen: members that are kept although they expired.
    """

    def __init__(
        self, maxlen: int | None = 0, expires: float | None = 0, data: Any = None,
        minlen: int | None = 0,
    ) -> None:
        self.maxlen = maxlen or 0
        self.minlen = minlen or 0
        self.expires = expires or 0
        if not 0 <= self.minlen <= (self.maxlen or self.minlen):
            raise ValueError('minlen must not be negative and not exceed maxlen')
        if self.expires < 0:
            raise ValueError('expires must not be negative')
        self._data: dict[Any, float] = {}
        #: (time, order, item); entries that do not match _data any more are ignored.
        self._heap: list[tuple[float, int, Any]] = []
        self._order = 0
        if data:
            self.update(data)

    def add(self, item: Any, now: float | None = None) -> None:
        """Add *item*, or make it new again.  *now*: seconds since the epoch."""
        inserted = time.time() if now is None else now
        self._data[item] = inserted
        self._order += 1
        heappush(self._heap, (inserted, self._order, item))
        self._shrink_heap()
        if self.maxlen and len(self._data) > self.maxlen:
            self.purge(now)

    def _shrink_heap(self) -> None:
        # Outdated entries are dropped together, when they are more than the real ones.
        if len(self._heap) > 2 * len(self._data) + 16:
            self._heap = [(at, i, item) for i, (item, at) in enumerate(self._data.items())]
            self._order = len(self._heap)
            heapify(self._heap)

    def update(self, other: Any) -> None:
        """Add the members of *other*, with their times if it has any.

        :raises ValueError: a time is not a number.
        """
        if not other:
            return
        if isinstance(other, LimitedSet):
            for item, inserted in other._data.items():
                self.add(item, inserted)
        elif isinstance(other, Mapping):
            for item, inserted in other.items():
                self.add(item, _epoch_time(item, inserted))
        else:
            for item in other:
                self.add(item)
        self.purge()

    def discard(self, item: Any) -> None:
        """Remove *item* if it is there."""
        self._data.pop(item, None)

    pop_value = discard

    def clear(self) -> None:
        """Remove everything."""
        self._data.clear()
        self._heap.clear()

    def _oldest(self) -> tuple[float, Any] | None:
        while self._heap:
            inserted, _, item = self._heap[0]
            if self._data.get(item) == inserted:
                return inserted, item
            heappop(self._heap)
        return None

    def pop(self, default: Any = None) -> Any:
        """Remove and return the oldest member, or *default*."""
        found = self._oldest()
        if found is None:
            return default
        heappop(self._heap)
        del self._data[found[1]]
        return found[1]

    def purge(self, now: float | None = None) -> None:
        """Forget what is too much or too old at *now* (seconds since the epoch)."""
        while self.maxlen and len(self._data) > self.maxlen:
            self.pop()
        if not self.expires:
            return
        deadline = (time.time() if now is None else now) - self.expires
        while len(self._data) > self.minlen:
            found = self._oldest()
            if found is None or found[0] > deadline:
                return
            self.pop()

    def as_dict(self) -> dict[Any, float]:
        """Return a dict of members and insertion times, to be stored or sent."""
        return dict(self._data)

    def __contains__(self, item: object) -> bool:
        return item in self._data

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(self._data, key=self._data.__getitem__))

    def __len__(self) -> int:
        return len(self._data)

    def __bool__(self) -> bool:
        return bool(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitedSet) and self._data == other._data

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (f'<{type(self).__name__}({len(self)}): maxlen={self.maxlen}, '
                f'expires={self.expires}, minlen={self.minlen}>')
