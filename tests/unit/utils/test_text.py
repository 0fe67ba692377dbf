from __future__ import annotations

import pytest

from pyceleryc.utils import text as t


def test_shortening() -> None:
    assert t.abbr('abcdefgh', 6) == 'abc...' and t.abbr('abcdefgh', 6, None) == 'abcdef'
    assert t.abbr('abc', 6) == 'abc' and t.abbr(None, 6) == '???'
    assert t.abbrtask('proj.tasks.add', 10) == 'proj[.]add'
    assert t.abbrtask('mod.sub.task', 8) == 'm[.]task' and t.abbrtask(None, 3) == '???'
    assert t.truncate('some text here to be cut', 12) == 'some text...'
    assert t.truncate('abc', 10) == 'abc'


def test_layout() -> None:
    assert t.indent('a\nb', 2) == '  a\n  b' and t.dedent('    a\n  b') == 'a\n  b'
    assert t.ensure_newlines('a') == 'a\n\n' and t.ensure_sep('-', 'a--') == 'a--'
    assert t.fill_paragraphs('aaa bbb\n\nccc', 4) == 'aaa\nbbb\n\nccc'
    assert t.join(['a', '', 'b']) == 'a\nb'
    assert t.pluralize(1, 'node') == 'node' and t.pluralize(0, 'node') == 'nodes'
    assert t.pretty({'a': 1}) == "\n{'a': 1}" and t.pretty([1]) == '[1]'


def test_changes() -> None:
    assert t.match_case('foo', 'BAR') == 'FOO' and t.match_case('FOO', 'bar') == 'foo'
    assert t.str_to_list('a,b') == ['a', 'b'] and t.str_to_list(['a']) == ['a']
    assert t.remove_repeating_from_task('tasks.add', 'tasks.add(1), tasks.add(2)') == (
        'tasks.add(1), add(2)')


def test_simple_format() -> None:
    assert t.simple_format('%h.%d x %%', {'h': 'H', 'd': lambda: 'D'}) == 'H.D x %%'
    assert t.simple_format(None, {}) is None
    with pytest.raises(ValueError, match='Unknown format %z'):
        t.simple_format('%z', {})


def test_whatever_io() -> None:
    buffer = t.WhateverIO(b'')
    buffer.write(b'a')
    buffer.write('b')
    assert buffer.getvalue() == 'ab'
