"""From a model package to a warm ensemble: which engine runs its networks here, and on which device."""

from appliance.segmentation.arrays import host_arrays
from appliance.segmentation.backends.onnx_cpu import OnnxNetwork
from appliance.segmentation.ensemble import Ensemble
from appliance.segmentation.model_package import ModelPackage


def open_ensemble(package: ModelPackage, threads: int) -> Ensemble:
    """Load every fold of a package.

    Args:
        package: a checked package.
        threads: how many CPU threads one network run may use; 0 takes all cores.

    Raises:
        ModelRefused: MODEL_INVALID if a network cannot be run, or not on the manifest's tile and classes.
    """
    return Ensemble(package, [OnnxNetwork(path, threads) for path in package.fold_paths], host_arrays())
