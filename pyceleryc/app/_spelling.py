"""Misspelled settings: a setting that is silently ignored is the worst kind of error."""
from __future__ import annotations

from collections.abc import Collection, Iterable

from pyceleryc.app.defaults import _OLD_SETTING_KEYS, EXTRA_SETTINGS, SETTING_KEYS
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('check_spelling', 'suggest')

#: Shorter names are too near to too many words.
MIN_LENGTH = 8
#: From this length on two mistakes are forgiven, below it one.
LONG = 12
#: Namespaces that are nobody else's.  ``redis_hosts`` or ``database_uri`` may well be
#: settings of the user's own, in the same module.
_OWN_GROUPS = frozenset({
    'accept', 'beat', 'broker', 'control', 'event', 'result', 'security', 'task', 'worker',
})
_KNOWN = SETTING_KEYS | EXTRA_SETTINGS


def _group_of(name: str) -> str:
    return name.split('_', 1)[0]


def _by_group(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(_group_of(name), []).append(name)
    return groups


_NEW_NAMES = _by_group(_KNOWN)
_OLD_NAMES = _by_group(_OLD_SETTING_KEYS)


def distance(a: str, b: str, limit: int) -> int:
    """Return how many letters to add, drop, change or swap make *b* of *a*.

    More than *limit* is returned as ``limit + 1``.
    """
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    before: list[int] = []
    above = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        row = [i]
        for j, right in enumerate(b, 1):
            cost = min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
        before, above = above, row
    return min(above[-1], limit + 1)


def _nearest(name: str, candidates: Iterable[str], limit: int) -> str | None:
    found, best = None, limit + 1
    for known in candidates:
        # "broker_url2" or "task_routes_v2" was made from the known name on purpose.
        if name.startswith(known):
            return None
        edits = distance(name, known, limit)
        if edits < best:
            found, best = known, edits
    return found


def suggest(name: str, groups: Collection[str] | None = _OWN_GROUPS) -> str | None:
    """Return the setting that *name*, which is not known, is probably meant to be.

    :param groups: look only at names in these namespaces; None means all.
    """
    if name in _KNOWN or len(name) < MIN_LENGTH or '_' not in name:
        return None
    group = _group_of(name)
    if groups is not None and group not in groups:
        return None
    return _nearest(name, _NEW_NAMES.get(group, ()), 2 if len(name) >= LONG else 1)


def _suggest_old(name: str) -> str | None:
    rest = name.partition('_')[2]
    # CELERY_ROUTE: the long common prefix must not make short words look alike.
    if name in _OLD_SETTING_KEYS or len(rest) < MIN_LENGTH:
        return None
    return _nearest(name, _OLD_NAMES.get(_group_of(name), ()), 1)


def check_spelling(names: Iterable[str], prefix: str = '') -> None:
    """Look for misspelled settings.

    :param names: the names in a configuration source, or of constructor keywords.
    :param prefix: prefix of the source (``CELERY_``); names without it are not looked at,
        with it they are ours whatever follows.
    :raises ImproperlyConfigured: names nearly, but not quite, that of a setting.
    """
    errors = []
    for name in names:
        if prefix:
            if not name.startswith(prefix):
                continue
            found = suggest(name[len(prefix):].lower(), groups=None)
            found = found and prefix + (found.upper() if prefix.isupper() else found)
        else:
            found = _suggest_old(name) if name.isupper() else suggest(name)
        if found:
            errors.append(f"Unknown setting {name!r}: did you mean {found!r}?")
    if errors:
        raise ImproperlyConfigured(
            '\n'.join(errors) + '\nCorrect it, or start a setting of your own with another word.')
