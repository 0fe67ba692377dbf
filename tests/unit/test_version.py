"""The version's names are made when they are asked for."""

from __future__ import annotations

import pickle

import pyceleryc


def test_version_info() -> None:
    assert pyceleryc.VERSION == (5, 6, 3, "", "")
    assert pyceleryc.version_info is pyceleryc.VERSION
    assert ".".join(map(str, pyceleryc.version_info[:3])) == pyceleryc.__version__
    assert pickle.loads(pickle.dumps(pyceleryc.version_info)) == pyceleryc.version_info
