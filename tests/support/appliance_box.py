"""The real appliance, as an operator starts it: `delineate up` on a folder of its own, watched from outside."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from appliance.audit.trail import TrailEntry, trail_of, trail_of_box
from appliance.casework.case import FINAL
from appliance.delivery.store_scu import Caller, NotDelivered, echo, send_files
from appliance.dicom.identity import read_identity
from appliance.records import Database, queries
from appliance.records.session import DatabaseUnavailable
from appliance.records.tables import Case, CaseState, Instance
from appliance.settings import Settings, load_settings
from appliance.spool import Spool
from tests.support.config_folder import BONES, write_config
from tests.support.fake_pacs import FakePacs
from tests.support.free_ports import free_port
from tests.support.model_packages import DENSE_ROIS, make_threshold_package
from tests.support.processes import assert_ended, kill_if_there
from tests.support.waiting import wait_until

STOP_WITHIN_S = 10.0
READY_WITHIN_S = 60.0
CASE_WITHIN_S = 60.0
SLOW = {**BONES, "name": "slow", "model": "slow", "match": {"body_part": ["ABDOMEN"]}}
"""For `make_slow_patient`: so many small tiles that a worker is caught in the middle of them."""
BOTH = {**BONES, "name": "both", "outputs": ["rtstruct", "seg"], "match": {"body_part": ["HIP"]}}
"""Gives a structure set and a Segmentation."""
SHARED = {
    **BONES,
    "name": "shared",
    "model": ["slow", "dense"],
    "rois": ["External", {"roi": "Bone_Pelvic", "model": "dense"}, "Other", "Bone_PRV04"],
    "derived": [{"roi": "Bone_PRV04", "of": ["Femur_L", "Other"], "combine": "intersection", "margin_mm": 4}],
    "match": {"body_part": ["CHEST"]},
}
"""One structure set of two models that are both slow, for `make_slow_patient`."""
UNEQUAL = {
    **SHARED,
    "name": "unequal",
    "model": ["slow", "thresholds"],
    "rois": ["External", {"roi": "Bone_Pelvic", "model": "thresholds"}],
    "derived": [],
    "match": {"body_part": ["NECK"]},
}
"""The same with a second model that is done long before the first."""
SITE = {
    **BONES,
    "name": "site",
    "planning_system": "site",
    "uneven_gaps": True,
    "rois": [
        {"roi": "External", "name": "BODY"},
        {"roi": "Bone_Pelvic", "name": "Bone", "smooth_mm": 1.0, "simplify_mm": 0.5},
        "Bone_PRV04",
        "zShell",
        "Other",
    ],
    "derived": [
        {"roi": "External", "from_ct": "body"},
        {"roi": "Bone_PRV04", "of": ["Bone_Pelvic"], "margin_mm": 4},
        {"roi": "zShell", "of": ["Bone_Pelvic"], "ring_mm": [8, 20], "within": ["External"]},
        {"roi": "Other", "of": ["Femur_L", "Femur_R"], "combine": "intersection"},
    ],
    "match": {"body_part": ["KNEE"]},
}
"""Uses everything that a site may set: names, margins, rings, the outline in the CT, a form of its own, uneven gaps."""
SITE_FORM = {"site": {"holes": "nested", "empty_rois": "declare", "codes": "none", "max_points": 60}}
_QUICK: Mapping[str, Mapping[str, Any]] = {
    "appliance": {"data_dir": "../var", "models_dir": "../models"},
    "intake": {
        "series_quiet_s": 1.0,
        "incomplete_wait_s": 2.0,
        "free_space_reserve_mb": 1,
        "network_timeout_s": 5.0,
        "slots": 32,
    },
    "worker": {"threads": 1, "lease_s": 3.0, "engines": ["onnxruntime"]},
    "delivery": {"retry_first_s": 0.5, "retry_cap_s": 2.0, "commitment_wait_s": 5.0, "network_timeout_s": 5.0},
}


class ApplianceBox:
    """A configured appliance under one folder; `start` and `stop` it, send to it, look into its rows."""

    code: Path | None = None  #: the tree of another release, to run that one

    def __init__(self, folder: Path, pacs: FakePacs, tables: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.folder = folder
        self.pacs = pacs
        self.log = folder / "appliance.log"
        own = {"intake": {"port": free_port()}, "broker": {"port": free_port()}}
        parts = [_QUICK, own, tables or {}]
        merged = {
            name: {key: value for part in parts for key, value in part.get(name, {}).items()}
            for name in {name for part in parts for name in part}
        }
        make_threshold_package(folder / "models" / "thresholds", tile=(16, 32, 32))
        make_threshold_package(folder / "models" / "slow", tile=(4, 8, 8))
        dense = {"body": -400.0, "dense": 600.0}
        make_threshold_package(
            folder / "models" / "dense", name="dense", thresholds_hu=dense, rois=DENSE_ROIS, tile=(4, 8, 8)
        )
        write_config(
            folder / "configs",
            merged,
            peers={"pacs": pacs.peer(storage_commitment=True)},
            protocols={"bones": BONES, "slow": SLOW, "both": BOTH, "site": SITE, "shared": SHARED, "unequal": UNEQUAL},
            planning_systems=SITE_FORM,
        )
        self.settings: Settings = load_settings(folder / "configs")
        self.me = self.settings.myself
        pacs.appliance = (self.me.ae_title, self.me.port)
        self.sender = Caller(pacs.ae_title, 10.0, None if pacs.tls is None else pacs.tls.files)
        self.database = Database(self.settings.database_url)
        self.spool = Spool(self.settings.data_dir / "spool")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    # ── running ────────────────────────────────────────────────────────────────────────────────────────────────────

    def command(self, *arguments: str) -> list[str]:
        """The command line of `delineate` on this box."""
        return [sys.executable, "-m", "appliance", "--config", str(self.settings.folder), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command, where = self.command(*arguments), self._where()
        return subprocess.run(command, **where, capture_output=True, text=True, timeout=60, check=False)

    def _where(self) -> dict[str, Any]:
        """Where the code that runs comes from."""
        if self.code is None:
            return {}
        return {"cwd": self.code, "env": {**os.environ, "PYTHONPATH": str(self.code)}}

    def start(self, *, with_rows: bool = True) -> None:
        """`delineate up`; returns when the listener answers C-ECHO and, unless told otherwise, rows can be read."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command("up"), **self._where(), stdout=log, stderr=log)
        try:
            wait_until(self.is_ready, READY_WITHIN_S, "the appliance to answer C-ECHO")
            wait_until(lambda: not with_rows or self.has_rows(), READY_WITHIN_S, "the tables")
        except AssertionError:
            self.kill()
            raise

    def is_ready(self) -> bool:
        """Whether the listener answers.

        Raises:
            AssertionError: the appliance has ended; with its log.
        """
        assert self.process.poll() is None, f"the appliance ended:\n{self.log.read_text()}"
        try:
            echo(self.sender, self.me)
        except NotDelivered:
            return False
        return True

    def has_rows(self) -> bool:
        """Whether the database is there, with this release's tables.

        Raises:
            AssertionError: the appliance has ended; with its log.
        """
        assert self.process.poll() is None, f"the appliance ended:\n{self.log.read_text()}"
        try:
            return bool(self.database.check())
        except DatabaseUnavailable:
            return False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process is not None, "the appliance was not started"
        return self._process

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything under it."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def role(self, name: str) -> psutil.Process:
        """The process of one role, as soon as it is there; `broker` is the embedded Valkey."""
        return wait_until(lambda: self._find(name), 15, f"a process for {name}")

    def _find(self, name: str) -> psutil.Process | None:
        for process in self.processes()[1:]:
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if name in words or (name == "broker" and words and "valkey" in words[0]):
                return process
        return None

    def stop(self) -> None:
        """SIGTERM; everything must have ended well within ten seconds."""
        everything = self.processes()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not stopped within {STOP_WITHIN_S} s:\n{self.tail()}") from None
        assert_ended(everything, within_s=2)
        assert code == 0, f"ended with {code}:\n{self.tail()}"
        self.database.engine.dispose()

    def kill(self) -> None:
        """Whatever state it is in: nothing of it is left."""
        if self._process is None:
            return
        if self._process.poll() is None:
            everything = self.processes()
            for process in everything:
                kill_if_there(process)
            psutil.wait_procs(everything, timeout=5)
        self._process.wait()
        self.database.engine.dispose()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text()[-4000:]

    # ── sending ────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, paths: Iterable[Path], answer: str = "0x0000") -> None:
        """C-STORE these files over one association, as the PACS does; the last one has this answer."""
        assert send_files(self.sender, self.me, paths) == answer

    # ── looking ────────────────────────────────────────────────────────────────────────────────────────────────────

    def cases(self, series_instance_uid: str | None = None) -> list[Case]:
        """All cases, or the revisions of one series, oldest first, with their deliveries."""
        query = select(Case).options(selectinload(Case.deliveries)).order_by(Case.id)
        if series_instance_uid is not None:
            query = query.where(Case.series_instance_uid == series_instance_uid)
        with self.database.reading() as tx:
            return list(tx.scalars(query))

    def wait_for_case(
        self, path: Path, *states: CaseState, revision: int = 1, timeout_s: float = CASE_WITHIN_S
    ) -> Case:
        """The case of the series that `path` belongs to, once it is in one of the states.

        Raises:
            AssertionError: it is not in time, or ended in another state; with what happened to it.
        """
        uid = read_identity(path).series_instance_uid

        def look() -> Case | None:
            cases = [case for case in self.cases(uid) if case.revision == revision]
            if not cases or cases[0].state in states:
                return cases[0] if cases else None
            waiting_for_more = cases[0].state is CaseState.DELIVERED and CaseState.COMMITTED in states
            ended = cases[0].state in FINAL and not waiting_for_more and cases[0].repeated_at is None
            assert not ended, (
                f"the case is {cases[0].state}: {cases[0].sentence}\n{self.story(cases[0])}\n{self.tail()}"
            )
            return None

        try:
            return wait_until(look, timeout_s, f"{path.parent.name} to be {' or '.join(states)}")
        except AssertionError as error:
            stories = "\n".join(self.story(case) for case in self.cases(uid))
            raise AssertionError(f"{error}\n{stories}\n{self.tail()}") from None

    def story(self, case: Case) -> str:
        """What happened to a case, to read when a test fails."""
        lines = [f"{entry.at:%H:%M:%S.%f} {entry.actor}: {entry.words}" for entry in self.trail(case)]
        return "\n".join([f"case {case.id} revision {case.revision} is {case.state}", *lines])

    def trail(self, case: Case) -> list[TrailEntry]:
        """The events of a case."""
        with self.database.reading() as tx:
            return trail_of(tx, case.id)

    def events(self, case: Case) -> list[str]:
        """The names of the events of a case."""
        return [entry.event for entry in self.trail(case)]

    def box_trail(self) -> list[TrailEntry]:
        """The newest events that belong to no case."""
        with self.database.reading() as tx:
            return trail_of_box(tx, limit=100)

    def instances(self, case: Case) -> list[Instance]:
        """The instances of one revision."""
        with self.database.reading() as tx:
            return list(queries.instances_of(tx, case))

    def all_instances(self) -> list[Instance]:
        """Every object that was ever received, by content."""
        with self.database.reading() as tx:
            return list(tx.scalars(select(Instance).order_by(Instance.id)))

    def quarantined(self) -> list[Instance]:
        """What was set aside."""
        with self.database.reading() as tx:
            return list(queries.quarantined(tx, 100))
