from __future__ import annotations

import io
import time
import warnings
from typing import Any, Optional

import pytest

import pyceleryc.utils
from pyceleryc.exceptions import CDeprecationWarning, CPendingDeprecationWarning
from pyceleryc.utils import abstract, debug, deprecated, objects, sysinfo, term
from pyceleryc.utils import annotations as hints
from pyceleryc.utils.graph import CycleError, DependencyGraph, GraphFormatter


@pytest.mark.parametrize('name', pyceleryc.utils.__all__)
def test_names_of_the_package(name: str) -> None:
    assert getattr(pyceleryc.utils, name) is not None and name in dir(pyceleryc.utils)


def test_uuid() -> None:
    assert pyceleryc.utils.gen_unique_id is pyceleryc.utils.uuid
    assert len(pyceleryc.utils.uuid()) == 36
    with pytest.raises(AttributeError):
        pyceleryc.utils.no_such_name


# -- objects -------------------------------------------------------------------------------

def test_bunch_and_getitem_property() -> None:
    class Signature(dict[str, Any]):
        task = objects.getitem_property('task', 'Name.')
        task_id = objects.getitem_property('options.task_id')

    signature = Signature(task='add', options={})
    assert signature.task == 'add' and signature.task_id is None
    signature.task_id = 'x'
    assert signature['options'] == {'task_id': 'x'}
    assert objects.Bunch(a=1).a == 1


def test_fallback_context() -> None:
    log: list[str] = []

    class Resource:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> Resource:
            return self

        def __exit__(self, *exc_info: object) -> None:
            log.append(self.name)

    provided = Resource('provided')
    with objects.FallbackContext(provided, Resource, 'made') as used:
        assert used is provided
    with objects.FallbackContext(None, Resource, 'made') as used:
        assert used.name == 'made'
    assert log == ['made']


def test_mro_lookup() -> None:
    class A:
        x = 1

    class B(A):
        pass

    assert objects.mro_lookup(B, 'x') is A
    assert objects.mro_lookup(B, 'x', stop={A}) is None
    assert objects.mro_lookup(B, 'y') is None


# -- graph ---------------------------------------------------------------------------------

def test_topological_order() -> None:
    graph = DependencyGraph([('A', []), ('B', ['A']), ('C', ['A', 'B']), ('D', ['C'])])
    order = graph.topsort()
    for node, dependencies in graph.items():
        assert all(order.index(dep) < order.index(node) for dep in dependencies)
    assert graph.valency_of('C') == 3 and graph.edges() == ['B', 'C', 'D']
    assert 'A' in graph and len(graph) == 4 and graph['C'] == ['A', 'B']
    graph.add_edge('A', 'D')
    with pytest.raises(CycleError):
        graph.topsort()


def test_dot() -> None:
    graph = DependencyGraph([('A', []), ('B', ['A'])])
    out = io.StringIO()
    graph.to_dot(out, GraphFormatter(root='B', id='steps'))
    text = out.getvalue()
    assert text.startswith('digraph steps {') and '"B" -> "A"' in text
    assert text.count('\n    "A" [') == 1 and text.rstrip().endswith('}')


# -- term ----------------------------------------------------------------------------------

def test_colors() -> None:
    paint = term.colored()
    assert str(paint.red('a')) == '\033[1;31ma\033[0m'
    assert str(paint.red('a', paint.blue('b'), 'c')) == (
        '\033[1;31ma\033[1;34mb\033[0m\033[1;31mc\033[0m')
    assert str(term.colored(enabled=False).red('a', term.colored().blue('b'))) == 'ab'
    assert paint.bold('a') + 'b' == '\033[1ma\033[0mb' and len(paint.green('abc')) == 3


# -- deprecated ----------------------------------------------------------------------------

def test_deprecated_callable() -> None:
    @deprecated.Callable(removal='7.0', alternative='Use new().')
    def old(x: int) -> int:
        return x

    with pytest.warns(CDeprecationWarning, match=r'removal in version 7.0. Use new\(\).') as seen:
        assert old(3) == 3
    assert seen[0].filename == __file__


def test_deprecated_property_pending() -> None:
    class Thing:
        @deprecated.Property(deprecation='6.0', removal='7.0')
        def old(self) -> int:
            return 1

    with pytest.warns(CPendingDeprecationWarning, match='scheduled for deprecation'):
        assert Thing().old == 1


# -- the rest ------------------------------------------------------------------------------

def test_abstract() -> None:
    class Task:
        delay = apply_async = apply = __call__ = lambda self: None

    assert issubclass(Task, abstract.CallableTask)
    assert not issubclass(Task, abstract.CallableSignature)
    assert not issubclass(int, abstract.CallableTask)


def test_annotations() -> None:
    assert hints.get_optional_arg(Optional[int]) is int
    assert hints.get_optional_arg(int | None) is int
    assert hints.get_optional_arg(int | str) is None
    assert hints.annotation_is_class(int) and not hints.annotation_is_class(list[int])
    assert hints.annotation_issubclass(bool, int) and hints.is_none_type(type(None))


def test_sysinfo() -> None:
    assert len(sysinfo.load_average()) == 3
    disk = sysinfo.df('/')
    assert disk.total_blocks > 0 and 0 <= disk.capacity <= 100 and disk.available >= 0


def test_debug() -> None:
    assert debug.humanbytes(3 * 2 ** 20) == '3MB' and debug.humanbytes(5) == '5b'
    assert debug.mem_rss().endswith(('MB', 'KB', 'GB'))
    assert 'test_debug' in debug.cry()
    with pytest.raises(RuntimeError, match='blocking detection'):
        with debug.blockdetection(1):
            time.sleep(5)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with debug.blockdetection(None):
            time.sleep(0)
