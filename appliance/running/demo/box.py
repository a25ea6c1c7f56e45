"""The demo's own box: its configuration, its processes and its small PACS, all under one folder on loopback."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

from appliance.clock import monotonic_s
from appliance.delivery.store_scu import Caller, NotDelivered, echo
from appliance.errors import ApplianceError
from appliance.records import Database
from appliance.records.session import DatabaseUnavailable
from appliance.running.demo.small_pacs import SmallPacs
from appliance.settings import Peer, Settings, load_settings

QUIET_S = 3.0
"""The demo's patience with a series; a hospital's default is ten times that."""


class DemoBox:
    """An appliance started with `delineate up`, and the PACS that it answers to."""

    def __init__(self, installed: Settings, folder: Path) -> None:
        self.folder = folder.resolve()
        self.settings = _configure(installed, self.folder)
        intake = self.settings.intake
        self.me = Peer(ae_title=intake.ae_title, host=intake.host, port=intake.port)
        self.pacs_entry = self.settings.peers["pacs"]
        self.pacs = SmallPacs(self.folder / "pacs", self.pacs_entry, self.me)
        self.log = self.folder / "appliance.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the PACS and the appliance; returns at once."""
        self.pacs.start()
        command = [sys.executable, "-m", "appliance", "--config", str(self.settings.folder), "up"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own code

    def is_ready(self) -> bool:
        """Whether the listener answers C-ECHO and the database is there.

        Raises:
            ApplianceError: the appliance has ended; its log says why.
        """
        if not self.is_alive():
            raise ApplianceError(f"the appliance stopped; see {self.log}")
        try:
            echo(self.sender, self.me)
            Database(self.settings.database_url).check()
        except (NotDelivered, DatabaseUnavailable):
            return False
        return True

    @property
    def pid(self) -> int:
        """Process id of the appliance's supervisor; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    def is_alive(self) -> bool:
        """Whether the appliance's supervisor is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def sender(self) -> Caller:
        """The PACS as the one who sends the CT."""
        return Caller(self.pacs_entry.ae_title, 30.0)

    def stop(self) -> float:
        """Stop everything; returns how long the appliance took."""
        began_s = monotonic_s()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self.pacs.stop()
        return monotonic_s() - began_s


def _configure(installed: Settings, folder: Path) -> Settings:
    """A copy of the installed configuration with free ports, little patience and the small PACS as the only peer."""
    for leftover in ("configs", "var", "pacs", "ct"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    configs = folder / "configs"
    configs.mkdir(parents=True)
    shutil.copytree(installed.folder / "protocols", configs / "protocols")
    for name in ("rois.toml", "planning_systems.toml"):
        if (installed.folder / name).is_file():
            shutil.copy(installed.folder / name, configs / name)
    listen, broker, pacs = _free_ports(3)
    (configs / "appliance.toml").write_text(
        f'[appliance]\ndata_dir = "../var"\nmodels_dir = "{installed.models_dir}"\n\n[broker]\nport = {broker}\n\n'
        f'[intake]\nhost = "127.0.0.1"\nport = {listen}\nseries_quiet_s = {QUIET_S}\n'
        "free_space_reserve_mb = 100\nslots = 64\n"
    )
    (configs / "peers.toml").write_text(
        f'[pacs]\nae_title = "SMALLPACS"\nhost = "127.0.0.1"\nport = {pacs}\nstorage_commitment = true\n'
    )
    return load_settings(configs)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
