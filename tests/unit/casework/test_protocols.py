"""Which protocol a series is for, and what is said when none fits."""

from pathlib import Path
from typing import Any

import pytest

from appliance.casework.protocols import choose_protocol
from appliance.dicom.identity import InstanceIdentity
from appliance.errors import Reason, SeriesRefused
from appliance.settings import Protocol
from tests.support.config_folder import BONES, make_settings


def _identity(**fields: str) -> InstanceIdentity:
    empty = dict.fromkeys(InstanceIdentity.__dataclass_fields__, "")
    return InstanceIdentity(**{**empty, **fields})


def _protocols(folder: Path, **tables: dict[str, Any]) -> list[Protocol]:
    protocols = {name: {**BONES, "name": name, **table} for name, table in tables.items()}
    return list(make_settings(folder, protocols=protocols).protocols.values())


def test_a_protocol_fits_when_every_list_of_it_does(tmp_path: Path) -> None:
    match = {"body_part": ["PELVIS", "ABDOMEN"], "calling_ae": ["CT1"]}
    protocols = _protocols(tmp_path, one={"match": match})
    assert choose_protocol(_identity(body_part="ABDOMEN", source_ae="CT1"), protocols).name == "one"
    with pytest.raises(SeriesRefused):
        choose_protocol(_identity(body_part="ABDOMEN", source_ae="CT2"), protocols)


@pytest.mark.parametrize("body_part", ["pelvis", "PELVIS", "Pelvis w/o contrast"])
def test_case_is_ignored_and_stars_are_wildcards(tmp_path: Path, body_part: str) -> None:
    protocols = _protocols(tmp_path, one={"match": {"body_part": ["Pelvis*"]}})
    assert choose_protocol(_identity(body_part=body_part), protocols).name == "one"


def test_a_protocol_without_rules_takes_everything(tmp_path: Path) -> None:
    protocols = _protocols(tmp_path, one={"match": {}})
    assert choose_protocol(_identity(), protocols).name == "one"


def test_the_highest_priority_wins_and_then_the_name(tmp_path: Path) -> None:
    everything: dict[str, Any] = {"match": {}}
    protocols = _protocols(tmp_path, zoo={**everything, "priority": 5}, b=everything, a=everything)
    assert choose_protocol(_identity(), protocols).name == "zoo"
    assert choose_protocol(_identity(), [p for p in reversed(protocols) if p.name != "zoo"]).name == "a"


def test_when_none_fits_each_protocol_says_why(tmp_path: Path) -> None:
    protocols = _protocols(
        tmp_path,
        head={"match": {"body_part": ["HEAD"]}},
        chest={"match": {"body_part": ["*"], "series_description": ["*CHEST*"]}},
    )
    with pytest.raises(SeriesRefused) as refused:
        choose_protocol(_identity(body_part="PELVIS"), protocols)
    assert refused.value.reason is Reason.NO_PROTOCOL
    assert "chest does not take series_description=(empty)" in refused.value.sentence
    assert "head does not take body_part=PELVIS" in refused.value.sentence
    assert "add or widen one in protocols/" in refused.value.sentence


def test_control_characters_of_a_header_do_not_reach_the_sentence(tmp_path: Path) -> None:
    with pytest.raises(SeriesRefused) as refused:
        choose_protocol(_identity(body_part="PEL\0VIS\x1b[2J"), _protocols(tmp_path, one={}))
    assert "one does not take body_part=PELVIS[2J" in refused.value.sentence


def test_a_box_without_protocols_says_so() -> None:
    with pytest.raises(SeriesRefused, match="none is configured"):
        choose_protocol(_identity(), [])
