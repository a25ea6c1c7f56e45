"""How far a case is while its models are asked: every fold of every model, and about how long it will still take."""

from appliance.casework.asking import Headway, progress_of_one, progress_of_parts
from appliance.records.tables import Part, PartState

FOLDS, TILES = 3, 12


def _run(headway: Headway, runs: int) -> None:
    """As an ensemble tells it: each tile goes to all folds before the next one."""
    for done in range(1, runs + 1):
        headway.tile_done((done - 1) % FOLDS, done, FOLDS * TILES)


def test_the_runs_of_each_fold_are_counted() -> None:
    headway = Headway(FOLDS)
    assert headway.fields() == {}
    _run(headway, 8)
    told = headway.fields()
    assert (told["done"], told["total"], told["fold"], told["folds"]) == (8, 36, 2, [3, 3, 2])


def test_the_time_that_is_left_is_told_once_it_can_be_judged_and_ends_at_nothing() -> None:
    headway = Headway(FOLDS)
    _run(headway, 1)
    assert headway.fields()["eta_s"] is None
    _run(headway, 8)
    assert headway.fields()["eta_s"] >= 0.0
    _run(headway, FOLDS * TILES)
    assert headway.fields()["eta_s"] == 0.0


def test_the_only_model_of_a_case_is_named() -> None:
    headway = Headway(FOLDS)
    _run(headway, 2)
    told = progress_of_one("pelvis", headway)
    assert (told["done"], told["total"], told["eta_s"]) == (2, 36, None)
    assert [(one["model"], one["state"], one["fold"]) for one in told["models"]] == [("pelvis", "working", 2)]


def _part(model: str, state: PartState, **progress: object) -> Part:
    return Part(model=model, state=state, progress=progress)


def test_several_models_are_counted_together_and_the_slowest_says_how_long_it_takes() -> None:
    parts = [
        _part("pelvis", PartState.DONE, done=36, total=36, eta_s=0.0),
        _part("thorax", PartState.WORKING, done=4, total=40, eta_s=30.0),
        _part("legs", PartState.WORKING, done=9, total=10, eta_s=2.0),
    ]
    told = progress_of_parts(parts)
    assert (told["done"], told["total"], told["eta_s"]) == (49, 86, 30.0)
    assert [(one["model"], one["state"]) for one in told["models"]] == [
        ("pelvis", "done"),
        ("thorax", "working"),
        ("legs", "working"),
    ]


def test_no_time_is_told_while_nobody_knows_how_long_one_of_the_models_takes() -> None:
    parts = [_part("pelvis", PartState.WORKING, done=4, total=40, eta_s=30.0), _part("thorax", PartState.WAITING)]
    assert progress_of_parts(parts)["eta_s"] is None


def test_when_all_models_are_done_nothing_is_left() -> None:
    assert progress_of_parts([_part("pelvis", PartState.DONE, done=3, total=3, eta_s=0.0)])["eta_s"] == 0.0
