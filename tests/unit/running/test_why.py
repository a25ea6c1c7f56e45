"""Why did nothing come back? The exact sentences, for every state and for every way in which nothing can come back."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.audit import trail
from appliance.casework.operating import Operator, ask_to_complete, cancel, park
from appliance.dicom.identity import read_identity
from appliance.errors import Reason
from appliance.records import Database, queries
from appliance.records.tables import CaseState, DeliveryState, Instance, InstanceState, Proof, ResultKind
from appliance.running.advice import ADVICE
from appliance.running.why import account_of
from appliance.running.why_nothing import Answer, explain
from appliance.settings import Settings
from appliance.spool import Spool
from tests.support.arriving import arrive, arrive_all
from tests.support.config_folder import make_settings
from tests.support.ct_files import make_ct_series
from tests.support.reading import READING
from tests.support.rows import NOON, new_case, new_delivery

LATER = NOON + timedelta(seconds=18)
STRUCTURES = {ResultKind.RTSTRUCT: "1.2.3.4"}


@pytest.fixture(autouse=True)
def _in_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are said in the box's own zone."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path, {"intake": {"series_quiet_s": 60.0, "incomplete_wait_s": 600.0}})


def _told(database: Database, settings: Settings, case_id: int, now: Any = LATER) -> tuple[str, str, str]:
    with database.reading() as tx:
        case = next(one for one in queries.recent_cases(tx, 100) if one.id == case_id)
        account = account_of(tx, case, settings, now)
    return account.happened, account.next, account.do


def test_receiving(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.RECEIVING, slices=118)
    assert _told(database, settings, case_id) == (
        "118 slices received, waiting 42 s more",
        "without a new slice until then the series is examined",
        f"nothing; if no more will come, `delineate case force-complete {case_id}`",
    )


def test_receiving_while_the_pacs_has_more(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.RECEIVING, slices=118, expected_slices=240)
    happened, _, _ = _told(database, settings, case_id)
    assert happened == "118 slices received, PACS says 240, waiting 42 s more"


def test_receiving_while_the_pacs_is_asked(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.RECEIVING, slices=118, count_wanted_at=NOON)
    _, coming, _ = _told(database, settings, case_id, NOON + timedelta(minutes=5))
    assert coming == "the PACS is being asked how many slices there are"


def test_receiving_and_quiet_for_long_enough(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.RECEIVING, slices=118)
    happened, coming, _ = _told(database, settings, case_id, NOON + timedelta(minutes=5))
    assert (happened, coming) == ("118 slices received, quiet for long enough", "the series is examined now")


def test_receiving_and_asked_to_be_taken_as_complete(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.RECEIVING, slices=118)
    _act(database, case_id, ask_to_complete)
    assert _told(database, settings, case_id) == (
        "118 slices received; jane asked to take them as complete",
        "that is done at once",
        "nothing",
    )


def test_incomplete(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.INCOMPLETE, slices=118, sentence="gap of 6.00 mm after slice 3")
    assert _told(database, settings, case_id) == (
        "118 slices received, waiting 582 s more: gap of 6.00 mm after slice 3",
        "refused at 12:10 if nothing comes until then",
        "send what is missing",
    )


def test_queued_as_the_next(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.QUEUED, slices=118, model="pelvis")
    assert _told(database, settings, case_id) == (
        "complete with 118 slices, queued since 12:00 for pelvis",
        "it is the next",
        "nothing",
    )


def test_queued_behind_others_with_the_time_that_is_left(database: Database, settings: Settings) -> None:
    done = new_case(database, CaseState.DELIVERED, series_instance_uid="1.2.9")
    with database.transaction() as tx:
        begun = {"worker": "worker-1", "attempt": 1}
        trail.record(tx, "work_started", at=NOON, actor="worker-1", case_id=done, **begun)
        made = {"sop_instance_uid": "1.2", "size_kb": 1}
        at = NOON + timedelta(minutes=4)
        trail.record(tx, "structure_set_written", at=at, actor="worker-1", case_id=done, **made)
    for number in range(3):
        new_case(database, CaseState.QUEUED, series_instance_uid=f"1.2.{number}")
    case_id = new_case(database, CaseState.QUEUED, slices=118, model="pelvis")
    _, coming, _ = _told(database, settings, case_id)
    assert coming == "3 cases are before it, about 12 min until it is begun"


def test_queued_again_after_a_worker_was_lost(database: Database, settings: Settings) -> None:
    lost = {"attempts": 1, "sentence": "no progress for 60 s"}
    case_id = new_case(database, CaseState.QUEUED, slices=118, model="pelvis", **lost)
    happened, _, _ = _told(database, settings, case_id)
    assert happened == (
        "complete with 118 slices, queued since 12:00 for pelvis; attempt 1 of 3 ended: no progress for 60 s"
    )


def test_queued_and_nobody_comes(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.QUEUED, model="pelvis")
    _, _, do = _told(database, settings, case_id, NOON + timedelta(minutes=5))
    assert do == "if no worker takes it, `delineate doctor` says what is wrong"


def test_segmenting(database: Database, settings: Settings) -> None:
    at_work = {"model": "pelvis", "state": "working", "total": 108, "fold": 2, "folds": [14, 14, 13], "eta_s": 12.1}
    progress = {"step": "segment", "done": 42, "total": 108, "models": [at_work]}
    held = {"attempts": 1, "lease_owner": "worker-1", "lease_until": LATER + timedelta(seconds=60)}
    case_id = new_case(database, CaseState.SEGMENTING, protocol="bones", progress=progress, **held)
    assert _told(database, settings, case_id) == (
        "a worker has it since 12:00, attempt 1 of 3: fold 2 of 3, tile 14 of 36, about 10 s left",
        "the structure set is checked and sent to pacs",
        "nothing",
    )


def test_segmenting_by_a_worker_that_fell_silent(database: Database, settings: Settings) -> None:
    held = {"attempts": 1, "lease_owner": "worker-1", "lease_until": NOON}
    case_id = new_case(database, CaseState.SEGMENTING, **held)
    _, coming, _ = _told(database, settings, case_id)
    assert coming == "that worker has given no sign since 12:00; the case goes to another"


def test_sending(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.SENDING, STRUCTURES)
    due = NOON + timedelta(minutes=12)
    tried = {"sentence": "C-STORE was answered 0xA700", "attempts": 1, "last_tried_at": NOON}
    new_delivery(database, case_id, next_try_at=due, **tried)
    assert _told(database, settings, case_id) == (
        "pacs answered at 12:00: C-STORE was answered 0xA700, next try 12:12",
        "it is tried again by itself until it is taken",
        "mend what the destination says",
    )


@pytest.mark.parametrize(
    ("state", "delivery", "words"),
    [
        (CaseState.SENDING, DeliveryState.PENDING, "the structure set is being sent to pacs"),
        (CaseState.DELIVERED, DeliveryState.ACCEPTED, "pacs has accepted the structure set (since 12:00)"),
        (CaseState.COMMITTED, DeliveryState.COMMITTED, "pacs keeps the structure set (since 12:00)"),
    ],
)
def test_on_its_way_and_there(
    database: Database, settings: Settings, state: CaseState, delivery: DeliveryState, words: str
) -> None:
    case_id = new_case(database, state, STRUCTURES)
    new_delivery(database, case_id, state=delivery)
    assert _told(database, settings, case_id)[0] == words


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (Proof.COMMITMENT, "pacs keeps the structure set, it committed to that at 12:00 (since 12:00)"),
        (Proof.SIGHTING, "pacs keeps the structure set, it was seen there at 12:00 (since 12:00)"),
    ],
)
def test_how_it_is_known_that_a_destination_keeps_it(
    database: Database, settings: Settings, proof: Proof, words: str
) -> None:
    case_id = new_case(database, CaseState.COMMITTED, STRUCTURES)
    new_delivery(database, case_id, state=DeliveryState.COMMITTED, proof=proof, proved_at=NOON)
    assert _told(database, settings, case_id)[0] == words


@pytest.mark.parametrize("reason", Reason)
def test_refused_for_each_reason_says_what_to_do(database: Database, settings: Settings, reason: Reason) -> None:
    sentence = "no protocol fits BodyPartExamined=FOOT"
    case_id = new_case(database, CaseState.REFUSED, reason=reason, sentence=sentence)
    assert _told(database, settings, case_id) == (
        f"refused at 12:00: no protocol fits BodyPartExamined=FOOT ({reason})",
        "nothing by itself; a series that is sent again is looked at afresh",
        ADVICE[reason],
    )


def test_parked_after_too_many_attempts(database: Database, settings: Settings) -> None:
    lost = {"reason": Reason.WORKER_LOST, "sentence": "no progress for 60 s", "attempts": 3}
    case_id = new_case(database, CaseState.FAILED, **lost)
    assert _told(database, settings, case_id) == (
        "parked after 3 attempts at 12:00: no progress for 60 s (worker_lost)",
        "nothing by itself",
        f"See the worker's log, mend the cause, then `delineate case retry {case_id}`.",
    )


@pytest.mark.parametrize(("stop", "verb"), [(park, "parked"), (cancel, "cancelled")])
def test_stopped_by_a_person(database: Database, settings: Settings, stop: Any, verb: str) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    _act(database, case_id, stop)
    assert _told(database, settings, case_id) == (
        f"{verb} by jane at 12:00: the wrong scan",
        "nothing until somebody says so",
        f"`delineate case retry {case_id}` lets it go on where it stood",
    )


def test_superseded(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.SUPERSEDED, sentence="more slices came")
    later = new_case(database, CaseState.RECEIVING, revision=2)
    happened, coming, _ = _told(database, settings, case_id)
    assert happened == "superseded at 12:00: more slices came"
    assert coming == f"revision 2 of the series is case {later}"


def test_sent_again_is_said(database: Database, settings: Settings) -> None:
    case_id = new_case(database, CaseState.FAILED, reason=Reason.WORKER_LOST, sentence="gone", repeated_at=NOON)
    assert _told(database, settings, case_id)[0].endswith("; the series was sent again at 12:00")


@pytest.mark.parametrize("state", CaseState)
def test_every_state_has_something_to_say(database: Database, settings: Settings, state: CaseState) -> None:
    case_id = new_case(database, state, sentence="words", reason="worker_lost")
    assert all(_told(database, settings, case_id))


# ── the whole answer ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def ask(database: Database, spool: Spool, settings: Settings) -> Any:
    def _ask(identifier: str) -> Answer:
        return explain(identifier, settings, (database, spool), READING.identities, LATER)

    return _ask


@pytest.mark.parametrize("identifier", ["P1", "A1", "1.2", "1.2.3"])
def test_a_case_is_found_by_patient_accession_study_and_series(database: Database, ask: Any, identifier: str) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    assert [one.case for one in ask(identifier).cases] == [case_id]
    assert ask(identifier).related == ()


def test_several_cases_are_told_the_newest_first(database: Database, ask: Any) -> None:
    first = new_case(database, CaseState.SUPERSEDED, sentence="more")
    second = new_case(database, CaseState.QUEUED, revision=2)
    assert [one.case for one in ask("P1").cases] == [second, first]


def test_a_number_that_is_nothing_else_is_that_of_a_case(database: Database, ask: Any) -> None:
    case_id = new_case(database, CaseState.QUEUED)
    assert [one.case for one in ask(str(case_id)).cases] == [case_id]
    assert ask("4711").cases == ()


def test_what_lies_in_the_spool_and_is_not_indexed_is_found(ask: Any, spool: Spool, tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3)
    arrive_all(spool, paths)
    identity = read_identity(paths[0])
    for identifier in (identity.patient_id, identity.series_instance_uid, identity.study_instance_uid):
        (line,) = ask(identifier).waiting
        assert line.startswith("3 objects of it arrived (the first at ")
        assert line.endswith(") and wait to be indexed; the assembler does that.")


def test_what_cannot_be_read_in_the_spool_does_not_end_the_answer(ask: Any, spool: Spool, tmp_path: Path) -> None:
    (path,) = make_ct_series(tmp_path / "ct", slices=1)
    patient = read_identity(path).patient_id
    arrive(spool, path).path.write_bytes(b"not DICOM")
    assert ask(patient).waiting == ()


def test_objects_of_the_series_that_were_set_aside_are_named(database: Database, ask: Any) -> None:
    new_case(database, CaseState.REFUSED, reason="instance_conflict", sentence="two")
    with database.transaction() as tx:
        tx.add(_aside(series="1.2.3", reason="pixels_truncated", sentence="1 of 2 bytes"))
    assert ask("P1").aside == ("An object of this series was set aside at 12:00: 1 of 2 bytes (pixels_truncated).",)


def test_nothing_received_and_nobody_sends(ask: Any) -> None:
    assert ask("P9").lines() == [
        "Nothing was ever received for 'P9'.",
        "Nobody has sent anything in the last 7 days; see whether the sender calls DELINEATE on port 11112.",
    ]


def test_nothing_received_while_others_send_and_somebody_is_turned_away(database: Database, ask: Any) -> None:
    with database.transaction() as tx:
        turned_away = {"source_ae": "CT2", "sentence": "the AE title 'CT2' is not in peers.toml"}
        trail.record(tx, "association_refused", at=NOON, actor="listener", **turned_away)
        tx.add(_aside(series=None, reason="unreadable", sentence="no DICOM"))
    assert ask("P9").lines() == [
        "Nothing was ever received for 'P9'.",
        "Turned away at 12:00: an association from CT2 was refused: the AE title 'CT2' is not in peers.toml.",
        "Set aside at 12:00, nobody can read whose it is: no DICOM (unreadable).",
        "CT1 has sent 1 object in the last 7 days, the last at 12:00.",
    ]


def test_the_answer_is_there_for_programs(database: Database, ask: Any) -> None:
    case_id = new_case(database, CaseState.QUEUED, model="pelvis")
    answer = json.loads(ask("P1").as_json())
    assert answer["asked"] == "P1"
    assert answer["cases"][0]["case"] == case_id
    assert answer["cases"][0]["next"] == "it is the next"


def test_the_answer_for_people_has_three_lines_a_case(database: Database, ask: Any) -> None:
    case_id = new_case(database, CaseState.QUEUED, model="pelvis", slices=10)
    assert ask("P1").lines() == [
        f"Case {case_id} (study / series) is queued.",
        "  What happened: complete with 10 slices, queued since 12:00 for pelvis.",
        "  What comes next: it is the next.",
        "  What to do: nothing.",
    ]


def _aside(series: str | None, reason: str, sentence: str) -> Instance:
    row = {"state": InstanceState.QUARANTINED, "source_ae": "CT1", "received_at": NOON, "digest": "d" * 64}
    return Instance(series_instance_uid=series, reason=reason, sentence=sentence, **row)


def _act(database: Database, case_id: int, what: Any) -> None:
    with database.transaction() as tx:
        case = queries.case_by_id(tx, case_id)
        assert case is not None
        what(tx, case, Operator("jane", NOON, "the wrong scan"))
