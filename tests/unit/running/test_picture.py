"""The demo's picture."""

from pathlib import Path

import numpy as np
from PIL import Image

from appliance.dicom.contours import trace
from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.roi import RoiMask
from appliance.running.demo.picture import draw
from appliance.settings import load_settings

CONFIGS = Path(__file__).parents[3] / "configs"


def test_every_structure_is_drawn_in_its_own_colour(tmp_path: Path) -> None:
    settings = load_settings(CONFIGS)
    geometry = SeriesGeometry.axial((9, 60, 80), (3.0, 2.0, 2.0))
    volume = CtVolume(np.full(geometry.shape, -1000, np.int16), geometry)
    masks = {name: np.zeros(geometry.shape, np.bool_) for name in ("Bladder", "Femur_L")}
    masks["Bladder"][:, 10:30, 10:30] = True
    masks["Femur_L"][:, 30:50, 50:70] = True
    rois = {name: trace(RoiMask.from_volume(name, mask), geometry) for name, mask in masks.items()}
    draw(tmp_path / "picture.png", volume, rois, {name: settings.rois[name].colour for name in rois}, "A title")
    with Image.open(tmp_path / "picture.png") as picture:
        colours = {colour for _, colour in picture.getcolors(1 << 20)}
    for name in rois:
        wanted = np.array(settings.rois[name].colour)
        assert min(np.abs(np.array(colour) - wanted).max() for colour in colours) < 40, name
