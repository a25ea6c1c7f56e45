"""`delineate segment`: a folder of CT files in, a structure set out, and nothing else needed."""

import json
from pathlib import Path

import click
from rich.console import Console

from appliance.commands.asking import console, settings_of
from appliance.dicom.findings import amount

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_OUT = click.Path(file_okay=False, path_type=Path)
_SHOWN = 5


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_OUT, required=True, help="Folder for the results.")
@click.option("--model", default="", help="Name of the model; the protocol's when left out.")
@click.option("--version", help="Version of the model; the active one when left out.")
@click.option("--protocol", help="Which structures, in which form; everything that the model draws when left out.")
@click.option("--series", "series_uid", help="Series Instance UID, where FOLDER holds several CT series.")
@click.option("--seg", is_flag=True, help="Write a DICOM Segmentation as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the report for programs.")
@click.pass_context
def segment(  # noqa: PLR0913 - one argument for each option
    ctx: click.Context,
    *,
    folder: Path,
    out: Path,
    model: str,
    version: str | None,
    protocol: str | None,
    series_uid: str | None,
    seg: bool,
    as_json: bool,
) -> None:
    """Contour the CT series in FOLDER; needs no service, no database and no PACS."""
    from appliance.running.segmenting import STEPS, Order, Outcome, report, segment_folder, structures_table
    from appliance.running.step_bars import StepBars

    order = Order(folder, out, model, version, protocol, series_uid, with_segmentation=seg)
    with StepBars(Console(stderr=True, highlight=False), STEPS) as bars:
        outcome: Outcome = segment_folder(settings_of(ctx), order, bars)
    if as_json:
        click.echo(json.dumps(report(outcome), indent=2, ensure_ascii=False))
        return
    console.print(structures_table(outcome))
    said = [f"{one.roi}: {one.sentence}" if one.roi else one.sentence for one in outcome.findings]
    said += [*outcome.draft.warnings, *outcome.ran]
    skipped = [f"{path.name} ({why})" for path, why in outcome.skipped.items()]
    if skipped:
        more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        said.append(f"{amount(len(skipped), 'file')} skipped: {'; '.join(skipped[:_SHOWN])}{more}")
    for sentence in [*said, *map(str, outcome.files)]:
        console.print(sentence, markup=False, soft_wrap=True)
