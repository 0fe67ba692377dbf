"""ISO-8601 dates, as in the ``eta`` and ``expires`` headers."""
from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

__all__ = ('parse_iso8601',)

_FORMAT = re.compile(
    r'(?P<year>\d{4})(?:-?(?P<month>\d\d)(?:-?(?P<day>\d\d))?)?'
    r'(?:[T ](?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)'
    r'(?:[.,](?P<fraction>\d+))?)?)?'
    r'(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?)?',
)


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text == 'Z':
        return timezone.utc
    digits = text[1:].replace(':', '').ljust(4, '0')
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == '-' else offset)


def parse_iso8601(datestring: str) -> datetime:
    """Return the datetime; naive if *datestring* has no offset.

    Month, day, minutes and seconds may be missing, and so may the separators.
    Digits beyond microseconds are cut.

    :raises ValueError: it is no such date.
    """
    match = _FORMAT.fullmatch(datestring)
    if match is None:
        raise ValueError(f'unable to parse date string {datestring!r}')
    year, month, day = (int(match[key] or 1) for key in ('year', 'month', 'day'))
    hour, minute, second = (int(match[key] or 0) for key in ('hour', 'minute', 'second'))
    microsecond = int((match['fraction'] or '')[:6].ljust(6, '0'))
    return datetime(year, month, day, hour, minute, second, microsecond, _zone(match['zone']))
