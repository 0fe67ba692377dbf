"""The real Celery, for tests that compare with it."""

from __future__ import annotations

import pytest

import fleet


@pytest.fixture(scope="session")
def peer_python() -> str:
    """The interpreter of an environment with the real Celery."""
    return fleet.peer_python()
