"""An imported nnU-Net in our engine, in a process of its own.

    python -m benchmarks.nnunet_ours PACKAGE SCAN.npz ANSWER.npz

Prints what it cost from the volume in memory to the labels, as one line of JSON, as `nnunet_peer.py predict` does.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from appliance.dicom.ct_volume import CtVolume
from appliance.dicom.geometry import SeriesGeometry
from appliance.segmentation.model_package import load_package
from appliance.segmentation.opening import open_ensemble
from benchmarks.nnunet_peer import from_here_on_mb, status_mb


def main() -> None:
    package, scan, answer = map(Path, sys.argv[1:4])
    read = np.load(scan)
    z_mm, y_mm, x_mm = (float(value) for value in read["spacing_mm"])
    hu = read["hu"]
    volume = CtVolume(hu, SeriesGeometry.axial(hu.shape, (z_mm, y_mm, x_mm)))
    ensemble = open_ensemble(load_package(package), threads=1)
    at_start_mb, started, cpu_s = from_here_on_mb(), time.perf_counter(), time.process_time()
    labels = ensemble.label(volume, lambda *_: None).labels.voxels
    cost = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu_s}
    print(json.dumps({**cost, "above_start_mb": status_mb("VmHWM") - at_start_mb}))
    np.savez_compressed(answer, labels=labels)


if __name__ == "__main__":
    main()
