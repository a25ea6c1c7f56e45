"""Synthetic CT of the pelvis and abdomen with known truth: for the demo, the tests and the bundled model."""

from appliance.phantoms.phantom import Phantom, make_phantom

__all__ = ["Phantom", "make_phantom"]
