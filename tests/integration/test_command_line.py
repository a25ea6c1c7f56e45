"""The command line: what an operator asks, and what is answered in words."""

import json
import socket
from pathlib import Path

import pytest
from sqlalchemy import select

from appliance.audit.trail import EVENTS
from appliance.records.tables import AuditEvent, CaseState
from tests.support.appliance_box import ApplianceBox
from tests.support.fake_pacs import FakePacs, status
from tests.support.model_packages import make_threshold_package
from tests.support.patients import make_patient
from tests.support.waiting import wait_until

DONE = (CaseState.DELIVERED, CaseState.COMMITTED)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A seed for UIDs that no other test uses."""
    return str(request.node.name)


def _last_column(table: str) -> str:
    """What the last column of a drawn table says, its lines joined again."""
    return " ".join(line.split("│")[-2].strip() for line in table.splitlines() if line.startswith("│"))


def test_the_doctor_finds_a_running_appliance_healthy_and_says_what_it_looked_at(box: ApplianceBox) -> None:
    answer = box.run("doctor")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for words in ("configuration", "disk", "protocol bones", "listener", "database", "broker", "peer pacs"):
        assert words in answer.stdout
    assert f"DELINEATE on 127.0.0.1:{box.me.port} answers C-ECHO" in answer.stdout
    assert "digests verified" in answer.stdout
    assert "All is well." in answer.stdout
    assert "WRONG" not in answer.stdout


def test_the_doctor_names_a_pacs_that_is_down(box: ApplianceBox) -> None:
    box.pacs.stop()
    try:
        answer = box.run("doctor")
    finally:
        box.pacs.start()
    assert answer.returncode != 0
    assert f"WRONG  peer pacs: nobody answers at 127.0.0.1:{box.pacs.port} as FAKEPACS" in answer.stdout
    assert answer.stdout.count("WRONG") == 1


def test_the_doctor_names_an_altered_fold(box: ApplianceBox) -> None:
    fold = box.settings.models_dir / "slow" / "fold_1.onnx"
    content = fold.read_bytes()
    fold.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        answer = box.run("doctor")
    finally:
        fold.write_bytes(content)
    assert answer.returncode != 0
    assert "WRONG  protocol slow: fold_1.onnx of model package slow has sha256" in answer.stdout
    wrong = [line for line in answer.stdout.splitlines() if "WRONG" in line]
    assert all("fold_1.onnx of model package slow has sha256" in line for line in wrong), "every protocol of this model"


def test_the_doctor_tells_what_the_first_start_will_make(tmp_path: Path) -> None:
    with FakePacs() as pacs:
        box = ApplianceBox(tmp_path / "box", pacs)
        answer = box.run("doctor")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "embedded SQLite, not made yet; `delineate up` makes it" in answer.stdout
    assert "not running, the port is free; `delineate up` starts it" in answer.stdout
    assert not (box.settings.data_dir / "delineate.sqlite").exists(), "looking changes nothing"


def test_the_list_of_cases_says_where_each_stands_and_why(box: ApplianceBox, tmp_path: Path, name: str) -> None:
    good, bad = make_patient(tmp_path / "good", f"{name} good"), make_patient(tmp_path / "bad", f"{name} bad")
    del bad[5]
    box.send([*good, *bad])
    box.wait_for_case(good[0], CaseState.COMMITTED)
    box.wait_for_case(bad[0], CaseState.REFUSED)
    table = box.run("case", "list", "--limit", "2").stdout
    assert table.count("TEST-0001") == 2
    assert "committed by pacs" in _last_column(table)
    assert "1 slice is missing; send the whole series again (slice_missing)" in _last_column(table)


def test_the_trail_of_a_case_tells_in_words_what_happened_to_it(box: ApplianceBox, tmp_path: Path, name: str) -> None:
    paths = make_patient(tmp_path / "ct", name)
    box.send(paths)
    case = box.wait_for_case(paths[0], CaseState.COMMITTED)
    shown = box.run("audit", "show", str(case.id)).stdout
    with box.database.reading() as tx:
        rows = list(tx.scalars(select(AuditEvent).where(AuditEvent.case_id == case.id)))
    assert len(rows) > 10
    for row in rows:
        assert EVENTS[row.event].format(**row.fields) in _last_column(shown)
    assert "Phantom" not in shown, "no patient's name"


def test_the_trail_of_a_case_that_is_not_there_is_answered_with_where_to_look(box: ApplianceBox) -> None:
    answer = box.run("audit", "show", "4711")
    assert answer.returncode == 1
    assert "there is no case 4711; `delineate case list` shows those there are" in answer.stderr


def test_a_parked_case_can_be_tried_again_once_the_cause_is_mended(
    box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    paths = make_patient(tmp_path / "ct", name)
    box.pacs.play([status(0xC000)])
    box.send(paths)
    case = box.wait_for_case(paths[0], CaseState.FAILED)
    assert (case.reason, case.result_sop_instance_uid is not None) == ("destination_refuses", True)
    answer = box.run("case", "retry", str(case.id))
    assert answer.stdout == f"Case {case.id} is on its way to its destinations again.\n"
    again = box.wait_for_case(paths[0], *DONE)
    assert again.result_sop_instance_uid == case.result_sop_instance_uid
    refused = box.run("case", "retry", str(case.id))
    assert refused.returncode == 1
    assert "only a case that is failed can be tried again" in refused.stderr


def test_a_model_that_is_activated_works_from_the_next_case_on_in_a_running_appliance_and_the_trail_says_so(
    box: ApplianceBox, tmp_path: Path, name: str
) -> None:
    new = make_threshold_package(tmp_path / "new", tile=(16, 32, 32))
    manifest = json.loads((new / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps({**manifest, "version": "2.0.0"}))
    assert box.run("models", "import", str(new)).returncode == 0
    answer = box.run("models", "activate", "thresholds", "2.0.0", "--yes")
    try:
        assert "takes the place of 1.0.0" in answer.stdout, answer.stderr
        paths = make_patient(tmp_path / "ct", name)
        box.send(paths)
        case = box.wait_for_case(paths[0], *DONE)
        assert any("segmented by thresholds 2.0.0" in entry.words for entry in box.trail(case))
    finally:
        undone = box.run("models", "activate", "thresholds", "1.0.0", "--yes")
    assert undone.returncode == 0, undone.stderr
    shown = wait_until(
        lambda: (said := box.run("audit", "box").stdout).count("is active now") == 2 and said, 10, "events"
    )
    assert "model thresholds 2.0.0 imported from new" in _last_column(shown)


def test_a_database_of_its_own_can_be_brought_to_this_release_before_the_first_start(tmp_path: Path) -> None:
    box = ApplianceBox(tmp_path / "box", FakePacs())
    for _ in range(2):
        answer = box.run("migrate")
        assert answer.returncode == 0, answer.stderr
        assert f"{box.database.display_url}: schema {box.database.check()}" in answer.stdout
    assert box.run("case", "list").stdout.strip() == "No case yet."


def test_a_typo_in_the_configuration_stops_the_start_and_is_named(tmp_path: Path) -> None:
    box = ApplianceBox(tmp_path / "box", FakePacs())
    file = box.settings.folder / "appliance.toml"
    file.write_text(file.read_text().replace("series_quiet_s", "series_quite_s"))
    answer = box.run("up")
    assert answer.returncode == 1
    line = 1 + next(n for n, text in enumerate(file.read_text().splitlines()) if "series_quite_s" in text)
    place = f"appliance.toml, line {line}"
    assert f"{place}: intake.series_quite_s is not a setting; did you mean series_quiet_s?" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not box.settings.data_dir.joinpath("delineate.sqlite").exists()


def test_a_broker_port_that_is_taken_stops_the_start_and_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        box = ApplianceBox(tmp_path / "box", FakePacs(), {"broker": {"port": port}})
        answer = box.run("up")
    assert answer.returncode == 1
    assert f"appliance.toml: broker.port {port} is taken" in answer.stderr
    assert "Traceback" not in answer.stderr
