"""The count as a sign of completeness: what the PACS's number says about a series, and how that is put in words.

A missing first or last slice leaves no gap, so geometry cannot see it; only the count can (docs/adr/0029).
"""

from appliance.errors import Reason, SeriesRefused
from appliance.records.tables import Case, CountSign
from appliance.settings.completion import CompletionRules


def count_sign(case: Case, here: int) -> CountSign:
    """What the PACS's last answer says, compared with how many slices are here."""
    if case.expected_slices is not None:
        if here < case.expected_slices:
            return CountSign.SHORT
        return CountSign.CONFIRMED if here == case.expected_slices else CountSign.SURPLUS
    return CountSign.NOT_ASKED if case.count_asked_at is None and case.count_wanted_at is None else CountSign.UNANSWERED


def check_count(case: Case, here: int, rules: CompletionRules) -> None:
    """See that the count does not speak against completion.

    Raises:
        SeriesRefused: SERIES_INCOMPLETE, the PACS has more; COUNT_UNKNOWN, the protocol asks for a count and there is
            none. Both may still be cured by waiting.
    """
    if rules.count == "ignore":
        return
    sign = count_sign(case, here)
    if sign is CountSign.SHORT:
        raise SeriesRefused(Reason.SERIES_INCOMPLETE, short_words(case, here, rules) + "; send the rest")
    if rules.count == "required" and sign in {CountSign.NOT_ASKED, CountSign.UNANSWERED}:
        why = case.count_sentence or "the count was asked for and there is no answer yet"
        if rules.peer is None:
            why = "nobody can be asked: give count_peer in the protocol, and `query = true` in peers.toml"
        sentence = f"{here} slices received, and the protocol wants the PACS's own count before contouring; {why}"
        raise SeriesRefused(Reason.COUNT_UNKNOWN, sentence)


def short_words(case: Case, here: int, rules: CompletionRules) -> str:
    """Such as "118 slices received, pacs says 240"."""
    return f"{here} slices received, {rules.peer or 'the PACS'} says {case.expected_slices}"


def deciding_signs(case: Case, here: int, rules: CompletionRules) -> str:
    """Which signs made a series complete, for the trail."""
    peer = rules.peer or "the PACS"
    return {
        CountSign.CONFIRMED: f"quiet time, geometry and the count of {peer} ({case.expected_slices})",
        CountSign.SURPLUS: f"quiet time and geometry; {peer} counts {case.expected_slices}, fewer than are here",
        CountSign.SHORT: f"quiet time and geometry; {peer} counts {case.expected_slices}, which was not to be asked",
        CountSign.UNANSWERED: "quiet time and geometry; count not confirmed"
        + (f": {case.count_sentence}" if case.count_sentence else ": no answer in time"),
        CountSign.NOT_ASKED: "quiet time and geometry; no count was asked for",
    }[count_sign(case, here)]
