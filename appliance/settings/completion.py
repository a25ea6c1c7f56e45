"""`[completion]` of a protocol: which signs make a series complete, and how long each of them is waited for."""

from dataclasses import dataclass
from typing import Literal

from appliance.settings.box import IntakeSettings, Peer, Seconds, Section

CountRule = Literal["if_answered", "required", "ignore"]


class Completion(Section):
    """When a series of this protocol is complete. What is absent is as `[intake]` of appliance.toml says."""

    quiet_s: Seconds | None = None  #: instead of intake.series_quiet_s
    incomplete_wait_s: Seconds | None = None  #: instead of intake.incomplete_wait_s
    count: CountRule = "if_answered"
    """Number of Series Related Instances at the PACS: counts where the PACS tells it, must be had, or is not asked."""
    count_peer: str | None = None  #: who is asked, of peers.toml; whoever sent the series when absent
    count_wait_s: Seconds = 20.0  #: after the quiet time, an answer is waited for this long
    fetch_missing: bool = False  #: fetch from that peer what it has and we lack


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRules:
    """What holds for one series: its protocol's settings over those of the box.

    Attributes:
        peer: the name of who is asked for the count; None when nobody is.
    """

    quiet_s: float
    incomplete_wait_s: float
    count: CountRule = "ignore"
    count_wait_s: float = 0.0
    peer: str | None = None
    fetch_missing: bool = False


def completion_rules(
    completion: Completion | None, intake: IntakeSettings, peers: dict[str, Peer], source_ae: str
) -> CompletionRules:
    """The rules for a series.

    Args:
        completion: of its protocol; None when none fits it.
        intake: the defaults of the box.
        peers: who may be asked.
        source_ae: who sent the series.
    """
    if completion is None:
        return CompletionRules(quiet_s=intake.series_quiet_s, incomplete_wait_s=intake.incomplete_wait_s)
    sender = next((name for name, peer in peers.items() if peer.ae_title == source_ae), None)
    name = completion.count_peer or sender
    asked = name is not None and name in peers and peers[name].query and completion.count != "ignore"
    return CompletionRules(
        quiet_s=completion.quiet_s or intake.series_quiet_s,
        incomplete_wait_s=completion.incomplete_wait_s or intake.incomplete_wait_s,
        count=completion.count,
        count_wait_s=completion.count_wait_s,
        peer=name if asked else None,
        fetch_missing=completion.fetch_missing and asked,
    )
