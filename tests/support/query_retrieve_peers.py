"""Archives that can be asked and fetched from, all in one form: our fake one, DCMTK's dcmqrscp, and Orthanc."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.delivery.store_scu import Caller, NotDelivered, echo, send_files
from appliance.settings import Peer
from tests.support.fake_archive import FakeArchive
from tests.support.free_ports import free_port
from tests.support.orthanc import Orthanc
from tests.support.waiting import wait_until

QRSCP = """
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
delineate = (DELINEATE, 127.0.0.1, {appliance_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
QRSCP {folder}/store RW (500, 1024mb) ANY
AETable END
"""


@dataclass(frozen=True)
class Archive:
    """An archive that runs and holds some series."""

    entry: dict[str, Any]  #: for peers.toml

    def with_way(self, retrieve: str) -> dict[str, Any]:
        return {**self.entry, "query": True, "retrieve": retrieve}


@contextmanager
def archive_with(kind: str, folder: Path, series: Sequence[Sequence[Path]], appliance_port: int) -> Iterator[Archive]:
    """An archive of this kind ("fake", "dcmqrscp", "orthanc") that holds these files and can move to us."""
    files = [path for one in series for path in one]
    if kind == "fake":
        with FakeArchive(files) as fake:
            fake.destinations["DELINEATE"] = appliance_port
            yield Archive(fake.peer())
    elif kind == "dcmqrscp":
        with _dcmqrscp(folder, appliance_port) as peer:
            _fill(peer, files)
            yield Archive(peer)
    else:
        with _orthanc(folder, appliance_port) as peer:
            _fill(peer, files)
            yield Archive(peer)


def _fill(peer: dict[str, Any], files: Sequence[Path]) -> None:
    caller, node = Caller("DELINEATE", 10.0), Peer.model_validate(peer)
    wait_until(lambda: _answers(caller, node), 30, "the archive to answer")
    send_files(caller, node, files)


def _answers(caller: Caller, peer: Peer) -> bool:
    try:
        echo(caller, peer)
    except NotDelivered:
        return False
    return True


@contextmanager
def _dcmqrscp(folder: Path, appliance_port: int) -> Iterator[dict[str, Any]]:
    if shutil.which("dcmqrscp") is None:
        pytest.skip("DCMTK's dcmqrscp is not installed: fetching from it was NOT tried (apt-get install dcmtk)")
    port = free_port()
    (folder / "store").mkdir(parents=True)
    config = folder / "dcmqrscp.cfg"
    config.write_text(QRSCP.format(port=port, appliance_port=appliance_port, folder=folder))
    with (
        (folder / "dcmqrscp.log").open("wb") as log,
        subprocess.Popen(["dcmqrscp", "-c", config, str(port)], stdout=log, stderr=log) as process,
    ):
        try:
            yield {"ae_title": "QRSCP", "host": "127.0.0.1", "port": port}
        finally:
            process.terminate()


@contextmanager
def _orthanc(folder: Path, appliance_port: int) -> Iterator[dict[str, Any]]:
    if Orthanc.program() is None:
        pytest.skip("Orthanc is not installed: fetching from it was NOT tried (apt-get install orthanc)")
    port = free_port()
    orthanc = Orthanc(folder, dicom_port=port, http_port=free_port(), appliance_port=appliance_port)
    orthanc.start()
    try:
        yield {"ae_title": Orthanc.AE_TITLE, "host": "127.0.0.1", "port": port}
    finally:
        orthanc.stop()
