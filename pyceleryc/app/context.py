"""The request of a running task (FEATURES 1.4)."""
from __future__ import annotations

from typing import Any

__all__ = ('Context', 'without_death_headers')

#: Headers that the broker adds when a message is dead-lettered; never sent again (T-131).
_DEATH_PREFIXES = ('x-death', 'x-first-death-', 'x-last-death-')
#: Headers of the protocol that are no attributes with a default; not the user's either.
_PROTOCOL_HEADERS = frozenset({'compression', 'x-delivery-count'})


def without_death_headers(headers: Any) -> Any:
    """Return *headers* without those that the broker added."""
    if not headers:
        return headers
    return {k: v for k, v in headers.items() if not str(k).startswith(_DEATH_PREFIXES)}


class Context:
    """What is known about the task that runs: message headers, properties, arguments.

    Everything given becomes an attribute; others have the defaults below, or raise
    AttributeError.
    """

    _children: list[Any] | None = None
    _protected = 0
    args: Any = None
    argsrepr: str | None = None
    callbacks: Any = None
    called_directly = True
    chain: Any = None
    chord: Any = None
    correlation_id: str | None = None
    delivery_info: dict[str, Any] | None = None
    errbacks: Any = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: int | None = None
    headers: dict[str, Any] | None = None
    hostname: str | None = None
    id: Any = None  # str, or None outside of a run
    ignore_result = False
    is_eager = False
    kwargs: Any = None
    kwargsrepr: str | None = None
    lang: str | None = None
    logfile: str | None = None
    loglevel: int | None = None
    origin: str | None = None
    parent_id: str | None = None
    properties: dict[str, Any] | None = None
    retries = 0
    reply_to: str | None = None
    replaced_task_nesting = 0
    root_id: str | None = None
    shadow: str | None = None
    task: str | None = None
    taskset: str | None = None
    timelimit: Any = None
    utc: bool | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.update(*args, **kwargs)
        if self.headers is None:
            self.headers = self._custom_headers()

    def _custom_headers(self) -> dict[str, Any] | None:
        custom = {
            key: value for key, value in self.__dict__.items()
            if key not in _KNOWN and key not in _PROTOCOL_HEADERS
        }
        return custom or None

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set attributes, given like the items of a dict."""
        self.__dict__.update(*args, **kwargs)

    def clear(self) -> None:
        """Go back to the defaults."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """Return the attribute *key*, or *default*."""
        return getattr(self, key, default)

    def __repr__(self) -> str:
        return f'<Context: {vars(self)!r}>'

    @property
    def children(self) -> list[Any]:
        """Results of the tasks that were sent from here (T-088)."""
        if self._children is None:
            self._children = []
        return self._children

    @property
    def time_limit(self) -> Any:
        """Hard time limit of the message, in seconds (T-076)."""
        return (self.timelimit or (None, None))[0]

    @property
    def soft_time_limit(self) -> Any:
        """Soft time limit of the message, in seconds."""
        return (self.timelimit or (None, None))[1]

    def as_execution_options(self) -> dict[str, Any]:
        """Return the options of ``apply_async`` that send a task like this one (T-131)."""
        hard, soft = self.timelimit or (None, None)
        options = {
            'task_id': self.id,
            'root_id': self.root_id,
            'parent_id': self.parent_id,
            'group_id': self.group,
            'group_index': self.group_index,
            'shadow': self.shadow,
            'chord': self.chord,
            'chain': self.chain,
            'link': self.callbacks,
            'link_error': self.errbacks,
            'expires': self.expires,
            'soft_time_limit': soft,
            'time_limit': hard,
            'headers': without_death_headers(self.headers) or {},
            'retries': self.retries,
            'reply_to': self.reply_to,
            'replaced_task_nesting': self.replaced_task_nesting,
            'origin': self.origin,
        }
        if self.stamps:
            options['stamped_headers'] = self.stamped_headers
            options.update(self.stamps)
        return options


_KNOWN = frozenset(vars(Context))
