"""Structures that are made from others, or found in the CT: the rules of a protocol, one after the other."""

from collections.abc import Sequence

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.roi import RoiMask
from appliance.segmentation.body import Outlines
from appliance.segmentation.margins import ring, with_margin
from appliance.segmentation.regions import difference, intersection, union
from appliance.settings import DerivedRoi


def derive(
    rules: Sequence[DerivedRoi], masks: Sequence[RoiMask], volume: CtVolume, external: str | None
) -> list[RoiMask]:
    """Make the derived structures of a protocol.

    A structure that was not found is no empty one: what it would have decided is not known. So

    - a union is made of those that were found, and not made when none was;
    - an intersection is not made when one of its structures is missing, and `within` likewise;
    - `minus` a missing structure takes nothing away;
    - the body and the couch are not made when the CT shows none, and `skin_mm` is not applied, nor the structure made,
      when there is neither the structure of type EXTERNAL nor a body in the CT.

    What turns out empty is left out, and counts as missing for the rules that follow. A derived structure takes the
    place of a given one of its name; where it cannot be made, the given one goes as well, because the protocol says
    that the name means something else.

    Args:
        rules: in the order in which they may use each other.
        masks: what was found, in boxes of the volume's grid.
        volume: the CT.
        external: the name of the structure of type EXTERNAL, if there is one, for `skin_mm`.

    Returns:
        the masks that are not empty, in their order, and behind them the derived ones that they did not hold, in the
        order of the rules.
    """
    found = {mask.name: mask for mask in masks if not mask.is_empty}
    order = dict.fromkeys([*(mask.name for mask in masks), *(rule.roi for rule in rules)])
    sources = _Sources(found, volume, external)
    for rule in rules:
        made = sources.make(rule)
        found.pop(rule.roi, None)
        if made is not None and not made.is_empty:
            found[rule.roi] = made
    return [found[name] for name in order if name in found]


class _Sources:
    """What rules are made from: structures by name, and the outlines in the CT."""

    def __init__(self, found: dict[str, RoiMask], volume: CtVolume, external: str | None) -> None:
        self._found = found
        self._geometry = volume.geometry
        self._outlines = Outlines(volume)
        self._external = external

    def make(self, rule: DerivedRoi) -> RoiMask | None:
        """One structure, perhaps empty; None if something that decides about it is missing."""
        shape = self._geometry.shape
        limits = [self._found.get(name) for name in rule.within]
        if rule.skin_mm is not None:
            limits.append(self._skin(rule.skin_mm))
        within = [limit for limit in limits if limit is not None]
        made = self._start(rule)
        if made is None or len(within) < len(limits):
            return None
        if rule.ring_mm is not None:
            made = ring(made, self._geometry, *rule.ring_mm)
        else:
            made = with_margin(made, self._geometry, rule.margin_mm)
        taken_away = [self._found[name] for name in rule.minus if name in self._found]
        if taken_away:
            made = difference(made, taken_away, shape)
        return intersection(rule.roi, [made, *within], shape)

    def _start(self, rule: DerivedRoi) -> RoiMask | None:
        """What a rule begins with."""
        if rule.from_ct is not None:
            return self._outlines.body if rule.from_ct == "body" else self._outlines.couch
        sources = [self._found[name] for name in rule.of if name in self._found]
        if rule.combine == "intersection" and len(sources) < len(rule.of):
            return None
        if not sources:
            return None
        together = union if rule.combine == "union" else intersection
        return together(rule.roi, sources, self._geometry.shape)

    def _skin(self, depth_mm: float) -> RoiMask | None:
        """What lies so far below the patient's surface; None if nobody knows where that is."""
        body = self._found.get(self._external) if self._external is not None else None
        if body is None:
            body = self._outlines.body
        return None if body.is_empty else ring(body, self._geometry, -depth_mm, 0.0)
