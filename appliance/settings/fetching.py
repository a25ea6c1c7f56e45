"""`[fetch]` of a protocol: what is fetched from a PACS by itself, when, and how much at once."""

import re
from datetime import datetime, time
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from appliance.settings.box import Section


def _as_time_of_day(given: str) -> str:
    if re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", given) is None:
        raise ValueError(f'{given!r} is no time of day; write it as "19:30"')
    return given


TimeOfDay = Annotated[str, AfterValidator(_as_time_of_day)]
"""Local time of the box, such as "19:30"."""


class Fetch(Section):
    """A protocol with this table asks a PACS for CT series that it takes, and fetches what is not here yet."""

    peer: str  #: of peers.toml, with `query = true`
    every_min: Annotated[float, Field(ge=1, le=1440)] | None = None  #: a round this often
    at: tuple[TimeOfDay, ...] = ()  #: or rounds at these times of the day
    days: Annotated[int, Field(ge=1, le=31)] = 2  #: studies of today and the days before it, so many in all
    between: tuple[TimeOfDay, TimeOfDay] | None = None  #: only within this part of the day; it may go over midnight
    max_series: Annotated[int, Field(ge=1, le=500)] = 20  #: no more in one round; the next one goes on

    @model_validator(mode="after")
    def _one_rhythm(self) -> Self:
        if (self.every_min is None) == (not self.at):
            raise ValueError("give either `every_min` or `at`")
        if self.at and self.between is not None:
            raise ValueError("`at` says when; `between` belongs to `every_min`")
        return self

    def is_open(self, local: datetime) -> bool:
        """Whether a round may be made at this local time."""
        if self.between is None:
            return True
        begin, end = (time.fromisoformat(each) for each in self.between)
        now = local.time()
        return begin <= now < end if begin <= end else now >= begin or now < end
