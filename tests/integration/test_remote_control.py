"""Remote control through RabbitMQ: our command line and the real Celery's, our workers and theirs (FEATURES 2.11, 2.14)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fleet
import forks
import pytest
from commands import wait_until
from embedding import embedded, remove_names, take_names

from pyceleryc import Celery
from pyceleryc.exceptions import DuplicateNodenameWarning, ImproperlyConfigured
from pyceleryc.worker.worker import WorkController

SIDES = {"ours": fleet.ours, "theirs": fleet.theirs}

# command, what its output has, exit code. {n} is the node.
INSPECT: list[tuple[str, str, int]] = [
    ("ping", "->  {n}: OK\n        pong\n\n1 node online.", 0),
    ("active", "    - empty -", 0),
    ("reserved", "    - empty -", 0),
    ("scheduled", "    - empty -", 0),
    ("registered", "    * ctl.nap", 0),
    ("registered max_retries", "    * ctl.again [max_retries=1]", 0),
    ("stats", '"max-concurrency": 2', 0),
    ("revoked", "{n}: OK", 0),
    ("active_queues", "'queue_arguments': None", 0),
    ("query_task abc", "{{}}", 0),
    ("conf", '"task_default_queue": "', 0),
    ("conf true", '"task_acks_late": false', 0),
    ("report", "broker_url", 0),
    ("clock", '"clock": ', 0),
    ("memsample", "{n}: OK", 0),
    ("memdump", "- rss", 0),
    ("objgraph", "{n}: ", 0),
    ("greet", "hello from ctl", 0),
    ("-j ping", '{{"{n}": {{"ok": "pong"}}}}', 0),
    ("nosuch", "Command nosuch not recognized. Available inspect commands: active, ", 2),
]
CONTROL: list[tuple[str, str, int]] = [
    ("rate_limit ctl.add 10/m", "new rate limit set successfully", 0),
    ("rate_limit nope 10/m", "{n}: ERROR\n        unknown task", 0),
    ("rate_limit ctl.add fast", "Invalid rate limit string: ValueError(", 0),
    ("rate_limit", "missing 2 required positional arguments: 'task_name' and 'rate_limit'", 0),
    ("time_limit ctl.add 10 20", "time limits set successfully", 0),
    ("time_limit nope 1 2", "unknown task", 0),
    ("add_consumer {n}-extra", "add consumer {n}-extra", 0),
    ("cancel_consumer {n}-extra", "no longer consuming from {n}-extra", 0),
    ("pool_grow 1", "pool will grow", 0),
    ("pool_shrink 1", "pool will shrink", 0),
    ("autoscale 5 1", "ValueError('Autoscale not enabled')", 0),
    ("pool_restart", "ValueError('Pool restarts not enabled')", 0),
    ("disable_events", "task events disabled", 0),
    ("disable_events", "task events already disabled", 0),
    ("enable_events", "task events enabled", 0),
    ("enable_events", "task events already enabled", 0),
    ("heartbeat", "{n}: OK", 0),
    ("revoke r1", "tasks {{'r1'}} flagged as revoked", 0),
    ("terminate KILL r1", "terminate: tasks unknown", 0),
    ("revoke_by_stamped_headers a=b", "headers {{'a': 'b'}} flagged as revoked, but not terminated", 0),
    ("election", "{n}: ERROR\n        TypeError(", 0),
    ("set_level 4", "{n} 5", 0),
]


@dataclass
class Cluster:
    """A worker of one side, and the means to talk to it."""

    side: fleet.Side
    env: dict[str, str]
    node: str
    worker: fleet.Worker
    answers: dict[str, str] = field(default_factory=dict)

    def run(self, by: str, *arguments: str, to: str | None = None) -> tuple[int, str]:
        command = [arguments[0], "-t", "15", "-d", to or self.node, *arguments[1:]]
        side = SIDES[by]()
        done = forks.run(side.python, side.name, ["-m", side.name, "-A", "control_tasks", "-C", *command], self.env, 50, merged=True)
        return done.returncode, done.stdout

    def python(self, script: str, by: str = "ours") -> Any:
        return SIDES[by]().client(f"app = tasks.app\n{script}", self.env)


def make_env(amqp_url: str, queue: str, **extra: str) -> dict[str, str]:
    return SIDES["ours"]().env(amqp_url, "rpc://", queue, FLEET_APP="control_tasks", **extra)


@pytest.fixture(scope="module", params=["ours", "theirs"])
def cluster(request: pytest.FixtureRequest, amqp_url: str) -> Iterator[Cluster]:
    queue = f"ctl-{request.param}-{time.time_ns():x}"
    env, node = make_env(amqp_url, queue), f"{queue}@here"
    side = SIDES[request.param]()
    with side.worker(env, "-c", "2", "-n", node, "-E") as worker:
        yield Cluster(side, env, node, worker)
    remove_names(amqp_url, queue, f"{node}-extra")


def sides(cluster: Cluster) -> list[str]:
    return ["ours", "theirs"] if cluster.side.name == "pyceleryc" else ["ours"]


def test_nodes_that_are_not_there(cluster: Cluster) -> None:
    code, output = cluster.run("ours", "inspect", "-t", "3", "ping", to=f"{cluster.node},nobody@here,x@here")
    assert code == 0 and "1 node online" in output and "No reply from nobody@here, x@here" in output
    code, output = cluster.run("ours", "status", "-t", "0.5", to="nobody@here")
    assert code == 69 and "No nodes replied within time constraint" in output


@pytest.mark.parametrize(("command", "shows", "code"), INSPECT)
def test_inspect(cluster: Cluster, command: str, shows: str, code: int) -> None:
    for by in sides(cluster):
        found, output = cluster.run(by, "inspect", *command.split())
        assert (found, shows.format(n=cluster.node) in output) == (code, True), (by, output)


@pytest.mark.parametrize(("command", "shows", "code"), CONTROL)
def test_control(cluster: Cluster, command: str, shows: str, code: int) -> None:
    if cluster.side.name == "celery" and "events" in command:
        shows = "task events already "  # with -E that is all it ever says
    for by in sides(cluster)[-1:]:
        found, output = cluster.run(by, "control", *command.format(n=cluster.node).split())
        assert (found, shows.format(n=cluster.node) in output) == (code, True), (by, output)


@pytest.mark.parametrize("command", ["status", "inspect ping", "inspect -j ping", "control ping2"])
def test_exit_codes(cluster: Cluster, command: str) -> None:
    first, *rest = command.split()
    code, output = cluster.run("ours", first, "-t", "0.3", *rest, to="nobody@here")
    if command == "control ping2":
        assert code == 2 and "Available control commands: add_consumer, autoscale, " in output
    else:
        assert (code, output) == (69, "Error: No nodes replied within time constraint\n")


def test_status(cluster: Cluster) -> None:
    for by in sides(cluster):
        assert cluster.run(by, "status") == (0, f"->  {cluster.node}: OK\n\n1 node online.\n")


def test_list(cluster: Cluster) -> None:
    for kind, has in (("inspect", "  greet                           Say hello."),
                      ("control", "  set_level [N=1]                 Set a level.")):
        code, output = cluster.run("ours", kind, "--list")
        assert code == 0 and output.startswith(f"{kind.capitalize()} Commands:") and has in output


def test_structures_of_both_are_alike(cluster: Cluster) -> None:
    """Keys of the replies; what differs between the implementations is named here."""
    script = "i = app.control.inspect([{!r}], timeout=15)\nresult = [i.stats(), i.active_queues(), i.conf(), i.clock()]"
    stats, queues, conf, clock = (reply[cluster.node] for reply in cluster.python(script.format(cluster.node)))
    assert set(stats) == {"total", "pid", "clock", "uptime", "pool", "broker", "prefetch_count", "rusage"}
    assert set(stats["pool"]) == {"implementation", "max-concurrency", "processes", "max-tasks-per-child",
                                  "put-guarded-by-semaphore", "timeouts", "writes"}
    assert len(stats["rusage"]) == 16 and len(stats["broker"]) == 15 and stats["broker"]["heartbeat"] == 120
    assert len(queues[0]) == 18
    assert set(clock) == {"clock"} and "broker_url" in conf and "guest:guest" not in json.dumps(conf)


def test_requests(cluster: Cluster) -> None:
    """What runs, waits and is scheduled, with the same fields for both."""
    cluster.python("tasks.nap.apply_async([50], task_id='n1'); tasks.nap.apply_async([50], task_id='n2')\n"
                   "tasks.add.apply_async([1, 2], task_id='n3'); tasks.add.apply_async([3, 4], countdown=60, task_id='n4')\n"
                   "result = None")
    script = (f"i = app.control.inspect({cluster.node!r}, timeout=15)\n"
              "import time; end = time.time() + 30\n"
              "while len(i.active()) < 2 and time.time() < end: pass\n"
              "result = [i.active(), i.reserved(), i.scheduled(), i.query_task('n1', 'n4', 'x')]")
    active, reserved, scheduled, known = cluster.python(script)
    assert {info["id"] for info in active} == {"n1", "n2"}
    first = active[0]
    assert set(first) == {"id", "name", "args", "kwargs", "type", "hostname", "time_start", "acknowledged",
                          "delivery_info", "worker_pid"}
    assert (first["args"], first["kwargs"], first["acknowledged"], first["hostname"]) == ([50], {}, True, cluster.node)
    assert set(first["delivery_info"]) == {"exchange", "routing_key", "priority", "redelivered"}
    assert abs(first["time_start"] - time.time()) < 30 and isinstance(first["worker_pid"], int)
    assert [info["id"] for info in reserved] == ["n3"]
    assert [(entry["request"]["id"], entry["priority"]) for entry in scheduled] == [("n4", 6)]
    assert scheduled[0]["eta"].endswith("+00:00")
    wanted = {"n1": "active", "n4": "reserved"} if cluster.side.name == "pyceleryc" else {"n1": "active"}
    assert {task_id: state for task_id, (state, _) in known.items()} == wanted
    cluster.python(f"result = app.control.revoke(['n1', 'n2', 'n3', 'n4'], terminate=True, reply=True, "
                   f"destination=[{cluster.node!r}], timeout=15)")


def test_revoke(cluster: Cluster) -> None:
    for by in sides(cluster):
        script = ("import time\nfrom celery.exceptions import TaskRevokedError\n"
                  "held = tasks.add.apply_async([1, 2], countdown=3)\nruns = tasks.nap.delay(50)\n"
                  f"app.control.revoke(held.id, destination=[{cluster.node!r}], reply=True, timeout=15)\n"
                  f"i, end = app.control.inspect([{cluster.node!r}], timeout=15), time.time() + 30\n"
                  f"while runs.id not in [one['id'] for one in i.active()[{cluster.node!r}]] and time.time() < end: pass\n"
                  f"app.control.terminate(runs.id, destination=[{cluster.node!r}], reply=True, timeout=15, signal='KILL')\n"
                  "said = []\n"
                  "for result in (held, runs):\n"
                  "    try: result.get(timeout=15)\n"
                  "    except TaskRevokedError as exc: said.append(str(exc))\n"
                  "result = [said, held.state, runs.state]")
        said, *states = cluster.python(script, by)
        assert states == ["REVOKED", "REVOKED"]
        # Celery stores both states of the second, in any order.
        assert said == ["revoked", "terminated"] or cluster.side.name == "celery" and said == ["revoked", "revoked"]


def test_hello(cluster: Cluster) -> None:
    script = (f"i = app.control.inspect({cluster.node!r}, timeout=15)\n"
              "import time\n"
              "first = i.hello('other@here', {'h1': time.monotonic()})\n"
              "result = [first, i.revoked()]")
    first, revoked = cluster.python(script)
    assert set(first) == {"revoked", "clock"} and "h1" in revoked


def test_mixed_workers_know_each_others_revoked(cluster: Cluster, unique: Callable[[str], str]) -> None:
    """A worker of Celery asks those that are there when it starts (mingle); ours answer, and keep silent otherwise."""
    if cluster.side.name != "pyceleryc":
        return
    cluster.run("ours", "control", "revoke", "m1")
    node = unique("mingler") + "@here"
    theirs = fleet.theirs()
    command = [theirs.python, "-m", "celery", "-A", "control_tasks", "worker", "-P", "solo", "-n", node, "-l", "INFO"]
    with subprocess.Popen(command, env=cluster.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker:
        try:
            code, output = 69, ""
            for _ in range(20):
                code, output = cluster.run("ours", "inspect", "-t", "1", "revoked", to=node)
                if code == 0:
                    break
            assert "* m1" in output
        finally:
            worker.terminate()


def test_shutdown(amqp_url: str, unique: Callable[[str], str]) -> None:
    for by in ("ours", "theirs"):
        queue = unique("ctl")
        env = make_env(amqp_url, queue)
        with fleet.ours().worker(env, "-c", "1", "-n", f"{queue}@here") as worker:
            cluster = Cluster(fleet.ours(), env, f"{queue}@here", worker)
            code, _ = cluster.run(by, "control", "-t", "0.5", "shutdown")
            assert code == 69, "there is no reply"
            assert worker.process.wait(30) == 0
            assert "Got shutdown from remote" in worker.text()
        remove_names(amqp_url, queue)


# --- embedded workers: settings, pools, files -------------------------------------------------------------------------

@pytest.fixture
def app(amqp_url: str, unique: Callable[[str], str]) -> Iterator[Celery]:
    queue = unique("ctl")
    made = Celery("ctl", broker=amqp_url, backend="rpc://", set_as_current=False)
    take_names(made, queue)

    @made.task(name="ctl.add")
    def add(x: int, y: int) -> int:
        return x + y

    @made.task(name="ctl.nap")
    def nap(seconds: float) -> None:
        time.sleep(seconds)

    yield made
    made.close()
    remove_names(amqp_url, queue)


def ask(app: Celery, command: str, **arguments: Any) -> Any:
    """The reply of one worker."""
    (reply,) = app.control.broadcast(command, arguments=arguments, reply=True, timeout=30, limit=1)
    (said,) = reply.values()
    return said


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork", "asyncio"])
def test_pools(app: Celery, pool: str) -> None:
    with embedded(app, pool=pool, concurrency=2, hostname="w@here"):
        assert ask(app, "ping") == {"ok": "pong"}
        size = ask(app, "stats")["pool"]["max-concurrency"]
        if pool == "solo":
            assert size == 1 and "error" in ask(app, "pool_grow", n=1)
            return
        assert ask(app, "pool_grow", n=2) == {"ok": "pool will grow"}
        assert ask(app, "stats")["pool"]["max-concurrency"] == 4
        assert ask(app, "stats")["prefetch_count"] == 16
        assert "error" in ask(app, "pool_shrink", n=4)
        assert ask(app, "pool_shrink", n=3) == {"ok": "pool will shrink"}
        assert app.tasks["ctl.add"].delay(1, 2).get(timeout=30) == 3


def test_queues(app: Celery, unique: Callable[[str], str]) -> None:
    extra = unique("ctl-extra")
    with embedded(app, pool="solo", hostname="w@here"):
        ask(app, "add_consumer", queue=extra)
        assert extra in {queue["name"] for queue in ask(app, "active_queues")}
        assert app.tasks["ctl.add"].apply_async((1, 2), queue=extra).get(timeout=30) == 3
        ask(app, "cancel_consumer", queue=extra)
        assert extra not in {queue["name"] for queue in ask(app, "active_queues")}
        app.tasks["ctl.add"].apply_async((1, 2), queue=extra)
        time.sleep(0.3)
        assert app.amqp.producer.size(extra, 5.0)[0] == 1
    app.amqp.producer.remove(extra, 5.0)


def test_a_queue_that_the_broker_refuses_is_forgotten(
    app: Celery, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture,
) -> None:
    """It exists with other arguments. The worker goes on with its own queues, and says what happened once."""
    extra = unique("ctl-extra")
    app.amqp.producer.declare({"name": extra, "durable": False}, 5.0)
    with embedded(app, pool="solo", hostname="w@here"):
        ask(app, "add_consumer", queue=extra)
        wait_until(lambda: any(f"Queue '{extra}' is not consumed" in line for line in caplog.messages))
        assert app.tasks["ctl.add"].delay(1, 2).get(timeout=30) == 3
        assert extra not in {queue["name"] for queue in ask(app, "active_queues")}
    assert len([line for line in caplog.messages if "406" in line]) == 1
    app.amqp.producer.remove(extra, 5.0)


def test_rate_and_time_limits_take_effect(app: Celery) -> None:
    with embedded(app, pool="prefork", concurrency=1, hostname="w@here"):
        ask(app, "time_limit", task_name="ctl.nap", hard=0.5)
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            app.tasks["ctl.nap"].delay(20).get(timeout=30)
        ask(app, "rate_limit", task_name="ctl.add", rate_limit="2/s")
        started = time.monotonic()
        results = [app.tasks["ctl.add"].delay(n, 1) for n in range(3)]
        assert [result.get(timeout=30) for result in results] == [1, 2, 3]
        assert time.monotonic() - started > 0.9


def test_autoscale(app: Celery) -> None:
    with embedded(app, pool="threads", autoscale="4,1", hostname="w@here") as worker:
        assert ask(app, "stats")["autoscaler"] == {"max": 4, "min": 1, "current": 1, "qty": 0}
        assert "not supported with autoscale" in ask(app, "pool_grow")["error"]
        worker.autoscaler.keepalive = 0.5  # type: ignore[union-attr]
        results = [app.tasks["ctl.nap"].delay(2) for _ in range(4)]
        wait_until(lambda: ask(app, "stats")["autoscaler"]["current"] == 4)
        for result in results:
            result.get(timeout=30)
        wait_until(lambda: ask(app, "stats")["autoscaler"]["current"] == 1)
        assert ask(app, "autoscale", max=3, min=2) == {"ok": "autoscale now max=3 min=2"}
        assert "ValueError" in ask(app, "autoscale", max=1, min=2)["error"]


def test_statedb(app: Celery, tmp_path: Path) -> None:
    path = tmp_path / "%n.state"
    with embedded(app, pool="solo", hostname="keeper@here", statedb=str(path)):
        ask(app, "revoke", task_id="gone-1")
    assert list(tmp_path.glob("keeper.state*"))
    from pyceleryc.worker import state

    state.revoked.clear()
    with embedded(app, pool="solo", hostname="keeper@here", statedb=str(path)):
        assert "gone-1" in ask(app, "revoked")
        app.tasks["ctl.add"].apply_async((1, 1), task_id="gone-1")
        result = app.AsyncResult("gone-1")
        assert app.tasks["ctl.add"].delay(1, 2).get(timeout=30) == 3
        assert not result.successful()
    state.revoked.clear()


def test_statedb_of_the_other(app: Celery, tmp_path: Path) -> None:
    """A state file of Celery is read by us, and ours by Celery."""
    from pyceleryc.worker import state

    script = ("import sys\nfrom celery.worker import state\n"
              "kept = state.Persistent(state, sys.argv[1])\n"
              "state.revoked.add(sys.argv[2])\nkept.save(); print(sorted(map(str, state.revoked)))")
    path = str(tmp_path / "mixed")

    def theirs(task_id: str) -> str:
        return subprocess.run([fleet.peer_python(), "-c", script, path, task_id], check=True, text=True,
                              stdout=subprocess.PIPE).stdout

    assert "their-1" in theirs("their-1")
    with embedded(app, pool="solo", hostname="w@here", statedb=path):
        assert "their-1" in ask(app, "revoked")
        ask(app, "revoke", task_id="our-1")
    state.revoked.clear()
    assert "['our-1', 'their-1', 'their-2']" in theirs("their-2")


def test_stopped_by_a_variable(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyceleryc.worker import state

    with embedded(app, pool="solo", hostname="w@here") as worker:
        monkeypatch.setattr(state, "should_stop", 5)
        wait_until(lambda: worker.exitcode == 5)


def test_stamps(app: Celery) -> None:
    with embedded(app, pool="solo", hostname="w@here"):
        assert "flagged as revoked" in ask(app, "revoke_by_stamped_headers", headers={"tenant": ["t1"]})["ok"]
        add = app.tasks["ctl.add"]
        revoked = add.apply_async((1, 1), stamped_headers=["tenant"], tenant="t1")
        spared = add.apply_async((1, 1), stamped_headers=["tenant"], tenant="t2")
        assert spared.get(timeout=30) == 2
        with pytest.raises(Exception, match="revoked"):
            revoked.get(timeout=30)


def test_switched_off(app: Celery) -> None:
    app.conf.worker_enable_remote_control = False
    with embedded(app, pool="solo", hostname="w@here", without_gossip=True, without_heartbeat=True) as worker:
        assert app.control.ping(timeout=0.5) == []
        assert not worker.machine.link.up  # type: ignore[union-attr]


def test_brokers_without_fanout(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = Celery("ctl", broker=f"sqla+sqlite:///{tmp_path}/q.db", set_as_current=False)
    with caplog.at_level("DEBUG"), embedded(app, pool="solo", task_events=True) as worker:
        assert not worker.machine.link.wanted  # type: ignore[union-attr]
        with pytest.raises(ImproperlyConfigured, match="cannot reach all workers"):
            app.control.ping()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    app.close()


def test_it_comes_back(app: Celery, amqp_url: str) -> None:
    """The line breaks: tasks go on, and control is there again soon after."""
    with embedded(app, pool="solo", hostname="w@here") as worker:
        assert ask(app, "ping") == {"ok": "pong"}
        link = worker.machine.link  # type: ignore[union-attr]
        link.connection.connection.transport.sock.shutdown(2)
        assert app.tasks["ctl.add"].delay(1, 2).get(timeout=30) == 3
        wait_until(lambda: link.up)
        wait_until(lambda: bool(app.control.ping(timeout=1)))


def test_two_nodes_of_one_name(app: Celery) -> None:
    replies = [{"w@here": {"ok": "pong"}}, {"w@here": {"ok": "pong"}}]
    from pyceleryc.app.control import flatten_reply

    with pytest.warns(DuplicateNodenameWarning, match="w@here"):
        assert flatten_reply(replies) == {"w@here": {"ok": "pong"}}


def test_names_of_worker_state(app: Celery) -> None:
    from pyceleryc.worker import state

    with embedded(app, pool="threads", concurrency=1, hostname="w@here") as worker:
        assert isinstance(worker, WorkController)
        result = app.tasks["ctl.nap"].delay(1)
        wait_until(lambda: any(request.id == result.id for request in state.active_requests))
        assert result.id in state.requests and state.total_count["ctl.nap"] == 1
        assert state.all_total_count[0] == 1
        result.get(timeout=30)


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_redis(redis_url: str, unique: Callable[[str], str], pool: str) -> None:
    queue = unique("ctl")
    app = Celery("ctl", broker=redis_url, backend=redis_url, set_as_current=False)
    take_names(app, queue)
    app.task(lambda: 5, name="ctl.five")
    with embedded(app, pool=pool, concurrency=1, hostname="r@here"):
        assert ask(app, "ping") == {"ok": "pong"}
        assert ask(app, "enable_events") == {"ok": "task events enabled"}
        assert app.tasks["ctl.five"].delay().get(timeout=30) == 5
        assert ask(app, "stats")["total"] == {"ctl.five": 1}
    with app.connection_for_write() as connection:
        client = connection.default_channel.client
        for key in client.keys(f"*{queue}*"):
            client.delete(key)
    app.close()
