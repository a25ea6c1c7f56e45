"""Anatomy of one synthetic patient, organ by organ, on a 3 mm grid."""

from appliance.phantoms.anatomy.build import Anatomy, build_anatomy, build_complete_anatomy

__all__ = ["Anatomy", "build_anatomy", "build_complete_anatomy"]
