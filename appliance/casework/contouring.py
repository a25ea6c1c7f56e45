"""The pure steps of one scan's way, from files to checked results: no row, no lease, no spool.

The line (`steps.py`) calls them with its audit events beside them, `delineate segment` without. Whoever calls them
keeps what they make.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from appliance import __version__
from appliance.casework.draft import Draft, recipe_digest
from appliance.dicom.contours import RoiContours
from appliance.dicom.ct_series import CtSeries, assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.ct_volume import CtVolume, input_digest, load_volume
from appliance.dicom.findings import Finding
from appliance.dicom.result_object import ResultObject
from appliance.dicom.roi_elements import DrawnRoi
from appliance.dicom.structure_check import check_structure_set
from appliance.dicom.structure_set import Provenance, StructureSet, UsedModel, build_structure_set
from appliance.errors import ModelRefused, Reason, Refused, ResultRefused
from appliance.segmentation.model_package import ModelPackage
from appliance.segmentation.segment import Segmented
from appliance.settings import PlanningSystem, Protocol, Settings

if TYPE_CHECKING:  # only what writes a Segmentation pays for loading highdicom
    from appliance.dicom.segmentation_object import SegmentationObject

OnStep: TypeAlias = Callable[[str, int, int], None]
"""Called with (step, how much of it is done, of how much); it may raise to stop."""

Kept: TypeAlias = Callable[[str], bytes | None]
"""What was made earlier and kept under a file name, if anything was."""

_Result = TypeVar("_Result", bound=ResultObject)
_Found = TypeVar("_Found")


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT series as everything after it needs it.

    Attributes:
        digest: of what a model sees and a result refers to (`ct_volume.input_digest`).
    """

    series: CtSeries
    volume: CtVolume
    digest: str


def load_scan(paths: Sequence[Path], on_step: OnStep, *, uneven_gaps: bool) -> Scan:
    """Read the slices of one series; the steps are "read" and "load".

    Raises:
        SliceRefused, SeriesRefused: as `parse_slice`, `assemble_series` and `load_volume` say.
        OSError: a file cannot be read.
    """
    slices = []
    for done, path in enumerate(paths, 1):
        slices.append(parse_slice(path))
        on_step("read", done, len(paths))
    series = assemble_series(slices, uneven_gaps=uneven_gaps)
    volume = load_volume(series, on_slice=lambda done, total: on_step("load", done, total))
    return Scan(series, volume, input_digest(series, volume))


def refuse_undrawn(owners: Collection[str], protocol: Protocol) -> None:
    """Check that somebody draws all that a protocol asks for.

    Args:
        owners: the structures that a model of it draws (`Protocol.drawn_by`).
        protocol: what asks.

    Raises:
        ModelRefused: MODEL_INVALID, with the structures that nobody draws.
    """
    unknown = ", ".join(sorted(set(protocol.asked_of_model) - set(owners)))
    if unknown:
        one = len(protocol.models) == 1
        who = f"the model {protocol.models[0]} does not draw" if one else f"of {_listed(protocol.models)} none draws"
        wanted = "" if one else " as it is asked to"
        raise ModelRefused(Reason.MODEL_INVALID, f"{who} {unknown}{wanted}; correct the protocol {protocol.name}")


def merge(found: Mapping[str, Segmented], owners: Mapping[str, str]) -> Segmented:
    """Put together what several models found, each structure from the model that it belongs to.

    Structures of two models may overlap; each keeps its own voxels.

    Args:
        found: by model, in the order of the protocol.
        owners: the model of each structure (`Protocol.drawn_by`).
    """
    return Segmented(
        tuple(mask for model, one in found.items() for mask in one.masks if owners.get(mask.name) == model),
        tuple(rated for model, one in found.items() for rated in one.quality if owners.get(rated.name) == model),
        tuple(dict.fromkeys(warning for one in found.values() for warning in one.warnings)),
        tuple(effort for one in found.values() for effort in one.network_effort),
    )


def refuse_empty(draft: Draft) -> None:
    """Check that a draft shows an organ at all.

    Raises:
        ResultRefused: NOTHING_FOUND.
    """
    if draft.shows_nothing:
        sentence = "none of the protocol's structures was found; check that the scan shows the region of the protocol"
        raise ResultRefused(Reason.NOTHING_FOUND, sentence)


def trace_regions(draft: Draft, series: CtSeries, on_step: OnStep) -> list[DrawnRoi]:
    """Contour what was found; the step is "contours"."""
    traced = []
    for done, region in enumerate(draft.regions, 1):
        traced.append(region.traced(series.geometry))
        on_step("contours", done, len(draft.regions))
    return traced


def provenance_of(
    settings: Settings,
    protocol: Protocol,
    packages: Mapping[str, ModelPackage],
    digest: str,
    draft: Draft,
    replaces: str = "",
) -> Provenance:
    """What a result says about where it comes from.

    Args:
        settings: of this box.
        protocol: what asked for it.
        packages: its models, in its order.
        digest: of the input.
        draft: what is in it, and what is missing.
        replaces: SOP Instance UID of the structure set whose place it takes; empty for none.
    """
    owners = protocol.drawn_by({model: one.manifest.roi_names for model, one in packages.items()})
    written = {roi: template.name for roi, template in settings.written_templates(protocol).items()}
    derived = {rule.roi for rule in protocol.derived}
    models = [
        UsedModel(
            name=package.manifest.name,
            version=package.manifest.version,
            digest=package.digest,
            regions=tuple(name for roi, name in written.items() if roi not in derived and owners.get(roi) == model),
        )
        for model, package in packages.items()
    ]
    return Provenance(
        input_digest=digest,
        models=tuple(models),
        protocol=protocol.name,
        label=protocol.label,
        appliance_version=__version__,
        station_name=settings.appliance.station_name,
        recipe_digest=recipe_digest(protocol, settings.planning_system_of(protocol)),
        not_found=tuple(template.name for template in draft.missing),
        to_look_at=draft.to_look_at,
        warnings=draft.warnings,
        replaces=replaces,
    )


@dataclass(frozen=True, eq=False)
class Writing:
    """What results of one scan have in common.

    Attributes:
        provenance: where they come from.
        form: what the planning system takes.
        created_at: when, with its time zone.
        kept: results that were made before; one from all the same things is taken again.
    """

    provenance: Provenance
    form: PlanningSystem
    created_at: datetime
    kept: Kept

    def structure_set(
        self, series: CtSeries, draft: Draft, rois: Sequence[DrawnRoi]
    ) -> tuple[StructureSet, list[Finding]]:
        """Contours to a checked structure set, and what is worth a look in it.

        Raises:
            ResultRefused: RESULT_INVALID.
        """
        if self.form.empty_rois == "declare":
            rois = [*rois, *(DrawnRoi(template=one, contours=RoiContours(one.name, ())) for one in draft.missing)]
        masks = [region.mask for region in draft.regions]
        made = build_structure_set(series, rois, self.provenance, self.form, self.created_at)

        def check(content: bytes) -> list[Finding]:
            return check_structure_set(content, series, masks, planning_system=self.form)

        return self._earlier_or(made, check)

    def segmentation(self, series: CtSeries, draft: Draft) -> "SegmentationObject":
        """Masks to a checked Segmentation.

        Raises:
            ResultRefused: RESULT_INVALID.
        """
        from appliance.dicom.segmentation_check import check_segmentation
        from appliance.dicom.segmentation_object import SegmentedRoi, build_segmentation

        regions = [SegmentedRoi(region.template, region.mask, region.recipe) for region in draft.regions]
        made = build_segmentation(series, regions, self.provenance, self.created_at)
        return self._earlier_or(made, lambda content: check_segmentation(content, series, regions))[0]

    def _earlier_or(self, made: _Result, check: Callable[[bytes], _Found]) -> tuple[_Result, _Found]:
        """The file that was made before, if it passes its check, else the new one; and what the check found."""
        earlier = self.kept(result_file(made))
        if earlier is not None:
            with suppress(Refused):  # damaged on the disk since: it is made again
                return replace(made, content=earlier), check(earlier)
        return made, check(made.content)


def result_file(result: ResultObject) -> str:
    """The name under which a result is kept."""
    return f"{result.sop_instance_uid}.dcm"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
