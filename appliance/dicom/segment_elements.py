"""What each segment of a Segmentation stands for: name, codes, side, colour and what drew it (PS3.3 §C.8.20.2).

The library highdicom makes the items, and refuses what the standard does not allow. Loading it takes a tenth of a
second, so only what writes a Segmentation imports this file.
"""

from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.sr.coding import Code

from appliance.dicom.explicit_vr import encoded
from appliance.dicom.roi import InterpretedType, RoiCode, RoiTemplate
from appliance.dicom.roi_elements import SIDES, Algorithm

_ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_OBJECT = Code("260787004", "SCT", "Physical object")
_PLACE = Code("309825002", "SCT", "Spatial and Relational Concept")
_TARGET = Code("130041", "DCM", "RT Target")

#: category, and the type for a structure without a code of its own (PS3.16 CID 7150, 9502, 9534, 9535)
_MEANINGS: dict[InterpretedType, tuple[Code, Code]] = {
    "EXTERNAL": (_ANATOMY, Code("38266002", "SCT", "Entire body")),
    "ORGAN": (_ANATOMY, Code("130060", "DCM", "Organ At Risk")),
    "CAVITY": (_ANATOMY, Code("130060", "DCM", "Organ At Risk")),
    "AVOIDANCE": (_PLACE, Code("130058", "DCM", "Avoidance Volume")),
    "SUPPORT": (_OBJECT, Code("86407004", "SCT", "Table")),
    "FIXATION": (_OBJECT, Code("130044", "DCM", "Fixation or Positioning Device")),
    "GTV": (_TARGET, Code("228791009", "SCT", "GTV")),
    "CTV": (_TARGET, Code("228792002", "SCT", "CTV")),
    "PTV": (_TARGET, Code("228793007", "SCT", "PTV")),
    "DOSE_REGION": (_PLACE, Code("130061", "DCM", "Radiation Dose Shaping Volume")),
}
_MAX_SHORT_TEXT = 1024  # PS3.5 §6.2


def segment(number: int, template: RoiTemplate, algorithm: Algorithm, recipe: str, tracking_uid: str) -> bytes:
    """Encode an item of the Segment Sequence, in explicit form.

    Args:
        number: Segment Number, counted from 1 without gaps.
        template: how the region is written.
        algorithm: what drew it.
        recipe: how it was derived from others, in words; empty for the model's own.
        tracking_uid: names this structure of this series in all results.
    """
    category, property_type = _MEANINGS[template.interpreted_type]
    own = template.code or template.fma
    item = SegmentDescription(
        number,
        template.name,
        category,
        property_type if own is None else _code(own),
        SegmentAlgorithmTypeValues.AUTOMATIC,
        _identification(algorithm),
        tracking_uid=tracking_uid,
        tracking_id=template.name,
        display_color=CIELabColor.from_rgb(*template.colour),
    )
    item.SegmentDescription = f"Automatic draft, not reviewed{': ' if recipe else ''}{recipe}"[:_MAX_SHORT_TEXT]
    if template.side is not None and (own is None or own.scheme != "FMA"):  # which names the side itself
        side = CodedConcept.from_code(Code(*SIDES[template.side]))
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return encoded(item)


def _identification(algorithm: Algorithm) -> AlgorithmIdentificationSequence:
    family = Code(*algorithm.family)
    sequence = AlgorithmIdentificationSequence(algorithm.name, family, algorithm.version, algorithm.source)
    sequence[0].AlgorithmParameters = algorithm.parameters
    return sequence


def _code(code: RoiCode) -> Code:
    return Code(code.value, code.scheme, code.meaning)
