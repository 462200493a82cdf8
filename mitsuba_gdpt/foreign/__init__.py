"""Renders of any origin as named buffers: plain images, Mitsuba's AOVs, files of other programs.

What ``gdpt`` made is viewed, never copied (:func:`mitsuba_gdpt.buffers.as_frame_buffers`). All else
is found by the names in :mod:`mitsuba_gdpt.naming` and brought to what our buffers mean. Normals
have to be in the camera's frame: those in world space are turned, and those of an unknown frame
are left out, with a warning that says what to pass.
"""

from __future__ import annotations

from mitsuba_gdpt.foreign.assembly import image_beside, layer, read_image, take
from mitsuba_gdpt.foreign.words import Words

__all__ = ["Words", "image_beside", "layer", "read_image", "take"]
