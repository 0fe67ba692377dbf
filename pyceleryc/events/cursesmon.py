"""``pyceleryc events``: the cluster in a full screen."""
from __future__ import annotations

import curses
import threading
from datetime import datetime
from itertools import count
from textwrap import wrap
from typing import Any

from pyceleryc import states
from pyceleryc.app import app_or_default
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.text import abbr, abbrtask

__all__ = ('CursesMonitor', 'evtop')

UUID_WIDTH, STATE_WIDTH, TIME_WIDTH, WORKER_WIDTH = 36, 8, 8, 22
#: Seconds between two pictures; a key ends the wait.
REFRESH = 1.0
KEYS = 'j:down k:up i:info t:traceback r:result c:revoke ^c: quit'
STATE_COLORS = {states.SUCCESS: 3, states.REVOKED: 5, states.STARTED: 6, states.FAILURE: 4, states.RETRY: 5}


class CursesMonitor:
    """Shows tasks, newest first, and lets one look at and revoke them."""

    def __init__(self, state: Any, app: Any) -> None:
        self.state = state
        self.app = app
        self.win: Any = None
        self.selected: str | None = None
        self._running = True
        self.keymap = {
            'J': self.move_down, 'K': self.move_up, 'C': self.revoke_selected, 'I': self.show_info,
            'T': self.show_traceback, 'R': self.show_result,
        }
        self._arrows = {curses.KEY_DOWN: self.move_down, curses.KEY_UP: self.move_up}

    # -- life --------------------------------------------------------------------------------

    def init_screen(self) -> None:
        """Take over the terminal."""
        self.win = curses.initscr()
        curses.noecho()
        curses.cbreak()
        self.win.keypad(True)
        self.win.timeout(int(REFRESH * 1000))
        curses.start_color()
        curses.use_default_colors()
        for number, color in enumerate((curses.COLOR_WHITE, curses.COLOR_GREEN, curses.COLOR_RED,
                                        curses.COLOR_MAGENTA, curses.COLOR_CYAN), start=2):
            curses.init_pair(number, color, -1)

    def resetscreen(self) -> None:
        """Give the terminal back."""
        self._running = False
        if self.win is not None:
            curses.nocbreak()
            self.win.keypad(False)
            curses.echo()
            curses.endwin()

    def run(self) -> None:
        """Show and obey keys until interrupted."""
        while self._running:
            self.draw()
            self.handle_key(self.win.getch())

    def handle_key(self, key: int) -> None:
        """Obey a key; -1 is none."""
        action = self._arrows.get(key) or (self.keymap.get(chr(key).upper()) if 0 < key < 256 else None)
        if action is not None:
            action()

    # -- the list ----------------------------------------------------------------------------

    def tasks(self, limit: int | None = None) -> list[tuple[str, Any]]:
        """Return the tasks, newest first."""
        return list(self.state.tasks_by_time(limit=limit))

    def draw(self) -> None:
        """Draw everything."""
        height, width = self.win.getmaxyx()
        self.win.erase()
        self._line(0, self.format_row('UUID', 'TASK', 'WORKER', 'TIME', 'STATE', width), curses.A_BOLD)
        for y, (uuid, task) in zip(range(1, height - 4), self.tasks(height - 5), strict=False):
            style = curses.A_STANDOUT if uuid == self.selected else curses.A_NORMAL
            style |= curses.color_pair(STATE_COLORS.get(task.state, 2))
            self._line(y, self._row(uuid, task, width), style)
        for y, text in enumerate(self._footer(), start=height - 3):
            self._line(y, text, curses.A_NORMAL)
        self.win.refresh()

    def _line(self, y: int, text: str, style: int) -> None:
        height, width = self.win.getmaxyx()
        if 0 <= y < height:
            self.win.addnstr(y, 0, text.replace('\0', ' '), width - 1, style)

    def _row(self, uuid: str, task: Any, width: int) -> str:
        worker = task.worker.hostname if task.worker is not None else ''
        when = datetime.fromtimestamp(task.timestamp or 0).strftime('%H:%M:%S')
        return self.format_row(uuid, task.name or '', worker, when, task.state, width)

    def format_row(self, uuid: str, task: str, worker: str, time: str, state: str, width: int) -> str:
        """Return a row of the list."""
        room = max(8, width - UUID_WIDTH - STATE_WIDTH - TIME_WIDTH - WORKER_WIDTH - 5)
        return (f'{abbr(uuid, UUID_WIDTH):<{UUID_WIDTH}} {abbrtask(task, room):<{room}} '
                f'{abbr(worker, WORKER_WIDTH):<{WORKER_WIDTH}} {time:<{TIME_WIDTH}} '
                f'{abbr(state, STATE_WIDTH):<{STATE_WIDTH}}')

    def _footer(self) -> list[str]:
        alive = [worker.hostname for worker in self.state.alive_workers()]
        total = f'Events: {self.state.event_count} tasks:{self.state.task_count} workers:{len(alive)}'
        return [total, f'Workers online: {", ".join(alive)}', KEYS]

    def move_down(self) -> None:
        """Select the next task."""
        self._move(1)

    def move_up(self) -> None:
        """Select the task before."""
        self._move(-1)

    def _move(self, step: int) -> None:
        ids = [uuid for uuid, _ in self.tasks()]
        if ids:
            at = ids.index(self.selected) + step if self.selected in ids else 0
            self.selected = ids[min(max(at, 0), len(ids) - 1)]

    # -- the selected task ---------------------------------------------------------------------

    def _selected(self) -> Any:
        return self.state.tasks.get(self.selected) if self.selected else None

    def show_info(self) -> None:
        """Show all that is known about it."""
        task = self._selected()
        if task is not None:
            self._page('Task details', [f'{key}: {value}' for key, value in sorted(
                task.info(extra=['state', 'name', 'uuid']).items())])

    def show_traceback(self) -> None:
        """Show where it failed."""
        task = self._selected()
        if task is not None:
            self._page('Traceback', str(task.traceback or 'There is none.').split('\n'))

    def show_result(self) -> None:
        """Show its result."""
        task = self._selected()
        if task is not None:
            self._page('Result', [str(task.result if task.exception is None else task.exception)])

    def revoke_selected(self) -> None:
        """Revoke it."""
        if self.selected:
            self.app.control.revoke(self.selected)
            self._page('Revoked', [self.selected])

    def _page(self, title: str, lines: list[str]) -> None:
        """Show *lines* until a key is hit."""
        _, width = self.win.getmaxyx()
        self.win.erase()
        self._line(0, title, curses.A_BOLD)
        rows = count(2)
        for line in lines:
            for part in wrap(line, width - 2, drop_whitespace=False) or ['']:
                self._line(next(rows), part, curses.A_NORMAL)
        self._line(next(rows) + 1, 'Press any key to continue...', curses.A_BOLD)
        self.win.refresh()
        while self.win.getch() == -1 and self._running:
            continue


def _receive(app: Any, state: Any, monitor: CursesMonitor) -> None:
    """Take in events; runs in a thread of its own."""
    while monitor._running:
        with app.connection_for_read() as connection:
            connection.ensure_connection()
            try:
                app.events.Receiver(connection, handlers={'*': state.event}).capture(limit=None)
            except connection.connection_errors + connection.channel_errors:
                continue


def evtop(app: Any = None) -> None:
    """Show the cluster until interrupted.

    :raises ImproperlyConfigured: the terminal cannot do it.
    """
    app = app_or_default(app)
    state = app.events.State()
    monitor = CursesMonitor(state, app)
    try:
        monitor.init_screen()
    except curses.error as exc:
        monitor.resetscreen()
        raise ImproperlyConfigured(f'the terminal cannot show a full screen: {exc}') from exc
    threading.Thread(target=_receive, args=(app, state, monitor), daemon=True).start()
    try:
        monitor.run()
    except (KeyboardInterrupt, SystemExit):
        return
    finally:
        monitor.resetscreen()
