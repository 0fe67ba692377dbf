"""Workflows: signatures, and chains, groups, chords and maps of them."""
from __future__ import annotations

from kombu.utils.functional import maybe_list

from pyceleryc.canvas.chain import _chain, chain
from pyceleryc.canvas.chord import _chord, chord
from pyceleryc.canvas.group import group
from pyceleryc.canvas.maps import chunks, xmap, xstarmap
from pyceleryc.canvas.signature import (
    Signature,
    maybe_signature,
    maybe_subtask,
    signature,
    subtask,
)
from pyceleryc.canvas.stamping import StampingVisitor

__all__ = (
    'Signature', 'chain', 'xmap', 'xstarmap', 'chunks', 'group', 'chord', 'signature',
    'maybe_signature', 'StampingVisitor', 'subtask', 'maybe_subtask', 'maybe_list', '_chain',
    '_chord',
)
