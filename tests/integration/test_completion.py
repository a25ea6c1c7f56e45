"""The whole box: a series without its end is held, its rest is fetched, and a late slice supersedes what was sent."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.records.tables import CaseState
from appliance.settings import load_settings
from tests.support.appliance_box import BONES, ApplianceBox
from tests.support.config_folder import write_config
from tests.support.fake_archive import FakeArchive
from tests.support.fake_pacs import FakePacs
from tests.support.patients import make_patient
from tests.support.waiting import wait_until

SLICES = 8


@pytest.fixture
def scan(tmp_path: Path) -> list[Path]:
    return make_patient(tmp_path / "ct", "whole box", slices=SLICES)


@pytest.fixture
def archive(scan: list[Path]) -> Iterator[FakeArchive]:
    with FakeArchive(scan) as archive:
        yield archive


@pytest.fixture
def box(tmp_path: Path, archive: FakeArchive) -> Iterator[ApplianceBox]:
    """A box whose protocol asks the archive and fetches what is missing."""
    with FakePacs() as pacs:
        box = ApplianceBox(tmp_path / "box", pacs, {"query": {"timeout_s": 5.0, "retrieve_timeout_s": 10.0}})
        completion = {"count_peer": "archive", "fetch_missing": True, "incomplete_wait_s": 120.0}
        peers = {"pacs": pacs.peer(storage_commitment=True), "archive": archive.peer()}
        tables = box.settings.model_dump(
            mode="json", include={"appliance", "intake", "worker", "delivery", "broker", "query"}, exclude_defaults=True
        )
        write_config(box.settings.folder, tables, peers=peers, protocols={"bones": {**BONES, "completion": completion}})
        for other in ("slow", "both", "site", "shared", "unequal"):
            (box.settings.folder / "protocols" / f"{other}.toml").unlink()
        box.settings = load_settings(box.settings.folder)
        with box:
            yield box


def test_the_missing_end_is_fetched_and_a_late_slice_supersedes_the_result(
    box: ApplianceBox, scan: list[Path], archive: FakeArchive
) -> None:
    archive.files.clear()
    archive.hold(scan[:-1])  # the archive has not got the last one yet either
    box.send(scan[:-3])
    first = box.wait_for_case(scan[0], CaseState.DELIVERED, CaseState.COMMITTED)
    assert (first.slices, first.count_sign) == (SLICES - 1, "confirmed")
    events = box.events(first)
    assert {"series_incomplete", "count_answered", "missing_fetched"} <= set(events)
    box.send(scan[-1:])
    second = box.wait_for_case(scan[0], CaseState.DELIVERED, CaseState.COMMITTED, revision=2)
    assert (second.slices, second.count_sign) == (SLICES, "surplus")
    made = box.pacs.structure_set(second.result_sop_instance_uid or "")
    named = [item.ReferencedSOPInstanceUID for item in made.PredecessorStructureSetSequence]
    assert named == [first.result_sop_instance_uid]
    wait_until(lambda: box.cases()[0].state is CaseState.SUPERSEDED, 30, "the first case to be superseded")
