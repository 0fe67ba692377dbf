"""What this process's workers hold and have done, and what survives a restart (FEATURES 2.10, PROTOCOL 3.10)."""
from __future__ import annotations

import codecs
import io
import os
import pickle
import time
import zlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from pyceleryc import _state
from pyceleryc._dbm_file import DbmFile
from pyceleryc.exceptions import WorkerShutdown, WorkerTerminate
from pyceleryc.utils.collections import LimitedSet

__all__ = (
    'active_requests', 'reserved_requests', 'requests', 'revoked', 'total_count',
    'all_total_count', 'should_stop', 'should_terminate', 'task_reserved', 'task_accepted',
    'task_ready', 'Persistent', 'maybe_shutdown', 'monotonic_times',
)

# Read once, as Celery does: the set is made with the module, and all workers of the process share it.
REVOKES_MAX = int(os.environ.get('CELERY_WORKER_REVOKES_MAX', 50000))
REVOKE_EXPIRES = float(os.environ.get('CELERY_WORKER_REVOKE_EXPIRES', 10800))  # seconds
#: Celery's format of the file.
PROTOCOL = 3

#: Ids of revoked tasks.
revoked: LimitedSet = _state.worker_sets.setdefault(
    'revoked', LimitedSet(maxlen=REVOKES_MAX, expires=REVOKE_EXPIRES))
#: Set by user code to end the workers: None or False, else the exit code (True means 0).
should_stop: Any = None
should_terminate: Any = None


# -- what the workers hold -------------------------------------------------------------------

class _Held(AbstractSet):  # type: ignore[type-arg]
    """A look at the requests that all workers of this process hold; a new list each time."""

    def __init__(self, *which: str) -> None:
        self.which = which

    def __iter__(self) -> Iterator[Any]:
        return (request for machine in list(_state.machines)
                for which in self.which for request in machine.jobs(which))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, item: object) -> bool:
        return any(request is item or request.id == getattr(item, 'id', item) for request in self)


class _Requests(Mapping):  # type: ignore[type-arg]
    """The same by id."""

    def __init__(self, held: _Held) -> None:
        self.held = held

    def __getitem__(self, key: str) -> Any:
        for request in self.held:
            if request.id == key:
                return request
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return (request.id for request in self.held)

    def __len__(self) -> int:
        return len(self.held)


class _Totals(Mapping):  # type: ignore[type-arg]
    """How many messages came for each task."""

    def _sums(self) -> dict[str, int]:
        sums: dict[str, int] = {}
        for machine in list(_state.machines):
            for name, count in machine.totals().items():
                sums[name] = sums.get(name, 0) + count
        return sums

    def __getitem__(self, key: str) -> int:
        return self._sums()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sums())

    def __len__(self) -> int:
        return len(self._sums())


class _TotalOfAll(list):  # type: ignore[type-arg]
    """A list of one number, as Celery has it."""

    def __getitem__(self, index: Any) -> Any:
        return [sum(total_count.values())][index]


active_requests = _Held('active')
#: Those that run, too: the name means "not finished".
reserved_requests = _Held('active', 'reserved', 'scheduled')
requests = _Requests(reserved_requests)
total_count = _Totals()
all_total_count = _TotalOfAll([0])


def task_reserved(request: Any) -> None:
    """Called by custom strategies of Celery; the machine counts by itself."""
    del request


task_accepted = task_ready = task_reserved


# -- stopping ----------------------------------------------------------------------------------

def maybe_shutdown() -> None:
    """Raise WorkerTerminate or WorkerShutdown if user code has asked for it."""
    for asked, error in ((should_terminate, WorkerTerminate), (should_stop, WorkerShutdown)):
        if asked is not None and asked is not False:
            raise error(0 if asked is True else asked)


# -- the file ------------------------------------------------------------------------------------

def monotonic_times(members: LimitedSet) -> dict[Any, float]:
    """Return the members with insertion times of the monotonic clock, as Celery sends and stores them."""
    shift = time.monotonic() - time.time()
    return {item: inserted + shift for item, inserted in members.as_dict().items()}


class _AsCelerys:
    """Is written as Celery's LimitedSet; see :func:`_dump`."""

    def __init__(self, members: LimitedSet) -> None:
        self.arguments = (members.maxlen, members.expires, monotonic_times(members), members.minlen)

    def __reduce__(self) -> Any:
        return LimitedSet, self.arguments


class _Unpickler(pickle.Unpickler):
    """Reads what Celery wrote, where Celery is not installed, and nothing but such sets, numbers and bytes."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.partition('.')[2], name) == ('utils.collections', 'LimitedSet'):
            return LimitedSet
        if (module, name) == ('_codecs', 'encode'):  # how protocol 2 writes bytes
            return codecs.encode
        raise pickle.UnpicklingError(f'{module}.{name} has no business in a state file')


def _dump(members: LimitedSet) -> bytes:
    # Protocol 2 writes the class as a line of text; Celery knows it by its own name only.
    data = pickle.dumps(_AsCelerys(members), protocol=2)
    return zlib.compress(data.replace(b'cpyceleryc.utils.', b'ccelery.utils.', 1))


def _load(data: bytes) -> LimitedSet:
    found: LimitedSet = _Unpickler(io.BytesIO(zlib.decompress(data))).load()
    return found


class _StateFile(DbmFile):
    noun, option = 'file of revoked tasks', '--statedb'


class Persistent:
    """Revoked ids and the logical clock, kept in a file (``--statedb``).

    Read, and merged into *state*, at once.  The content is in :attr:`db`.

    :param state: has ``revoked``; default: this module's.
    :param filename: without the ending that the database library may add.
    :param clock: of the app.
    :raises OSError: the file cannot be used.
    """

    def __init__(self, state: Any = None, filename: str = '', clock: Any = None) -> None:
        self.revoked: LimitedSet = revoked if state is None else state.revoked
        self.filename = str(filename)
        self.clock = clock
        self.file = _StateFile(self.filename)
        self.file.check()
        try:
            self.db: dict[str, Any] = {key: _Unpickler(io.BytesIO(value)).load() for key, value in self.file.read().items()}
            self.merge()
        except Exception as exc:  # what a file of another kind, or a damaged one, leads to
            raise OSError(f'{self.filename!r} cannot be read as a file of revoked tasks ({exc}): remove it, or name another '
                          'with --statedb') from exc

    def merge(self) -> None:
        """Take over what is in the file."""
        stored = self.db.get('zrevoked')
        if stored:
            self.revoked.update(_load(stored))
        if self.clock is not None:
            self.clock.adjust(self.db.get('clock') or 0)

    def sync(self) -> None:
        """Write the present state.  :raises OSError: it cannot be written; what was there stays."""
        self.revoked.purge()
        self.db['__proto__'] = PROTOCOL
        self.db['zrevoked'] = _dump(self.revoked)
        if self.clock is not None:
            self.db['clock'] = self.clock.forward()
        self.file.write({key: pickle.dumps(value, protocol=2) for key, value in self.db.items()})

    save = sync

    def close(self) -> None:
        """Write nothing more; nothing is open."""
        self.db.clear()
