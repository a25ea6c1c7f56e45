"""Delineate: a hospital edge appliance that contours CT for radiotherapy."""

import os

__version__ = "0.1.0"

IMPLEMENTATION_CLASS_UID = "2.25.201938475610293847561029384756102938475"
"""Names this implementation in every association and file (PS3.7 §D.3.3.2); a UUID-derived UID (PS3.5 §B.2)."""

# Before numpy is loaded: its matrix products here are small, and BLAS threads that spin for them cost more CPU than
# they save. The networks' threads are set apart (worker.threads).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Before ONNX Runtime is loaded: its builds report usage to their maker unless told not to. Nothing leaves the hospital.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
