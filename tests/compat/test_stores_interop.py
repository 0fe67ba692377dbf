"""Results in databases, memcached and files: written by one implementation, read by the other (PROTOCOL §3.5.4, §3.5.5)."""

from __future__ import annotations

import json
import pickle
import subprocess
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from kombu.exceptions import ContentDisallowed

from pyceleryc.app.base import Celery
from pyceleryc.app.context import Context
from pyceleryc.exceptions import TaskRevokedError

pytestmark = pytest.mark.long

PRELUDE = """
import json, sys
from celery import Celery, states
from celery.app.task import Context
url, id, settings = sys.argv[1:]
app = Celery("peer", broker="memory://", backend=url, set_as_current=True)
app.conf.update(json.loads(settings))
backend, answer = app.backend, None
request = Context(id=id, task="t.add", args=[1, 2], kwargs={"k": "é"}, hostname="w@h", retries=2, group="g",
                  delivery_info={"routing_key": "q"}, called_directly=False)
"""
SETTINGS = {"result_expires": 60, "result_extended": True, "timezone": "Europe/Vienna"}


@pytest.fixture(params=["db+postgresql", "memcached", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "db+postgresql":
        return f"db+{request.getfixturevalue('postgresql_url')}"
    if request.param == "memcached":
        return str(request.getfixturevalue("memcached_url"))
    return f"file://{tmp_path}"


def make_app(url: str, **settings: Any) -> Celery:
    return Celery("t", broker="memory://", backend=url, set_as_current=False, **{**SETTINGS, **settings})


def peer(peer_python: str, url: str, id: str, script: str, **settings: Any) -> Any:
    """Runs a script in the real Celery; returns its `answer`."""
    done = subprocess.run([peer_python, "-c", f"{PRELUDE}\n{script}\nprint(json.dumps(answer))", url, id, json.dumps({**SETTINGS, **settings})],
                          capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def request_of(id: str) -> Context:
    return Context(id=id, task="t.add", args=[1, 2], kwargs={"k": "é"}, hostname="w@h", retries=2, group="g",
                   delivery_info={"routing_key": "q"})


def test_they_read_ours(url: str, peer_python: str) -> None:
    app, id = make_app(url), str(uuid.uuid4())
    app.backend.mark_as_done(id, {"a": [1, "é"]}, request_of(id))
    app.backend.mark_as_failure(f"{id}-f", KeyError("b", 3), "Traceback: text")
    app.backend.mark_as_revoked(f"{id}-r", "expired")
    app.backend.store_result(f"{id}-p", {"n": 1}, "PROGRESS")
    inner = app.GroupResult("inner", [app.AsyncResult("b", parent=app.AsyncResult("c"))])
    app.GroupResult(id, [app.AsyncResult("a"), inner]).save()
    assert peer(peer_python, url, id, """
r, f, x, p = (app.AsyncResult(id + end) for end in ("", "-f", "-r", "-p"))
group = app.GroupResult.restore(id)
answer = [r.get(timeout=30), r.name, r.args, r.kwargs, r.worker, r.retries, r.queue, r.date_done is not None,
          repr(f.result), f.traceback, type(x.result).__module__, str(x.result), p.state, p.info,
          [group.results[0].id, group.results[1].id, group.results[1].results[0].id, group.results[1].results[0].parent.id],
          type(group.results[1]).__name__]
""") == [{"a": [1, "é"]}, "t.add", [1, 2], {"k": "é"}, "w@h", 2, "q", True, "KeyError('b', 3)", "Traceback: text",
         "celery.exceptions", "expired", "PROGRESS", {"n": 1}, ["a", "inner", "b", "c"], "GroupResult"]


def test_we_read_theirs(url: str, peer_python: str) -> None:
    id = str(uuid.uuid4())
    peer(peer_python, url, id, """
backend.mark_as_done(id, {'a': [1, 'é']}, request)
backend.mark_as_failure(id + '-f', KeyError('b', 3), 'Traceback: text')
backend.mark_as_revoked(id + '-r', 'expired')
app.GroupResult(id, [app.AsyncResult('a'), app.GroupResult('inner', [app.AsyncResult('b', parent=app.AsyncResult('c'))])]).save()
""")
    app = make_app(url)
    result, failed = app.AsyncResult(id), app.AsyncResult(f"{id}-f")
    assert result.get(timeout=30) == {"a": [1, "é"]}
    assert (result.name, result.args, result.kwargs, result.worker, result.retries, result.queue) == ("t.add", [1, 2], {"k": "é"}, "w@h", 2, "q")
    assert (repr(failed.result), failed.traceback, failed.state) == ("KeyError('b', 3)", "Traceback: text", "FAILURE")
    with pytest.raises(TaskRevokedError, match="expired"):
        app.AsyncResult(f"{id}-r").get(timeout=30)
    group = app.GroupResult.restore(id)
    assert [group.results[0].id, group.results[1].id, group.results[1].results[0].id] == ["a", "inner", "b"]
    assert group.results[1].results[0].parent.id == "c"


def columns(url: str) -> dict[str, Any]:
    engine = sa.create_engine(url)
    found = {table: [(column["name"], str(column["type"]), column["nullable"]) for column in sa.inspect(engine).get_columns(table)]
             for table in ("celery_taskmeta", "celery_tasksetmeta")}
    found["indexes"] = sorted(str(index["name"]) for table in list(found) for index in sa.inspect(engine).get_indexes(table))
    engine.dispose()
    return found


def test_the_tables_are_the_same(tmp_path: Path, peer_python: str) -> None:
    ours, theirs = (f"sqlite:///{tmp_path}/{name}.db" for name in ("ours", "theirs"))
    assert make_app(f"db+{ours}").backend.get_state("x") == "PENDING"
    peer(peer_python, f"db+{theirs}", "x", "backend.get_state('x')")
    assert columns(ours) == columns(theirs)


def test_the_rows_are_the_same(tmp_path: Path, peer_python: str) -> None:
    """Byte by byte; dates are the app's wall time."""
    url = f"sqlite:///{tmp_path}/both.db"
    make_app(f"db+{url}").backend.mark_as_done("ours", {"a": [1, "é"]}, request_of("ours"))
    peer(peer_python, f"db+{url}", "theirs", "backend.mark_as_done(id, {'a': [1, 'é']}, request)")
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        rows = {row.task_id: row._asdict() for row in connection.execute(sa.text("select * from celery_taskmeta"))}
    dates = [datetime.fromisoformat(row.pop("date_done")) for row in rows.values()]
    assert abs(dates[0] - dates[1]) < timedelta(seconds=50)
    for row in rows.values():
        del row["id"], row["task_id"]
    assert rows["ours"] == rows["theirs"]


def test_results_of_any_class_need_pickle(tmp_path: Path, peer_python: str) -> None:
    """Celery unpickles whatever is in the table; here that needs the setting that is there for it."""
    url = f"db+sqlite:///{tmp_path}/objects.db"
    peer(peer_python, url, "x", "import pathlib\nbackend.mark_as_done(id, pathlib.PurePosixPath('/a'), request)")
    with pytest.raises(ContentDisallowed, match="pathlib.*result_accept_content"):
        make_app(url).AsyncResult("x").get(timeout=30)
    trusting = make_app(url, result_accept_content=["json", "pickle"])
    assert str(trusting.AsyncResult("x").get(timeout=30)) == "/a"


def test_a_poisoned_row_runs_nothing(tmp_path: Path) -> None:
    app = make_app(f"db+sqlite:///{tmp_path}/poison.db")

    class Poison:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    app.backend.mark_as_done("x", 1, request_of("x"))
    app.GroupResult("g", []).save()
    with sa.create_engine(app.backend.dburi, poolclass=sa.NullPool).begin() as connection:
        for table in ("celery_taskmeta", "celery_tasksetmeta"):
            connection.execute(sa.text(f"update {table} set result = :data"), {"data": pickle.dumps(Poison())})
    for read in (lambda: app.AsyncResult("x").get(timeout=30), lambda: app.GroupResult.restore("g")):
        with pytest.raises(ContentDisallowed):
            read()
    assert not (tmp_path / "ran").exists()
