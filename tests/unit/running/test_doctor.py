"""The doctor finds what is wrong, names it, and changes nothing."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.casework.warm_models import warm_model
from appliance.running.doctor import Finding, Verdict, examine
from appliance.segmentation.model_package import load_package
from appliance.settings import load_settings
from tests.support.certificates import DAY, Authority
from tests.support.config_folder import BONES, ROIS, make_settings
from tests.support.free_ports import free_port
from tests.support.gpu import why_no_gpu
from tests.support.model_packages import make_threshold_package
from tests.support.syslog_collector import SyslogCollector

Examine = Callable[..., dict[str, Finding]]


@pytest.fixture
def doctor(tmp_path: Path) -> Examine:
    """Examines a box that was never started, with these changes to its configuration; findings by subject."""
    make_threshold_package(tmp_path / "models" / "thresholds")

    def _examine(tables: dict[str, dict[str, Any]] | None = None, **parts: Any) -> dict[str, Finding]:
        own: dict[str, dict[str, Any]] = {
            "appliance": {"models_dir": "../models"},
            "intake": {"port": free_port(), "free_space_reserve_mb": 1},
            "broker": {"port": free_port()},
        }
        merged = {name: {**own.get(name, {}), **(tables or {}).get(name, {})} for name in {*own, *(tables or {})}}
        findings = list(examine(make_settings(tmp_path, merged, **{"peers": {}, "protocols": {}, **parts})))
        assert all(finding.words for finding in findings)
        return {finding.subject: finding for finding in findings}

    return _examine


def _with_peer(**protocol: Any) -> dict[str, Any]:
    """A protocol whose destination exists, at a port where nobody answers."""
    pacs = {"ae_title": "FAKEPACS", "host": "127.0.0.1", "port": free_port()}
    return {"peers": {"pacs": pacs}, "protocols": {"bones": {**BONES, **protocol}}}


def test_a_box_that_was_never_started_is_told_what_the_start_will_make(doctor: Examine, tmp_path: Path) -> None:
    found = doctor()
    assert {found[name].verdict for name in ("listener", "database", "broker")} == {Verdict.NOTE}
    assert all("`delineate up`" in found[name].words for name in ("listener", "database", "broker"))
    assert not (tmp_path / "var").exists()


def test_a_gpu_that_is_asked_for_and_is_not_there_is_wrong(doctor: Examine) -> None:
    found = doctor({"worker": {"devices": ["cuda:7"]}})["accelerator"]
    assert found.verdict is Verdict.WRONG
    assert "worker.devices names cuda:7, which cannot be used here" in found.words


@pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU here")
def test_a_box_without_a_gpu_is_told_that_it_takes_longer(doctor: Examine) -> None:
    found = doctor()["accelerator"]
    assert (found.verdict, "takes longer" in found.words) == (Verdict.NOTE, True)


def test_what_a_model_runs_on_is_told_once_a_worker_has_loaded_it(doctor: Examine, tmp_path: Path) -> None:
    assert "not loaded yet" in doctor(**_with_peer())["engine of thresholds"].words
    settings = load_settings(tmp_path / "configs")
    warm_model(settings, load_package(settings.models_dir / "thresholds"), "cpu")
    found = doctor(**_with_peer())["engine of thresholds"]
    assert found.verdict is Verdict.GOOD
    assert found.words.startswith("runs on ONNX Runtime on the CPU (")


def test_a_good_model_is_named_with_its_folds(doctor: Examine) -> None:
    found = doctor(**_with_peer())["protocol bones"]
    assert found.verdict is Verdict.GOOD
    assert "model thresholds 1.0.0, 3 folds, digests verified" in found.words
    assert found.words.endswith("; 2 structures in the form for generic")


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"model": "absent"}, "there is no model package absent"),
        (
            {"rois": ["External", "Other"]},
            "neither does the model thresholds draw Other, nor does a [[derived]] rule make it; take it out of",
        ),
    ],
)
def test_a_protocol_that_its_model_cannot_serve_is_wrong(doctor: Examine, protocol: dict[str, Any], words: str) -> None:
    found = doctor(**_with_peer(**protocol))["protocol bones"]
    assert (found.verdict, words in found.words) == (Verdict.WRONG, True)


@pytest.mark.parametrize(
    ("source", "words"),
    [("Bone_Pelvic", "; 2 structures in the form for generic"), ("Ghost", "draw Ghost, nor does a [[derived]]")],
)
def test_a_derived_structure_needs_no_model_but_what_it_is_made_from_does(
    tmp_path: Path, source: str, words: str
) -> None:
    make_threshold_package(tmp_path / "models" / "thresholds")
    tables = {"appliance": {"models_dir": "../models"}, "intake": {"port": free_port(), "free_space_reserve_mb": 1}}
    rois = {**ROIS, "Ghost": {"number": 98, "colour": [9, 9, 9]}}
    folder = make_settings(tmp_path, tables, rois=rois, **_with_peer(rois=["External", "Other"])).folder
    with (folder / "protocols" / "bones.toml").open("a") as file:
        file.write(f'[[derived]]\nroi = "Other"\nof = "{source}"\nmargin_mm = 5\n')
    found = {finding.subject: finding for finding in examine(load_settings(folder))}["protocol bones"]
    assert words in found.words
    assert (found.verdict is Verdict.GOOD) == (source == "Bone_Pelvic")


def test_a_box_without_protocols_can_do_nothing(doctor: Examine) -> None:
    assert doctor()["protocols"].verdict is Verdict.WRONG


def test_a_peer_that_does_not_answer_is_wrong(doctor: Examine) -> None:
    found = doctor(**_with_peer())["peer pacs"]
    assert found.verdict is Verdict.WRONG
    assert "nobody answers at 127.0.0.1:" in found.words


def test_a_port_that_somebody_else_listens_on_is_wrong(doctor: Examine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        found = doctor({"intake": {"port": taken.getsockname()[1]}})["listener"]
    assert found.verdict is Verdict.WRONG
    assert "choose another intake.port" in found.words


def test_a_disk_below_its_reserve_is_wrong(doctor: Examine) -> None:
    found = doctor({"intake": {"free_space_reserve_mb": 1 << 40}})["disk"]
    assert found.verdict is Verdict.WRONG
    assert "less than the reserve" in found.words


def test_a_database_or_broker_that_is_away_is_wrong_and_named_without_its_password(doctor: Examine) -> None:
    found = doctor(
        {
            "database": {"url": f"postgresql://u:secret@127.0.0.1:{free_port()}/x"},
            "broker": {"url": f"redis://:secret@127.0.0.1:{free_port()}/0"},
        }
    )
    for subject in ("database", "broker"):
        assert found[subject].verdict is Verdict.WRONG
        assert "127.0.0.1:" in found[subject].words
        assert "secret" not in found[subject].words


def test_a_plain_port_that_a_network_reaches_is_told_and_so_is_who_may_be_anybody(doctor: Examine) -> None:
    found = doctor({"intake": {"host": "0.0.0.0", "known_peers_only": False}}, **_with_peer())
    assert {found[name].verdict for name in ("entrance", "strangers", "titles")} == {Verdict.NOTE}
    assert "takes plain DICOM, which anybody on the way can read and change" in found["entrance"].words
    assert "entrance" not in doctor(**_with_peer()), "nobody else reaches loopback"


def test_certificates_that_end_are_told_weeks_before_and_those_that_ended_are_wrong(
    doctor: Examine, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "certificates")
    good, ending, ended = (authority.issue(f"box{days}", ends=days * DAY) for days in (300, 20, -0.01))
    intake = {"host": "0.0.0.0", "tls": "only", "tls_port": free_port()}
    found = doctor({"intake": intake, "tls": good.table})
    assert (found["certificates"].verdict, "certificate" in found, "entrance" in found) == (Verdict.GOOD, False, False)
    found = doctor({"intake": intake, "tls": ending.table})
    assert found["certificate"].words == "box20.pem (CN=box20) ends in 19 days; ask for a new one now"
    found = doctor({"intake": intake, "tls": ended.table})
    assert (found["certificates"].verdict, "ended on" in found["certificates"].words) == (Verdict.WRONG, True)


def test_a_collector_is_asked_whether_it_takes_messages(doctor: Examine, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    tls = authority.issue("box").table
    with SyslogCollector(authority.issue("collector").files) as collector:
        audit = {"collector": f"127.0.0.1:{collector.port}"}
        assert doctor({"audit": audit, "tls": tls})["audit collector"].verdict is Verdict.GOOD
    assert collector.messages == []
    found = doctor({"audit": audit, "tls": tls})["audit collector"]
    assert found.verdict is Verdict.WRONG
    assert f"127.0.0.1:{collector.port} is away" in found.words


@pytest.mark.parametrize(
    ("proof", "told"), [({}, True), ({"query": True}, False), ({"storage_commitment": True}, False)]
)
def test_a_protocol_whose_destinations_prove_nothing_is_told(
    doctor: Examine, proof: dict[str, bool], *, told: bool
) -> None:
    parts = _with_peer()
    parts["peers"]["pacs"] |= proof
    found = doctor(**parts).get("proof for bones")
    assert (found is not None) is told
    assert found is None or (found.verdict is Verdict.NOTE and "proves nothing" in found.words)
