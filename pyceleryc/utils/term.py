"""Colours for terminals."""
from __future__ import annotations

import base64
import os
import platform
import sys
from typing import Any

__all__ = ('colored', 'fg', 'supports_images', 'imgcat')

BLACK, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, WHITE = range(8)
OP_SEQ = '\033[%dm'
RESET_SEQ = '\033[0m'
COLOR_SEQ = '\033[1;%dm'
IS_WINDOWS = platform.system() == 'Windows'


def fg(s: int) -> str:
    """Return the escape sequence of a bold foreground colour."""
    return COLOR_SEQ % s


class colored:  # the public name
    """Text with colours: ``str(colored().red('a', colored().blue('b'), 'c'))``.

    :param s: strings and other coloured texts.
    :param enabled: False leaves the colours out.
    :param op: escape sequence in front of the text.
    """

    def __init__(self, *s: object, **kwargs: Any) -> None:
        self.s = s
        self.enabled: bool = not IS_WINDOWS and kwargs.get('enabled', True)
        self.op: str = kwargs.get('op', '')

    def node(self, s: tuple[object, ...], op: str) -> colored:
        """Return *s* as a coloured text of its own."""
        return self.__class__(*s, enabled=self.enabled, op=op)

    def embed(self) -> str:
        """Return the text without the final reset, to stand inside another."""
        if not self.enabled:
            return self.no_color()
        return self.op + ''.join(self._part(item) for item in self.s)

    def _part(self, item: object) -> str:
        # After an inner text the outer colour has to be set again.
        if isinstance(item, colored):
            return f'{item.embed()}{RESET_SEQ if item.op else ""}{self.op}'
        return str(item)

    def no_color(self) -> str:
        """Return the text alone."""
        return ''.join(
            item.no_color() if isinstance(item, colored) else str(item) for item in self.s)

    def __str__(self) -> str:
        return self.embed() + RESET_SEQ if self.enabled and self.op else self.embed()

    def __repr__(self) -> str:
        return repr(self.no_color())

    def __add__(self, other: object) -> str:
        return f'{self}{other}'

    def __len__(self) -> int:
        return len(self.no_color())

    def reset(self, *s: object) -> colored:
        """Back to normal, then *s*."""
        return self.node(s or ('',), RESET_SEQ)

    def bold(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 1)

    def bright(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 1)

    def underline(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 4)

    def blink(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 5)

    def reverse(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 7)

    def black(self, *s: object) -> colored:
        return self.node(s, fg(30 + BLACK))

    def red(self, *s: object) -> colored:
        return self.node(s, fg(30 + RED))

    def green(self, *s: object) -> colored:
        return self.node(s, fg(30 + GREEN))

    def yellow(self, *s: object) -> colored:
        return self.node(s, fg(30 + YELLOW))

    def blue(self, *s: object) -> colored:
        return self.node(s, fg(30 + BLUE))

    def magenta(self, *s: object) -> colored:
        return self.node(s, fg(30 + MAGENTA))

    def cyan(self, *s: object) -> colored:
        return self.node(s, fg(30 + CYAN))

    def white(self, *s: object) -> colored:
        return self.node(s, fg(30 + WHITE))

    def ired(self, *s: object) -> colored:
        return self.node(s, fg(40 + RED))

    def igreen(self, *s: object) -> colored:
        return self.node(s, fg(40 + GREEN))

    def iyellow(self, *s: object) -> colored:
        return self.node(s, fg(40 + YELLOW))

    def iblue(self, *s: object) -> colored:
        return self.node(s, fg(40 + BLUE))

    def imagenta(self, *s: object) -> colored:
        return self.node(s, fg(40 + MAGENTA))

    def icyan(self, *s: object) -> colored:
        return self.node(s, fg(40 + CYAN))

    def iwhite(self, *s: object) -> colored:
        return self.node(s, fg(40 + WHITE))


def supports_images() -> bool:
    """Tell whether the terminal shows inline images (iTerm2)."""
    return sys.stdin.isatty() and bool(os.environ.get('ITERM_PROFILE'))


def imgcat(
    path: str, inline: int = 1, preserve_aspect_ratio: int = 0, **kwargs: Any,
) -> str:
    """Return the escape sequence that shows the image file *path*."""
    with open(path, 'rb') as image:
        data = base64.b64encode(image.read()).decode('ascii')
    options = {'inline': inline, 'preserveAspectRatio': preserve_aspect_ratio}
    fields = ''.join(f'{name}={value};' for name, value in options.items())
    return f'\n\033]1337;File={fields}size={len(data)}:{data}\a\n'
