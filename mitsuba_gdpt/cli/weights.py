"""``mitsuba-gdpt weights``: weights that are not trained here, from where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

weights = typer.Typer(
    name="weights",
    help="Make files of weights from those of others.",
    no_args_is_help=True,
)


@weights.command()
def elpips(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Where to; by default where LPIPS and E-LPIPS look by themselves.",
            show_default=False,
        ),
    ] = None,
    heads: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKOUT",
            help="A checkout of github.com/mkettune/elpips; without it there is LPIPS only.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write what LPIPS and E-LPIPS need, from torchvision (which downloads), lpips and a checkout.

    Example: mitsuba-gdpt weights elpips --heads elpips
    """
    from mitsuba_gdpt.metrics import export_weights
    from mitsuba_gdpt.metrics.weights import ENVIRONMENT_VARIABLE, default_folder

    target = folder or default_folder()
    for path in export_weights.export(target, heads):
        print(f"wrote {path}")
    if heads is None:
        print("without E-LPIPS: its heads need --heads CHECKOUT")
    if folder is not None:
        print(f"set {ENVIRONMENT_VARIABLE}={folder.resolve()}")


@weights.command()
def ngpt(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="What its files begin with, such as saves/100_ngpt_elpips_sqz.ckpt."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the weights.")],
    recipe: Annotated[
        str, typer.Option(help="Its configuration: ngpt-100 to ngpt-106.")
    ] = "ngpt-100",
) -> None:
    """Convert a checkpoint of the original NGPT. TensorFlow is not needed.

    Example: mitsuba-gdpt weights ngpt saves/100_ngpt_elpips_sqz.ckpt -o weights
    """
    from mitsuba_gdpt.training.original import convert_checkpoint

    path = convert_checkpoint(checkpoint, output, recipe)
    print(f"wrote {path}")
