"""The consumer: what signals name as their sender, and the parent of the consumer's bootsteps (Extensions guide).

Its blueprint is started when the line to the broker is open (see :mod:`pyceleryc.worker.link`), stopped when that breaks,
and started again.  With brokers that have no such line (``sqlite://``, ``memory://``) it is started when the machine is
connected, and ``connection`` is None.
"""
from __future__ import annotations

import logging
from typing import Any

from pyceleryc import bootsteps
from pyceleryc.worker.facade import QoS

__all__ = ('Consumer', 'Blueprint')

logger = logging.getLogger('celery.worker.consumer.consumer')

_HERE = 'pyceleryc.worker.consumer.'


class Blueprint(bootsteps.Blueprint):
    """The consumer's steps."""

    name = 'Consumer'
    default_steps = tuple(_HERE + name for name in (
        'connection:Connection', 'events:Events', 'mingle:Mingle', 'gossip:Gossip', 'heart:Heart', 'tasks:Tasks',
        'delayed_delivery:DelayedDelivery', 'agent:Agent', 'control:Control'))

    def is_given(self, cls: type[bootsteps.Step]) -> bool:
        """The worker's steps come before all of ours."""
        return cls.__module__.startswith(('pyceleryc.worker.components', 'pyceleryc.worker.autoscale'))


class Consumer:
    """Consumes tasks for the worker *controller*."""

    #: Name of the class of the steps.
    Blueprint = Blueprint

    def __init__(self, controller: Any) -> None:
        self.controller = controller
        self.app = controller.app
        self.hostname: str = controller.hostname
        self.pool, self.timer, self.hub = controller.pool, controller.timer, controller.hub
        self.steps: list[Any] = []
        #: Of kombu; None while there is none.
        self.connection: Any = None
        self.event_dispatcher: Any = None
        self.gossip: Any = None
        self.heart: Any = None
        self.task_consumer: Any = None
        self.qos: Any = None
        self.stopping = False
        self.blueprint = self.Blueprint(steps=self.app.steps['consumer'])
        self.blueprint.apply(self, **controller.step_options)

    # -- the machine ---------------------------------------------------------------------------

    @property
    def machine(self) -> Any:
        """What moves the messages; None before the worker is started."""
        return self.controller.machine

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return int(self.controller.pid)

    @property
    def wants_link(self) -> bool:
        """Is there a step that consumes on its own?"""
        return any(isinstance(step, bootsteps.ConsumerStep) for step in self.steps)

    def attach(self) -> None:
        """There is a machine."""
        self.qos = QoS(self.machine)

    def start(self) -> None:
        """Run the machine until the worker is stopped."""
        self.machine.run()

    def stop(self) -> None:
        """Stop the steps; the machine itself was told before."""
        if self.stopping:
            return
        self.stopping = True
        self.blueprint.close(self)
        self.blueprint.state = bootsteps.CLOSE
        self._stop_steps('stop', 'stopping', late=False)

    terminate = stop

    def shutdown(self) -> None:
        """The last task has ended: stop what had to tell of it, and let go of everything."""
        if self.blueprint.started:
            self._stop_steps('stop', 'stopping', late=True)
        self.blueprint.state = bootsteps.TERMINATE
        self.blueprint.send_all(self, 'shutdown', 'shutdown')

    def _stop_steps(self, method: str, description: str, late: bool) -> None:
        """Remote control and events go on until the last task has ended; other steps end before."""
        started = self.steps[:self.blueprint.started]
        chosen = [step for step in started if getattr(step, 'late', False) is late]
        self.blueprint.send_all(self, method, description, steps=chosen)

    # -- the line ------------------------------------------------------------------------------

    def up(self, connection: Any) -> None:
        """Start the steps, with *connection* of kombu or None; what a step raises ends the worker.

        :raises Exception: an error of the connection, from a step that uses it; the line is opened again then.
        """
        if self.stopping:
            return
        self.down()
        self.connection = connection
        try:
            self.blueprint.start(self)
        except Exception as exc:
            failed = self.steps[self.blueprint.started - 1]
            if getattr(failed, 'uses_connection', isinstance(failed, bootsteps.ConsumerStep)) and (
                    connection is not None and isinstance(exc, self.machine.link.errors(connection))):
                raise
            logger.critical('Consumer: the step %s cannot be started: %r', failed.alias, exc)
            self.controller.fail(exc)

    def down(self) -> None:
        """The connection is gone."""
        self.connection = None
        if self.blueprint.started:
            self.blueprint.restart(self)

    def info(self) -> dict[str, Any]:
        """What the steps add to ``inspect stats``."""
        return self.blueprint.info(self)

    # -- for steps and commands ----------------------------------------------------------------

    def add_task_queue(self, queue: Any, exchange: Any = None, exchange_type: str | None = None,
                       routing_key: str | None = None, **options: Any) -> None:
        """Consume from a queue, too."""
        self.machine.add_consumer(queue, exchange, exchange_type or 'direct', routing_key, **options)

    def cancel_task_queue(self, queue: Any) -> None:
        """Do not consume from it any more."""
        self.machine.cancel_consumer(getattr(queue, 'name', queue))

    def reset_rate_limits(self) -> None:
        """Take over rate limits of tasks that were changed."""
        for task in self.app.tasks.values():
            self.machine.register(task)

    def update_strategies(self) -> None:
        """Take over tasks that were registered or changed."""
        self.reset_rate_limits()
        self.machine.register_tracer()

    def __repr__(self) -> str:
        return f'<Consumer: {self.hostname} ({self.blueprint.human_state()})>'
