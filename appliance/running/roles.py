"""The processes of the appliance. Each runs until SIGTERM, alone or under the supervisor.

They crash rather than limp: what cannot be gone on with (a database that is away) ends the process, and whoever
supervises it starts it again. Nothing is lost by that, because the truth is on disk and in rows.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable

import structlog
from pydantic import ValidationError

from appliance import __version__
from appliance.audit import trail
from appliance.clock import now_utc
from appliance.errors import SettingsError
from appliance.records import Database
from appliance.settings import Settings
from appliance.settings.box import WorkerSettings
from appliance.spool import Spool

TICK_S = 0.25
"""How often the loops look; each look is a few indexed queries."""

log = structlog.get_logger()


def listen(settings: Settings) -> None:
    """Receive: needs the spool alone."""
    from appliance.intake.listener import Listener

    stop = stop_on_signal()
    check_tls(settings)
    listener = Listener(settings, Spool(settings.data_dir / "spool"))
    listener.start()
    listener.serve(stop.is_set)


def assemble(settings: Settings) -> None:
    """Index what arrived, complete series, ring for workers, take back lost cases."""
    from appliance.casework.reconciler import Reconciler
    from appliance.casework.tasks import doorbell, ring
    from appliance.intake.assembler import Assembler

    stop = stop_on_signal()
    database, spool = _open(settings, "assembler")
    app = doorbell(settings)
    assembler = Assembler(settings, database, spool)
    reconciler = Reconciler(settings, database, ring=lambda case_id: ring(app, case_id))
    while not stop.is_set():
        indexed = assembler.sweep(now_utc())
        reconciler.sweep(now_utc())
        if not indexed:
            stop.wait(TICK_S)
    assembler.stop()
    _close(database, "assembler")


def deliver(settings: Settings) -> None:
    """Send results and hear commitments."""
    from appliance.delivery.outbox import Outbox

    stop = stop_on_signal()
    database, spool = _open(settings, "deliverer")
    outbox = Outbox(settings, database, spool)
    while not stop.is_set():
        outbox.sweep(now_utc())
        stop.wait(TICK_S)
    _close(database, "deliverer")


def on_device(settings: Settings, device: str | None) -> Settings:
    """The settings of a worker on one device.

    Args:
        settings: of this box.
        device: which; the only one of `worker.devices` when absent.

    Raises:
        SettingsError: there is no such device, or several to choose from.
    """
    devices = settings.worker.devices if device is None else (device,)
    if len(devices) > 1:
        raise SettingsError(f"worker.devices are {', '.join(devices)}; say which with `delineate work --device`")
    try:
        worker = WorkerSettings.model_validate({**settings.worker.model_dump(), "devices": devices})
    except ValidationError as unknown:
        raise SettingsError(f"{device!r} is no device; name auto, cpu, cuda or one GPU such as cuda:1") from unknown
    return settings.model_copy(update={"worker": worker})


def work(settings: Settings) -> None:
    """Segment queued cases, one at a time; the models of all protocols are loaded before the first."""
    from appliance.casework.tasks import answer, doorbell
    from appliance.casework.workbench import Workbench

    database, spool = _open(settings, "worker")
    (device,) = settings.worker.devices
    name = f"worker-{socket.gethostname()[:20]}-{os.getpid()}"
    bench = Workbench(settings, database, spool, worker=name, device=device)
    bench.warm_up()
    try:
        answer(doorbell(settings), bench)
    finally:
        _close(database, "worker")


def tend(settings: Settings) -> None:
    """See to what is done from time to time."""
    from appliance.running.caretaker import Caretaker, Duty

    stop = stop_on_signal()
    database, _spool = _open(settings, "caretaker")
    duties: list[Duty] = []
    Caretaker(duties).run(stop)
    _close(database, "caretaker")


ROLES: dict[str, Callable[[Settings], None]] = {
    "listen": listen,
    "assemble": assemble,
    "work": work,
    "deliver": deliver,
    "tend": tend,
}
"""The kinds of processes that `delineate up` supervises, by the command that runs each; workers one a device."""


def check_tls(settings: Settings) -> None:
    """See that the certificates of `[tls]` can be used, if there are any.

    Raises:
        SettingsError: they cannot; the message says which and why.
    """
    if settings.tls_files is not None:
        from appliance.settings.certificates import check_files  # who speaks no TLS need not load it

        check_files(settings.tls_files, now_utc())


def stop_on_signal() -> threading.Event:
    """An event that SIGTERM or SIGINT sets."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


def leave_with_parent() -> None:
    """Under a supervisor, standard input is a pipe that closes when the supervisor dies: then stop as well."""

    def watch() -> None:
        while os.read(0, 1):  # unbuffered: a buffer's lock would be held when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _open(settings: Settings, process: str) -> tuple[Database, Spool]:
    database = Database(settings.database_url)
    database.check()
    with database.transaction() as tx:
        trail.record(tx, "process_started", at=now_utc(), actor=process, process=process, version=__version__)
    return database, Spool(settings.data_dir / "spool")


def _close(database: Database, process: str) -> None:
    with database.transaction() as tx:
        trail.record(tx, "process_stopped", at=now_utc(), actor=process, process=process)
