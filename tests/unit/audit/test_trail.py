"""The audit trail: one event for each thing that happened, told in words, never without the words' facts."""

import pytest

from appliance.audit import trail
from appliance.records import Database, chain
from appliance.records.tables import AuditEvent, CaseState
from tests.support.rows import NOON, add_case, new_case


def test_events_come_back_as_words_in_order(database: Database) -> None:
    case_id = new_case(database, CaseState.RECEIVING)
    other_id = new_case(database, CaseState.RECEIVING, series_instance_uid="1.2.4")
    with database.transaction() as tx:
        for count in (1, 2, 3):
            trail.record(
                tx, "slices_received", at=NOON, actor="assembler", case_id=case_id, count=count, total=3 * count
            )
            trail.record(tx, "slices_repeated", at=NOON, actor="assembler", case_id=other_id, count=count)
    with database.reading() as tx:
        entries = trail.trail_of(tx, case_id)
    assert [entry.words for entry in entries] == [f"slices received: {n}, in all {3 * n}" for n in (1, 2, 3)]
    assert {entry.actor for entry in entries} == {"assembler"}


def test_an_unknown_event_is_not_recorded(database: Database) -> None:
    with pytest.raises(KeyError), database.transaction() as tx:
        trail.record(tx, "something_else", at=NOON, actor="nobody")
    _assert_empty(database)


def test_an_event_without_a_fact_that_its_words_need_is_not_recorded(database: Database) -> None:
    with pytest.raises(KeyError, match="exit_code"), database.transaction() as tx:
        trail.record(tx, "process_restarted", at=NOON, actor="supervisor", process="work")
    _assert_empty(database)


def test_an_event_and_the_row_that_it_explains_are_kept_or_lost_together(database: Database) -> None:
    with pytest.raises(RuntimeError), database.transaction() as tx:
        case = add_case(tx, CaseState.RECEIVING)
        trail.record(tx, "case_opened", at=NOON, actor="assembler", case_id=case.id, revision=1, source_ae="CT1")
        raise RuntimeError
    _assert_empty(database)


def test_what_belongs_to_no_case_is_shown_newest_last_and_within_a_limit(database: Database) -> None:
    with database.transaction() as tx:
        for number in range(5):
            trail.record(tx, "process_stopped", at=NOON, actor="supervisor", process=f"part {number}")
    with database.reading() as tx:
        words = [entry.words for entry in trail.trail_of_box(tx, limit=3)]
    assert words == ["part 2 stopped", "part 3 stopped", "part 4 stopped"]


def test_an_event_of_a_later_release_is_still_shown(database: Database) -> None:
    case_id = new_case(database, CaseState.RECEIVING)
    with database.transaction() as tx:
        chain.append(tx, NOON, case_id, "beamed_up", "scotty", {"deck": 3})
    with database.reading() as tx:
        assert trail.trail_of(tx, case_id)[0].words == "{'deck': 3}"


def test_braces_in_a_fact_are_only_text(database: Database) -> None:
    case_id = new_case(database, CaseState.RECEIVING)
    with database.transaction() as tx:
        trail.record(
            tx, "case_superseded", at=NOON, actor="assembler", case_id=case_id, sentence="{worker} {0} {sentence!r}"
        )
    with database.reading() as tx:
        assert trail.trail_of(tx, case_id)[0].words == "superseded: {worker} {0} {sentence!r}"


def _assert_empty(database: Database) -> None:
    with database.reading() as tx:
        assert tx.query(AuditEvent).count() == 0


def test_the_latest_assessment_of_a_case_says_what_to_look_at(database: Database) -> None:
    first, second, third = (new_case(database, CaseState.SENDING, series_instance_uid=f"1.2.{n}") for n in (4, 5, 6))
    with database.transaction() as tx:
        for case_id, names in ((first, ["Bowel"]), (first, ["Bladder", "Rectum"]), (second, [])):
            facts = {"words": "as told", "to_look_at": names}
            trail.record(tx, "quality_assessed", at=NOON, actor="worker", case_id=case_id, **facts)
    with database.reading() as tx:
        assert trail.structures_to_look_at(tx, [first, second, third]) == {first: ["Bladder", "Rectum"], second: []}
        assert trail.structures_to_look_at(tx, [third]) == {}
