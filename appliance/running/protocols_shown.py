"""What a protocol will write, in words: for `delineate protocol list` and `delineate protocol show`."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiTemplate
from appliance.errors import SettingsError
from appliance.settings import Protocol, RoiChoice, Settings


def protocols_table(settings: Settings) -> Table:
    """Every protocol on a line, in the order in which they are tried: the highest priority first."""
    table = Table("Protocol", "Title", "Model", "Structures", "Planning system", "Destinations", "Priority")
    for protocol in sorted(settings.protocols.values(), key=lambda one: (-one.priority, one.name)):
        to = ", ".join(protocol.destinations)
        cells = (
            protocol.name,
            protocol.title,
            ", ".join(protocol.models),
            str(len(protocol.rois)),
            protocol.planning_system,
            to,
        )
        table.add_row(*(Text(cell) for cell in (*cells, str(protocol.priority))))
    return table


def find_protocol(settings: Settings, name: str) -> Protocol:
    """Return a protocol by its name.

    Raises:
        SettingsError: there is none of this name.
    """
    if name not in settings.protocols:
        raise SettingsError(f"there is no protocol {name}; `delineate protocol list` shows those there are")
    return settings.protocols[name]


def structures_table(settings: Settings, protocol: Protocol) -> Table:
    """What a protocol will write: a line for each structure, in the order of the result."""
    codes = settings.planning_system_of(protocol).codes
    rules = {one.roi: one for one in protocol.derived}
    table = Table("", "Name", "Number", "Colour", "Type", "Code", "Made from", "Drawn")
    for number, (choice, template) in enumerate(
        zip(protocol.rois, settings.written_templates(protocol).values(), strict=True), 1
    ):
        red, green, blue = template.colour
        renamed = "" if template.name == choice.roi else f" (our {choice.roi})"
        table.add_row(
            str(number),
            Text.assemble((template.name, "bold"), renamed),
            str(template.number),
            Text.assemble(("██", f"rgb({red},{green},{blue})"), f" #{red:02x}{green:02x}{blue:02x}"),
            template.interpreted_type,
            Text(code_words(template, codes)),
            Text(rules[choice.roi].in_words() if choice.roi in rules else _drawn_words(protocol, choice)),
            Text("; ".join(_drawing_words(choice))),
        )
    return table


def code_words(template: RoiTemplate, codes: str) -> str:
    """The code that is written, with the side that modifies it, such as "SCT 71341001 Femur, left"."""
    code = {"SCT": template.code, "FMA": template.fma}.get(codes)
    if code is None:
        return "none"
    side = f", {template.side}" if template.side and code.scheme == "SCT" else ""
    return f"{code.scheme} {code.value} {code.meaning}{side}"


def _drawn_words(protocol: Protocol, choice: RoiChoice) -> str:
    if len(protocol.models) == 1:
        return "the model"
    return f"the model {choice.model}" if choice.model else "the first model that can"


def _drawing_words(choice: RoiChoice) -> Iterator[str]:
    if choice.largest_parts is not None:
        yield "largest part" if choice.largest_parts == 1 else f"{choice.largest_parts} largest parts"
    if choice.min_part_cm3:
        yield f"parts from {choice.min_part_cm3:g} cm³"
    if choice.min_area_mm2:
        yield f"areas from {choice.min_area_mm2:g} mm²"
    if choice.smooth_mm:
        yield f"smoothed by up to {choice.smooth_mm:g} mm"
    if choice.simplify_mm:
        yield f"simplified by up to {choice.simplify_mm:g} mm"


def form_words(settings: Settings, protocol: Protocol) -> Iterator[str]:
    """In which form a protocol writes, which series it is for and where its results go, in sentences."""
    system = settings.planning_system_of(protocol)
    outputs = {"rtstruct": "a structure set", "seg": "a segmentation"}
    yield f"{protocol.title}. Model: {', '.join(protocol.models)}."
    yield f"Writes {' and '.join(outputs[one] for one in protocol.outputs)}, labelled {protocol.label}."
    yield f"For planning system {protocol.planning_system}: {'; '.join(_system_words(system))}."
    rules = [f"{name} {' or '.join(patterns)}" for name, patterns in protocol.match if patterns]
    yield f"Takes series with {', and '.join(rules)}." if rules else "Takes every series."
    helpers = [one.roi for one in protocol.derived if one.roi not in protocol.roi_names]
    if helpers:
        yield f"Makes and does not write: {', '.join(helpers)}."
    yield f"Sends to {', '.join(protocol.destinations)}."


def _system_words(system: PlanningSystem) -> Iterator[str]:
    yield f"names of up to {system.max_name_length} characters"
    yield {"omit": "what is not found is left out", "declare": "what is not found is declared empty"}[system.empty_rois]
    holes = {"keyhole": "joined to the boundary", "nested": "as contours within", "xor": "as CLOSEDPLANAR_XOR"}
    yield f"holes {holes[system.holes]}"
    if system.max_points is not None:
        yield f"up to {system.max_points} points in a contour"
    yield {"SCT": "SNOMED CT codes", "FMA": "FMA codes", "none": "no codes"}[system.codes]
    yield {"unapproved": "says UNAPPROVED", "absent": "says nothing of approval"}[system.approval]
