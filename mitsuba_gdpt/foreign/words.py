"""What a caller says of a render of any origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mitsuba_gdpt.errors import ConfigError


@dataclass(frozen=True)
class Words:
    """What a caller says of a render besides its layout, in the words of ``mi.OptixDenoiser``.

    Attributes:
        noisy_ch: Layer of the noisy image.
        albedo_ch: Layer of the albedo.
        normals_ch: Layer of the normals.
        flow_ch: Layer of the optical flow.
        albedo: (H, W, 3) albedo.
        normals: (H, W, 3) normals.
        flow: (H, W, 2) motion from the previous frame to this one, pixels, +x right, +y down.
        to_sensor: Transform that takes the normals to the camera's frame: ``mi.Transform4f`` or a
            (4, 4) matrix; for world space ``sensor.world_transform().inverse()``.
        normals_space: "camera" says that the normals are in Mitsuba's camera frame already.
    """

    noisy_ch: str = ""
    albedo_ch: str = ""
    normals_ch: str = ""
    flow_ch: str = ""
    albedo: Any = None
    normals: Any = None
    flow: Any = None
    to_sensor: Any = None
    normals_space: str | None = None

    def __post_init__(self) -> None:
        """Check the words."""
        if self.normals_space not in (None, "camera", "world"):
            raise ConfigError(
                f"normals_space is {self.normals_space!r}; expected 'camera' or 'world'"
            )
        if self.normals_space == "world" and self.to_sensor is None:
            raise ConfigError(
                "normals_space is 'world'; pass to_sensor=sensor.world_transform().inverse() too"
            )
        for name in ("albedo", "normals", "flow"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} is a text; to name a layer, pass {name}_ch")
