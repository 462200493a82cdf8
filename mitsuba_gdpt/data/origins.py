"""What the scenes of a set were made of when it was begun: no set is a mixture of two states."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.scenes import SceneRef
from mitsuba_gdpt.scenes.contents import Contents

#: Key of what a set says about it: a table by scene, see :meth:`Contents.as_dict`.
SCENES = "scene_contents"


def agreed(
    contents: Mapping[str, Contents],
    known: object,
    is_begun: Callable[[str], bool],
    path: str | os.PathLike[str],
) -> dict[str, Any]:
    """Refuse to go on with a set whose scenes have been edited; return what it keeps of them.

    Args:
        contents: What scenes are made of now, by name.
        known: What the set keeps, None for a new one. Of a scene that is begun, sets of older
            versions keep nothing, and are accepted.
        is_begun: Whether the set holds something of a scene. If not, it may have been mended.
        path: Of the set.

    Returns:
        JSON-compatible; nothing of scenes without files.

    Raises:
        ConfigError: A file of a scene has been edited.
    """
    kept: dict[str, Any] = {}
    table = known if isinstance(known, Mapping) else {}
    for name, now in contents.items():
        before = table.get(name)
        if not is_begun(name):
            before = now.as_dict()
        elif isinstance(before, Mapping):
            what = f"{path} was begun with the scene {name!r}"
            now.require(before, what, "choose another folder")
        if isinstance(before, Mapping) and before:
            kept[name] = dict(before)
    return kept


def require_now(key: str, source: str, parameters: Mapping[str, str]) -> None:
    """Refuse to render a piece of a set once its scene is no longer what it was.

    Args:
        key: Of its contents when the work was begun.
        source: The scene.
        parameters: Values for its ``$name`` parameters.

    Raises:
        ConfigError: The scene has been edited.
    """
    now = SceneRef.parse(source).contents(parameters)
    if key and now.key not in ("", key):
        raise ConfigError(
            f"files of the scene {source} have been edited since this run was begun; run the same "
            "again once they are as they were"
        )
