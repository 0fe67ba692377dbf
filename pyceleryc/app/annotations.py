"""The ``task_annotations`` setting: change attributes of tasks without touching them."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyceleryc.utils.functional import firstmethod, mlazy
from pyceleryc.utils.imports import instantiate

__all__ = ('MapAnnotation', 'prepare', 'resolve_all')

_first_match = firstmethod('annotate')
_first_match_any = firstmethod('annotate_any')


class MapAnnotation(dict[str, Any]):
    """Annotations by task name; ``'*'`` is for all tasks."""

    def annotate_any(self) -> dict[str, Any] | None:
        """Return the attributes for every task, or None."""
        found = self.get('*')
        return None if found is None else dict(found)

    def annotate(self, task: Any) -> dict[str, Any] | None:
        """Return the attributes for *task*, or None."""
        found = self.get(task.name)
        return None if found is None else dict(found)


def _expand(annotation: Any) -> Any:
    if isinstance(annotation, dict):
        return MapAnnotation(annotation)
    if isinstance(annotation, str):
        # Imported when it is used: the module may import the app.
        return mlazy(instantiate, annotation)
    return annotation


def prepare(annotations: Any) -> Any:
    """Return the setting as a sequence of objects with ``annotate`` and ``annotate_any``.

    :param annotations: None, a dict, the name of a class, such an object, or a list of these.
    """
    if annotations is None:
        return ()
    if not isinstance(annotations, (list, tuple)):
        annotations = (annotations,)
    return [_expand(annotation) for annotation in annotations]


def resolve_all(anno: Any, task: Any) -> Iterator[dict[str, Any]]:
    """Yield the attributes for *task*: its own, then those for all tasks."""
    return (found for found in (_first_match(anno, task), _first_match_any(anno)) if found)
