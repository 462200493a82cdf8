"""``mitsuba-gdpt dataset``: rendering and import of training data, and looking at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitsuba_gdpt.cli import cluster, options
from mitsuba_gdpt.errors import ConfigError, GDPTError
from mitsuba_gdpt.integrators.parameters import DEFAULT_SHIFTS

if TYPE_CHECKING:
    from mitsuba_gdpt.execution import Summary
    from mitsuba_gdpt.scenes.catalogue import CatalogueScene

dataset = typer.Typer(
    name="dataset",
    help="Render or import data sets for training, and look at them.",
    no_args_is_help=True,
)

_SHOWN_FAILURES = 5
_LEAST_WIDTH = 192  # of a picture on a contact sheet

_CATALOGUE = typer.Argument(help="Scene catalogue: a TOML file, or the name of one of the package.")
_CROP_SET = typer.Option("--output", "-o", metavar="SET.zarr", help="Folder of the crop set.")
_MEASURED_SCENES = typer.Option(
    "--measured-scenes", help="Also scenes of catalogues that are measured on."
)
_SHIFTS = typer.Option(help="Offset paths of gdpt per sample: 1, 2 or 4.")
_SEED = typer.Option(help="Changes all that is random.", min=0)
_SCENES = typer.Option(
    metavar="A,B", help="Only these scenes of the catalogue.", show_default=False
)


@dataset.command()
@cluster.spreadable
def crops(
    catalogue: Annotated[str, _CATALOGUE],
    output: Annotated[Path, _CROP_SET],
    crops: Annotated[
        int, typer.Option(help="Crops per scene (times the scene's weight).", min=1)
    ] = 250,
    size: Annotated[int, typer.Option(help="Width and height of a crop in pixels.", min=8)] = 128,
    spp_levels: Annotated[int, typer.Option(help="Noisy renders per crop.", min=1)] = 5,
    min_spp: Annotated[int, typer.Option(help="Least samples per pixel.", min=2)] = 2,
    max_spp: Annotated[
        int, typer.Option(help="All samples per pixel are below this number.", min=3)
    ] = 1024,
    target: Annotated[
        str,
        typer.Option(
            help="halves: two independent renders of half the reference spp each; path: one "
            "render; gdpt-l1: gdpt reconstructed by poisson-l1; gdpt-l2: two halves of gdpt "
            "with four shifts, reconstructed by weighted least squares (unbiased and cleanest)."
        ),
    ] = "halves",
    reference_spp: Annotated[
        int | None,
        typer.Option(
            help="Samples per pixel behind the target.",
            min=2,
            show_default="256 for halves, 512 for gdpt-l2, else 4096",
        ),
    ] = None,
    frame: Annotated[
        tuple[int, int],
        typer.Option(
            metavar="WIDTH HEIGHT",
            help="Size of the frame at zoom 1 that crops are cut out of; smaller frames show more "
            "of the scene in a crop.",
        ),
    ] = (1280, 720),
    shifts: Annotated[int, _SHIFTS] = DEFAULT_SHIFTS,
    seed: Annotated[int, _SEED] = 0,
    scenes: Annotated[str | None, _SCENES] = None,
    variations: Annotated[
        int,
        typer.Option(
            help="Instead of built-in scenes, so many variations of each: materials, textures, "
            "lights and skies drawn anew, with further objects.",
            min=0,
        ),
    ] = 0,
    blocks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder with meshes/*.ply and hdri/*.exr that variations draw from too.",
        ),
    ] = None,
    *,
    place: cluster.Place,
) -> None:
    """Render a crop set for training: noisy crops with all buffers, and targets.

    What has been rendered already is skipped: after an interruption, run the same command again.

    Example: mitsuba-gdpt dataset crops builtin -o train.zarr --crops 20 --max-spp 64
    """
    options.check_output(output, ".zarr", folder=True)

    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.data import CropPlan, render_crops

    if blocks is not None and not variations:
        raise ConfigError("--blocks is for variations; give their number with --variations N")
    plan = CropPlan(
        scenes=_choose(catalogue, scenes, variations, blocks),
        crops=crops,
        size=size,
        levels=spp_levels,
        min_spp=min_spp,
        max_spp=max_spp,
        target=target,  # type: ignore[arg-type]  # the plan checks it
        reference_spp=reference_spp,
        frame=frame,
        shifts=shifts,
        seed=seed,
    )
    where = place.open()
    watch = session.Stopwatch()
    with session.resumable(), session.progress_bar(), watch.part("all"):
        summary = render_crops(plan, output, cluster=where)
    _tell_crops(output, summary, "rendered", watch.seconds["all"])


@dataset.command()
@cluster.spreadable
def frames(
    catalogue: Annotated[str, _CATALOGUE],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="ROOT", help="Folder of the frame set; created if need be."
        ),
    ],
    scenes: Annotated[str | None, _SCENES] = None,
    frames: Annotated[int, typer.Option(help="Frames per scene.", min=1)] = 60,
    width: Annotated[int, typer.Option(help="Width in pixels.", min=1)] = 1280,
    height: Annotated[int, typer.Option(help="Height in pixels.", min=1)] = 720,
    spp: Annotated[int, typer.Option(help="Samples per pixel of noisy renders.", min=1)] = 1,
    noisy: Annotated[int, typer.Option(help="Noisy renders per frame.", min=1)] = 5,
    target_spp: Annotated[int, typer.Option(help="Samples per pixel of targets.", min=1)] = 1024,
    targets: Annotated[
        str,
        typer.Option(
            metavar="rendered|denoised",
            help="denoised: pass targets through oidn, where converged ones cost too much. For "
            "training only.",
        ),
    ] = "rendered",
    still: Annotated[
        bool,
        typer.Option("--still", help="Stay in the middle of the fly-through: only noise changes."),
    ] = False,
    span: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="START STOP", help="Part of the fly-through that the frames cover, 0 to 1."
        ),
    ] = (0.0, 1.0),
    split: Annotated[
        str | None,
        typer.Option(
            metavar="train|test",
            help="Folder for all scenes. Only scenes that are for training may go to train.",
            show_default="train for scenes that are for training, test for others",
        ),
    ] = None,
    shifts: Annotated[int, _SHIFTS] = DEFAULT_SHIFTS,
    seed: Annotated[int, _SEED] = 0,
    *,
    place: cluster.Place,
) -> None:
    """Render a frame set: fly-throughs with noisy frames, targets and motion, as EXR files.

    What has been rendered already is skipped: after an interruption, run the same command again.

    Example: mitsuba-gdpt dataset frames builtin -o frames --frames 8 --width 320 --height 180
    """
    options.check_folder(output)

    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.data import FramePlan, render_frames
    from mitsuba_gdpt.data.frame_plan import FrameSettings, catalogue_sequence

    chosen = _choose(catalogue, scenes)
    plan = FramePlan(
        tuple(catalogue_sequence(s, frames, at_rest=still, split=split, span=span) for s in chosen),
        FrameSettings(
            width=width,
            height=height,
            spp=spp,
            noisy=noisy,
            target_spp=target_spp,
            target=targets,
            shifts=shifts,
            seed=seed,
        ),
    )
    where = place.open()
    watch = session.Stopwatch()
    with session.resumable(), session.progress_bar(), watch.part("all"):
        summary = render_frames(plan, output, cluster=where)
    planned = sum(len(sequence.cameras) for sequence in plan.sequences)
    print(
        f"{output}: {summary.done + summary.skipped} of {planned} frames of {len(chosen)} "
        f"scene(s), {_counts(summary, 'rendered', watch.seconds['all'])}"
    )
    _report_failures(summary, "frame(s)")


@dataset.command()
def import_darc(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.darc",
            help="Training files of the original NGPT: PREFIX-SCENE-CROPS-IMAGES.darc.",
        ),
    ],
    output: Annotated[Path, _CROP_SET],
    measured_scenes: Annotated[bool, _MEASURED_SCENES] = False,
) -> None:
    """Import data sets of the original NGPT into a crop set.

    What has been imported already is skipped: after an interruption, run the same command again.

    Example: mitsuba-gdpt dataset import-darc train-kitchen-250-5.darc -o ngpt.zarr
    """
    options.check_output(output, ".zarr", folder=True)

    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.data import import_darc

    watch = session.Stopwatch()
    with session.resumable(), session.progress_bar(), watch.part("all"):
        summary = import_darc(files, output, measured_scenes=measured_scenes)
    _tell_crops(output, summary, "imported", watch.seconds["all"])


@dataset.command()
def import_oidn(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Data set of the toolkit, such as data/train: VIEW_8spp.hdr.exr."
        ),
    ],
    output: Annotated[Path, _CROP_SET],
    size: Annotated[int, typer.Option(help="Width and height of a crop in pixels.", min=8)] = 128,
    crops: Annotated[
        int, typer.Option(help="Most crops of a view; 0: as many as have room in it.", min=0)
    ] = 0,
    normals_space: Annotated[
        str,
        typer.Option(
            metavar="world|camera",
            help="camera: normals are in Mitsuba's camera frame, so that training may mirror them.",
        ),
    ] = "world",
    measured_scenes: Annotated[bool, _MEASURED_SCENES] = False,
) -> None:
    """Import images in the layout of OIDN's training toolkit into a crop set.

    What has been imported already is skipped: after an interruption, run the same command again.

    Example: mitsuba-gdpt dataset import-oidn data/train -o train.zarr
    """
    options.check_output(output, ".zarr", folder=True)

    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.data import import_oidn

    watch = session.Stopwatch()
    with session.resumable(), session.progress_bar(), watch.part("all"):
        summary = import_oidn(
            folder,
            output,
            size=size,
            crops=crops,
            normals_space=normals_space,
            measured_scenes=measured_scenes,
        )
    _tell_crops(output, summary, "imported", watch.seconds["all"])


@dataset.command("export-darc")
def export_darc(
    crop_set: Annotated[Path, typer.Argument(metavar="SET.zarr", help="Crop set.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="For one file per scene; created if need be."
        ),
    ],
    prefix: Annotated[
        str, typer.Option(help="First word of the files: PREFIX-SCENE-CROPS-IMAGES.darc.")
    ] = "train",
) -> None:
    """Export a crop set as data of the original NGPT.

    Example: mitsuba-gdpt dataset export-darc train.zarr -o data
    """
    options.check_folder(output)

    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.data import CropSet
    from mitsuba_gdpt.data import export_darc as export

    with session.progress_bar():
        paths = export(CropSet.open(crop_set), output, prefix=prefix)
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@dataset.command("export-oidn")
def export_oidn(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SET|IN.exr",
            help="A crop set (.zarr), the folder of a frame set, or noisy renders of one view.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Data set of the toolkit, such as data/train; created if need be.",
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(metavar="REF.exr", help="Converged image of the renders.", show_default=False),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            help="What the files of the renders begin with; by default the reference's name.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Export noisy images, features and references in the layout of OIDN's training toolkit.

    Example: mitsuba-gdpt dataset export-oidn train.zarr -o data/train
    """
    options.check_folder(output)

    from mitsuba_gdpt.data import CropSet, FrameSet, oidn_kit

    first = sources[0]
    renders = all(source.suffix.lower() == ".exr" for source in sources)
    if renders and reference is None:
        raise ConfigError("renders need a reference to learn from; give --reference REF.exr")
    if not renders and (len(sources) > 1 or reference is not None or name):
        raise ConfigError("expected one set, or renders that end in .exr with their --reference")
    if reference is not None:
        count = oidn_kit.export_renders(sources, reference, output, name=name)
    elif first.suffix.lower() == ".zarr":
        count = oidn_kit.export_crops(CropSet.open(first), output)
    else:
        count = oidn_kit.export_frames(FrameSet.open(first), output)
    print(f"{output}: {count} noisy images with their references")


def _choose(
    catalogue: str, names: str | None, variations: int = 0, blocks: Path | None = None
) -> tuple[CatalogueScene, ...]:
    """Return the scenes of a catalogue that are named, separated by commas; by default all."""
    from mitsuba_gdpt.scenes.catalogue import Catalogue

    opened = Catalogue.open(catalogue)
    if names:
        opened = opened.chosen(name.strip() for name in names.split(","))
    return (opened.varied(variations, blocks) if variations else opened).scenes


def _counts(summary: Summary, verb: str, seconds: float) -> str:
    return (
        f"{summary.done} {verb} in {seconds:.0f} s, {summary.skipped} were there, "
        f"{len(summary.failed)} failed"
    )


def _tell_crops(path: Path, summary: Summary, verb: str, seconds: float) -> None:
    """Print what a crop set has now; raise an error if something failed."""
    from mitsuba_gdpt.data import CropSet

    made = CropSet.open(path)
    faults = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in made.faults.items())
    print(
        f"{path}: {len(made)} of {made.planned} crops of {len(made.scenes)} scene(s), "
        f"shards: {_counts(summary, verb, seconds)}; {faults}"
    )
    _report_failures(summary, "shard(s)")


def _report_failures(summary: Summary, what: str) -> None:
    """Raise an error that tells what failed; the same text is told once."""
    if not summary.failed:
        return
    keys_of: dict[str, list[str]] = {}
    for key, text in summary.failed.items():
        keys_of.setdefault(text, []).append(key)
    lines = [
        f"{keys[0]}{f' and {len(keys) - 1} more' if keys[1:] else ''}: {text}"
        for text, keys in keys_of.items()
    ]
    hidden = len(lines) - _SHOWN_FAILURES
    more = f"; and {hidden} more errors" if hidden > 0 else ""
    raise GDPTError(
        f"{len(summary.failed)} {what} failed: {'; '.join(lines[:_SHOWN_FAILURES])}{more}"
    )


@dataset.command()
def sheet(
    crop_set: Annotated[
        Path, typer.Argument(metavar="SET.zarr", help="Crop set, finished or not.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="SHEET.png", help="Picture to write.")
    ],
    count: Annotated[int, typer.Option(help="How many crops, spread over the set.", min=1)] = 12,
) -> None:
    """Put crops on a contact sheet: fewest samples, most samples, target.

    Example: mitsuba-gdpt dataset sheet train.zarr -o sheet.png
    """
    options.check_output(output, ".png")

    import numpy as np

    from mitsuba_gdpt.data import CropSet
    from mitsuba_gdpt.report import contact_sheet

    opened = CropSet.open(crop_set)
    if not len(opened):
        raise ConfigError(f"{crop_set} has no finished crop yet ({opened.planned} are planned)")
    positions = np.unique(np.linspace(0, len(opened) - 1, min(count, len(opened))).astype(int))
    pictures = {}
    for position in positions.tolist():
        crop = opened[position]
        images = {
            f"{crop.spp[i]} spp" if crop.spp[i] else f"unknown spp, {which}": crop.buffers[i].primal
            for i, which in ((0, "least"), (-1, "most"))
        }
        images["target"] = crop.targets.mean(0)
        for caption, image in images.items():
            # Small crops are enlarged, so that the captions have room.
            for axis in (0, 1):
                image = image.repeat_interleave(-(-_LEAST_WIDTH // opened.size), axis)
            pictures[f"{crop.scene} {crop.index}, {caption}"] = image * crop.exposure
    # Six columns: two crops side by side.
    contact_sheet(pictures, output, columns=3 if len(positions) == 1 else 6)
    print(f"{output}: {len(positions)} of {len(opened)} finished crops ({opened.planned} planned)")
