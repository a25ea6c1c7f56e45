"""The processes of the appliance. Each runs until SIGTERM, alone or under the supervisor.

They crash rather than limp: what cannot be gone on with (a database that is away) ends the process, and whoever
supervises it starts it again. Nothing is lost by that, because the truth is on disk and in rows.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import structlog
from pydantic import ValidationError

from appliance import __version__
from appliance.audit import trail
from appliance.clock import now_utc
from appliance.errors import SettingsError
from appliance.records import Database
from appliance.running.caretaker import Caretaker, Duty
from appliance.settings import Settings
from appliance.settings.box import WorkerSettings
from appliance.spool import Spool

TICK_S = 0.25
"""How often the loops look; each look is a few indexed queries."""

MINUTE_S = 60.0

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
    from appliance.intake.limited_reading import LimitedReading

    stop = stop_on_signal()
    database, spool = _open(settings, "assembler")
    app = doorbell(settings)
    reading = LimitedReading()
    assembler = Assembler(settings, database, spool, reading)
    reconciler = Reconciler(settings, database, ring=lambda case_id: ring(app, case_id))
    while not stop.is_set():
        indexed = assembler.sweep(now_utc())
        reconciler.sweep(now_utc())
        if not indexed:
            stop.wait(TICK_S)
    reading.stop()
    _close(database, "assembler")


def deliver(settings: Settings) -> None:
    """Send results, see to their proof, and answer those who ask whether we keep what they sent."""
    from appliance.delivery.lanes import Lanes
    from appliance.delivery.outbox import Outbox
    from appliance.delivery.pacing import Pacing
    from appliance.delivery.store_scu import Caller
    from appliance.delivery.vouching import Voucher

    stop = stop_on_signal()
    database, spool = _open(settings, "deliverer")
    times = settings.delivery
    pacing = Pacing(times.retry_first_s, times.retry_cap_s)
    caller = Caller.of(settings, times.network_timeout_s)
    outbox = Outbox(settings, database, spool, pacing, caller)
    lanes = Lanes(outbox, Voucher(settings, database, spool, caller, pacing))
    while not stop.is_set():
        lanes.look()
        stop.wait(TICK_S)
    lanes.stop()
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
    share = settings.worker.memory_share or 1 / len(settings.worker.devices)
    own = {**settings.worker.model_dump(), "devices": devices, "memory_share": share}
    try:
        worker = WorkerSettings.model_validate(own)
    except ValidationError as unknown:
        raise SettingsError(f"{device!r} is no device; name auto, cpu, cuda or one GPU such as cuda:1") from unknown
    return settings.model_copy(update={"worker": worker})


def work(settings: Settings) -> None:
    """Segment queued cases, one at a time, on a bench of its own, which loads the models before the first."""
    from appliance.casework.overseeing import Overseer
    from appliance.casework.tasks import answer, doorbell

    database, _ = _open(settings, "worker")
    (device,) = settings.worker.devices
    name = f"worker-{socket.gethostname()[:20]}-{os.getpid()}"
    command = [sys.executable, "-m", "appliance", "--config", str(settings.folder), "bench"]
    overseer = Overseer(settings, database, name, [*command, "--device", device, "--name", name])
    overseer.start()
    try:
        answer(doorbell(settings), overseer, device)
    finally:
        overseer.stop()
        _close(database, "worker")


def bench(settings: Settings, name: str) -> None:
    """Keep models warm and do what the worker `name` says; it is started by that worker, and leaves with it."""
    from appliance.casework.bench_service import serve
    from appliance.casework.workbench import Workbench

    (device,) = settings.worker.devices
    database, spool = Database(settings.database_url), Spool(settings.data_dir / "spool")
    serve(Workbench(settings, database, spool, worker=name, device=device))


def tend(settings: Settings) -> None:
    """See to what is done from time to time."""
    stop = stop_on_signal()
    database, spool = _open(settings, "caretaker")
    Caretaker(duties_of(settings, database, spool)).run(stop)
    _close(database, "caretaker")


def duties_of(settings: Settings, database: Database, spool: Spool) -> list[Duty]:
    """What the caretaker sees to."""
    from appliance.audit.feed import CollectorFeed
    from appliance.audit.signing import HeadSigner
    from appliance.running.nightly import compare_with_pacs, remove_old_files

    return [
        Duty("sign_trail", MINUTE_S, HeadSigner(settings, database).sign_daily),
        Duty("tell_collector", 2.0, CollectorFeed(settings, database).send_waiting),
        Duty("reconcile", MINUTE_S, partial(compare_with_pacs, settings, database, spool)),
        Duty("retention", MINUTE_S, partial(remove_old_files, settings, database, spool)),
        *_asking_duties(settings, database, spool),
    ]


def _asking_duties(settings: Settings, database: Database, spool: Spool) -> Iterator[Duty]:
    """Each PACS is asked in a thread of its own, so that a slow one delays only what concerns it."""
    from appliance.intake.counting import Counting
    from appliance.intake.fetch_schedule import ScheduledFetch
    from appliance.intake.fetching import MissingSlices

    for name in (name for name, peer in settings.peers.items() if peer.query):
        yield Duty(f"count-{name}", 0.5, Counting(settings, database, name).work)
        yield Duty(f"missing-{name}", 5.0, MissingSlices(settings, database, spool, name).work)
    for protocol in (one for one in settings.protocols.values() if one.fetch is not None):
        yield Duty(f"fetch-{protocol.name}", 20.0, ScheduledFetch(settings, database, spool, protocol).work)


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
