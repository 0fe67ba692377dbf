from __future__ import annotations

from pyceleryc import states


def test_sets() -> None:
    assert states.READY_STATES == {'SUCCESS', 'FAILURE', 'REVOKED'}
    assert states.UNREADY_STATES == {'PENDING', 'RECEIVED', 'STARTED', 'REJECTED', 'RETRY'}
    assert states.EXCEPTION_STATES == {'RETRY', 'FAILURE', 'REVOKED'}
    assert states.PROPAGATE_STATES == {'FAILURE', 'REVOKED'}
    assert len(states.ALL_STATES) == 7
    assert not states.ALL_STATES & {states.IGNORED, states.REJECTED}


def test_precedence() -> None:
    order = ['SUCCESS', 'FAILURE', 'PROGRESS', 'REVOKED', 'STARTED', 'RECEIVED', 'REJECTED',
             'RETRY', 'PENDING']
    assert sorted(order, key=states.precedence) == order
    ranked = [states.state(name) for name in order]
    for higher, lower in zip(ranked, ranked[1:], strict=False):
        assert higher > lower and lower < higher and higher >= lower and lower <= higher
    assert states.state('A') >= states.state('B') and states.state('A') <= states.state('B')
    assert states.state('PROGRESS') > 'STARTED'
