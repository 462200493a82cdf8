"""``mitsuba-gdpt render --fly-through``: the frames of a catalogue's camera path on one budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt._version import __version__

if TYPE_CHECKING:
    import torch

    from mitsuba_gdpt.denoisers import Call
    from mitsuba_gdpt.rendering import Budget


def render_fly_through(
    scene: str,
    folder: Path,
    frames: int,
    span: tuple[float, float],
    budget: Budget,
    settings: Mapping[str, Any],
    *,
    size: tuple[int | None, int | None],
    stops: float,
    quality: str | None,
    method: Call | None,
    seed: int,
    variant: str,
) -> None:
    """Render the frames, EXR and PNG, and say what became of the budget.

    Args:
        scene: As ``evaluate --sequence`` takes it; one scene.
        folder: Where frames go.
        frames: How many.
        span: Part of the fly-through that they cover.
        budget: Seconds of all, or samples per pixel.
        settings: Of ``gdpt``, that were given.
        size: Width and height, None for the scene's own.
        stops: Exposure of the PNG files.
        quality: Level of reconstruction.
        method: Method of reconstruction.
        seed: Of the sampler.
        variant: Of Mitsuba.

    Raises:
        ConfigError: There is no such fly-through, or it is of several scenes.
    """
    from mitsuba_gdpt import exr, rendering
    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.data.frame_plan import catalogue_sequence
    from mitsuba_gdpt.rendering.fly_through import find_scene
    from mitsuba_gdpt.rendering.sequence_folder import frame_path

    found = find_scene(scene)
    shot = catalogue_sequence(found, frames, span=span, split="test")
    width, height = size
    source = rendering.open_source(
        shot.source, width=width, height=height, parameters=shot.parameters
    )
    width, height = (int(side) for side in source.sensor(0).film().size())
    depth = {} if shot.max_depth is None else {"max_depth": shot.max_depth}
    stops += math.log2(found.exposure)

    def picture(number: int, image: torch.Tensor) -> None:
        path = frame_path(folder, number).with_suffix(".png")
        exr.write_png(path, image.cpu(), exposure=stops)

    with session.progress_bar(), session.resumable("the same command goes on with the sequence"):
        done = rendering.SequenceRender(
            source,
            shot.cameras,
            folder,
            {**source.integrator, **depth, **settings},
            budget,
            size=(width, height),
            seed=seed,
            quality=quality,
            method=method,
            on_frame=picture,
            described={"scene": scene, "variant": variant, "version": __version__},
        ).run()
    samples = ", ".join(map(str, done.spp))
    first = f"compiled in {done.seconds['first']:.2f} s, " if done.seconds["first"] else ""
    print(
        f"{source.name}: {frames} frames of {width}x{height}, {samples} spp, {variant}, {first}"
        f"rendered in {done.seconds['render']:.2f} s, {done.method} in "
        f"{done.seconds['denoise']:.2f} s, peak memory {session.peak_memory()}, wrote {folder}"
    )
