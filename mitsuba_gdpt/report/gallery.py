"""The gallery: one HTML file of pictures to browse, for batches of scenes."""

from __future__ import annotations

import base64
import io
import os
from typing import Any

from PIL import Image

from mitsuba_gdpt import exr
from mitsuba_gdpt.errors import FormatError
from mitsuba_gdpt.files import replace_text
from mitsuba_gdpt.report import style
from mitsuba_gdpt.report.model import Gallery, GalleryItem


def write_gallery(gallery: Gallery, path: str | os.PathLike[str], *, size: int = 640) -> None:
    """Write a gallery as one HTML file that needs neither a server nor a network.

    Args:
        gallery: What to show.
        path: Replaced if it exists.
        size: Pictures with a longer side are scaled down to this, in pixels.

    Raises:
        FormatError: A picture cannot be read, the folder does not exist or the disk is full.
        LayoutError: A picture is not (H, W, 3).
        NonFiniteError: A picture contains NaN or infinity.
        MissingDependencyError: jinja2 is not installed.
    """
    tiles = [(item, _picture(item, size)) for item in gallery.items]
    replace_text(path, style.fill("gallery.html", gallery=gallery, tiles=tiles))


def _picture(item: GalleryItem, size: int) -> dict[str, Any] | None:
    """Encode a picture as the attributes of an ``<img>``."""
    if item.image is None:
        return None
    if isinstance(item.image, str | os.PathLike):
        try:
            picture = Image.open(item.image).convert("RGB")
        except OSError as error:
            raise FormatError(f"cannot read the picture of {item.title!r}: {error}") from error
    else:
        try:
            picture = Image.fromarray(exr.to_8bit(item.image, exposure=item.exposure))
        except ValueError as error:  # LayoutError, NonFiniteError
            raise type(error)(f"picture of {item.title!r}: {error}") from error
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {
        "src": f"data:image/png;base64,{data}",
        "width": picture.width,
        "height": picture.height,
    }
