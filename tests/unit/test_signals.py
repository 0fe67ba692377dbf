from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
from typing import Any

import pytest

from pyceleryc import signals
from pyceleryc.local import PromiseProxy
from pyceleryc.utils.dispatch import Signal


@pytest.fixture
def signal() -> Signal:
    return Signal(name='test', providing_args={'value'})


@pytest.mark.parametrize('name', signals.__all__)
def test_all_signals_exist(name: str) -> None:
    assert isinstance(getattr(signals, name), Signal)
    assert getattr(signals, name).name == name


def test_nobody_listens() -> None:
    """Nothing is paid for signals by who does not use them."""
    code = 'from pyceleryc import Celery, signals; Celery("a", broker="memory://").finalize()\n' \
           'print([name for name in signals.__all__ if getattr(signals, name).receivers])'
    assert subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, check=True, text=True).stdout.strip() == '[]'


def test_decorators_and_call(signal: Signal) -> None:
    got: list[Any] = []

    @signal.connect
    def bare(sender: Any = None, **kwargs: Any) -> str:
        got.append(('bare', sender, kwargs))
        return 'answer'

    @signal.connect(sender='tasks.add')
    def named(sender: Any = None, **kwargs: Any) -> None:
        got.append(('named', sender, kwargs['value']))

    assert signal.send('other', value=1) == [(bare, 'answer')]
    assert got == [('bare', 'other', {'signal': signal, 'value': 1})]
    assert [receiver for receiver, _ in signal.send(sender='tasks.add', value=2)] == [bare, named]
    assert signal.has_listeners('other') and signal.has_listeners()


def test_receivers_is_falsy_when_nobody_listens(signal: Signal) -> None:
    receivers = signal.receivers

    def receiver(**kwargs: Any) -> None:
        return None

    assert not receivers
    signal.connect(receiver)
    assert receivers
    assert signal.disconnect(receiver) and not signal.disconnect(receiver)
    assert not receivers and signal.receivers is receivers
    signal.connect(receiver)
    del receiver
    gc.collect()
    assert not receivers and signal.send(None) == []


def test_methods_are_held_weakly(signal: Signal) -> None:
    class Listener:
        def on(self, **kwargs: Any) -> int:
            return 1

    listener = Listener()
    signal.connect(listener.on)
    assert [answer for _, answer in signal.send(None)] == [1]
    assert signal.disconnect(listener.on)
    signal.connect(listener.on)
    del listener
    gc.collect()
    assert not signal.receivers


def test_strong_and_dispatch_uid(signal: Signal) -> None:
    signal.connect(lambda **kwargs: 1, weak=False, dispatch_uid='one')
    signal.connect(lambda **kwargs: 2, weak=False, dispatch_uid='one')
    gc.collect()
    assert [answer for _, answer in signal.send(None)] == [1]
    assert signal.disconnect(dispatch_uid='one') and not signal.receivers


def test_sender_is_compared_by_identity(signal: Signal) -> None:
    class Sender:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = object.__hash__

    one, two = Sender(), Sender()
    signal.connect(lambda **kwargs: 1, sender=one, weak=False)
    assert signal.send(one) and not signal.send(two)
    assert signal.has_listeners(one) and not signal.has_listeners(two)


def test_lazy_sender_is_not_evaluated_by_connect(signal: Signal) -> None:
    task = object()
    proxy = PromiseProxy(lambda: task)
    signal.connect(lambda **kwargs: 1, sender=proxy, weak=False)
    assert not proxy.__evaluated__()
    proxy.__evaluate__()
    assert [answer for _, answer in signal.send(task)] == [1]
    assert signal.send(object()) == []


def test_errors_are_logged_and_do_not_stop_others(
    signal: Signal, caplog: pytest.LogCaptureFixture,
) -> None:
    def bad(**kwargs: Any) -> None:
        raise ValueError('broken')

    def good(**kwargs: Any) -> str:
        return 'fine'

    signal.connect(bad)
    signal.connect(good)
    with caplog.at_level(logging.ERROR, logger='celery'):
        answers = signal.send_robust(None)
    assert isinstance(answers[0][1], ValueError) and answers[1][1] == 'fine'
    assert 'Signal handler' in caplog.text and "raised: ValueError('broken')" in caplog.text


def test_receivers_must_take_keywords(signal: Signal) -> None:
    with pytest.raises(ValueError, match='keyword arguments'):
        signal.connect(lambda: 1)
    with pytest.raises(TypeError):
        signal.connect(3)


def test_retry_connects_and_disconnects(signal: Signal) -> None:
    def receiver(**kwargs: Any) -> str:
        return 'ok'

    signal.connect(receiver, retry=True)
    assert [answer for _, answer in signal.send(None)] == ['ok']
    assert signal.disconnect(receiver)


def test_connecting_from_many_threads(signal: Signal) -> None:
    functions = [lambda i=i, **kwargs: i for i in range(40)]

    def connect(part: list[Any]) -> None:
        for function in part:
            signal.connect(function)

    threads = [
        threading.Thread(target=connect, args=(functions[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer for _, answer in signal.send(None)) == list(range(40))
