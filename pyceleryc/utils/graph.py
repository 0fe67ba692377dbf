"""A graph of dependencies: its order, and its picture for Graphviz."""
from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator
from graphlib import CycleError as _GraphlibCycle
from graphlib import TopologicalSorter
from typing import Any

__all__ = ('CycleError', 'DependencyGraph', 'GraphFormatter')


class CycleError(Exception):
    """The dependencies go in a circle."""


class DependencyGraph:
    """Objects, and for each the objects it depends on.

    :param it: pairs of an object and its dependencies.
    :param formatter: draws the graph; see :meth:`to_dot`.
    """

    def __init__(
        self, it: Iterable[tuple[Any, Iterable[Any]]] | None = None,
        formatter: GraphFormatter | None = None,
    ) -> None:
        self.formatter = formatter
        self.adjacent: dict[Any, list[Any]] = {}
        self.update(it or ())

    def add_arc(self, obj: Any) -> None:
        """Add *obj*."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, A: Any, B: Any) -> None:
        """Say that *A*, which was added, depends on *B*."""
        self[A].append(B)

    def connect(self, graph: DependencyGraph) -> None:
        """Add all of *graph*."""
        self.adjacent.update(graph.adjacent)

    def update(self, it: Iterable[tuple[Any, Iterable[Any]]]) -> None:
        """Add pairs of an object and its dependencies."""
        pairs = [(obj, list(deps)) for obj, deps in it]
        for obj, _ in pairs:
            self.add_arc(obj)
        for obj, deps in pairs:
            for dep in deps:
                self.add_edge(obj, dep)

    def topsort(self) -> list[Any]:
        """Return the objects, each after those it depends on.

        :raises CycleError: there is a circle.
        """
        try:
            return list(TopologicalSorter(self.adjacent).static_order())
        except _GraphlibCycle as exc:
            raise CycleError(*exc.args) from None

    def valency_of(self, obj: Any) -> int:
        """Return how many dependencies *obj* has, counting indirect ones."""
        return sum(1 + self.valency_of(dep) for dep in self.adjacent.get(obj, ()))

    def edges(self) -> list[Any]:
        """Return the objects that depend on something."""
        return [obj for obj, deps in self.items() if deps]

    def to_dot(self, fh: Any, formatter: GraphFormatter | None = None) -> None:
        """Write the graph to the file *fh* in the language of Graphviz."""
        draw = formatter or self.formatter or GraphFormatter()
        print(draw.head(), file=fh)
        seen: set[str] = set()
        for obj, deps in self.items():
            if not deps and draw.label(obj) not in seen:
                print(draw.terminal_node(obj), file=fh)
                seen.add(draw.label(obj))
            for dep in deps:
                for node in (dep, obj):
                    if draw.label(node) not in seen:
                        print(draw.node(node), file=fh)
                        seen.add(draw.label(node))
                print(draw.edge(obj, dep), file=fh)
        print(draw.tail(), file=fh)

    def format(self, obj: Any) -> Any:
        """Return the label of *obj*."""
        return self.formatter(obj) if self.formatter else obj

    def items(self) -> ItemsView[Any, list[Any]]:
        """Return pairs of an object and its dependencies."""
        return self.adjacent.items()

    iteritems = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, obj: object) -> bool:
        return obj in self.adjacent

    def __repr__(self) -> str:
        return '\n'.join(self.repr_node(node) for node in self)

    def repr_node(self, obj: Any, level: int = 1, fmt: str = '{0}({1})') -> str:
        """Return *obj* and, indented, what it depends on."""
        lines = [fmt.format(obj, self.valency_of(obj))]
        for dep in self.adjacent.get(obj, ()):
            lines.append('     ' * level + self.repr_node(dep, level + 1, fmt))
        return '\n'.join(lines)


class GraphFormatter:
    """Draws a :class:`DependencyGraph` in the language of Graphviz.

    :param root: the object the graph is about; gives the default *id*.
    :param type: ``digraph`` or ``graph``.
    :param id: name of the graph.
    :param indent: depth; *inw* is one indentation.
    :param scheme: attributes of all nodes and edges.
    """

    scheme: dict[str, Any] = {
        'shape': 'box', 'style': 'filled', 'fontname': 'sans-serif',
    }
    edge_scheme: dict[str, Any] = {
        'color': 'gray40', 'arrowsize': 0.8,
    }
    node_scheme: dict[str, Any] = {'fillcolor': 'lightblue', 'color': 'steelblue'}
    term_scheme: dict[str, Any] = {'fillcolor': 'aliceblue', 'color': 'lightsteelblue'}
    graph_scheme: dict[str, Any] = {'bgcolor': 'white'}
    _arrows = {'graph': '--', 'digraph': '->'}

    def __init__(
        self, root: Any = None, type: str | None = None, id: str | None = None,
        indent: int = 0, inw: str = ' ' * 4, **scheme: Any,
    ) -> None:
        self.id = id or 'dependencies'
        self.root = root
        self.type = type or 'digraph'
        self.direction = self._arrows[self.type]
        self.outer = inw * indent
        self.inner = inw * (indent + 1)
        self.scheme = {**self.scheme, **scheme}
        self.graph_scheme = {
            **self.graph_scheme, 'root': '' if root is None else self.label(root)}

    def attr(self, name: str, value: Any) -> str:
        """Return one attribute."""
        return f'{name}="{value}"'

    def attrs(self, d: dict[str, Any] | None, scheme: dict[str, Any] | None = None) -> str:
        """Return the attributes *d* on top of *scheme* and the general scheme."""
        merged = {**self.scheme, **(scheme or {}), **(d or {})}
        return ', '.join(self.attr(name, value) for name, value in merged.items())

    def head(self, **attrs: Any) -> str:
        """Return how the graph begins."""
        values = ', '.join(
            self.attr(name, value) for name, value in {**self.graph_scheme, **attrs}.items())
        return f'{self.outer}{self.type} {self.id} {{\n{self.inner}graph [{values}]'

    def tail(self) -> str:
        """Return how the graph ends."""
        return f'{self.outer}}}'

    def label(self, obj: Any) -> str:
        """Return the text in the node of *obj*."""
        return str(obj)

    def node(self, obj: Any, **attrs: Any) -> str:
        """Return a node that depends on others."""
        return self.draw_node(obj, self.node_scheme, attrs)

    def terminal_node(self, obj: Any, **attrs: Any) -> str:
        """Return a node that depends on nothing."""
        return self.draw_node(obj, self.term_scheme, attrs)

    def edge(self, a: Any, b: Any, **attrs: Any) -> str:
        """Return the arrow from *a* to *b*."""
        return self.draw_edge(a, b, self.edge_scheme, attrs)

    def draw_edge(
        self, a: Any, b: Any, scheme: dict[str, Any] | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> str:
        """Return an arrow with these attributes."""
        return (f'{self.inner}"{self.label(a)}" {self.direction} "{self.label(b)}" '
                f'[{self.attrs(attrs, scheme)}]')

    def draw_node(
        self, obj: Any, scheme: dict[str, Any] | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> str:
        """Return a node with these attributes."""
        return f'{self.inner}"{self.label(obj)}" [{self.attrs(attrs, scheme)}]'

    def __call__(self, obj: Any) -> str:
        return self.label(obj)
