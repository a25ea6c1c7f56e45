"""What every engine has to do, asked of each that is installed; the reference is torch's own eager network."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.segmentation.arrays import to_host
from appliance.segmentation.backends.here import Wishes, candidates, reference
from appliance.segmentation.backends.network import Network
from appliance.segmentation.model_package import ModelPackage, load_package
from appliance.segmentation.parity import Candidate, Comparison

torch = pytest.importorskip("torch")

from tests.support.unet_packages import SMALL, TILE, calibrated, make_unet_package, seeded, smooth_tiles  # noqa: E402

FAST = {"channels": 1, "classes": 4, "features": [8, 12]}
GPU_ENGINES = [("torch", "cuda"), ("onnxruntime", "cuda"), ("tensorrt", "cuda")]
ENGINES = [
    ("onnxruntime", "cpu"),
    ("torch", "cpu"),
    pytest.param(("openvino", "cpu"), marks=pytest.mark.skipif(find_spec("openvino") is None, reason="no openvino")),
    *(pytest.param(engine, marks=pytest.mark.gpu) for engine in GPU_ENGINES),
]
NETWORKS: dict[str, tuple[str, Any]] = {"batch norm": ("unet3d", SMALL), "instance norm": ("unet3d_fast", FAST)}


@pytest.fixture(scope="module", params=NETWORKS)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    network, arguments = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp("unet")
    return load_package(make_unet_package(folder, folds=1, network=network, arguments=arguments))


@pytest.fixture(scope="module", params=ENGINES, ids=" on ".join)
def candidate(request: pytest.FixtureRequest, package: ModelPackage) -> Candidate:
    name, device = request.param
    if (name, device) == ("onnxruntime", "cpu"):
        return reference(package, threads=1)
    found = candidates(package, Wishes(threads=1, device=device, engines=(name,)))
    here = [one for one in found if one.engine.name == name and one.engine.is_on_host == (device == "cpu")]
    if not here:
        pytest.skip(f"this {name} was built without a GPU")
    return here[0]


@pytest.fixture(scope="module")
def network(candidate: Candidate) -> Network:
    return candidate.open(0)


@pytest.fixture(scope="module")
def ask(candidate: Candidate, network: Network) -> Callable[[Any], Any]:
    """Asks the network where its tiles live, and brings the answer here."""
    return lambda tiles: to_host(network.run(candidate.arrays.array(tiles)))


@pytest.fixture(scope="module")
def eager(package: ModelPackage) -> Iterator[Callable[[Any], Any]]:
    definition = package.manifest.network
    assert definition is not None
    module = calibrated(seeded(definition.name, definition.arguments, 0), (1, 1, *TILE))
    with torch.inference_mode():
        yield lambda tiles: module(torch.from_numpy(tiles)).numpy()


def test_it_gives_the_logits_and_the_labels_of_the_reference(ask: Any, eager: Any) -> None:
    tiles = smooth_tiles(3, (1, *TILE))
    expected = eager(tiles)
    assert min(np.bincount(expected.argmax(1).ravel(), minlength=4)) > 50  # or equal labels would mean little
    answer = ask(tiles)
    assert answer.dtype == np.float32
    comparison = Comparison(classes=4)
    comparison.add(expected, answer)
    assert comparison.objection is None
    assert np.abs(answer - expected).max() < 1e-3


def test_it_states_the_shapes_of_a_tile_and_of_its_answer(network: Network) -> None:
    assert network.input_shape[1:] == (1, *TILE)
    assert network.output_shape[1:] == (4, *TILE)


def test_several_tiles_at_once_are_answered_as_each_alone(ask: Any) -> None:
    tiles = smooth_tiles(3, (1, *TILE))
    alone = np.concatenate([ask(tiles[number : number + 1]) for number in range(3)])
    together = ask(tiles)
    assert np.array_equal(together.argmax(1), alone.argmax(1))
    assert np.allclose(together, alone, atol=1e-4)


def test_an_answer_may_be_overwritten_without_changing_the_next(candidate: Candidate, network: Network) -> None:
    tile = candidate.arrays.array(smooth_tiles(1, (1, *TILE)))
    first = network.run(tile)
    kept = to_host(first).copy()
    first *= 0
    assert np.array_equal(to_host(network.run(tile)), kept)


def test_tiles_are_left_as_they_were(candidate: Candidate, network: Network) -> None:
    tiles = smooth_tiles(1, (1, *TILE))
    given = candidate.arrays.array(tiles.copy())
    network.run(given)
    assert np.array_equal(to_host(given), tiles)


def test_an_answer_lives_where_its_tiles_do(candidate: Candidate, network: Network) -> None:
    tile = candidate.arrays.array(smooth_tiles(1, (1, *TILE)))
    answer = network.run(tile)
    assert type(answer) is type(tile)
    assert str(answer.device) == str(tile.device)


def test_two_threads_at_once_get_each_its_own_answer(ask: Any) -> None:
    tiles = smooth_tiles(6, (1, *TILE))
    alone = [ask(tiles[number : number + 1]) for number in range(6)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda number: ask(tiles[number : number + 1]), range(6)))
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(alone, together, strict=True))


def test_a_network_names_its_engine(candidate: Candidate, network: Network) -> None:
    assert network.engine == candidate.engine.words


def test_weights_that_were_altered_after_the_package_was_checked_are_refused(tmp_path: Path) -> None:
    package = load_package(make_unet_package(tmp_path, folds=1))
    for candidate in [reference(package, 1), *candidates(package, Wishes(threads=1))]:
        for path in tmp_path.glob("fold_0.*"):
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(Exception, match="sha256"):
            candidate.open(0)
        for path in tmp_path.glob("fold_0.*"):
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
