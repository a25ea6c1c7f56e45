"""However a structure set or its CT is changed, what is read is what the files say, or a named refusal.

Each mutant is one correct file with one thing changed. Where the change touches what says where a structure lies, the
voxels must be those that an independent judge finds in the changed file. Any other change leaves the voxels as they
were, or is refused. Nothing else may happen: no other volume, no other exception.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ImplicitVRLittleEndian

from appliance.dicom.ct_series import CtSeries, assemble_series
from appliance.dicom.ct_slice import CtSlice, parse_slice
from appliance.dicom.findings import Finding
from appliance.dicom.structure_check import examine
from appliance.dicom.structure_reader import read_regions
from appliance.errors import Reason, Refused, StructureSetRefused
from tests.support.contour_judge import fill_by_number
from tests.support.ct_files import make_ct_series, set_raw
from tests.support.foreign_structure_sets import saved
from tests.support.structure_sets import KEYHOLE, NESTED, structure_set_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says that what it writes is wrong

SHAPE = (6, 12, 15)
Place = tuple[tuple[str, int], ...]

#: what says where a structure lies and what it is called: a change here changes what the file means
SAYS_WHERE = {
    "ContourData",
    "ContourGeometricType",
    "ContourSequence",
    "ROIContourSequence",
    "ReferencedROINumber",
    "ROINumber",
    "StructureSetROISequence",
}
SAYS_WHERE_IN_CT = {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"}

VALUES = (
    b"",
    b"0",
    b"1",
    b"2",
    b"-1",
    b"7.5",
    b"nan",
    b"1e999",
    b"99999999999",
    b"1.2.3",
    b"1.02.3",
    b"\\",
    b"1\\2\\3",
    b"1\\0\\0\\0\\1\\0",
    b"POINT",
    b"CLOSEDPLANAR_XOR",
    b"ORGAN",
    b"19500102",
    b"ISO_IR 192",
    b"\xff\xfe\xfd",
    b" ",
    b"\0\0",
    b"A" * 70,
)
"""Values of every kind, right in some places and wrong in most."""

READ = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientBirthDate",
    "PatientName",
    "SpecificCharacterSet",
    "Modality",
    "ReferencedFrameOfReferenceSequence",
    "RTReferencedStudySequence",
    "RTReferencedSeriesSequence",
    "ContourImageSequence",
    "ReferencedSOPInstanceUID",
    "StructureSetROISequence",
    "ROINumber",
    "ROIName",
    "ROIVolume",
    "ReferencedFrameOfReferenceUID",
    "ROIContourSequence",
    "ReferencedROINumber",
    "ContourSequence",
    "ContourGeometricType",
    "NumberOfContourPoints",
    "ContourData",
    "SourcePixelPlanesCharacteristicsSequence",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "RTROIObservationsSequence",
    "RTROIInterpretedType",
    "ApprovalStatus",
    "StructureSetLabel",
)
"""The elements of a structure set that are read."""

CT_ELEMENTS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SOPInstanceUID",
    "SOPClassUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "InstanceNumber",
    "SpecificCharacterSet",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PixelData",
    "PatientSex",
    "SliceThickness",
)
CT_VALUES = {
    "ImageOrientationPatient": [b"-1\\0\\0\\0\\-1\\0", b"0\\1\\0\\1\\0\\0", b"0.999\\0.0447\\0\\-0.0447\\0.999\\0"],
    "PixelSpacing": [b"1.3\\0.9", b"0.91\\1.3", b"0.9"],
    "ImagePositionPatient": [b"-185.044\\-311.319\\-811.9", b"-184.044\\-311.319\\-812.0", b"0\\0\\0"],
    "Rows": [b"\x0f\0", b"\x0c\0\x0c\0"],
    "Columns": [b"\x0c\0"],
}


@dataclass(frozen=True)
class Case:
    """A correct CT with a correct structure set, and the voxels that they mean."""

    paths: list[Path]
    slices: list[CtSlice]
    series: CtSeries
    content: bytes
    masks: dict[str, NDArray[np.bool_]]
    states_its_grid: bool
    places: dict[str, list[Place]]  #: every element of the structure set: the ways to it, by keyword
    folder: Path

    def some_keyword(self, dice: random.Random) -> str:
        """An element of the structure set, mostly one that is read; of contours there are far more than of the rest."""
        return dice.choice([one for one in READ if one in self.places] if dice.random() < 0.8 else sorted(self.places))

    @property
    def dataset(self) -> FileDataset:
        return dcmread(BytesIO(self.content))


def small_regions() -> dict[str, NDArray[np.bool_]]:
    """A body, an organ with a hole, and one on the left that is there on some slices only."""
    _, y, x = np.indices(SHAPE)
    distance = np.maximum(np.abs(y - 6), np.abs(x - 6))
    left = (x > 9) & (y > 2) & (y < 8)
    left[0] = left[-1] = False
    return {"External": distance < 6, "Ring": (distance < 5) & (distance > 1), "Kidney_L": left}


@pytest.fixture(scope="module", params=["plain", "with its grid"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("mutants")
    paths = make_ct_series(folder, slices=SHAPE[0], rows=SHAPE[1], columns=SHAPE[2])
    for path in paths:  # in implicit VR a value of raw bytes stays of its own kind
        image = dcmread(path)
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        path.write_bytes(saved(FileDataset("", image, file_meta=image.file_meta, preamble=bytes(128))))
    slices = [parse_slice(path) for path in paths]
    series = assemble_series(slices)
    masks = small_regions()
    content = structure_set_of(series, masks, form=NESTED if request.param == "plain" else KEYHOLE).content
    if request.param == "plain":
        dataset = dcmread(BytesIO(content))
        for item in dataset.ROIContourSequence:
            del item.SourcePixelPlanesCharacteristicsSequence
        content = saved(dataset)
    places: dict[str, list[Place]] = {}
    for place, keyword in elements(dcmread(BytesIO(content))):
        places.setdefault(keyword, []).append(place)
    return Case(paths, slices, series, content, masks, request.param != "plain", places, folder)


def elements(dataset: Dataset, above: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every element of a data set by the way to its item and its keyword."""
    for element in dataset:
        yield above, element.keyword
        if element.VR == "SQ":
            for index, item in enumerate(element.value):
                yield from elements(item, (*above, (element.keyword, index)))


def item_at(dataset: Dataset, place: Place) -> Dataset:
    for keyword, index in place:
        dataset = dataset[keyword].value[index]
    return dataset


def raw(item: Dataset, keyword: str) -> bytes:
    element = item.get_item(keyword)
    if isinstance(element.value, bytes):
        return element.value
    single = Dataset()
    single[keyword] = element
    written = BytesIO()
    single.save_as(written, implicit_vr=True, little_endian=True)
    return written.getvalue()[8:]


def change_sequence(sequence: Any, how: int) -> None:
    """Empty it, double an item, turn it round, or drop an end."""
    match how % 5:
        case 0:
            sequence.clear()
        case 1:
            sequence.append(deepcopy(sequence[0]))
        case 2:
            sequence.reverse()
        case 3:
            sequence.pop()
        case _:
            del sequence[0]


def put(item: Dataset, keyword: str, value: bytes) -> None:
    """Set an element to bytes as they stand, as far as the writer lets us."""
    if keyword == "SpecificCharacterSet":
        item.SpecificCharacterSet = value.strip(b"\0").decode("latin-1")
    else:
        set_raw(item, keyword, value)


def mutate(dataset: FileDataset, place: Place, keyword: str, how: int, other: bytes) -> None:
    """Change one element: delete, empty, cut, alter a character, or replace it."""
    item = item_at(dataset, place)
    element = item[keyword]
    if how == 0:
        del item[keyword]
    elif element.VR == "SQ":
        if element.value:
            change_sequence(element.value, how)
    else:
        value = raw(item, keyword)
        match how:
            case 1:
                value = value[: len(value) // 2]
            case 2:
                value = bytes(reversed(value))
            case 3:
                value = value[:-2] + bytes([value[-2] ^ 1]) + value[-1:] if len(value) > 1 else b"?"
            case 4:
                value = b" " + value
            case _:
                value = other
        put(item, keyword, value)


def outcome(read: Callable[[], dict[str, NDArray[np.bool_]]]) -> dict[str, NDArray[np.bool_]] | Refused:
    try:
        return read()
    except Refused as refused:
        return refused


def is_plain(refused: Refused) -> bool:
    return refused.reason in Reason and "Phantom" not in refused.sentence


def read_against(content: bytes, series: CtSeries) -> dict[str, NDArray[np.bool_]]:
    return {name: mask.in_grid(series.geometry.shape) for name, mask in read_regions(content, series).items()}


def is_same(first: dict[str, NDArray[np.bool_]], second: dict[str, NDArray[np.bool_]]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def is_as_judged(read: dict[str, NDArray[np.bool_]], content: bytes, paths: list[Path]) -> bool:
    """Whether the voxels, in the order of the regions, are those that the judge finds in the changed files."""
    dataset = dcmread(BytesIO(content))
    judged = fill_by_number(dataset, paths)
    numbers = [int(item.ROINumber) for item in dataset.StructureSetROISequence]
    return len(numbers) == len(read) and all(
        np.array_equal(voxels, judged.get(number, np.zeros_like(voxels)))
        for number, voxels in zip(numbers, read.values(), strict=True)
    )


def check_findings(content: bytes, series: CtSeries) -> None:
    for images in (series, None):
        found = examine(content, images, {})
        assert all(isinstance(one, Finding) and one.sentence and "Phantom" not in one.sentence for one in found)


def check_structure_mutant(case: Case, content: bytes, mutant: str, *, says_where: bool) -> None:
    read = outcome(lambda: read_against(content, case.series))
    check_findings(content, case.series)
    if isinstance(read, Refused):
        assert isinstance(read, StructureSetRefused), mutant
        assert is_plain(read), mutant
        return
    if not is_same(read, case.masks):
        renamed = len(read) == len(case.masks) and all(map(np.array_equal, read.values(), case.masks.values()))
        assert renamed or (says_where and is_as_judged(read, content, case.paths)), mutant


@pytest.mark.parametrize("seed", range(8))
def test_a_changed_element_of_a_structure_set_never_gives_another_volume(case: Case, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(30):
        keyword = case.some_keyword(dice)
        place = dice.choice(case.places[keyword])
        how, other = dice.randrange(8), dice.choice(VALUES)
        dataset = case.dataset
        mutate(dataset, place, keyword, how, other)
        mutant = f"{place} {keyword} {how} {other!r}"
        check_structure_mutant(case, saved(dataset), mutant, says_where=keyword in SAYS_WHERE)


@pytest.mark.parametrize("seed", range(2))
def test_values_exchanged_between_two_places_never_give_another_volume(case: Case, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(60):
        keyword = case.some_keyword(dice)
        if keyword.endswith("Sequence"):
            continue
        one, other = (dice.choice(case.places[keyword]) for _ in range(2))
        dataset = case.dataset
        first, second = raw(item_at(dataset, one), keyword), raw(item_at(dataset, other), keyword)
        put(item_at(dataset, one), keyword, second)
        put(item_at(dataset, other), keyword, first)
        check_structure_mutant(case, saved(dataset), f"{one} {other} {keyword}", says_where=keyword in SAYS_WHERE)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_of_a_structure_set_never_give_another_volume(case: Case, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(60):
        content = bytearray(case.content)
        at, how = dice.randrange(132, len(content)), dice.randrange(5)
        match how:
            case 0:
                del content[at:]
            case 1:
                content[at] ^= 1 << dice.randrange(8)
            case 2:
                content[at : at + 4] = dice.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\0\xe0"])
            case 3:
                del content[at : at + dice.randint(1, 40)]
            case _:
                content[at:at] = content[at : at + dice.randint(1, 40)]
        check_structure_mutant(case, bytes(content), f"{how} at {at}", says_where=True)


def read_with_changed_ct(case: Case, changed: dict[int, Path]) -> tuple[CtSeries, dict[str, NDArray[np.bool_]]]:
    slices = [parse_slice(changed[index]) if index in changed else one for index, one in enumerate(case.slices)]
    # slices of another series are another series
    ((usual, _),) = Counter(one.series_instance_uid for one in slices).most_common(1)
    series = assemble_series([one for one in slices if one.series_instance_uid == usual])
    return series, read_against(case.content, series)


def changed_ct(case: Case, indices: list[int], change: Callable[[FileDataset], object]) -> dict[int, Path]:
    """Write changed copies of some slices."""
    changed = {}
    for index in indices:
        dataset = dcmread(case.paths[index])
        change(dataset)
        changed[index] = case.folder / f"changed_{index}"
        changed[index].write_bytes(saved(dataset))
    return changed


def check_ct_mutant(case: Case, changed: dict[int, Path], mutant: str, *, says_where: bool) -> None:
    series: list[CtSeries] = []

    def read() -> dict[str, NDArray[np.bool_]]:
        assembled, masks = read_with_changed_ct(case, changed)
        series.append(assembled)
        return masks

    masks = outcome(read)
    if isinstance(masks, Refused):
        assert is_plain(masks), mutant
        return
    same_images = series[0].sop_instance_uids == case.series.sop_instance_uids
    if same_images and is_same(masks, case.masks):
        return
    assert says_where, mutant
    assert is_as_judged(masks, case.content, [one.path for one in series[0].slices]), mutant


@pytest.mark.parametrize("seed", range(5))
def test_a_changed_element_of_the_ct_never_gives_another_volume(case: Case, seed: int) -> None:
    dice = random.Random(seed)
    says_where = set() if case.states_its_grid else SAYS_WHERE_IN_CT
    for _ in range(30):
        keyword = dice.choice(CT_ELEMENTS)
        how, other = dice.randrange(8), dice.choice([*VALUES, *3 * CT_VALUES.get(keyword, ())])
        indices = dice.choice([[0], [2], [5], list(range(6))])
        changed = changed_ct(case, indices, partial(mutate, place=(), keyword=keyword, how=how, other=other))
        check_ct_mutant(case, changed, f"{indices} {keyword} {how} {other!r}", says_where=keyword in says_where)


def moved(dataset: FileDataset, by_mm: tuple[float, float, float]) -> None:
    dataset.ImagePositionPatient = [
        f"{at + step:.3f}" for at, step in zip(dataset.ImagePositionPatient, by_mm, strict=True)
    ]


WHOLE_CHANGES: dict[str, Callable[[FileDataset], object]] = {
    "to the side": partial(moved, by_mm=(1.3, 0.0, 0.0)),
    "to the back": partial(moved, by_mm=(0.0, 2.0, 0.0)),
    "by a slice": partial(moved, by_mm=(0.0, 0.0, 3.0)),
    "by a little": partial(moved, by_mm=(0.0, 0.0, 0.3)),
    "by half a slice": partial(moved, by_mm=(0.0, 0.0, 1.5)),
    "wider pixels": partial(put, keyword="PixelSpacing", value=b"0.9\\1.4"),
    "exchanged spacings": partial(put, keyword="PixelSpacing", value=b"1.3\\0.9"),
    "prone": partial(put, keyword="ImageOrientationPatient", value=b"-1\\0\\0\\0\\-1\\0"),
    "feet first": partial(put, keyword="ImageOrientationPatient", value=b"-1\\0\\0\\0\\1\\0"),
    "turned a little": partial(put, keyword="ImageOrientationPatient", value=b"0.9994\\0.0349\\0\\-0.0349\\0.9994\\0"),
}


@pytest.mark.parametrize("change", WHOLE_CHANGES.values(), ids=WHOLE_CHANGES)
def test_a_ct_that_lies_elsewhere_as_a_whole_is_read_as_it_lies_or_refused(
    case: Case, change: Callable[[FileDataset], object]
) -> None:
    check_ct_mutant(case, changed_ct(case, list(range(6)), change), "all", says_where=not case.states_its_grid)


@pytest.mark.parametrize("keyword", CT_ELEMENTS)
def test_slices_that_exchange_a_value_never_give_another_volume(case: Case, keyword: str) -> None:
    for one, other in ((0, 1), (1, 3), (5, 0)):
        values = {k: raw(dcmread(case.paths[k]), keyword) for k in (one, other)}
        changed = changed_ct(case, [one], partial(put, keyword=keyword, value=values[other]))
        changed |= changed_ct(case, [other], partial(put, keyword=keyword, value=values[one]))
        check_ct_mutant(case, changed, f"{one} {other}", says_where=False)


@pytest.mark.parametrize("seed", range(2))
def test_a_ct_with_slices_missing_is_refused_and_its_order_means_nothing(case: Case, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(20):
        slices = dice.sample(case.slices, len(case.slices))
        assert is_same(read_against(case.content, assemble_series(slices)), case.masks)
        fewer = slices[dice.randint(1, 3) :]
        assert isinstance(outcome(lambda few=fewer: read_against(case.content, assemble_series(few))), Refused)


@pytest.mark.parametrize("seed", range(2))
def test_damaged_bytes_of_the_ct_never_give_another_volume(case: Case, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(30):
        index = dice.randrange(6)
        content = bytearray(case.paths[index].read_bytes())
        at, cut = dice.randrange(132, len(content)), dice.random() < 0.5
        if cut:
            del content[at:]
        else:
            content[at] ^= 1 << dice.randrange(8)
        path = case.folder / "damaged"
        path.write_bytes(content)
        check_ct_mutant(case, {index: path}, f"slice {index} at {at}", says_where=False)
