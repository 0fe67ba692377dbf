from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyceleryc import platforms as p
from pyceleryc.exceptions import SecurityError, SecurityWarning


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60,
        env={**os.environ, **environment})


# -- pidfile -------------------------------------------------------------------------------

def test_pidfile(tmp_path: Path) -> None:
    path = tmp_path / 'x.pid'
    lock = p.Pidfile(str(path))
    assert not lock.is_locked() and lock.read_pid() is None
    with lock:
        assert path.read_text() == f'{os.getpid()}\n' and lock.read_pid() == os.getpid()
        with pytest.raises(p.LockFailed):
            p.Pidfile(str(path)).acquire()
    assert not path.exists() and p.PIDFile is p.Pidfile


def test_pidfile_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(p.LockFailed, match='cannot write'):
        p.Pidfile(str(tmp_path / 'no' / 'such' / 'x.pid')).acquire()


@pytest.mark.parametrize('content', ['', 'abc\n', '12', '\n', f'{2 ** 22 + 7}\n'])
def test_stale_or_broken_pidfile_is_removed(tmp_path: Path, content: str) -> None:
    path = tmp_path / 'x.pid'
    path.write_text(content)
    assert p.Pidfile(str(path)).remove_if_stale() and not path.exists()


def test_pidfile_of_a_live_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'x.pid'
    path.write_text(f'{os.getppid()}\n')
    with pytest.raises(SystemExit) as info:
        p.create_pidlock(str(path))
    assert info.value.code == p.EX_CANTCREAT == 73
    assert f'ERROR: Pidfile ({path}) already exists.' in capsys.readouterr().err
    assert path.exists()


def test_pidlock_is_released_at_exit_but_not_by_children(tmp_path: Path) -> None:
    path = tmp_path / 'x.pid'
    done = run(
        'import os, sys\n'
        'from pyceleryc.platforms import create_pidlock\n'
        f'create_pidlock({str(path)!r})\n'
        'if os.fork() == 0:\n'
        '    sys.exit(0)\n'
        'os.wait()\n'
        f'assert open({str(path)!r}).read() == f"{{os.getpid()}}\\n"\n')
    assert done.returncode == 0, done.stderr
    assert not path.exists()


# -- daemon --------------------------------------------------------------------------------

def test_daemon(tmp_path: Path) -> None:
    out = tmp_path / 'out'
    done = run(
        'import os\n'
        'from pyceleryc.platforms import detached\n'
        'kept = os.open("/dev/null", os.O_RDONLY)\n'
        f'with detached(umask="027", workdir={str(tmp_path)!r}, logfile="d.log"):\n'
        '    print("swallowed")\n'
        '    try: os.fstat(kept); state = "open"\n'
        '    except OSError: state = "closed"\n'
        '    with open("part", "w") as file:\n'
        '        file.write(f"{os.getpid()} {os.getsid(0)} {os.getcwd()} {state}")\n'
        '    os.rename("part", "out")\n')
    assert (done.returncode, done.stdout) == (0, '')
    deadline = time.monotonic() + 20
    while not out.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    pid, session, cwd, state = out.read_text().split()
    assert pid != session and session != str(os.getsid(0))
    assert (cwd, state) == (str(tmp_path), 'closed')
    assert out.stat().st_mode & 0o777 == 0o640 and (tmp_path / 'd.log').exists()


def test_fake_daemon_stays(tmp_path: Path) -> None:
    done = run(
        'import os\n'
        'from pyceleryc.platforms import detached\n'
        'pid = os.getpid()\n'
        f'with detached(workdir={str(tmp_path)!r}, pidfile="x.pid", fake=True):\n'
        '    assert os.getpid() == pid and not os.path.exists("x.pid")\n'
        'print(os.getcwd())\n')
    assert done.stdout.strip() == str(tmp_path), done.stderr


# -- privileges ----------------------------------------------------------------------------

def test_users_and_groups() -> None:
    assert p.parse_uid('root') == p.parse_uid(0) == p.parse_uid('0') == 0
    assert p.parse_gid('root') == 0
    with pytest.raises(KeyError, match='User does not exist: no-such-user'):
        p.parse_uid('no-such-user')
    with pytest.raises(KeyError, match='Group does not exist'):
        p.parse_gid('no-such-group')


AS_USER = (
    'import os, sys\n'
    'from pyceleryc import platforms as p\n'
    'from pyceleryc.exceptions import SecurityError\n'
    'if os.getuid() == 0:\n'
    '    p.maybe_drop_privileges(uid="nobody")\n'
    '    assert os.getuid() == os.geteuid() == p.parse_uid("nobody")\n'
)


def test_drop_privileges_is_final() -> None:
    done = run(
        AS_USER
        + 'try:\n'
        '    p.maybe_drop_privileges(uid=0)\n'
        'except SecurityError as exc:\n'
        '    print(exc)\n')
    assert 'only the superuser' in done.stdout, done.stderr


def test_ordinary_users_may_accept_pickle() -> None:
    done = run(AS_USER + 'p.check_privileges(["pickle"])\nprint("fine")\n', PYTHONWARNINGS='error')
    assert done.stdout == 'fine\n', done.stderr


@pytest.mark.parametrize(('accept', 'refused'), [
    (['json'], False), (None, False),
    (['pickle'], True), (['application/x-python-serialize'], True),
])
def test_root_must_not_accept_pickle(
    accept: list[str] | None, refused: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, 'getuid', lambda: 0)
    monkeypatch.setattr(os, 'geteuid', lambda: 0)
    monkeypatch.delenv('C_FORCE_ROOT', raising=False)
    if refused:
        with pytest.raises(SecurityError, match='C_FORCE_ROOT'):
            p.check_privileges(accept)
        monkeypatch.setenv('C_FORCE_ROOT', '1')
    with pytest.warns(SecurityWarning, match='run by the superuser'):
        p.check_privileges(accept)


# -- signals -------------------------------------------------------------------------------

def test_signals() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    got: list[int] = []
    try:
        p.signals['USR2'] = lambda signum, frame: got.append(signum)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert got == [signal.SIGUSR2]
        p.signals.ignore('USR2')
        assert p.signals['SIGUSR2'] == signal.SIG_IGN
        p.signals.reset('USR2')
        assert p.signals['USR2'] == signal.SIG_DFL
        p.signals.update(USR2=signal.SIG_IGN, NOSUCHSIGNAL=signal.SIG_IGN)
        assert p.signals[signal.SIGUSR2] == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_signal_names() -> None:
    assert p.signals.signum('INT') == p.signals.signum('SIGINT') == signal.SIGINT
    assert p.signal_name(signal.SIGTERM) == 'TERM' and p.signals.supported('HUP')
    assert not p.signals.supported('NOSUCH')
    with pytest.raises(TypeError, match='in capitals'):
        p.signals.signum('int')
    p.signals.arm_alarm(1000.5)
    assert 1000 <= p.signals.reset_alarm() <= 1001


def test_pdeathsig() -> None:
    code = (
        'import os, time\n'
        'from pyceleryc.platforms import set_pdeathsig\n'
        'reader, writer = os.pipe()\n'
        'if os.fork() == 0:\n'
        '    set_pdeathsig("SIGKILL")\n'
        '    os.write(writer, b"x")\n'
        '    time.sleep(600)\n'
        'os.read(reader, 1)\n')
    # The pipes of the test end only when the child is dead, too.
    assert run(code).returncode == 0


# -- the rest ------------------------------------------------------------------------------

def test_errno() -> None:
    with p.ignore_errno('ENOENT', errno.EACCES):
        raise FileNotFoundError(errno.ENOENT, 'gone')
    with pytest.raises(OSError), p.ignore_errno('ENOENT'):
        raise OSError(errno.EBADF, 'bad')
    with pytest.raises(ValueError), p.ignore_errno('ENOENT'):
        raise ValueError
    assert p.get_errno_name('ENOENT') == errno.ENOENT


def test_files(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    with open(path, 'w') as file:
        assert p.fd_by_path([str(path)]) == [file.fileno()]
        assert not p.isatty(file)
    assert not p.isatty(object()) and p.get_fdmax(1) > 0


def test_titles() -> None:
    assert p.set_process_title('celeryd', 'info') == '[celeryd] info'
    assert p.set_mp_process_title('celeryd', hostname='w@h') == '[celeryd: w@h:MainProcess]'
    assert p.strargv(['celery', 'worker', '-l']) == 'worker -l'
    assert p.strargv(['manage.py', 'celery', 'worker']) == 'worker'
    assert (p.EX_OK, p.EX_FAILURE, p.EX_USAGE, p.EX_UNAVAILABLE) == (0, 1, 64, 69)
