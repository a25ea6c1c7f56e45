"""Rows as they would stand in the database at some moment of a case's life."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from appliance.records import Database, Transaction
from appliance.records.tables import Case, CaseState, Delivery, DeliveryState, Result, ResultKind
from appliance.spool import Spool

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def add_case(tx: Transaction, state: CaseState, **fields: Any) -> Case:
    """A case in `state`, since noon."""
    row: dict[str, Any] = {
        "series_instance_uid": "1.2.3",
        "study_instance_uid": "1.2",
        "patient_id": "P1",
        "accession_number": "A1",
        "description": "study / series",
        "source_ae": "FAKEPACS",
        "slices": 10,
        "first_arrival_at": NOON,
        "last_arrival_at": NOON,
        "entered_state_at": NOON,
    }
    case = Case(state=state, **{**row, **fields})
    tx.add(case)
    tx.flush()
    return case


def add_result(
    tx: Transaction,
    case: Case,
    sop_instance_uid: str,
    kind: ResultKind = ResultKind.RTSTRUCT,
    spool: Spool | None = None,
) -> Result:
    """A result of the case, whose file is called by its UID; it has the digest of that file in `spool`."""
    file = f"{sop_instance_uid}.dcm"
    content = (spool.result(file) if spool is not None else None) or b""
    digest = hashlib.sha256(content).hexdigest()
    result = Result(kind=kind, sop_instance_uid=sop_instance_uid, digest=digest, file=file)
    case.results.append(result)
    tx.flush()
    return result


def new_case(
    database: Database,
    state: CaseState,
    results: Mapping[ResultKind, str] = {},
    spool: Spool | None = None,
    **fields: Any,
) -> int:
    """The number of a case in `state` with results of these UIDs, whose files are in `spool`, committed."""
    with database.transaction() as tx:
        case = add_case(tx, state, **fields)
        for kind, sop_instance_uid in results.items():
            add_result(tx, case, sop_instance_uid, kind, spool)
        return case.id


def new_result(database: Database, case_id: int, sop_instance_uid: str) -> None:
    """A structure set of a case that is there already, committed."""
    with database.transaction() as tx:
        add_result(tx, tx.get_one(Case, case_id), sop_instance_uid)


def new_delivery(
    database: Database,
    case_id: int,
    destination: str = "pacs",
    kind: ResultKind = ResultKind.RTSTRUCT,
    **fields: Any,
) -> int:
    """The number of a delivery of a result of the case that is due at noon, committed."""
    row: dict[str, Any] = {"state": DeliveryState.PENDING, "next_try_at": NOON, "attempts": 0}
    with database.transaction() as tx:
        case = tx.get_one(Case, case_id)
        result = case.result(kind)
        assert result is not None
        row["result_id"] = result.id
        delivery = Delivery(case_id=case_id, destination=destination, **{**row, **fields})
        tx.add(delivery)
        tx.flush()
        return delivery.id


def read_case(database: Database, case_id: int) -> Case:
    """The case as it stands now, detached."""
    with database.reading() as tx:
        case = tx.get(Case, case_id)
        assert case is not None
        return case


def read_delivery(database: Database, delivery_id: int) -> Delivery:
    """The delivery as it stands now, detached."""
    with database.reading() as tx:
        delivery = tx.get(Delivery, delivery_id)
        assert delivery is not None
        return delivery
