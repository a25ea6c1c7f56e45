"""Celery: a doorbell that carries a case's number (and, for a part of it, a model's name), and a worker that answers.

The truth is in the rows.
"""

import socket
from functools import partial
from typing import Any

import structlog
from celery import Celery
from celery.worker import state as celery_state
from kombu.exceptions import OperationalError

from appliance.casework.overseeing import Overseer
from appliance.settings import Settings

TASK = "delineate.contour"
PART_TASK = "delineate.part"
QUEUE = "delineate"

log = structlog.get_logger()


def doorbell(settings: Settings) -> Celery:
    """The Celery app, without any task: enough to ring."""
    app = Celery("delineate", broker=settings.broker_url)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_default_queue=QUEUE,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"socket_connect_timeout": 2, "socket_timeout": 10},
        task_publish_retry=False,
    )
    return app


def ring(app: Celery, case_id: int) -> bool:
    """Tell a worker that a case waits. False when the broker cannot be reached: the reconciler rings again."""
    return _send(app, TASK, case_id)


def ring_part(app: Celery, case_id: int, model: str) -> bool:
    """Tell the other workers that a model's part of a case waits; where nobody hears it the lead does it itself."""
    return _send(app, PART_TASK, case_id, model)


def _send(app: Celery, task: str, case_id: int, *more: str) -> bool:
    try:
        _knock(app)
        app.send_task(task, args=[case_id, *more])
    except (OperationalError, OSError) as error:
        log.warning("broker_unreachable", case=case_id, error=type(error).__name__)
        return False
    return True


def _knock(app: Celery) -> None:
    """See at once whether anybody listens; the Redis client would go on trying for seconds, and the assembler wait.

    Raises:
        OSError: nobody does.
    """
    broker = app.connection_for_write()
    if broker.port:
        socket.create_connection((broker.hostname, broker.port), timeout=1.0).close()


def answer(app: Celery, overseer: Overseer, device: str) -> None:
    """Serve as a worker until SIGTERM; a case in work then goes back to the queue at its next tile."""
    overseer.should_stop = _told_to_stop
    overseer.ring_part = partial(ring_part, app)

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def contour(case_id: int) -> None:
        overseer.attend(case_id)

    @app.task(name=PART_TASK)  # type: ignore[untyped-decorator]
    def part(case_id: int, model: str) -> None:
        overseer.attend_part(case_id, model)

    listening = f"--queues={','.join(queues_of(device))}"
    options = ["--pool=solo", "--concurrency=1", "--loglevel=WARNING", f"--hostname={overseer.worker}@%h", listening]
    app.worker_main(["--quiet", "worker", *options])  # its banner would go past what keeps a broken stdout harmless


def queues_of(device: str) -> list[str]:
    """Where a worker listens: where everybody is rung for, and where an operator rings for its device alone."""
    return [QUEUE] if device == "auto" else [QUEUE, f"{QUEUE}.{device.replace(':', '')}"]


def _told_to_stop() -> bool:
    stop: Any = celery_state.should_stop
    return stop is not None and stop is not False
