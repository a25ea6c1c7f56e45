import numpy as np
import pytest
from pydantic import ValidationError

from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask, RoiTemplate


def test_a_mask_is_cropped_to_its_voxels_and_comes_back_whole() -> None:
    voxels = np.zeros((4, 5, 6), dtype=np.bool_)
    voxels[1:3, 2:5, 3] = True
    mask = RoiMask.from_volume("Bladder", voxels)
    assert mask.box == (slice(1, 3), slice(2, 5), slice(3, 4))
    np.testing.assert_array_equal(mask.in_grid((4, 5, 6)), voxels)
    assert not mask.is_empty


def test_an_empty_mask_has_an_empty_box_and_no_volume() -> None:
    mask = RoiMask.from_volume("Bladder", np.zeros((4, 5, 6), dtype=np.bool_))
    assert mask.is_empty
    assert mask.volume_cm3(SeriesGeometry.axial((4, 5, 6), (3.0, 1.0, 1.0))) == 0.0
    assert not mask.in_grid((4, 5, 6)).any()


def test_the_volume_counts_voxels_at_their_size() -> None:
    mask = RoiMask.from_volume("Bladder", np.ones((10, 10, 10), dtype=np.bool_))
    assert mask.volume_cm3(SeriesGeometry.axial((10, 10, 10), (3.0, 0.5, 2.0))) == pytest.approx(3.0)


def test_a_box_that_does_not_fit_its_voxels_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        RoiMask("Bladder", (slice(0, 2), slice(0, 2), slice(0, 2)), np.ones((2, 2, 3), dtype=np.bool_))


@pytest.mark.parametrize("name", ["Bladder", "Femur_L", "CTVp_5000", "PTV~^1+2-3"])
def test_names_that_planning_systems_keep_are_accepted(name: str) -> None:
    assert RoiTemplate(name=name, number=1, colour=(1, 2, 3)).interpreted_type == "ORGAN"


@pytest.mark.parametrize(
    "broken",
    [
        {"name": "A" * 65},
        {"name": ""},
        {"name": " Bladder"},
        {"name": "Blad\\der"},
        {"name": "Bläschen"},
        {"name": "Bladder\n"},
        {"number": 0},
        {"colour": (0, 0, 256)},
        {"interpreted_type": "organ"},
        {"code": {"value": "1", "meaning": "a\\b"}},
        {"color": (1, 2, 3)},
    ],
)
def test_a_template_that_a_planning_system_would_stumble_over_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RoiTemplate.model_validate({"name": "Bladder", "number": 1, "colour": (1, 2, 3)} | broken)
