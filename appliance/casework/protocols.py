"""Which protocol a series is for."""

from collections.abc import Iterable

from appliance.dicom.identity import InstanceIdentity
from appliance.errors import Reason, SeriesRefused
from appliance.settings import Protocol


def choose_protocol(identity: InstanceIdentity, protocols: Iterable[Protocol]) -> Protocol:
    """The fitting protocol with the highest priority; the name decides between equals.

    Raises:
        SeriesRefused: NO_PROTOCOL, with the first rule that failed in each.
    """
    attributes = {
        "body_part": identity.body_part,
        "study_description": identity.study_description,
        "series_description": identity.series_description,
        "calling_ae": identity.source_ae,
    }
    misfits = {protocol: protocol.match.misfit(attributes) for protocol in protocols}
    fitting = [protocol for protocol, misfit in misfits.items() if misfit is None]
    if fitting:
        return min(fitting, key=lambda protocol: (-protocol.priority, protocol.name))
    why = "; ".join(f"{protocol.name} does not take {misfit}" for protocol, misfit in misfits.items())
    raise SeriesRefused(
        Reason.NO_PROTOCOL,
        f"no protocol fits this series ({why or 'none is configured'}); add or widen one in protocols/ and send again",
    )
