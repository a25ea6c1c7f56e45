"""Templates made on the spot: as many structures as a model may draw, and no two of them alike."""

from itertools import pairwise
from pathlib import Path

import pytest

from appliance.errors import ApplianceError
from appliance.running.whole_model import everything_of, made_up_templates
from appliance.segmentation.model_package import read_manifest
from appliance.settings import Settings, load_settings
from tests.support.model_packages import make_threshold_package

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shipped() -> Settings:
    return load_settings(ROOT / "configs")


def test_no_two_structures_have_one_number_or_one_colour(shipped: Settings) -> None:
    names = [f"structure_{index}" for index in range(255)]
    made = made_up_templates([*names, "Bladder", *names], shipped.rois)
    assert list(made) == names, "what rois.toml knows is not made up, and nothing twice"
    everything = [*made.values(), *shipped.rois.values()]
    assert len({one.number for one in everything}) == len(everything)
    assert len({one.colour for one in made.values()} - {one.colour for one in shipped.rois.values()}) == len(made)


def test_neighbours_in_the_list_are_easily_told_apart(shipped: Settings) -> None:
    made = list(made_up_templates([f"structure_{index}" for index in range(117)], shipped.rois).values())
    for one, next_one in pairwise(made):
        assert sum(abs(a - b) for a, b in zip(one.colour, next_one.colour, strict=True)) > 100


def test_the_long_names_of_other_programs_are_written_in_full(tmp_path: Path, shipped: Settings) -> None:
    name = "lung_upper_lobe_left_with_more"
    folder = make_threshold_package(tmp_path / "long", rois=[{"name": name, "classes": ["bone"]}])
    settings, protocol = everything_of(shipped, "long", read_manifest(folder))
    assert [one.name for one in settings.written_templates(protocol).values()] == [name]
    assert name not in shipped.rois


def test_names_that_one_structure_set_cannot_hold_are_refused_with_what_to_do(
    tmp_path: Path, shipped: Settings
) -> None:
    rois = [{"name": name, "classes": ["bone"]} for name in ("Bone", "BONE")]
    folder = make_threshold_package(tmp_path / "twice", rois=rois)
    with pytest.raises(ApplianceError, match="or name a --protocol"):
        everything_of(shipped, "long", read_manifest(folder))
