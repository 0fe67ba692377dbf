"""Stamps: headers put on every signature of a workflow (FEATURES 2.3)."""
from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import Any

from pyceleryc.utils.functional import maybe_list

__all__ = ('StampingVisitor', 'put_stamps')


class StampingVisitor(metaclass=ABCMeta):
    """Decides the stamps of the signatures that it visits.

    The methods return a dict of stamps; its item ``stamped_headers``, if any, lists which
    of them are stamps (default: all).
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamps of a plain signature."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        """Called before the members of a group."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:
        """Called after the members of a group."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
        """Called before the steps of a chain."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:
        """Called after the steps of a chain."""

    def on_chord_header_start(self, sig: Any, **header: Any) -> dict[str, Any]:
        """Called before the header of the chord *sig*, which is a group."""
        return self.on_group_start(sig.tasks, **header)

    def on_chord_header_end(self, sig: Any, **header: Any) -> None:
        """Called after the header of the chord *sig*."""
        self.on_group_end(sig.tasks, **header)

    def on_chord_body(self, sig: Any, **header: Any) -> dict[str, Any]:
        """Called before the body of a chord."""
        return {}

    def on_callback(self, callback: Any, **header: Any) -> dict[str, Any]:
        """Called for each link."""
        return {}

    def on_errback(self, errback: Any, **header: Any) -> dict[str, Any]:
        """Called for each link_error."""
        return {}


def merged(headers: dict[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return *headers* with what a visitor's method returned, which says itself what are stamps."""
    if not found:
        return headers
    names = {*_stamp_names(headers), *_stamp_names(found)}
    return {**headers, **found, 'stamped_headers': sorted(names)}


def _stamp_names(headers: Mapping[str, Any]) -> Any:
    names = headers.get('stamped_headers')
    return headers if names is None else names


def put_stamps(sig: Any, headers: Mapping[str, Any], append: bool = False) -> None:
    """Make *headers* stamps of *sig*.

    :param append: keep older values of the same names: values become lists.
    """
    given = dict(headers)
    names = set(_stamp_names(given))
    given.pop('stamped_headers', None)
    options = sig.options
    for name in names & given.keys():
        value, old = given[name], options.get(name)
        if append and name in options:
            value = list(dict.fromkeys([*maybe_list(value), *maybe_list(old)]))
        options[name] = value
    names |= set(options.get('stamped_headers') or ())
    if names:
        options['stamped_headers'] = sorted(names)

