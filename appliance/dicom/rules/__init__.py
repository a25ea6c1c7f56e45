"""The rules of the checker: each is a function that yields a finding for each way in which it is broken.

`RULES` and `RULES_OF_VOLUME` are those that can find an error, the latter once the contours have been filled;
`RULES_FOR_PEOPLE` only ask somebody to look.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from appliance.dicom.findings import Finding
from appliance.dicom.rules import anatomy, contours, identity, images, naming
from appliance.dicom.rules.examination import Examination

Rule: TypeAlias = Callable[[Examination], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    identity.file_meta_agrees,
    identity.names_are_its_own,
    identity.required_elements_are_there,
    identity.copies_are_exact,
    identity.label_is_short,
    identity.approval_is_plain,
    images.it_is_for_these_images,
    images.images_are_listed,
    naming.numbers_agree,
    naming.names_are_usable,
    naming.types_are_plain,
    naming.relations_lead_somewhere,
    contours.types_are_known,
    contours.contours_can_be_read,
    contours.decimals_are_short,
    contours.contours_are_planar,
    contours.structures_hold_contours,
    contours.contours_stay_in_the_image,
    images.contours_name_an_image,
    images.contours_lie_on_their_images,
    anatomy.sides_are_true,
)

RULES_OF_VOLUME: tuple[Rule, ...] = (images.volumes_are_true,)

RULES_FOR_PEOPLE: tuple[Rule, ...] = (
    naming.names_are_known,
    contours.contours_do_not_cross,
    anatomy.structures_are_whole,
    anatomy.organs_lie_apart,
)

__all__ = ["RULES", "RULES_FOR_PEOPLE", "RULES_OF_VOLUME", "Examination", "Rule"]
