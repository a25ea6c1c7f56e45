"""Received = delivered + refused + aside + in progress; whatever is in none of them is named."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from appliance.records import Database
from appliance.records.account import Account, account
from appliance.records.tables import Case, CaseInstance, CaseState, DeliveryState, Instance, InstanceState, ResultKind
from appliance.spool import Spool
from tests.support.residue import residue
from tests.support.rows import NOON, add_case, add_result, new_delivery


@dataclass
class Rows:
    """Rows of instances and cases, as the assembler would write them."""

    database: Database
    numbers: Iterator[int]

    def case(self, state: CaseState, images: int = 2, **fields: object) -> int:
        number = next(self.numbers)
        with self.database.transaction() as tx:
            case = add_case(tx, state, series_instance_uid=str(fields.pop("series", f"1.2.{number}")), **fields)
            for _ in range(images):
                instance = self.instance(InstanceState.KEPT)
                tx.add(instance)
                tx.flush()
                tx.add(CaseInstance(case_id=case.id, instance_id=instance.id))
            return case.id

    def instance(self, state: InstanceState, uid: str | None = None) -> Instance:
        number = next(self.numbers)
        uid = uid or f"1.2.3.{number}"
        return Instance(digest=f"{number:064x}", source_ae="CT", state=state, received_at=NOON, sop_instance_uid=uid)

    def alone(self, state: InstanceState, uid: str | None = None) -> None:
        with self.database.transaction() as tx:
            tx.add(self.instance(state, uid))

    def delivered(self, state: CaseState, delivery: DeliveryState) -> int:
        case_id = self.case(state)
        with self.database.transaction() as tx:
            add_result(tx, tx.get_one(Case, case_id), f"2.25.{case_id}", ResultKind.RTSTRUCT)
        new_delivery(self.database, case_id, state=delivery)
        return case_id

    def account(self) -> Account:
        with self.database.reading() as tx:
            return account(tx)


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database, count(1))


def test_every_object_is_in_one_place(rows: Rows) -> None:
    rows.delivered(CaseState.COMMITTED, DeliveryState.COMMITTED)
    rows.delivered(CaseState.DELIVERED, DeliveryState.ACCEPTED)
    rows.delivered(CaseState.SENDING, DeliveryState.PENDING)
    for state in (CaseState.RECEIVING, CaseState.QUEUED, CaseState.REFUSED, CaseState.FAILED, CaseState.CANCELLED):
        rows.case(state)
    rows.alone(InstanceState.QUARANTINED)
    rows.alone(InstanceState.KEPT, "1.2.3.99")
    rows.alone(InstanceState.EQUIVALENT, "1.2.3.99")
    told = rows.account()
    assert (told.received, told.delivered, told.refused, told.parked, told.cancelled) == (19, 4, 2, 2, 2)
    assert (told.aside, told.in_progress) == (2, 6)
    assert [sentence for sentence in told.residue if "belongs to no case" not in sentence] == []


def test_an_object_counts_for_the_newest_revision_that_it_is_part_of(rows: Rows) -> None:
    first = rows.case(CaseState.SUPERSEDED, series="1.2.9")
    second = rows.case(CaseState.REFUSED, images=0, series="1.2.9", revision=2)
    with rows.database.transaction() as tx:
        for number in (2, 3):
            tx.add(CaseInstance(case_id=second, instance_id=number - 1))
    assert first != second
    told = rows.account()
    assert (told.received, told.refused, told.in_progress, told.residue) == (2, 2, 0, ())


@pytest.mark.parametrize(
    ("strand", "words"),
    [
        (lambda rows: rows.alone(InstanceState.KEPT), "is kept but belongs to no case"),
        (lambda rows: rows.alone(InstanceState.EQUIVALENT), "is equivalent to one that is not kept"),
        (lambda rows: rows.case(CaseState.DELIVERED), "is delivered, but its result goes nowhere"),
        (lambda rows: rows.delivered(CaseState.SENDING, DeliveryState.ACCEPTED), "but nothing of it is left to send"),
        (lambda rows: rows.case(CaseState.SUPERSEDED), "but no later revision of its series is there"),
        (lambda rows: rows.case(CaseState.QUEUED, images=0), "has no slices"),
    ],
)
def test_what_is_stranded_is_named(rows: Rows, strand: object, words: str) -> None:
    assert callable(strand)
    strand(rows)
    (sentence,) = rows.account().residue
    assert words in sentence


@dataclass
class Box:
    """What `residue` looks at."""

    database: Database
    spool: Spool


def test_a_row_without_its_file_and_a_file_without_its_row_are_residue(rows: Rows, spool: Spool) -> None:
    box = Box(rows.database, spool)
    rows.alone(InstanceState.QUARANTINED)
    spool.keep_result("2.25.7.dcm", b"made")
    missing, orphan = residue(box)
    assert "is missing from the disk" in missing
    assert orphan == "results/2.25.7.dcm is on the disk, but no row knows it"
