"""A protocol made on the spot: everything that a model draws, for `delineate segment` without one."""

import colorsys
from collections.abc import Iterable, Mapping

from appliance.dicom.roi import RoiTemplate
from appliance.errors import ApplianceError
from appliance.segmentation.manifest import Manifest
from appliance.settings import PlanningSystem, Protocol, Settings

LABEL = "AI_DRAFT"
_FORM = "names-in-full"
_FIRST_FREE = 1000
"""Numbers from here on are free for a site's own structures."""
_GOLDEN = 0.618034
"""Steps of this share of the colour circle keep neighbours apart, however many there are."""


def everything_of(settings: Settings, model: str, manifest: Manifest) -> tuple[Settings, Protocol]:
    """Settings and a protocol that ask for each structure of a model, under its own name.

    Structures that rois.toml knows are written as it says; all others get a number and a colour of their own.

    Raises:
        ApplianceError: the model draws structures that one structure set cannot hold together.
    """
    names = [roi.name for roi in manifest.rois]
    rois = {**settings.rois, **made_up_templates(names, settings.rois)}
    table = {"name": "everything", "title": f"All structures of {model}", "model": model}
    table |= {"label": LABEL, "planning_system": _FORM}
    protocol = Protocol.model_validate({**table, "rois": names, "destinations": ["nowhere"]})
    forms = {**settings.planning_systems, _FORM: PlanningSystem(max_name_length=64)}
    able = settings.model_copy(update={"rois": rois, "planning_systems": forms})
    try:
        able.written_templates(protocol)
    except ValueError as mistake:
        raise ApplianceError(f"{mistake}; or name a --protocol that asks for some of them") from mistake
    return able, protocol


def made_up_templates(names: Iterable[str], known: Mapping[str, RoiTemplate]) -> dict[str, RoiTemplate]:
    """Templates for the names that are not known, each with a number and a colour that no other has."""
    numbers, colours = {one.number for one in known.values()}, {one.colour for one in known.values()}
    made: dict[str, RoiTemplate] = {}
    number, step = _FIRST_FREE, 0
    for name in names:
        if name in known or name in made:
            continue
        while number in numbers:
            number += 1
        colour = _colour(step)
        while colour in colours:
            step += 1
            colour = _colour(step)
        numbers.add(number)
        colours.add(colour)
        made[name] = RoiTemplate(name=name, number=number, colour=colour)
    return made


def _colour(step: int) -> tuple[int, int, int]:
    """One of a long row of colours: hues far apart, brightness and strength changing more slowly."""
    hue, value, saturation = (step * _GOLDEN) % 1.0, 1.0 - 0.15 * (step // 12 % 3), 0.85 - 0.2 * (step // 36 % 3)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
