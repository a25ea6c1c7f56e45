"""What a planning system takes, so that it imports a structure set without a message."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class PlanningSystem(BaseModel):
    """The form in which a planning system wants its structure sets: a table of planning_systems.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_name_length: Annotated[int, Field(ge=4, le=64)] = 16  #: characters of a structure's name that it keeps
    long_names: Literal["refuse", "cut"] = "refuse"
    """Whether a longer name stops the start, or is cut; names that are equal once they are cut always stop it."""
    empty_rois: Literal["omit", "declare"] = "omit"
    """A structure that was not found is left out, or declared without contours."""
    holes: Literal["keyhole", "nested", "xor"] = "keyhole"
    """How a hole is written (PS3.3 §C.8.8.6.3): joined to its boundary, as every reader takes it; as a contour of its
    own within another; or likewise, marked CLOSEDPLANAR_XOR."""
    max_points: Annotated[int, Field(ge=50)] | None = None
    """Most points of one contour; longer ones are simplified, by less than half a pixel."""
    approval: Literal["unapproved", "absent"] = "unapproved"
    """Whether Approval Status says UNAPPROVED, or the Approval module is left out."""
    codes: Literal["SCT", "FMA", "none"] = "SCT"
    """The terminology of the structures' codes: SNOMED CT or the Foundational Model of Anatomy."""
