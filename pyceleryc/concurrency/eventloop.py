"""The thread of the pool ``asyncio``: one event loop, on which all coroutines of a worker are under way at once.

The machine has a line to it (csrc/work/line.h): jobs and orders come over it, and runs that are over are handed in. A run has
three parts: its begin, the coroutine, its end. The outer two are plain code that may wait (signals, handlers, stores that Python
writes, links to be sent): unless the core can tell that they do not, a thread beside the loop does them, in the coroutine's context.
So is a task that is no coroutine run, as a whole. Nothing here awaits for the machine's purposes: what a task
does to its own asyncio task cannot keep its outcome from being handed in.
"""
from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from pyceleryc import _state
from pyceleryc.app import coroutines

__all__ = ('EventLoop', 'Live', 'Threads')

logger = logging.getLogger('celery.concurrency')

#: Seconds that a coroutine has to clean up when it is ended by force; then it is not resumed any more.
KILL_GRACE = 5.0
#: The same when the worker ends.
QUIT_GRACE = 1.0
#: Threads for the begins and ends that may wait.
ASIDE = 8


class Threads:
    """Daemon threads, started when one is missing, and kept.

    :param most: how many; None: as many as there are calls at once.
    """

    def __init__(self, name: str, most: int | None, joins_block: bool) -> None:
        self.name, self.most, self.joins_block = name, most, joins_block
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._free = threading.Semaphore(0)
        self._all: list[threading.Thread] = []

    def call(self, what: Callable[[], object]) -> None:
        """Have *what* called; it must not raise.  To be used by one thread.

        :raises RuntimeError: there is no thread, and none can be started.
        """
        if not self._free.acquire(blocking=False) and (self.most is None or len(self._all) < self.most):
            self._start()
        self._calls.put(what)

    def reserve(self) -> None:
        """Have at least one."""
        self._start()
        self._free.release()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f'{self.name}_{len(self._all)}', daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._all:
                raise
            # The call waits for one of the others.
        else:
            self._all.append(thread)

    def _work(self) -> None:
        try:
            with _state.joining(self.joins_block):
                while (call := self._calls.get()) is not None:
                    call()
                    del call  # or it would be kept until the next one comes
                    self._free.release()
        finally:
            coroutines.leave()

    def close(self, end: float) -> None:
        """Let them end when they have done what there is to do; wait for that until then (of time.monotonic())."""
        for _ in self._all:
            self._calls.put(None)
        for thread in self._all:
            thread.join(max(0.0, end - time.monotonic()))


class Body(coroutines.Driven):
    """The coroutine of a run; `value` or `error` when it is over."""

    run: Any
    value: Any = None
    error: BaseException | None = None
    given_up = False
    _begun = False

    async def _main(self) -> None:
        self._begun = True
        self.run.start()
        try:
            self.value = await self._drive(self.coroutine)
        except BaseException as exc:  # of SystemExit the loop should not hear either
            self.error = coroutines.own_part(exc)
            self.close()  # it may not have been in it

    def _translate(self, exc: BaseException) -> BaseException:
        if self.given_up:
            raise exc
        return super()._translate(exc)

    def done(self) -> None:
        """Its task is."""
        if not self._begun:  # it was cancelled before its first step
            self.error = super()._translate(asyncio.CancelledError())
            self.close()

    def close(self) -> None:
        """Do not resume it any more."""
        try:
            self.coroutine.close()
        except BaseException as exc:
            logger.error('Task %s was ended by force: %r', self.task.get_name(), exc)


class Live:
    """A run on its way."""

    def __init__(self, home: EventLoop, run: Any) -> None:
        self.home = home
        self.run = run
        self.plain = run.plain
        self.context = copy_context()
        self.body: Body | None = None
        #: There is nothing left to be ended by force.
        self.over = self.plain
        self._struck = self._killed = False

    # --- the three parts ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """In the loop: first of all."""
        if self.plain:
            self.home.plain.call(self._whole)
        elif self.run.enters:
            self._aside(self._call, self._drive)
        else:
            self._drive(self._call())

    def _whole(self) -> None:
        """In a thread.  It does not need the loop, which may be busy."""
        self.run.whole()
        self._hand_in(False)

    def fail(self, exc: BaseException) -> None:
        """In the loop: it could not even be begun."""
        self.run.end(None, exc)
        self._hand_in(False)

    def _call(self) -> tuple[Any, BaseException | None]:
        try:
            if self.run.enters:
                self.run.start()
            return self.context.run(self.run.begin), None
        except BaseException as exc:
            return None, exc

    def _drive(self, called: tuple[Any, BaseException | None]) -> None:
        value, error = called
        if self.run.over:
            self.over = True
            self._settle()
        elif error is not None or not inspect.isawaitable(value):
            self._end(value, error)
        else:
            self._start(value)

    def _start(self, value: Awaitable[Any]) -> None:
        self.body = Body(self.home.loop, value, self.context, self.run.title)
        self.body.run = self.run
        self.body.task.add_done_callback(self._body_over, context=self.home.context)
        if self._struck:
            self.strike()
        if self._killed:
            self.kill()

    def _body_over(self, task: asyncio.Task[Any]) -> None:
        body = self.body
        assert body is not None
        body.done()
        self._end(body.value, body.error)

    def _end(self, value: Any, error: BaseException | None) -> None:
        self.over = True
        if self._killed:
            self._hand_in(True)
        elif error is None and self.context.run(self.run.end_plainly, value):
            self._settle()
        else:
            self._aside(partial(self.context.run, self.run.end, value, error), self._settle)

    def _settle(self, _: object = None) -> None:
        """What the task has published is confirmed before its outcome is told."""
        if self.run.has_sent():
            self.home.confirm(self)
        else:
            self._hand_in(False)

    def confirmed(self) -> None:
        """In the loop: all that was published until now."""
        self._hand_in(False)

    def _hand_in(self, lost: bool) -> None:
        self.home.lives.discard(self)
        self.run.hand_in(lost)

    # --- beside the loop ----------------------------------------------------------------------------------------------

    def _aside(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self.home.aside.call(partial(self._work, work, then))

    def _work(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """In a thread."""
        result = None
        try:
            result = work()
        except BaseException:  # what the task does is no exception here
            logger.exception('A run of a task failed beside its event loop')
        try:
            self.home.loop.call_soon_threadsafe(partial(then, result))
        except RuntimeError:  # the loop has ended without us
            self._hand_in(not self.over)

    # --- by force -----------------------------------------------------------------------------------------------------

    def strike(self) -> None:
        """In the loop: the soft limit has passed.  It is raised where the coroutine waits."""
        if self.body is None:
            self._struck = True
        elif not self.over:
            self.body.strike()

    def kill(self) -> None:
        """In the loop: end it, whatever it says."""
        if self.over:
            return
        self._killed = True
        if self.body is not None:
            self.body.task.cancel()
            self.home.loop.call_later(KILL_GRACE, self.give_up)

    def give_up(self) -> None:
        """It was cancelled, and is still there."""
        if self.body is not None and not self.over:
            self.body.given_up = True
            self.body.task.cancel()

    def interrupted(self, soft: bool) -> int | None:
        """From another thread: it is to be, if it is just this one that keeps the loop from turning.  Return the loop's thread then."""
        if self.body is None or self.over or not self.body.works(self.home.ident):
            return None
        self._killed = self._killed or not soft
        return self.home.ident


class EventLoop:
    """The loop, and what it has in its hands.

    :param line: a `_core.Line`.
    :param hooks: the tracer's, of which `publisher` and `flush` are needed.
    :param joins_block: is ``result.get()`` an error in tasks?
    """

    def __init__(self, line: Any, hooks: Any, joins_block: bool) -> None:
        self.line = line
        self.hooks = hooks
        self.loop = asyncio.new_event_loop()
        self.ident = threading.get_ident()
        self.context = copy_context()
        self.plain = Threads('ThreadPoolExecutor-0', None, joins_block)
        self.aside = Threads('asyncio-aside', ASIDE, joins_block)
        self.aside.reserve()
        self.lives: set[Live] = set()
        self._unconfirmed: list[Live] = []
        self._confirming = False
        self._quits = False

    def turn(self) -> None:
        """Until the line says so."""
        asyncio.set_event_loop(self.loop)
        self.loop.add_reader(self.line.fileno(), self._serve)
        try:
            while not self._quits:
                self._turn_on()
        finally:
            self._wind_up()

    def _turn_on(self) -> None:
        try:
            self.loop.run_forever()
        except BaseException as exc:  # SystemExit of an asyncio task that nobody awaits: it is no reason for the others to end
            logger.error('The event loop was left by an exception, and goes on: %r', exc, exc_info=exc)

    def _serve(self) -> None:
        while items := self.line.take():
            for word, run in items:
                self._obey(word, run)
            if self._quits:
                break

    def _obey(self, word: str, run: Any) -> None:
        try:
            getattr(self, f'_{word}')(run)
        except Exception:  # of ours, or no memory: the others come all the same
            logger.exception('The event loop could not %s %s', word, run)

    def _run(self, run: Any) -> None:
        live = run.live = Live(self, run)
        self.lives.add(live)
        try:
            live.begin()
        except RuntimeError as exc:  # no thread
            live.fail(exc)

    def _soft(self, run: Any) -> None:
        run.live.strike()

    def _kill(self, run: Any) -> None:
        run.live.kill()

    def _quit(self, _: None) -> None:
        self._quits = True
        self.loop.stop()

    # --- confirms -----------------------------------------------------------------------------------------------------

    def confirm(self, live: Live) -> None:
        """Have `confirmed()` called when all that is published is safe.  Many share a round trip."""
        publisher = self.hooks.publisher()
        if publisher is None or not publisher.unconfirmed():
            self._take_note()
            live.confirmed()
            return
        self._unconfirmed.append(live)
        if not self._confirming:
            self._flush()

    def _flush(self) -> None:
        self._confirming = True
        lives, self._unconfirmed = self._unconfirmed, []
        self.aside.call(partial(self._wait_for_confirms, lives))

    def _take_note(self) -> None:
        """All is confirmed or refused; while it is not, this waits."""
        try:
            self.hooks.flush()
        except Exception:
            logger.exception('What tasks have published may be lost')

    def _wait_for_confirms(self, lives: list[Live]) -> None:
        self._take_note()
        try:
            self.loop.call_soon_threadsafe(self._confirmed, lives)
        except RuntimeError:
            self._confirmed(lives)

    def _confirmed(self, lives: list[Live]) -> None:
        self._confirming = False
        for live in lives:
            live.confirmed()
        if self._unconfirmed:
            self._flush()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _wind_up(self) -> None:
        """Whatever is still there is ended: after a warm shutdown nothing is."""
        try:
            self.loop.remove_reader(self.line.fileno())
            for force in (Live.kill, Live.give_up):
                for live in list(self.lives):
                    force(live)
                self._turn_until(lambda: all(live.plain for live in list(self.lives)))
            self._end_others(asyncio.all_tasks(self.loop))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        except BaseException as exc:
            logger.error('The event loop did not end as it should: %r', exc, exc_info=exc)
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()
            end = time.monotonic() + QUIT_GRACE
            self.aside.close(end)
            self.plain.close(end)

    def _turn_until(self, done: Callable[[], bool]) -> None:
        end = self.loop.time() + QUIT_GRACE

        async def look() -> None:
            while not done() and self.loop.time() < end:
                await asyncio.sleep(0.005)

        self._complete(look())

    def _end_others(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Those that tasks have begun and left."""
        left = list(tasks)
        for task in left:
            task.cancel()
        if left:
            self._complete(asyncio.wait(left, timeout=QUIT_GRACE))

    def _complete(self, what: Awaitable[Any]) -> None:
        task = self.loop.create_task(_await(what))
        while not task.done():
            with suppress(BaseException):  # of others: they are ended here
                self.loop.run_until_complete(task)


async def _await(what: Awaitable[Any]) -> None:
    await what
