"""What people see of a case: one sentence for every state, none of them empty."""

import io
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from appliance.audit.trail import TrailEntry
from appliance.records.tables import Case, CaseState, CountSign, Delivery, DeliveryState, Result, ResultKind
from appliance.running.showing import case_line, trail_table, what_now
from tests.support.config_folder import make_settings
from tests.support.rows import NOON


def _case(state: CaseState, **fields: object) -> Case:
    defaults = {"id": 7, "revision": 1, "patient_id": "P1", "description": "study / series", "slices": 3}
    times = {"first_arrival_at": NOON, "last_arrival_at": NOON, "entered_state_at": NOON}
    return Case(state=state, **{**defaults, **times, "progress": {}, **fields})


WORKING = {
    "model": "pelvis",
    "state": "working",
    "done": 42,
    "total": 108,
    "fold": 2,
    "folds": [14, 14, 13],
    "eta_s": 12.1,
}
AT_WORK = "fold 2 of 3, tile 14 of 36, about 10 s left"


def _segmenting(*models: dict[str, object]) -> Case:
    progress = {"step": "segment", "done": 42, "total": 108, "eta_s": None, "models": list(models)}
    return _case(CaseState.SEGMENTING, progress=progress)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (_case(CaseState.RECEIVING), "complete if quiet for 20 s more"),
        (
            _case(CaseState.INCOMPLETE, reason="slice_missing", sentence="a gap"),
            "a gap, waiting 590 s more (slice_missing)",
        ),
        (_case(CaseState.QUEUED), "waits for a worker"),
        (_case(CaseState.QUEUED, count_sign=CountSign.UNANSWERED), "waits for a worker; count not confirmed"),
        (_case(CaseState.SEGMENTING), "a worker has taken it"),
        (_case(CaseState.SEGMENTING, progress={"step": "load", "done": 2, "total": 9}), "load: 2 of 9"),
        (_segmenting(WORKING), AT_WORK),
        (_segmenting({**WORKING, "eta_s": None}), "fold 2 of 3, tile 14 of 36"),
        (
            _segmenting(
                WORKING,
                {"model": "thorax", "state": "waiting"},
                {"model": "legs", "state": "working"},
                {"model": "head", "state": "done", "eta_s": 0.0},
            ),
            f"pelvis: {AT_WORK}; thorax: waits for a worker; legs: a worker has begun; head: done",
        ),
        (_case(CaseState.REFUSED, reason="no_protocol", sentence="none fits"), "none fits (no_protocol)"),
        (_case(CaseState.FAILED, reason="worker_lost", sentence="died"), "died (worker_lost)"),
        (_case(CaseState.SUPERSEDED, sentence="revision 2 takes its place"), "revision 2 takes its place"),
    ],
    ids=lambda value: str(value.state) if isinstance(value, Case) else "",
)
def test_a_case_says_what_it_waits_for_or_why_it_ended(tmp_path: Path, case: Case, words: str) -> None:
    assert what_now(case, make_settings(tmp_path), NOON + timedelta(seconds=10)) == words


@pytest.mark.parametrize(
    ("state", "sentence", "words"),
    [
        (DeliveryState.PENDING, None, "is being sent to pacs"),
        (DeliveryState.PENDING, "nobody answers", "pacs: nobody answers; next try "),
        (DeliveryState.ACCEPTED, None, "accepted by pacs"),
        (DeliveryState.COMMITTED, None, "committed by pacs"),
        (DeliveryState.REFUSED, None, "refused by pacs"),
    ],
)
def test_a_result_on_its_way_says_how_far_it_is(
    tmp_path: Path, state: DeliveryState, sentence: str | None, words: str
) -> None:
    result = Result(kind=ResultKind.RTSTRUCT)
    delivery = Delivery(result=result, destination="pacs", state=state, sentence=sentence, next_try_at=NOON)
    case = _case(CaseState.SENDING, deliveries=[delivery])
    assert what_now(case, make_settings(tmp_path), NOON).startswith(words)


@pytest.mark.parametrize(
    ("state", "sentence", "words"),
    [
        (DeliveryState.PENDING, None, "segmentation is being sent to pacs"),
        (DeliveryState.PENDING, "nobody answers", "segmentation to pacs: nobody answers; next try "),
        (DeliveryState.ACCEPTED, None, "segmentation accepted by pacs"),
        (DeliveryState.REFUSED, None, "segmentation refused by pacs"),
    ],
)
def test_a_segmentation_on_its_way_is_told_apart_from_the_structure_set(
    tmp_path: Path, state: DeliveryState, sentence: str | None, words: str
) -> None:
    results = [
        (ResultKind.RTSTRUCT, DeliveryState.COMMITTED, None),
        (ResultKind.SEG, state, sentence),
    ]
    deliveries = [
        Delivery(result=Result(kind=kind), destination="pacs", state=one, sentence=said, next_try_at=NOON)
        for kind, one, said in results
    ]
    told = what_now(_case(CaseState.SENDING, deliveries=deliveries), make_settings(tmp_path), NOON)
    assert told.startswith(f"committed by pacs; {words}")


def test_a_line_of_the_list_names_patient_series_slices_and_revision(tmp_path: Path) -> None:
    line = [str(cell) for cell in case_line(_case(CaseState.QUEUED, revision=2), make_settings(tmp_path), NOON)]
    assert line == ["7 (rev. 2)", "queued", "P1", "study / series", "3", "waits for a worker"]


def test_a_line_of_a_case_with_a_result_names_what_to_look_at(tmp_path: Path) -> None:
    result = Result(kind=ResultKind.RTSTRUCT, sop_instance_uid="1.2.3")
    delivery = Delivery(result=result, destination="pacs", state=DeliveryState.COMMITTED)
    case = _case(CaseState.COMMITTED, deliveries=[delivery], results=[result])
    said = [case_line(case, make_settings(tmp_path), NOON, names)[-1] for names in ((), ("Bladder", "Rectum"))]
    assert said == ["committed by pacs", "committed by pacs; look carefully at Bladder, Rectum"]


def test_the_countdown_never_goes_below_zero(tmp_path: Path) -> None:
    late = NOON + timedelta(hours=1)
    assert what_now(_case(CaseState.RECEIVING), make_settings(tmp_path), late) == "complete if quiet for 0 s more"


def test_what_a_stranger_called_itself_does_nothing_to_the_terminal() -> None:
    entry = TrailEntry(
        NOON, "association_refused", "listener\x1b[2J", "an association from \x1b]0;x\x07[red]X was refused"
    )
    console = Console(width=200, force_terminal=True, color_system=None, file=io.StringIO())
    console.print(trail_table([entry], "Trail"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]X was refused" in shown
    assert not {"\x1b", "\x07"} & set(shown)
