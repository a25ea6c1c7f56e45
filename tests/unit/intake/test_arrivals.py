"""From bytes to rows: every object that was received is accounted for, once, whatever is repeated or damaged."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless

from appliance.audit.trail import EVENTS, TrailEntry, trail_of
from appliance.intake.arrivals import index_arrivals
from appliance.records import Database, queries
from appliance.records.session import DatabaseUnavailable
from appliance.records.tables import AuditEvent, Case, CaseState, Instance, InstanceState
from appliance.spool import Spool
from tests.support.arriving import arrive, arrive_all, arrive_bytes, data_set_bytes
from tests.support.ct_files import all_slices, compress, make_ct_series, only_slice, sample_hu, set_raw, truncate
from tests.support.reading import READING
from tests.support.rows import NOON

MINUTE = timedelta(minutes=1)


def _index(database: Database, spool: Spool) -> None:
    while index_arrivals(database, spool, NOON, READING):
        pass


def _cases(database: Database) -> list[Case]:
    with database.reading() as tx:
        return list(tx.query(Case).order_by(Case.id))


def _case(database: Database) -> Case:
    cases = _cases(database)
    assert len(cases) == 1
    return cases[0]


def _instances(database: Database) -> list[Instance]:
    with database.reading() as tx:
        return list(tx.query(Instance).order_by(Instance.id))


def _sops_of(database: Database, case: Case) -> list[str | None]:
    with database.reading() as tx:
        return [instance.sop_instance_uid for instance in queries.instances_of(tx, case)]


def _set_state(database: Database, state: CaseState) -> None:
    with database.transaction() as tx:
        tx.query(Case).order_by(Case.id.desc()).limit(1).one().state = state


def _events(database: Database, case_id: int) -> list[TrailEntry]:
    with database.reading() as tx:
        return trail_of(tx, case_id)


def test_the_slices_of_a_series_become_one_case(tmp_path: Path, database: Database, spool: Spool) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=5)
    arrive_all(spool, reversed(paths))
    _index(database, spool)
    case = _case(database)
    assert (case.state, case.slices, case.revision) == (CaseState.RECEIVING, 5, 1)
    assert (case.patient_id, case.accession_number, case.source_ae) == ("TEST-0001", "ACC1", "CT1")
    assert case.description == "CT PELVIS RT PLANNING / Pelvis 3.0"
    opened, received = _events(database, case.id)
    assert (opened.event, received.event) == ("case_opened", "slices_received")
    assert "CT1" in opened.words
    assert received.words == EVENTS["slices_received"].format(count=5, total=5)


def test_what_was_received_lies_on_the_disk_byte_for_byte(tmp_path: Path, database: Database, spool: Spool) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3)
    arrivals = arrive_all(spool, paths)
    _index(database, spool)
    assert spool.arrivals() == []
    for arrival, path in zip(arrivals, paths, strict=True):
        assert data_set_bytes(spool.instance_path(arrival.digest)) == data_set_bytes(path)


def test_more_arrivals_than_one_batch_are_all_indexed(tmp_path: Path, database: Database, spool: Spool) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=105, rows=4, columns=4)
    arrive_all(spool, paths)
    assert index_arrivals(database, spool, NOON, READING) == 100
    assert index_arrivals(database, spool, NOON, READING) == 5
    assert index_arrivals(database, spool, NOON, READING) == 0
    assert _case(database).slices == 105


def test_interleaved_series_become_a_case_each_with_its_own_slices(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    series = [make_ct_series(tmp_path / name, slices=4, series=name) for name in ("a", "b", "c")]
    for slices in zip(*series, strict=True):
        arrive_all(spool, slices)
    _index(database, spool)
    cases = _cases(database)
    assert [case.slices for case in cases] == [4, 4, 4]
    sops = [set(_sops_of(database, case)) for case in cases]
    assert len(set.union(*sops)) == 12


def test_the_same_bytes_again_change_nothing_but_are_counted(tmp_path: Path, database: Database, spool: Spool) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3)
    for _ in range(3):
        arrive_all(spool, paths)
        _index(database, spool)
    case = _case(database)
    assert case.slices == 3
    assert [instance.times_received for instance in _instances(database)] == [3, 3, 3]
    assert _events(database, case.id)[-1].words == EVENTS["slices_repeated"].format(count=3)


def test_bytes_twice_in_one_batch_are_one_instance(tmp_path: Path, database: Database, spool: Spool) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3)
    arrive_all(spool, [*paths, *paths])
    _index(database, spool)
    assert _case(database).slices == 3
    assert len(_instances(database)) == 3


def test_an_arrival_leaves_the_queue_only_when_its_row_is_committed(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    arrivals = arrive_all(spool, make_ct_series(tmp_path / "ct", slices=3))
    broken = Database(f"sqlite:///{tmp_path / 'no_tables.sqlite'}")
    with pytest.raises(DatabaseUnavailable):
        index_arrivals(broken, spool, NOON, READING)
    broken.engine.dispose()
    assert spool.arrivals() == arrivals
    _index(database, spool)
    assert _case(database).slices == 3


def test_a_crash_after_the_commit_and_before_the_release_is_harmless(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    arrivals = arrive_all(spool, make_ct_series(tmp_path / "ct", slices=3))
    held = [(arrival.path, arrival.path.read_bytes()) for arrival in arrivals]
    _index(database, spool)
    for path, content in held:
        path.write_bytes(content)
    _index(database, spool)
    assert _case(database).slices == 3
    assert len(_instances(database)) == 3
    assert spool.arrivals() == []


def test_the_same_image_in_another_transfer_syntax_is_kept_beside_and_changes_nothing(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3)
    arrive_all(spool, paths)
    _index(database, spool)
    packed = arrive(spool, compress(paths[1], JPEG2000Lossless))
    _index(database, spool)
    assert [instance.state for instance in _instances(database)] == [InstanceState.KEPT] * 3 + [
        InstanceState.EQUIVALENT
    ]
    assert spool.instance_path(packed.digest).is_file()
    assert len(_sops_of(database, _case(database))) == 3


def test_a_delivered_series_that_comes_recompressed_opens_no_revision(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3)
    arrive_all(spool, paths)
    _index(database, spool)
    _set_state(database, CaseState.DELIVERED)
    arrive_all(spool, [compress(path, JPEG2000Lossless) for path in paths])
    _index(database, spool)
    case = _case(database)
    assert (case.state, case.slices, case.repeated_at) == (CaseState.DELIVERED, 3, NOON)


@pytest.mark.parametrize(
    "changes",
    [{"PatientID": "TEST-0002"}, {"RescaleIntercept": -1000}, {"ImagePositionPatient": [0, 0, 0]}],
    ids=["patient", "pixels", "place"],
)
def test_other_content_under_a_known_uid_is_a_conflict_and_both_are_kept(
    tmp_path: Path, database: Database, spool: Spool, changes: dict[str, object]
) -> None:
    first = arrive_all(spool, make_ct_series(tmp_path / "ct", slices=3))
    _index(database, spool)
    changed = make_ct_series(tmp_path / "other", slices=3, mutate=only_slice(1, **changes))[1]
    other = arrive(spool, changed)
    _index(database, spool)
    case = _case(database)
    assert [instance.state for instance in _instances(database)][3] is InstanceState.CONFLICT
    assert all(spool.instance_path(arrival.digest).is_file() for arrival in (*first, other))
    assert "instance_conflict" in [entry.event for entry in _events(database, case.id)]


def test_a_whole_slice_takes_the_place_of_a_damaged_one_with_the_same_uid(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    whole = make_ct_series(tmp_path / "whole", slices=3)
    damaged = make_ct_series(tmp_path / "damaged", slices=3, mutate=only_slice(1, PixelData=b"\0" * 20))
    arrive_all(spool, damaged)
    _index(database, spool)
    arrive(spool, whole[1])
    _index(database, spool)
    states = [instance.state for instance in _instances(database)]
    assert sorted(states) == sorted([InstanceState.KEPT] * 3 + [InstanceState.QUARANTINED])
    assert len(_sops_of(database, _cases(database)[-1])) == 3


def test_a_slice_that_the_disk_lost_gives_way_to_the_same_slice_in_another_transfer_syntax(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3)
    lost = arrive_all(spool, paths)[1]
    _index(database, spool)
    spool.instance_path(lost.digest).unlink()
    arrive(spool, compress(paths[1], JPEG2000Lossless))
    _index(database, spool)
    assert [instance.state for instance in _instances(database)] == [
        InstanceState.KEPT,
        InstanceState.QUARANTINED,
        InstanceState.KEPT,
        InstanceState.KEPT,
    ]


def test_a_damaged_copy_of_a_whole_slice_is_set_aside(tmp_path: Path, database: Database, spool: Spool) -> None:
    whole = make_ct_series(tmp_path / "whole", slices=3)
    damaged = make_ct_series(tmp_path / "damaged", slices=3, mutate=only_slice(1, PixelData=b"\0" * 20))
    arrive_all(spool, whole)
    arrive(spool, damaged[1])
    _index(database, spool)
    assert _instances(database)[-1].state is InstanceState.QUARANTINED
    assert len(_sops_of(database, _case(database))) == 3


def test_what_cannot_be_read_is_set_aside_with_its_bytes_and_a_sentence(database: Database, spool: Spool) -> None:
    arrival = arrive_bytes(spool, b"this is not DICOM")
    _index(database, spool)
    instance = _instances(database)[0]
    assert (instance.state, instance.reason) == (InstanceState.QUARANTINED, "unreadable")
    assert instance.sentence
    assert spool.quarantine_path(arrival.digest).read_bytes().endswith(b"this is not DICOM")
    assert _cases(database) == []
    with database.reading() as tx:
        event = tx.query(AuditEvent).one()
    assert (event.event, event.fields["digest"]) == ("instance_quarantined", arrival.digest)


def test_what_is_set_aside_still_tells_who_sent_it(tmp_path: Path, database: Database, spool: Spool) -> None:
    broken = make_ct_series(tmp_path / "ct", slices=1, mutate=only_slice(0, SeriesInstanceUID=None))[0]
    arrive(spool, broken, "CT9")
    arrive(spool, truncate(make_ct_series(tmp_path / "cut", slices=1)[0], 0.2), "CT8")
    _index(database, spool)
    assert [(one.state, one.source_ae) for one in _instances(database)] == [
        (InstanceState.QUARANTINED, "CT9"),
        (InstanceState.QUARANTINED, "CT8"),
    ]


def test_what_cannot_be_read_is_counted_once_however_often_it_comes(database: Database, spool: Spool) -> None:
    for _ in range(3):
        arrive_bytes(spool, b"this is not DICOM")
        _index(database, spool)
    assert [instance.times_received for instance in _instances(database)] == [3]


def test_a_bad_object_does_not_hold_up_the_good_ones_around_it(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=4)
    arrive_all(spool, paths[:2])
    arrive_bytes(spool, b"this is not DICOM")
    arrive_all(spool, paths[2:])
    _index(database, spool)
    assert _case(database).slices == 4


def test_received_is_kept_and_equivalent_and_in_conflict_and_set_aside(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3)
    conflict = make_ct_series(tmp_path / "other", slices=3, hu=sample_hu((3, 32, 40)) + 1)[0]
    arrive_all(spool, [*paths, conflict])
    arrive(spool, compress(paths[2], JPEG2000Lossless))
    arrive_bytes(spool, b"this is not DICOM")
    _index(database, spool)
    with database.reading() as tx:
        counts = queries.instance_counts(tx)
    assert counts == {
        InstanceState.KEPT: 3,
        InstanceState.CONFLICT: 1,
        InstanceState.EQUIVALENT: 1,
        InstanceState.QUARANTINED: 1,
    }


@pytest.mark.parametrize("state", [CaseState.DELIVERED, CaseState.COMMITTED, CaseState.REFUSED, CaseState.FAILED])
def test_a_late_slice_of_a_finished_case_opens_the_next_revision_with_all_slices(
    tmp_path: Path, database: Database, spool: Spool, state: CaseState
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=4)
    arrive_all(spool, paths[:3])
    _index(database, spool)
    _set_state(database, state)
    arrive(spool, paths[3])
    _index(database, spool)
    first, second = _cases(database)
    assert (first.state, first.slices) == (state, 3)
    assert (second.state, second.revision, second.slices) == (CaseState.RECEIVING, 2, 4)
    assert len(_sops_of(database, first)) == 3
    assert len(_sops_of(database, second)) == 4


@pytest.mark.parametrize("state", [CaseState.QUEUED, CaseState.SEGMENTING, CaseState.SENDING])
def test_a_late_slice_of_a_case_in_work_takes_it_out_of_the_workers_hands(
    tmp_path: Path, database: Database, spool: Spool, state: CaseState
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=4)
    arrive_all(spool, paths[:3])
    _index(database, spool)
    _set_state(database, state)
    arrive(spool, paths[3])
    _index(database, spool)
    first, second = _cases(database)
    assert first.state is CaseState.SUPERSEDED
    assert first.sentence == "more slices came; revision 2 takes its place"
    assert (second.state, second.slices) == (CaseState.RECEIVING, 4)


def test_a_slice_for_a_series_with_a_gap_starts_the_quiet_time_again(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=4)
    arrive_all(spool, paths[:3])
    _index(database, spool)
    _set_state(database, CaseState.INCOMPLETE)
    arrive(spool, paths[3])
    index_arrivals(database, spool, NOON + MINUTE, READING)
    case = _case(database)
    assert (case.state, case.last_arrival_at, case.slices) == (CaseState.RECEIVING, NOON + MINUTE, 4)


def test_repeated_slices_do_not_prolong_the_waiting(tmp_path: Path, database: Database, spool: Spool) -> None:
    paths = make_ct_series(tmp_path / "ct", slices=3)
    arrive_all(spool, paths)
    _index(database, spool)
    arrive_all(spool, paths)
    index_arrivals(database, spool, NOON + MINUTE, READING)
    assert _case(database).last_arrival_at == NOON


def test_over_long_and_hostile_texts_are_cut_to_what_the_row_holds(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    def mutate(_index: int, dataset: object) -> None:
        for keyword in ("PatientID", "AccessionNumber", "StudyDescription", "SeriesDescription"):
            set_raw(dataset, keyword, b"A\0B\x1b" + b"x" * 300)  # type: ignore[arg-type]

    arrive_all(spool, make_ct_series(tmp_path / "ct", slices=3, mutate=mutate))
    _index(database, spool)
    case = _case(database)
    assert [len(case.patient_id), len(case.accession_number), len(case.description)] == [64, 16, 200]
    assert not any("\0" in text for text in (case.patient_id, case.accession_number, case.description))


def test_slices_that_say_nothing_about_the_patient_still_become_a_case(
    tmp_path: Path, database: Database, spool: Spool
) -> None:
    silent = all_slices(PatientID="", AccessionNumber=None, StudyDescription=None, SeriesDescription=None)
    arrive_all(spool, make_ct_series(tmp_path / "ct", slices=3, mutate=silent))
    _index(database, spool)
    assert _case(database).patient_id == ""
