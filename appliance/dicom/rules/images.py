"""A structure set against its images: is it for them, and does each contour lie on the image that it names."""

from collections.abc import Iterator

import numpy as np

from appliance.dicom.findings import Finding, Severity, amount, error
from appliance.dicom.header import decode_text
from appliance.dicom.rules.examination import Examination, ExaminedRegion
from appliance.dicom.structure_images import misfits
from appliance.dicom.structure_reader import plane_tolerances_mm

ROUNDED_MM = 0.01
"""How far a contour may lie off the plane of its image by rounding of coordinates alone."""

VOLUME_TOLERANCE = 0.05
"""How far a stated volume may be off what the contours hold, as a part of it: programs differ at the ends."""

SMALLEST_DIFFERENCE_CM3 = 0.1


def it_is_for_these_images(exam: Examination) -> Iterator[Finding]:
    """Patient, study, series, frame of reference, images and grid are those at hand."""
    if exam.series is None:
        if not exam.written.frame_uids:
            yield error("frame_of_reference_missing", "it names no frame of reference; export it again with its images")
        return
    for code, words in misfits(exam.written, exam.series):
        yield error(code, f"{words}; give the images that it was drawn on")
    source = exam.series.slices[0].header
    theirs = decode_text(exam.written.header.raw("PatientName"), exam.written.header.raw("SpecificCharacterSet"))
    ours = decode_text(source["PatientName"].strip(b" \0"), source["SpecificCharacterSet"].strip(b" \0"))
    if theirs.rstrip("^= ") != ours.rstrip("^= "):
        sentence = "the patient's name is written otherwise than in the images; a planning system may make two patients"
        yield exam.graver("patient_name_differs", sentence)


def images_are_listed(exam: Examination) -> Iterator[Finding]:
    """Every image that a contour names is in the list of images; our own lists hold the whole series, in order."""
    listed = {uid for _, uids in exam.written.images for uid in uids}
    if exam.own and exam.series is not None:
        expected = ((exam.series.series_instance_uid, exam.series.sop_instance_uids),)
        if exam.written.images != expected:
            yield error("images_listed", "the images that it lists are not those of the series")
    unlisted = exam.written.image_uids - listed
    if unlisted:
        sentence = f"its list of images lacks {amount(len(unlisted), 'image')} with contours; export it again"
        yield exam.graver("image_not_listed", sentence)


def contours_name_an_image(exam: Examination) -> Iterator[Finding]:
    """Every closed contour names one image (PS3.3 §C.8.8.6, Contour Image Sequence)."""
    for region in exam.regions:
        without = [index for index, contour in enumerate(region.closed) if not contour.image_uids]
        if without:
            sentence = (
                f"{len(without)} of its contours name no image, first at {region.place(without[0])}; some planning "
                "systems drop them"
            )
            yield exam.graver("contour_without_image", sentence, region.name)
        several = [index for index, contour in enumerate(region.closed) if len(contour.image_uids) > 1]
        if several:
            sentence = (
                f"{len(several)} of its contours name several images, first at {region.place(several[0])}; some "
                "programs skip them"
            )
            yield exam.graver("contour_of_images", sentence, region.name)


def contours_lie_on_their_images(exam: Examination) -> Iterator[Finding]:
    """Every closed contour lies in the plane of an image, which is the one that it names."""
    if exam.series is None:
        return
    allowed_mm = plane_tolerances_mm(exam.series.geometry)
    for region in exam.regions:
        tolerances_mm = np.full(len(region.slices), ROUNDED_MM) if exam.own else allowed_mm[region.slices]
        off = np.flatnonzero(region.far_mm > tolerances_mm)
        if off.size:
            sentence = f"{off.size} of its contours lie off the planes of the images, {_farthest(region)}"
            yield error("contour_off_plane", f"{sentence}; draw them on these images", region.name)
        elif (region.far_mm > ROUNDED_MM).any():
            sentence = f"its contours lie a little off the planes of the images, {_farthest(region)}"
            yield exam.graver("contour_off_plane", sentence, region.name, else_=Severity.NOTE)
        yield from _wrong_images(region, exam.series.sop_instance_uids)


def _wrong_images(region: ExaminedRegion, uids: tuple[str, ...]) -> Iterator[Finding]:
    wrong = [
        index
        for index, (contour, at) in enumerate(zip(region.closed, region.slices.tolist(), strict=True))
        if region.usable[index] and contour.image_uids and uids[at] not in contour.image_uids
    ]
    if wrong:
        sentence = (
            f"{len(wrong)} of its contours name another image than they lie on, first at {region.place(wrong[0])}; "
            "programs then show them in different places, so export it again"
        )
        yield error("contour_on_wrong_image", sentence, region.name)


def volumes_are_true(exam: Examination) -> Iterator[Finding]:
    """The stated volume is that of the contours (PS3.3 §C.8.8.5, ROI Volume)."""
    if exam.series is None:
        return
    for region in exam.regions:
        try:
            stated_cm3 = float(region.roi.volume_cm3)
        except ValueError:
            if region.roi.volume_cm3:
                yield exam.graver("volume_differs", "its stated volume is no number; delete it", region.name)
            continue
        held_cm3 = exam.volume_cm3(region, exam.series)
        # a volume that is no number at all fails the comparison as well
        if not abs(stated_cm3 - held_cm3) <= max(SMALLEST_DIFFERENCE_CM3, VOLUME_TOLERANCE * held_cm3):
            sentence = (
                f"it says that its volume is {stated_cm3:.1f} cm³, its contours hold {held_cm3:.1f} cm³; contours may "
                "have been lost"
            )
            yield exam.graver("volume_differs", sentence, region.name)


def _farthest(region: ExaminedRegion) -> str:
    worst = int(np.argmax(region.far_mm))
    return f"{region.far_mm[worst]:.2f} mm at {region.place(worst)}"
