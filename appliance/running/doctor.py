"""`delineate doctor`: is everything there that the appliance needs, in words."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial

from appliance.audit.feed import collector_of
from appliance.casework.warm_models import engine_record
from appliance.clock import now_utc
from appliance.delivery.store_scu import Caller, NotDelivered, echo
from appliance.errors import ApplianceError, Refused, SettingsError
from appliance.records import Database
from appliance.records.session import DatabaseUnavailable
from appliance.running.broker import ping
from appliance.segmentation.backends import here
from appliance.segmentation.model_package import ModelPackage, digest_of, load_package
from appliance.settings import Peer, Protocol, Settings
from appliance.settings.certificates import check_files, validities
from appliance.settings.tls import TlsFiles
from appliance.spool.model_store import ModelStore

_ENDS_SOON = timedelta(days=30)
"""A new certificate takes some hospitals weeks."""


class Verdict(StrEnum):
    """What a check found."""

    GOOD = "good"
    NOTE = "note"  #: worth knowing, nothing is wrong
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check with its outcome in words."""

    subject: str
    verdict: Verdict
    words: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every check; none of them changes anything."""
    protocols, peers = len(settings.protocols), len(settings.peers)
    yield Finding("configuration", Verdict.GOOD, f"{settings.folder}: {protocols} protocols, {peers} peers")
    yield _disk(settings)
    yield from _models(settings)
    for device in dict.fromkeys(settings.worker.devices):
        yield _accelerator(device)
    yield from _engines(settings)
    running = _listener_answers(settings)
    yield _listener(settings, running=running)
    yield from _entrance(settings)
    if settings.tls_files is not None:
        yield _try("certificates", partial(_checked, settings.tls_files))
        yield from _ending(settings.tls_files)
    yield _database(settings)
    yield _broker(settings, running=running)
    if settings.audit.collector is not None:
        yield _try("audit collector", partial(_collector, settings))
    caller = Caller.of(settings, 5.0)
    for name, peer in settings.peers.items():
        yield _try(f"peer {name}", partial(_echo, caller, peer))
    yield from _unproved(settings)


def _try(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, Verdict.GOOD, check())
    except Refused as refused:
        return Finding(subject, Verdict.WRONG, refused.sentence)
    except ApplianceError as problem:
        return Finding(subject, Verdict.WRONG, str(problem))


def _disk(settings: Settings) -> Finding:
    folder = settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free_mb, reserve_mb = shutil.disk_usage(folder).free >> 20, settings.intake.free_space_reserve_mb
    if not os.access(folder, os.W_OK):
        return Finding("disk", Verdict.WRONG, f"{folder} cannot be written; give its owner the right to")
    if free_mb < reserve_mb:
        words = f"{settings.data_dir}: {free_mb} MB free, less than the reserve of {reserve_mb} MB; free some space"
        return Finding("disk", Verdict.WRONG, words)
    return Finding("disk", Verdict.GOOD, f"{settings.data_dir}: {free_mb / 1024:.0f} GB free")


def _models(settings: Settings) -> Iterator[Finding]:
    if not settings.protocols:
        yield Finding("protocols", Verdict.WRONG, "none is configured; add one in protocols/")
    for protocol in settings.protocols.values():
        yield _try(f"protocol {protocol.name}", partial(_model, settings, protocol))


def _model(settings: Settings, protocol: Protocol) -> str:
    store = ModelStore.of(settings)
    packages = {model: load_package(store.active(model)) for model in protocol.models}
    owners = protocol.drawn_by({model: package.manifest.roi_names for model, package in packages.items()})
    named = f"model{'' if len(packages) == 1 else 's'} {' and '.join(packages)}"
    unknown = ", ".join(name for name in protocol.asked_of_model if name not in owners)
    if unknown:
        nobody = f"neither does the {named} draw {unknown}, nor does a [[derived]] rule make it"
        raise ApplianceError(f"{nobody}; take it out of the protocol, derive it, or name another model")
    asked = {owners[name] for name in protocol.asked_of_model}
    idle = ", ".join(model for model in packages if model not in asked) if len(packages) > 1 else ""
    if idle:
        raise ApplianceError(f"no structure is asked of model {idle}; take it out of `model`, or name it in `rois`")
    form = f"{len(protocol.rois)} structures in the form for {protocol.planning_system}"
    return f"{', '.join(_package_words(*one) for one in packages.items())}; {form}"


def _package_words(name: str, package: ModelPackage) -> str:
    manifest = package.manifest
    return f"model {name} {manifest.version}, {len(manifest.folds)} folds, digests verified ({package.digest[:12]}…)"


def _accelerator(device: str) -> Finding:
    gpus = here.gpus()
    named = ", ".join(f"{name} ({number})" for number, name in gpus.items())
    if device.startswith("cuda") and device not in {*gpus, *(["cuda"] if gpus else [])}:
        words = f"worker.devices names {device}, which cannot be used here; install the extra gpu, or correct it"
        return Finding("accelerator", Verdict.WRONG, f"{words} (there is: {named or 'no GPU'})")
    if device == "cpu" and gpus:
        return Finding("accelerator", Verdict.NOTE, f'{named} is there, but worker.devices is "cpu"')
    if gpus:
        return Finding("accelerator", Verdict.GOOD, named)
    return Finding("accelerator", Verdict.NOTE, "no GPU: the networks run on the CPU, which takes longer")


def _engines(settings: Settings) -> Iterator[Finding]:
    """What each model runs on, as its worker found it out when it last loaded the model."""
    record = engine_record(settings)
    for name in sorted({model for protocol in settings.protocols.values() for model in protocol.models}):
        try:
            words = record.runs_on(digest_of(ModelStore.of(settings).active(name)))
        except Refused:
            continue  # its protocol's finding says so
        unknown = "not loaded yet; a worker examines the engines of this box when it first loads the model"
        yield Finding(f"engine of {name}", Verdict.NOTE if words is None else Verdict.GOOD, words or unknown)


def _listener_answers(settings: Settings) -> bool:
    """C-ECHO to ourselves, whom the door always knows."""
    try:
        echo(Caller.of(settings, 5.0), settings.myself)
    except NotDelivered:
        return False
    return True


def _listener(settings: Settings, *, running: bool) -> Finding:
    intake = settings.intake
    port = settings.myself.port
    where = f"{intake.ae_title} on {intake.host}:{port}"
    if running:
        return Finding("listener", Verdict.GOOD, f"{where} answers C-ECHO")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((intake.host, port))
        except OSError as error:
            words = f"{where}: the port cannot be used ({error.strerror}); choose another intake.port"
            return Finding("listener", Verdict.WRONG, words)
    return Finding("listener", Verdict.NOTE, f"{where}: not running, the port is free; `delineate up` starts it")


def _entrance(settings: Settings) -> Iterator[Finding]:
    """What of the way in is more open than a hospital's network should see."""
    intake, peers = settings.intake, settings.peers
    if intake.host in {"localhost", "::1"} or intake.host.startswith("127."):
        return
    if intake.tls != "only":
        words = f"{intake.host}:{intake.port} takes plain DICOM, which anybody on the way can read and change"
        yield Finding("entrance", Verdict.NOTE, f'{words}; set up [tls] and intake.tls = "only" (docs/tls.md)')
    if not intake.known_peers_only:
        words = "any AE title may send; turn intake.known_peers_only on"
        yield Finding("strangers", Verdict.NOTE, words)
    loose = [name for name, peer in peers.items() if peer.certificate is None and not peer.addresses]
    if loose:
        words = f"{', '.join(loose)} may be claimed by anybody who knows the AE title"
        yield Finding("titles", Verdict.NOTE, f"{words}; give each its certificate or addresses in peers.toml")


def _checked(files: TlsFiles) -> str:
    check_files(files, now_utc())
    own, *authorities = validities(files)
    return f"{own.subject}, until {own.ends:%Y-%m-%d}; authorities: {len(authorities)}"


def _ending(files: TlsFiles) -> Iterator[Finding]:
    """Certificates that end within weeks."""
    now = now_utc()
    try:
        ending = [one for one in validities(files) if now < one.ends < now + _ENDS_SOON]
    except SettingsError:
        return  # the finding before says so
    for one in ending:
        words = f"{one.path.name} ({one.subject}) ends in {(one.ends - now).days} days; ask for a new one now"
        yield Finding("certificate", Verdict.NOTE, words)


def _database(settings: Settings) -> Finding:
    if settings.database.url is None and not (settings.data_dir / "delineate.sqlite").exists():
        return Finding("database", Verdict.NOTE, "embedded SQLite, not made yet; `delineate up` makes it")
    database = Database(settings.database_url)
    try:
        return Finding("database", Verdict.GOOD, f"{database.display_url} answers, schema {database.check()}")
    except DatabaseUnavailable as problem:
        return Finding("database", Verdict.WRONG, str(problem))


def _broker(settings: Settings, *, running: bool) -> Finding:
    problem = ping(settings.broker_url)
    kind = "embedded Valkey" if settings.broker.url is None else "broker"
    if problem is None:
        return Finding("broker", Verdict.GOOD, f"{kind} answers")
    if settings.broker.url is None and not running:
        return Finding("broker", Verdict.NOTE, "embedded Valkey, not running; `delineate up` starts it")
    return Finding("broker", Verdict.WRONG, f"{kind}: {problem}; start it or correct broker.url")


def _collector(settings: Settings) -> str:
    collector_of(settings).deliver([])
    return f"{settings.audit.collector} takes connections and ends them as it should"


def _unproved(settings: Settings) -> Iterator[Finding]:
    """Protocols none of whose destinations can say that it keeps a result: the case is never more than delivered."""
    for protocol in settings.protocols.values():
        peers = [settings.peers[name] for name in protocol.destinations]
        if not any(peer.storage_commitment or peer.query for peer in peers):
            where = ", ".join(protocol.destinations)
            words = f"{where} proves nothing (storage_commitment and query are off), so retention keeps its files"
            yield Finding(f"proof for {protocol.name}", Verdict.NOTE, words)


def _echo(caller: Caller, peer: Peer) -> str:
    echo(caller, peer)
    return f"{peer.ae_title} at {peer.host}:{peer.port} answers C-ECHO"
