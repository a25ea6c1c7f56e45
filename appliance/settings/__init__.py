"""One frozen `Settings`, read once from a folder of TOML files; a key that means nothing stops the start.

    appliance.toml          this box: where it keeps things, how it listens, how patient it is
    peers.toml              the DICOM nodes that it talks to
    protocols/*.toml        which series, which model, which structures, which destinations
    rois.toml               TG-263 names with colour, type and codes
    planning_systems.toml   what each planning system takes

Nothing outside this room reads configuration or the environment.
"""

from appliance.dicom.planning_system import PlanningSystem
from appliance.settings.box import BoxSettings, Peer
from appliance.settings.configuration import Settings, load_settings
from appliance.settings.protocol import DerivedRoi, Match, Protocol, RoiChoice, SixWayMargin

__all__ = [
    "BoxSettings",
    "DerivedRoi",
    "Match",
    "Peer",
    "PlanningSystem",
    "Protocol",
    "RoiChoice",
    "Settings",
    "SixWayMargin",
    "load_settings",
]
