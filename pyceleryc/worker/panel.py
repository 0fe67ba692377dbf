"""The commands that a worker obeys: where they are kept and how user code adds its own (FEATURES 2.11)."""
from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pyceleryc import _state

__all__ = ('Panel', 'CommandInfo', 'control_command', 'inspect_command', 'ok', 'nok', 'NO_REPLY')

Handler = Callable[..., Any]


class _NoReply:
    """What a command returns that does not answer."""

    def __repr__(self) -> str:
        return 'NO_REPLY'


NO_REPLY = _NoReply()


class CommandInfo(NamedTuple):
    """What the command line has to know of a command.

    :ivar type: ``control`` or ``inspect``.
    :ivar args: (name, type) of positional arguments; *variadic* takes all the rest.
    :ivar signature: arguments as they are shown.
    """

    name: str
    alias: str | None = None
    type: str = 'control'
    visible: bool = True
    default_timeout: float = 1.0
    help: str = ''
    signature: str | None = None
    args: Sequence[tuple[str, Any]] = ()
    variadic: str | None = None


class Panel(UserDict):  # type: ignore[type-arg]
    """Commands by name.  ``data`` has the functions, ``meta`` what is known about them."""

    data = _state.remote_commands
    meta = _state.remote_command_infos

    @classmethod
    def register(cls, *args: Any, **kwargs: Any) -> Any:
        """Decorator: add a command; bare, or with attributes of :class:`CommandInfo`."""
        if args:
            return cls._register(args[0])
        return lambda fun: cls._register(fun, **kwargs)

    @classmethod
    def _register(cls, fun: Handler, name: str | None = None, **info: Any) -> Handler:
        name = name or fun.__name__
        help_ = (fun.__doc__ or '').strip().split('\n', 1)[0]
        made = CommandInfo(**{'name': name, 'help': help_, **info})
        cls.data[name], cls.meta[name] = fun, made
        if made.alias:
            cls.data[made.alias] = fun
        return fun


def control_command(**kwargs: Any) -> Any:
    """Decorator: add a command that changes something.

    :param args: positional arguments of the command line: ``[('n', int)]``.
    :param signature: how they are shown: ``'[N=1]'``.

    Further: *name*, *alias*, *variadic*, *visible*, *default_timeout*, *help*.  The function is
    called with the state (``app``, ``hostname``, ``consumer``, ``tset``) and the arguments by
    name; what it returns is the reply.
    """
    return Panel.register(type='control', **kwargs)


def inspect_command(**kwargs: Any) -> Any:
    """The same for a command that tells something."""
    return Panel.register(type='inspect', **kwargs)


def ok(value: Any) -> dict[str, Any]:
    """The reply of a command that worked."""
    return {'ok': value}


def nok(value: Any) -> dict[str, Any]:
    """The reply of one that did not."""
    return {'error': value}
