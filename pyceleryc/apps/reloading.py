"""Starting a worker anew when its sources change: ``worker --reload``, for development."""
from __future__ import annotations

import logging
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ('Reloader', 'project_files')

logger = logging.getLogger('celery.apps.worker')

#: Seconds between looks at the files.
PERIOD = 1.0
_LIBRARY = tuple(os.path.realpath(path) + os.sep for name, path in sysconfig.get_paths().items()
                 if name in ('stdlib', 'platstdlib', 'purelib', 'platlib'))
_OWN = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep


class Reloader:
    """Looks at the project's files from the machine's loop; it needs no thread beside a pool that forks.

    A change is tried in a process of its own first: one that cannot be imported leaves the worker as it is.

    :param check: the command that does that, with :param environment: added.
    """

    def __init__(self, check: list[str], environment: dict[str, str]) -> None:
        self.check, self.environment = check, {**os.environ, **environment}
        self.worker: Any = None
        self._seen: dict[str, int] = {}
        self._trial: tuple[subprocess.Popen[bytes], IO[bytes]] | None = None

    def begin(self, worker: Any) -> None:
        """Watch, for a worker that is ready."""
        self.worker = worker
        self._seen = _stamps()
        self._again()

    def _again(self) -> None:
        self.worker.machine.core.call_later(PERIOD, self._look)

    def _look(self) -> None:
        if self._trial is not None:
            self._end_trial(*self._trial)
        else:
            self._compare(_stamps())
        self._again()

    def _compare(self, now: dict[str, int]) -> None:
        changed = sorted(path for path in now.keys() | self._seen.keys() if now.get(path) != self._seen.get(path))
        self._seen = now
        if changed:
            logger.info('%s changed, trying it.', ', '.join(map(os.path.relpath, changed[:3])))
            output = tempfile.TemporaryFile()
            self._trial = subprocess.Popen(
                self.check, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output), output

    def _end_trial(self, trial: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        code = trial.poll()
        if code is None:
            return
        self._trial = None
        with output:
            output.seek(0)
            said = output.read().decode(errors='replace').strip()
        if code:
            logger.error('The change cannot be used, the worker goes on as it was:\n%s', said)
        elif self._seen == _stamps():
            self.worker.start_anew()


def _stamps() -> dict[str, int]:
    found = {}
    for path in project_files(list(sys.modules.values())):
        try:
            found[path] = os.stat(path).st_mtime_ns
        except OSError:
            # Gone, or between being removed and written.
            continue
    return found


def project_files(modules: Iterable[Any]) -> Iterator[str]:
    """Yield the sources of modules that are no library, and all others in their packages: tasks may import them later."""
    packages, plain = set(), set()
    for module in modules:
        path = getattr(module, '__file__', None)
        if isinstance(path, str) and path.endswith('.py') and not os.path.realpath(path).startswith((*_LIBRARY, _OWN)):
            depth = module.__name__.count('.') + (os.path.basename(path) == '__init__.py')
            if depth:
                packages.add(Path(path).parents[depth - 1])
            else:
                plain.add(path)
    for package in packages:
        plain.update(map(str, package.rglob('*.py')))
    yield from plain
