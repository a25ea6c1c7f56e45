"""How the structures of a protocol are named in its results, and which names would mislead."""

import re
from collections.abc import Mapping
from typing import Literal

from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiTemplate
from appliance.settings.places import Mistake
from appliance.settings.protocol import Protocol, RoiChoice

_SIDE = re.compile(r"_([LR])([UML]L)?$")
"""TG-263 section 7.2, principle 7: the side stands at the end, alone or with a lobe."""


def side_in_name(name: str) -> Literal["left", "right"] | None:
    """The side of the patient that a TG-263 name speaks of."""
    found = _SIDE.search(name)
    return None if found is None else "left" if found[1] == "L" else "right"


def check_sides(rois: Mapping[str, RoiTemplate]) -> None:
    """See that no structure says left and is right.

    Raises:
        Mistake: the side of a structure contradicts its name.
    """
    for roi in rois.values():
        if roi.side is not None and side_in_name(roi.name) not in {None, roi.side}:
            sentence = f"{roi.name} is the {side_in_name(roi.name)} one by its name, but its side says {roi.side}"
            raise Mistake(f"{sentence}; correct one of them", (roi.name, "side"), file=("rois",))


def written_templates(
    protocol: Protocol, rois: Mapping[str, RoiTemplate], system: PlanningSystem
) -> dict[str, RoiTemplate]:
    """Return how each structure is written, renamed and cut, in order, by its name in rois.toml.

    Raises:
        Mistake: a name is longer than the planning system keeps, two are the same, one is of the other side, or two
            structures are the outline of the patient.
    """
    written: dict[str, RoiTemplate] = {}
    owners: dict[str, str] = {}  # by name as written, upper and lower case being the same to some planning systems
    for number, choice in enumerate(protocol.rois):
        name = _kept_name(protocol, number, choice, system)
        owner = owners.setdefault(name.casefold(), choice.roi)
        if owner != choice.roi:
            cut = f", cut to {system.max_name_length} characters" if name != choice.written_name else ""
            sentence = f"{owner} and {choice.roi} would both be written as {name!r}{cut}; give one of them another name"
            raise _mistake(protocol, number, sentence)
        side = rois[choice.roi].side or side_in_name(choice.roi)
        if side is not None and side_in_name(name) not in {None, side}:
            sentence = f"{choice.roi} is on the {side} and would be written as {name!r}; correct its name"
            raise _mistake(protocol, number, sentence)
        written[choice.roi] = rois[choice.roi].model_copy(update={"name": name})
    outlines = [name for name, template in written.items() if template.interpreted_type == "EXTERNAL"]
    if len(outlines) > 1:
        sentence = f"{' and '.join(outlines)} are all of type EXTERNAL, but a patient has one outline; leave one"
        raise _mistake(protocol, protocol.roi_names.index(outlines[1]), sentence)
    return written


def _kept_name(protocol: Protocol, number: int, choice: RoiChoice, system: PlanningSystem) -> str:
    name = choice.written_name
    if len(name) > system.max_name_length and system.long_names == "refuse":
        sentence = f"{name!r} has {len(name)} characters and {protocol.planning_system} keeps {system.max_name_length}"
        raise _mistake(protocol, number, f"{sentence}; give it a shorter name")
    return name[: system.max_name_length]


def _mistake(protocol: Protocol, number: int, sentence: str) -> Mistake:
    keys, file = ("rois", number), ("protocols", protocol.name)
    return Mistake(f"protocol {protocol.name}: {sentence}", keys, word=protocol.rois[number].roi, file=file)
