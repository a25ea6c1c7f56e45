"""What a protocol asks for, made from what the model found: limited, derived, named, and ready to be contoured."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from appliance.dicom.contours import Drawing, trace
from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.dicom.planning_system import PlanningSystem
from appliance.dicom.roi import RoiMask, RoiTemplate
from appliance.dicom.roi_elements import DrawnRoi
from appliance.segmentation.derived import derive
from appliance.segmentation.parts import limit_parts
from appliance.segmentation.quality import RoiQuality
from appliance.segmentation.segment import Segmented
from appliance.settings import Protocol, Settings

NOT_ORGANS = frozenset({"EXTERNAL", "SUPPORT"})
"""Types of structures that every scan shows: a draft with nothing else has found nothing."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Region:
    """One structure of a draft.

    Attributes:
        template: how it is written.
        mask: its voxels, under the name that is written.
        drawing: how its boundary becomes contours.
        made_from: names, as written, of the structures that it was derived from.
        recipe: how it was derived, in words; empty for the model's own.
        quality: how sure the model was of it; None where it was derived.
        flags: one sentence for each reason to look at it carefully; a derived one has those of what it is made from.
    """

    template: RoiTemplate
    mask: RoiMask
    drawing: Drawing
    made_from: tuple[str, ...] = ()
    recipe: str = ""
    quality: RoiQuality | None = None
    flags: tuple[str, ...] = ()

    def traced(self, geometry: SeriesGeometry) -> DrawnRoi:
        """Contour it."""
        return DrawnRoi(
            template=self.template,
            contours=trace(self.mask, geometry, self.drawing),
            volume_cm3=self.mask.volume_cm3(geometry),
            made_from=self.made_from,
            recipe=self.recipe,
            fold_dice=self.quality.fold_dice if self.quality else None,
            flags=self.flags,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """The structures of a case.

    Attributes:
        regions: what was found, in the protocol's order.
        missing: what was asked for and not found.
        left_out: what a patient of this sex does not have.
        warnings: sentences about the scan: where it is not quite what the model was made for.
    """

    regions: tuple[Region, ...]
    missing: tuple[RoiTemplate, ...]
    left_out: tuple[RoiTemplate, ...]
    warnings: tuple[str, ...] = ()

    @property
    def shows_nothing(self) -> bool:
        """Whether no organ at all was found."""
        return all(region.template.interpreted_type in NOT_ORGANS for region in self.regions)

    @property
    def to_look_at(self) -> tuple[str, ...]:
        """Names of the structures that need a careful look, as they are written."""
        return tuple(region.template.name for region in self.regions if region.flags)

    def look_in_words(self) -> str:
        """What needs a careful look, and why."""
        flagged = [f"{one.template.name}: {', '.join(one.flags)}" for one in self.regions if one.flags]
        words = [f"look carefully at {'; '.join(flagged)}"] if flagged else []
        words += [f"about the scan: {'; '.join(self.warnings)}"] if self.warnings else []
        return "; ".join(words) or "no structure needs more than the usual look"

    def assessment(self) -> dict[str, Any]:
        """What is known about the quality of each structure, for the audit trail."""
        return {
            "to_look_at": list(self.to_look_at),
            "warnings": list(self.warnings),
            "structures": {
                one.template.name: {**(one.quality.figures() if one.quality else {}), "flags": list(one.flags)}
                for one in self.regions
            },
        }

    def in_words(self, geometry: SeriesGeometry) -> str:
        """What was found with its volume, and what was not."""
        words = [f"{region.template.name} {region.mask.volume_cm3(geometry):.1f} cm³" for region in self.regions]
        words += [f"{template.name} not found" for template in self.missing]
        words += [f"{template.name} left out because of the patient's sex" for template in self.left_out]
        return ", ".join(words) or "none"


def make_draft(found: Segmented, volume: CtVolume, protocol: Protocol, settings: Settings, patient_sex: str) -> Draft:
    """Make the structures that a protocol asks for.

    The limits on parts of a structure hold before others are derived from it.

    Args:
        found: what the model drew, in boxes of the volume's grid, and how sure it was.
        volume: the CT.
        protocol: which structures, made and drawn how.
        settings: for the templates and the form that the planning system wants.
        patient_sex: Patient's Sex; structures of the other are neither drawn nor used.
    """
    choices = {choice.roi: choice for choice in protocol.rois}
    geometry = volume.geometry
    impossible = {name for name, roi in settings.rois.items() if not roi.exists_in(patient_sex)}
    possible = [mask for mask in found.masks if mask.name not in impossible]
    limited = [limit_parts(one, choices[one.name], geometry) if one.name in choices else one for one in possible]
    external = next((roi.name for roi in settings.rois.values() if roi.interpreted_type == "EXTERNAL"), None)
    made = {mask.name: mask for mask in derive(protocol.derived, limited, volume, external)}
    rules = {rule.roi: rule for rule in protocol.derived}
    templates = settings.written_templates(protocol)
    form = settings.planning_system_of(protocol)
    quality = {one.name: one for one in found.quality}
    flags = _flags({name: one.flags for name, one in quality.items()}, protocol, templates)
    regions = []
    for name, template in templates.items():
        mask = made.get(name)
        if mask is not None and name in rules:
            mask = limit_parts(mask, choices[name], geometry)
        if mask is None or mask.is_empty:
            continue
        choice = choices[name]
        drawing = Drawing(
            keyhole=form.holes == "keyhole",
            smooth_mm=choice.smooth_mm,
            simplify_mm=choice.simplify_mm,
            max_points=form.max_points,
        )
        rule = rules.get(name)
        sources = rule.sources if rule else ()
        region = Region(
            template=template,
            mask=replace(mask, name=template.name),
            drawing=drawing,
            made_from=tuple(templates[source].name for source in sources if source in templates),
            recipe=rule.in_words() if rule else "",
            quality=None if rule else quality.get(name),
            flags=flags.get(name, ()),
        )
        regions.append(region)
    there = {region.template.number for region in regions}
    absent = [template for template in templates.values() if template.number not in there]
    return Draft(
        tuple(regions),
        tuple(template for template in absent if template.exists_in(patient_sex)),
        tuple(template for template in absent if not template.exists_in(patient_sex)),
        found.warnings,
    )


def _flags(
    of_the_model: Mapping[str, tuple[str, ...]], protocol: Protocol, templates: Mapping[str, RoiTemplate]
) -> dict[str, tuple[str, ...]]:
    """The flags of every structure: of a derived one, which sources of it are flagged, and why."""
    flags = dict(of_the_model)
    for rule in protocol.derived:  # in the order in which they may use each other
        written = {name: templates[name].name if name in templates else name for name in rule.sources}
        flags[rule.roi] = tuple(
            f"made from {written[name]}, where {why}" for name in written for why in flags.get(name, ())
        )
    return flags


def recipe_digest(protocol: Protocol, form: PlanningSystem) -> str:
    """SHA-256 of everything in a protocol that shapes its structures, as 64 hexadecimal digits.

    Which series it takes and where its results go do not belong to that. Which model draws a structure does only
    where there is a choice.
    """
    drawn = {"rois": {"__all__": {"model"}}} if len(protocol.models) == 1 else None
    shaping = protocol.model_dump_json(include={"rois", "derived", "uneven_gaps", "label"}, exclude=drawn)
    return hashlib.sha256(f"{shaping}\n{form.model_dump_json()}".encode()).hexdigest()
