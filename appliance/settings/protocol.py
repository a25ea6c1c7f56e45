"""protocols/*.toml: which series, which model, which structures in which form, which destinations."""

import re
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from appliance.dicom.roi import RoiName
from appliance.settings.box import Section
from appliance.settings.completion import Completion
from appliance.settings.fetching import Fetch
from appliance.settings.places import Mistake

MaxMillimetres = 100.0  #: margins and rings beyond this are a mistake of the unit
Margin = Annotated[float, Field(ge=-MaxMillimetres, le=MaxMillimetres)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]
"""One name or several."""


def _as_roi_name(given: str) -> str:
    try:
        return TypeAdapter[str](RoiName).validate_python(given)
    except ValidationError as unfit:
        characters = "1 to 64 letters, digits and _ ~ ^ + -, no space"
        raise ValueError(f"{given!r} is no name of a structure: it takes {characters}") from unfit


def _as_label(given: str) -> str:
    if re.fullmatch(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?", given) is None:  # SH, plain ASCII
        characters = "1 to 16 plain characters without a backslash, and no space at either end"
        raise ValueError(f"{given!r} is no Structure Set Label: it takes {characters}")
    return given


class Match(Section):
    """`[match]` of a protocol: every given list must fit; `*` and `?` are wildcards, case is ignored."""

    body_part: tuple[str, ...] = ()
    study_description: tuple[str, ...] = ()
    series_description: tuple[str, ...] = ()
    calling_ae: tuple[str, ...] = ()

    def misfit(self, attributes: dict[str, str]) -> str | None:
        """The first rule that does not fit, in words; None when all fit."""
        for name in type(self).model_fields:
            patterns = getattr(self, name)
            value = attributes.get(name, "")
            if patterns and not any(fnmatchcase(value.upper(), pattern.upper()) for pattern in patterns):
                return f"{name}={''.join(filter(str.isprintable, value)) or '(empty)'}"
        return None


class RoiChoice(Section):
    """An item of a protocol's `rois`: one structure, and how it is drawn. A plain name means all defaults.

    Limits on parts are applied to the voxels, so that contours, volumes and checks speak of the same region.
    """

    roi: str  #: its name in rois.toml
    name: Annotated[str, AfterValidator(_as_roi_name)] | None = None
    """What it is called in the result; the name in rois.toml when absent."""
    model: str | None = None  #: which of the protocol's models draws it; the first that can when absent
    largest_parts: Annotated[int, Field(ge=1)] | None = None  #: keep only so many connected parts, the largest
    min_part_cm3: Annotated[float, Field(ge=0)] = 0.0  #: drop connected parts smaller than this
    min_area_mm2: Annotated[float, Field(ge=0)] = 0.0  #: drop regions of a slice smaller than this
    smooth_mm: Annotated[float, Field(ge=0, le=2)] = 0.0  #: smooth contours, moving no point farther than this
    simplify_mm: Annotated[float, Field(ge=0, le=2)] = 0.0  #: leave out points, moving the contour no farther than this

    @property
    def written_name(self) -> str:
        """What the structure is called in the result."""
        return self.name or self.roi


class SixWayMargin(Section):
    """A margin for each direction of the patient, in mm; negative ones shrink."""

    left: Margin = 0.0
    right: Margin = 0.0
    anterior: Margin = 0.0
    posterior: Margin = 0.0
    superior: Margin = 0.0
    inferior: Margin = 0.0

    @model_validator(mode="after")
    def _one_sign(self) -> Self:
        sides = (self.left, self.right, self.anterior, self.posterior, self.superior, self.inferior)
        if min(sides) < 0 < max(sides):
            raise ValueError(
                "a margin either grows or shrinks: give all sides one sign, and do the rest in a second step"
            )
        return self


def _kind_of_margin(given: Any) -> str:
    return "sides" if isinstance(given, dict | SixWayMargin) else "number"


MarginOrSides = Annotated[
    Annotated[Margin, Tag("number")] | Annotated[SixWayMargin, Tag("sides")], Discriminator(_kind_of_margin)
]
"""One margin for all directions, or one for each."""


class DerivedRoi(Section):
    """`[[derived]]` of a protocol: a structure made from others or from the CT itself, on the CT's grid.

    In this order: take `of` (or `from_ct`), combine, then margin or ring, `minus`, `within`, `skin_mm`. Later ones may
    use earlier ones. What the protocol's `rois` do not list is used, and not written.
    """

    roi: str  #: its name in rois.toml
    of: Names = ()  #: structures of a model, or derived before
    combine: Literal["union", "intersection"] = "union"
    from_ct: Literal["body", "couch"] | None = None  #: found in the CT instead: the patient's outline, or the table
    margin_mm: MarginOrSides = 0.0  #: grow by this much in all directions, or in each its own; negative shrinks
    ring_mm: tuple[Margin, Margin] | None = None  #: what lies between two distances from the surface, outwards positive
    minus: Names = ()  #: take these away
    within: Names = ()  #: keep only what lies in all of these
    skin_mm: Annotated[float, Field(gt=0, le=MaxMillimetres)] | None = None
    """Keep what lies this far below the surface of the body: the structure of type EXTERNAL, or the one in the CT."""

    @model_validator(mode="after")
    def _one_source_and_one_growth(self) -> Self:
        if bool(self.of) == (self.from_ct is not None):
            raise ValueError("give either `of` or `from_ct`")
        if self.ring_mm is not None and self.margin_mm != 0.0:
            raise ValueError("give either `margin_mm` or `ring_mm`")
        if self.ring_mm is not None and not self.ring_mm[0] < self.ring_mm[1]:
            raise ValueError("ring_mm is [inner, outer] with inner < outer")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """Every structure that it is made from."""
        return (*self.of, *self.minus, *self.within)

    def in_words(self) -> str:
        """How it is made, such as "Femur_L or Femur_R, grown by 5 mm, without Bladder"."""
        joined = {"union": " or ", "intersection": " and "}[self.combine].join(self.of)
        found = {"body": "the patient's outline in the CT", "couch": "the table in the CT"}
        words = [joined if self.from_ct is None else found[self.from_ct], *_margin_in_words(self.margin_mm)]
        if self.ring_mm is not None:
            words.append("what lies {:g} to {:g} mm outside its surface".format(*self.ring_mm))
        if self.minus:
            words.append(f"without {' and '.join(self.minus)}")
        if self.within:
            words.append(f"within {' and '.join(self.within)}")
        if self.skin_mm is not None:
            words.append(f"at least {self.skin_mm:g} mm below the skin")
        return ", ".join(words)


def _margin_in_words(margin_mm: float | SixWayMargin) -> Iterator[str]:
    if isinstance(margin_mm, SixWayMargin):
        sides = {side: value for side, value in margin_mm if value}
        if sides:
            grown = "shrunk" if min(sides.values()) < 0 else "grown"
            yield f"{grown} " + ", ".join(f"{abs(value):g} mm {side}" for side, value in sides.items())
    elif margin_mm:
        yield f"{'grown' if margin_mm > 0 else 'shrunk'} by {abs(margin_mm):g} mm"


def _as_choice(given: Any) -> Any:
    return {"roi": given} if isinstance(given, str) else given


class Protocol(Section):
    """A file in protocols/: what to do with which series."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
    title: str
    models: Annotated[Names, Field(min_length=1, alias="model")]
    """Who draws: one model, or several whose structures become one structure set."""
    rois: Annotated[tuple[Annotated[RoiChoice, BeforeValidator(_as_choice)], ...], Field(min_length=1)]
    """What is written, in this order."""
    derived: tuple[DerivedRoi, ...] = ()
    destinations: Annotated[tuple[str, ...], Field(min_length=1)]
    label: Annotated[str, AfterValidator(_as_label)]  #: Structure Set Label
    planning_system: str = "generic"  #: its table in planning_systems.toml
    outputs: Annotated[tuple[Literal["rtstruct", "seg"], ...], Field(min_length=1)] = ("rtstruct",)
    """The structure set alone, or a DICOM Segmentation of the same voxels beside it."""
    uneven_gaps: bool = False  #: take series whose slices lie at uneven distances, each at its own place
    priority: int = 0  #: among protocols that fit, the highest wins
    match: Match = Match()
    completion: Completion = Completion()
    fetch: Fetch | None = None  #: absent: nothing is fetched by itself

    @property
    def roi_names(self) -> tuple[str, ...]:
        """The structures that are written, by their names in rois.toml."""
        return tuple(choice.roi for choice in self.rois)

    @property
    def asked_of_model(self) -> tuple[str, ...]:
        """The structures that only a model can draw: written, or used by a derived one, and not derived before."""
        asked: list[str] = []
        made: set[str] = set()
        for one in self.derived:
            asked += [name for name in one.sources if name not in made]
            made.add(one.roi)
        return tuple(dict.fromkeys([*(name for name in self.roi_names if name not in made), *asked]))

    def drawn_by(self, drawn: Mapping[str, Collection[str]]) -> dict[str, str]:
        """Which of its models draws each structure: the one that `rois` names, or the first that can.

        Args:
            drawn: what each model draws, by its name.
        """
        named = {choice.roi: choice.model for choice in self.rois if choice.model is not None}
        owners: dict[str, str] = {}
        for model in self.models:
            for roi in drawn[model]:
                if named.get(roi, model) == model:
                    owners.setdefault(roi, model)
        return owners

    @model_validator(mode="after")
    def _names_occur_once(self) -> Self:
        lists = {
            "model": self.models,
            "rois": self.roi_names,
            "destinations": self.destinations,
            "outputs": self.outputs,
            "derived": tuple(one.roi for one in self.derived),
        }
        for key, names in lists.items():
            for number, name in enumerate(names):
                if name in names[:number]:
                    raise Mistake(f"{name} is named twice in {key}; leave one", (key, number), word=name)
        return self

    @model_validator(mode="after")
    def _models_of_structures_are_its_own(self) -> Self:
        derived = {one.roi for one in self.derived}
        for number, choice in enumerate(self.rois):
            if choice.model is None:
                continue
            if choice.model not in self.models:
                sentence = f"{choice.roi} is to be drawn by {choice.model}, which `model` does not list; add it there"
                raise Mistake(sentence, ("rois", number), word=choice.model)
            if choice.roi in derived:
                sentence = f"{choice.roi} is derived, so no model draws it; leave out its `model`"
                raise Mistake(sentence, ("rois", number), word=choice.model)
        return self

    @model_validator(mode="after")
    def _derived_in_order(self) -> Self:
        used = {name for one in self.derived for name in one.sources}
        for number, one in enumerate(self.derived):
            later = {other.roi for other in self.derived[number + 1 :]}
            for name in one.sources:
                if name == one.roi:
                    sentence = f"derived {one.roi} is made from itself; give the result a name of its own"
                    raise Mistake(sentence, ("derived", number), word=name)
                if name in later:
                    sentence = f"derived {one.roi} uses {name}, which is derived after it; put {name} first"
                    raise Mistake(sentence, ("derived", number), word=name)
            if one.roi not in used and one.roi not in self.roi_names:
                sentence = f"derived {one.roi} is neither written nor used; add it to rois or leave it out"
                raise Mistake(sentence, ("derived", number), word=one.roi)
        return self

    @model_validator(mode="after")
    def _structure_set_is_written(self) -> Self:
        if "rtstruct" not in self.outputs:
            raise ValueError("outputs must hold rtstruct; seg comes beside it")
        return self
