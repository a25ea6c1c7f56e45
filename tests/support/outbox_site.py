"""An outbox with many results on their way, by a clock that the test moves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from appliance.audit.trail import trail_of
from appliance.delivery.outbox import Outbox
from appliance.records import Database
from appliance.records.tables import Case, CaseState, Delivery, ResultKind
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.config_folder import make_settings
from tests.support.hands import Hands
from tests.support.rows import NOON, new_case, new_delivery, read_case, read_delivery
from tests.support.structure_sets import small_structure_set

FIRST_S, CAP_S = 5.0, 60.0


@dataclass
class OutboxSite:
    """A box as the deliverer sees it."""

    settings: Settings
    database: Database
    spool: Spool
    hands: Hands = field(default_factory=Hands)

    def __post_init__(self) -> None:
        self.outbox = self.new_outbox()

    @classmethod
    def at(
        cls, folder: Path, database: Database, spool: Spool, peers: Mapping[str, Any], **delivery: object
    ) -> "OutboxSite":
        """A site whose destinations are these peers; `delivery` are settings of that table."""
        times = {"retry_first_s": FIRST_S, "retry_cap_s": CAP_S, "network_timeout_s": 5.0, "sighting_wait_s": 1.0}
        settings = make_settings(folder, {"delivery": {**times, **delivery}}, peers=peers, protocols={})
        return cls(settings, database, spool)

    def new_outbox(self) -> Outbox:
        """The outbox as a process that has just started."""
        times = self.settings.delivery
        return Outbox(
            self.settings, self.database, self.spool, self.hands.pacing(times.retry_first_s, times.retry_cap_s)
        )

    def result(self, number: int, *destinations: str, patient: str | None = None, **case: Any) -> int:
        """A finished case of a patient of its own, due at noon, with structure set 2.25.NUMBER; returns its number."""
        uid = f"2.25.{number}"
        row = {"series_instance_uid": f"1.2.{number}", "study_instance_uid": f"1.3.{number}", **case}
        self.spool.keep_result(f"{uid}.dcm", small_structure_set(uid, str(row["study_instance_uid"])))
        row["patient_id"] = patient or f"P{number}"
        case_id = new_case(self.database, CaseState.SENDING, {ResultKind.RTSTRUCT: uid}, self.spool, **row)
        for destination in destinations or ("pacs",):
            new_delivery(self.database, case_id, destination)
        return case_id

    def sweep(self, *seconds: float) -> None:
        """Rounds at these times after noon."""
        for second in seconds:
            self.hands.sweep(self.outbox, at(second))

    def case(self, case_id: int) -> Case:
        """The case as it stands."""
        return read_case(self.database, case_id)

    def delivery(self, delivery_id: int) -> Delivery:
        """The delivery as it stands."""
        return read_delivery(self.database, delivery_id)

    def events(self, case_id: int) -> list[str]:
        """What happened to a case."""
        with self.database.reading() as tx:
            return [entry.event for entry in trail_of(tx, case_id)]

    def words(self, case_id: int) -> list[str]:
        """What happened to a case, as people read it."""
        with self.database.reading() as tx:
            return [entry.words for entry in trail_of(tx, case_id)]


def at(seconds: float) -> datetime:
    """So long after noon."""
    return NOON + timedelta(seconds=seconds)
