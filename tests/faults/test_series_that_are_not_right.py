"""No contours on a series that is not one whole scan of one patient: F20 to F23."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from appliance.records import Database
from appliance.records.tables import Case, CaseState, InstanceState
from appliance.spool import Spool
from tests.support.arriving import data_set_bytes
from tests.support.config_folder import BONES, make_settings
from tests.support.ct_files import Mutation, make_ct_series, only_slice
from tests.support.fake_archive import Behaviour, FakeArchive
from tests.support.proof import Tally
from tests.support.receiving_line import ReceivingLine

Times = Callable[[int, int], int]
DICE = random.Random(20)
SLICES = 8
SMALL = {"slices": SLICES, "rows": 8, "columns": 8}


@pytest.fixture
def line(tmp_path: Path, database: Database, spool: Spool) -> ReceivingLine:
    return ReceivingLine(make_settings(tmp_path), database, spool)


def refused_with(case: Case, *reasons: str) -> bool:
    """Whether a case was refused for one of these reasons, in a sentence, and has no result."""
    return case.state is CaseState.REFUSED and case.reason in reasons and bool(case.sentence) and not case.results


# ── F20: one SOP Instance UID, two contents ────────────────────────────────────────────────────────────────────────


def _another_pixel(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[DICE.randrange(len(pixels) // 2) * 2] ^= 1
    dataset["PixelData"].value = bytes(pixels)


def _another_patient(dataset: Dataset) -> None:
    dataset.PatientID = "SOMEBODY-ELSE"


def _another_series(dataset: Dataset) -> None:
    dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID[:40]}.7"


@pytest.mark.fault("F20", "never wrong")
def test_two_contents_under_one_uid_are_both_kept_and_never_contoured(
    tmp_path: Path, line: ReceivingLine, tally: Tally, times: Times
) -> None:
    for trial in range(times(12, 100)):
        folder = tmp_path / f"ct{trial}"
        paths = make_ct_series(folder, series=f"twin {trial}", **SMALL)
        change = (_another_pixel, _another_patient, _another_series)[trial % 3]
        twin = dcmread(DICE.choice(paths))
        change(twin)
        twin.save_as(folder / "twin.dcm")
        line.receive([*paths, folder / "twin.dcm"])
        line.be_quiet()
        case = line.case_of(str(twin.SeriesInstanceUID))
        rows = [one for one in line.instances if one.sop_instance_uid == str(twin.SOPInstanceUID)]
        lie_there = [data_set_bytes(line.spool.instance_path(one.digest)) for one in rows]
        first = data_set_bytes(next(path for path in paths if dcmread(path).SOPInstanceUID == twin.SOPInstanceUID))
        held = refused_with(case, "instance_conflict")
        held &= [one.state for one in rows] == [InstanceState.KEPT, InstanceState.CONFLICT]
        held &= lie_there == [first, data_set_bytes(folder / "twin.dcm")]
        tally.count(held=held)


# ── F21: more than one patient ─────────────────────────────────────────────────────────────────────────────────────

NAME = "Müller^Jürgen"
OTHERS: Mapping[str, Mapping[str, object]] = {
    "another name": {"PatientName": "Other^Person"},
    "another birth date": {"PatientBirthDate": "19500103"},
    "another issuer of the same ID": {"IssuerOfPatientID": "OTHER HOSPITAL"},
    "another ID": {"PatientID": "TEST-0002"},
    "no ID": {"PatientID": ""},
    "no name": {"PatientName": ""},
    "an ID in lower case": {"PatientID": "test-0001"},
    "an ID with a space within": {"PatientID": "TEST -0001"},
    "an ID with a leading zero": {"PatientID": "0TEST-0001"},
    "the same bytes of a name in another character set": {
        "PatientName": NAME.encode("latin-1"),
        "SpecificCharacterSet": "ISO_IR 144",
    },
}
SAME: Mapping[str, Mapping[str, object]] = {
    "as it is": {},
    "spaces behind the ID": {"PatientID": b"TEST-0001  "},
    "spaces before the ID": {"PatientID": b" TEST-0001 "},
    "another referrer": {"ReferringPhysicianName": "Referrer^Two"},
}


def _patients_series(folder: Path, seed: str, changes: Mapping[str, object], odd: int) -> list[Path]:
    mutate = only_slice(odd, **changes)
    return make_ct_series(folder, series=seed, patient_name=NAME.encode("latin-1"), mutate=mutate, **SMALL)


@pytest.mark.fault("F21", "never wrong")
@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_a_series_with_a_slice_of_another_patient_is_refused_without_a_name(
    tmp_path: Path, line: ReceivingLine, tally: Tally, changes: Mapping[str, object]
) -> None:
    for odd in (0, 3, SLICES - 1):
        line.receive(_patients_series(tmp_path / f"ct{odd}", f"mixed {odd}", changes, odd))
        line.be_quiet()
        case = line.cases[-1]
        told = not any(word in (case.sentence or "") for word in ("Müller", "Other", "TEST"))
        tally.count(held=refused_with(case, "patient_mixed") and told)


@pytest.mark.fault("F21", "never wrong")
@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_what_says_nothing_of_the_patient_mixes_nobody(
    tmp_path: Path, line: ReceivingLine, tally: Tally, changes: Mapping[str, object]
) -> None:
    line.receive(_patients_series(tmp_path / "ct", "same", changes, 3))
    line.be_quiet()
    tally.count(held=line.cases[-1].state is CaseState.QUEUED)


# ── F22: geometry ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Mutant:
    """A fault of a series, the reason that names it, and the element that it spoils."""

    reason: str
    mutate: Mutation | None = None
    drop: tuple[int, ...] = ()
    of: str = ""


def _move(index: int, by_mm: float, axis: int = 2) -> Mutation:
    """One slice lies elsewhere than it should."""

    def mutate(current: int, dataset: Dataset) -> None:
        if current == index:
            position = [float(coordinate) for coordinate in dataset.ImagePositionPatient]
            position[axis] += by_mm
            dataset.ImagePositionPatient = [f"{coordinate:.3f}" for coordinate in position]

    return mutate


def _lean(degrees_of_a_wall: float) -> Mutation:
    """The stack leans more than any gantry tilts."""

    def mutate(current: int, dataset: Dataset) -> None:
        _move(current, degrees_of_a_wall * current, axis=1)(current, dataset)

    return mutate


def _every(**changes: object) -> Mutation:
    def mutate(current: int, dataset: Dataset) -> None:
        only_slice(current, **changes)(current, dataset)

    return mutate


MUTANTS: Mapping[str, Mutant] = {
    "a missing middle slice": Mutant("slice_missing", drop=(3,)),
    "a duplicate position": Mutant("position_duplicate", _move(4, -3.0), of="position"),
    "uneven gaps": Mutant("slice_gaps_uneven", _move(5, 0.7), of="position"),
    "a slice beside the line": Mutant("orientation_unsupported", _move(2, 1.0, axis=0), of="position"),
    "a stack that leans": Mutant("orientation_unsupported", _lean(2.0), of="position"),
    "sagittal planes": Mutant(
        "orientation_unsupported", _every(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), of="orientation"
    ),
    "a mixed orientation": Mutant(
        "orientation_mixed", only_slice(1, ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]), of="orientation"
    ),
    "a localizer": Mutant(
        "orientation_mixed", only_slice(0, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), of="orientation"
    ),
    "two frames of reference": Mutant("frame_of_reference_mixed", only_slice(2, FrameOfReferenceUID="1.2.3.4")),
    "two studies": Mutant("study_mixed", only_slice(2, StudyInstanceUID="1.2.3.4")),
    "two rescalings": Mutant("rescale_mixed", only_slice(6, RescaleIntercept=-1000)),
    "two spacings": Mutant("spacing_mixed", only_slice(6, PixelSpacing=[0.9, 1.31]), of="spacing"),
    "too few slices": Mutant("too_few_slices", drop=tuple(range(1, SLICES))),
    "not a number": Mutant(
        "decimal_not_finite", only_slice(1, ImagePositionPatient=b"-185.044\\nan\\-809.0"), of="position"
    ),
    "infinity": Mutant(
        "decimal_not_finite", only_slice(1, ImagePositionPatient=b"-185.044\\inf\\-809.0"), of="position"
    ),
    "a decimal of Python": Mutant("decimal_not_finite", only_slice(1, PixelSpacing=b"1_0\\1.3 "), of="spacing"),
    "no spacing": Mutant("element_invalid", only_slice(1, PixelSpacing=[0, 0]), of="spacing"),
    "a position beyond the room": Mutant(
        "element_invalid", only_slice(1, ImagePositionPatient=[0, 0, 1e6]), of="position"
    ),
    "no direction": Mutant(
        "element_invalid", only_slice(1, ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), of="orientation"
    ),
    "no position": Mutant("element_missing", only_slice(1, ImagePositionPatient=None), of="position"),
    "too few pixels": Mutant("pixels_truncated", only_slice(1, PixelData=b"\0" * 20)),
    "rows beyond all scanners": Mutant("element_invalid", only_slice(1, Rows=65_535)),
}
CLEAN: Mapping[str, Mapping[str, object]] = {
    "as usual": {},
    "prone": {"orientation": "HFP"},
    "feet first": {"orientation": "FFS"},
    "decubitus": {"orientation": "HFDL"},
    "oblique": {"orientation": (0.984807753012, 0.173648177667, 0, -0.173648177667, 0.984807753012, 0)},
    "a tilted gantry": {"mutate": _lean(1.0)},
    "thin slices": {"gap_mm": 0.5},
    "rounded positions": {"mutate": _move(3, 0.02)},
}


def _settle(line: ReceivingLine) -> None:
    line.be_quiet()
    line.pass_time(line.settings.intake.incomplete_wait_s)


@pytest.mark.fault("F22", "never wrong")
def test_every_rule_fires_on_its_own_mutant(tmp_path: Path, line: ReceivingLine, tally: Tally) -> None:
    cases = _receive_mutants(line, tmp_path, {name: (mutant,) for name, mutant in MUTANTS.items()})
    wrong = {name: case.reason for name, case in cases.items() if not refused_with(case, MUTANTS[name].reason)}
    tally.counted(len(cases), len(wrong))
    assert wrong == {}


@pytest.mark.fault("F22", "never wrong")
def test_no_rule_fires_on_a_clean_series(tmp_path: Path, line: ReceivingLine, tally: Tally) -> None:
    for name, options in CLEAN.items():
        line.receive(make_ct_series(tmp_path / name, series=name, **{**SMALL, **options}))
    _settle(line)
    wrong = [f"{case.reason}: {case.sentence}" for case in line.cases if case.state is not CaseState.QUEUED]
    tally.counted(len(CLEAN), len(wrong))
    assert (wrong, len(line.cases)) == ([], len(CLEAN))


@pytest.mark.fault("F22", "never wrong")
def test_two_faults_at_once_never_hide_one_another(
    tmp_path: Path, line: ReceivingLine, tally: Tally, times: Times
) -> None:
    def touch_different_elements(pair: tuple[str, str]) -> bool:
        first, second = (MUTANTS[name].of for name in pair)
        return first == "" or first != second

    pairs = list(filter(touch_different_elements, combinations(MUTANTS, 2)))
    pairs = DICE.sample(pairs, min(times(40, len(pairs)), len(pairs)))
    chosen = {" and ".join(pair): tuple(MUTANTS[name] for name in pair) for pair in pairs}
    cases = _receive_mutants(line, tmp_path, chosen)
    passed = [name for name, case in cases.items() if case.state is not CaseState.REFUSED or case.results]
    tally.counted(len(cases), len(passed))
    assert passed == []


def _receive_mutants(line: ReceivingLine, folder: Path, chosen: Mapping[str, tuple[Mutant, ...]]) -> dict[str, Case]:
    """The case of each series with these faults, once it has ended."""
    uids = {}
    for name, mutants in chosen.items():

        def mutate(index: int, dataset: Dataset, mutants: tuple[Mutant, ...] = mutants) -> None:
            for mutant in mutants:
                if mutant.mutate is not None:
                    mutant.mutate(index, dataset)

        paths = make_ct_series(folder / name, series=name, mutate=mutate, **SMALL)
        dropped = {index for mutant in mutants for index in mutant.drop}
        uids[name] = str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)
        line.receive([path for index, path in enumerate(paths) if index not in dropped])
    _settle(line)
    return {name: line.case_of(uid) for name, uid in uids.items()}


# ── F23: missing ends ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("F23", "never wrong")
def test_a_series_without_its_end_is_held_whenever_the_archive_can_say_so(
    tmp_path: Path, database: Database, spool: Spool, tally: Tally, times: Times
) -> None:
    bones = {**BONES, "destinations": ["archive"], "completion": {"count_peer": "archive"}}
    with FakeArchive() as archive:
        settings = make_settings(
            tmp_path, {"query": {"timeout_s": 10.0}}, peers={"archive": archive.peer()}, protocols={"bones": bones}
        )
        line = ReceivingLine(settings, database, spool)
        for trial in range(times(8, 100)):
            paths = make_ct_series(tmp_path / f"ct{trial}", series=f"cut {trial}", **{**SMALL, "slices": 16})
            archive.files.clear()
            archive.hold(paths)
            archive.behaviour = Behaviour(tells_count=bool(trial % 2))
            missing = DICE.randint(1, 10)
            before = DICE.choice((0, missing, DICE.randint(0, missing)))
            line.receive(paths[before : len(paths) - missing + before])
            line.be_quiet()
            case = line.cases[-1]
            here = len(paths) - missing
            said = f"{here} slices received, archive says {len(paths)}" in (case.sentence or "")
            is_held = (case.state, case.reason) == (CaseState.INCOMPLETE, "series_incomplete") and said
            line.receive(paths)
            line.be_quiet()
            tally.count(held=is_held and line.cases[-1].state is CaseState.QUEUED)
            assert line.cases[-1].slices == len(paths)


@pytest.mark.fault("F23", "never wrong")
def test_a_series_whose_end_never_comes_is_refused_by_name(
    tmp_path: Path, database: Database, spool: Spool, tally: Tally
) -> None:
    bones = {**BONES, "destinations": ["archive"], "completion": {"count_peer": "archive"}}
    paths = make_ct_series(tmp_path / "ct", series="cut", **SMALL)
    with FakeArchive(paths) as archive:
        settings = make_settings(
            tmp_path, {"query": {"timeout_s": 10.0}}, peers={"archive": archive.peer()}, protocols={"bones": bones}
        )
        line = ReceivingLine(settings, database, spool)
        line.receive(paths[:-1])
        _settle(line)
        tally.count(held=refused_with(line.cases[-1], "series_incomplete"))
