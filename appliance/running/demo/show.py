"""The demo's story, told on one screen: every state of one case as it happens, then the result and its proof."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from appliance.audit.trail import trail_of
from appliance.casework.case import FINAL
from appliance.clock import monotonic_s, now_utc
from appliance.delivery.store_scu import send_files
from appliance.dicom.contours import RoiContours
from appliance.dicom.ct_series import CtSeries, assemble_series
from appliance.dicom.ct_slice import parse_slice
from appliance.dicom.ct_volume import load_volume
from appliance.dicom.rasterising import rasterise
from appliance.dicom.structure_reader import read_contours
from appliance.errors import ApplianceError
from appliance.phantoms import Phantom, make_phantom
from appliance.phantoms.ct_files import write_ct_series
from appliance.records import Database, queries
from appliance.records.tables import Case, CaseState
from appliance.running import showing
from appliance.running.demo.box import DemoBox
from appliance.running.demo.picture import draw
from appliance.running.demo.screen import Screen
from appliance.running.roles import stop_on_signal
from appliance.segmentation.agreement import dice
from appliance.settings import Protocol, Settings

SEED = 34
SPACING_MM, SHAPE = (3.0, 0.977, 0.977), (100, 512, 512)
_GIVE_UP_S = 900.0


def run_demo(installed: Settings, folder: Path, ct: Path | None, console: Console, *, keep: bool) -> None:
    """Run the demo; returns when the result is shown (or, with `keep`, on Ctrl-C).

    Raises:
        ApplianceError: the appliance stopped, or the case did not end well; the sentence says why.
    """
    screen = Screen(console)
    screen.say("Delineate: a CT series goes in over DICOM, a structure set comes back to the PACS.")
    box = DemoBox(installed, folder)
    box.start()
    screen.say(f"Starting the appliance and a small PACS on loopback (log: {box.log})")
    try:
        paths, phantom = _ct(box, ct, screen)
        screen.wait_for(box.is_ready, "the appliance to answer C-ECHO", _GIVE_UP_S)
        case = _send_and_follow(box, paths, screen)
        _show_result(box, case, paths, phantom, console)
        if case.state not in {CaseState.DELIVERED, CaseState.COMMITTED}:
            raise ApplianceError(f"the case ended as {case.state}: {case.sentence}")
        if keep:
            _stay(box, screen)
    finally:
        screen.say(f"Stopped in {box.stop():.1f} s.")


def _ct(box: DemoBox, ct: Path | None, screen: Screen) -> tuple[list[Path], Phantom | None]:
    """The series to send: the user's own, or a phantom with known truth."""
    if ct is not None:
        paths = sorted(path for path in ct.rglob("*") if path.is_file())
        screen.say(f"Your CT: {len(paths)} files from {ct}")
        return paths, None
    slices, rows, columns = SHAPE
    screen.say(f"Drawing a phantom with known truth (seed {SEED}, {slices} slices of {rows} x {columns})")
    with ThreadPoolExecutor(1) as aside:
        drawing = aside.submit(_draw_phantom, box.folder / "ct")
        screen.wait_for(drawing.done, "the phantom", _GIVE_UP_S)
        return drawing.result()


def _draw_phantom(folder: Path) -> tuple[list[Path], Phantom]:
    phantom = make_phantom(SEED, spacing_mm=SPACING_MM, shape=SHAPE, sex="male")
    patient_id = f"PHANTOM-{SEED:04d}"
    return write_ct_series(phantom, folder, patient_name="Phantom^Pelvis", patient_id=patient_id), phantom


def _send_and_follow(box: DemoBox, paths: list[Path], screen: Screen) -> Case:
    with screen.bar("Sending by C-STORE", len(paths)) as advance:
        send_files(box.sender, box.me, paths, on_sent=advance)
    database = Database(box.settings.database_url)
    began_s = monotonic_s()
    case: Case | None = None
    with screen.following(len(paths)) as follow:
        while case is None or not _has_ended(case):
            with database.reading() as tx:
                newest = queries.recent_cases(tx, 1)
            case = newest[0] if newest else None
            follow(case, box.settings, now_utc())
            if monotonic_s() - began_s > _GIVE_UP_S or not box.is_alive():
                raise ApplianceError(f"the case did not end; see {box.log}")
            time.sleep(0.1)
    return case


def _has_ended(case: Case) -> bool:
    """The small PACS offers commitment, so a delivered case is not the end yet."""
    return case.state in FINAL - {CaseState.DELIVERED}


def _show_result(box: DemoBox, case: Case, paths: list[Path], phantom: Phantom | None, console: Console) -> None:
    for file in box.pacs.objects("RTSTRUCT"):
        series = assemble_series([parse_slice(path) for path in paths])
        rois = read_contours(file, series)
        protocol = box.settings.protocols[case.protocol or ""]
        written = box.settings.written_templates(protocol)
        truth = _truth_as_written(phantom, protocol, {name: template.name for name, template in written.items()})
        console.print(_table(rois, series, truth))
        picture = box.folder / "contours.png"
        title = f"Automatic draft, unapproved: {case.description}"
        draw(picture, load_volume(series), rois, {one.name: one.colour for one in written.values()}, title)
        console.print(f"Structure set in the PACS: {file}", soft_wrap=True)
        console.print(f"Picture of three slices:   {picture}", soft_wrap=True)
    for file in box.pacs.objects("SEG"):
        console.print(f"Segmentation in the PACS:  {file}", soft_wrap=True)
    with Database(box.settings.database_url).reading() as tx:
        console.print(showing.trail_table(trail_of(tx, case.id), f"Audit trail of case {case.id}"))


def _truth_as_written(
    phantom: Phantom | None, protocol: Protocol, names: dict[str, str]
) -> dict[str, NDArray[np.bool_] | None] | None:
    """The phantom's true structures by the names that are written; None for one that this patient does not have.

    What the protocol derives is known only where it stands for a structure of the phantom itself. Without a phantom
    nothing is known.
    """
    if phantom is None:
        return None
    derived = {rule.roi for rule in protocol.derived}
    asked = {names[name]: phantom.truth.get(name) for name in protocol.roi_names}
    return {
        name: truth
        for (name, truth), roi in zip(asked.items(), protocol.roi_names, strict=True)
        if truth is not None or roi not in derived
    }


def _table(rois: dict[str, RoiContours], series: CtSeries, truths: dict[str, NDArray[np.bool_] | None] | None) -> Table:
    table = Table(title="Structures, as read back from the PACS's file", title_justify="left")
    table.add_column("ROI")
    table.add_column("Volume cm³", justify="right")
    table.add_column("Dice against the truth", justify="right")
    known = truths or {}
    for name in [*rois, *(name for name, truth in known.items() if truth is not None and name not in rois)]:
        mask = rasterise(rois[name], series.geometry) if name in rois else None
        volume = f"{mask.volume_cm3(series.geometry):.1f}" if mask is not None else "not found"
        found = mask.in_grid(series.geometry.shape) if mask is not None else None
        table.add_row(name, volume, _dice_words(found, known.get(name), known=name in known))
    return table


def _dice_words(found: NDArray[np.bool_] | None, truth: NDArray[np.bool_] | None, *, known: bool) -> str:
    if not known:
        return "no truth known"
    if truth is None:
        return "not in this patient"
    if found is None:
        return "0.00"
    return f"{dice(found, truth):.2f}"


def _stay(box: DemoBox, screen: Screen) -> None:
    screen.say(f"Left running: send CT to {box.me.ae_title} at {box.me.host}:{box.me.port}, calling as SMALLPACS.")
    screen.say(f"Try: delineate --config {box.settings.folder} case list. Ctrl-C stops everything.")
    stop_on_signal().wait()
