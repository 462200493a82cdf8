"""What ``gdpt`` takes over from the integrator that a scene asks for.

Read from the parsed scene after Mitsuba's own transformations: that is what plugins are made of,
whatever version the file has, and the innermost integrator is the one that traces the paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mitsuba as mi

#: Integrator parameters that mean the same in Mitsuba's path tracers and in ``gdpt``.
SHARED_PARAMETERS = ("max_depth", "rr_depth", "hide_emitters")
#: Mitsuba's path tracers, and where theirs differ from the defaults of ``gdpt``: -1, 5 and False.
PATH_TRACERS: dict[str, dict[str, Any]] = {
    "path": {},
    "volpath": {},
    "volpathmis": {},
    "ptracer": {},
    "prb": {"max_depth": 6},
    "prb_basic": {"max_depth": 6},
    "prb_projective": {"max_depth": 6},
    "prbvolpath": {"max_depth": 6},
    "direct": {"max_depth": 2},  # no parameter of these two
    "direct_projective": {"max_depth": 2},
}
_OWN = "gdpt"
#: Parameters of every integrator that say how, not what, is rendered.
_HARMLESS = ("block_size", "samples_per_pass")


def settings_of_scene(state: mi.parser.ParserState) -> tuple[dict[str, Any], list[str]]:
    """Return parameters for ``gdpt`` under which it renders what a scene's integrator would.

    Args:
        state: A parsed scene after ``mi.parser.transform_all``, before it is instantiated.

    Returns:
        The parameters, and for each thing that has no equivalent a sentence that says so.
    """
    import mitsuba as mi

    outermost = _children(state, state.root, mi.ObjectType.Integrator)
    leaves = [leaf for node in outermost for leaf in _innermost(state, node)]
    if not leaves:  # Mitsuba takes 'path'
        return {}, []
    known = [leaf for leaf in leaves if leaf.props.plugin_name() in (*PATH_TRACERS, _OWN)]
    chosen = (known or leaves)[0].props
    settings = _settings(chosen)
    name, remarks = chosen.plugin_name(), []
    if any(_settings(other.props) != settings for other in known):
        remarks.append(f"of several path tracers, gdpt takes the settings of the first, {name!r}")
    if not known:
        remarks.append(
            f"the integrator {name!r} is no path tracer that gdpt knows: it takes "
            f"{', '.join(settings) or 'nothing'} of it, and its own defaults for the rest"
        )
    elif name != _OWN:
        keys = [key for key in chosen.keys() if key not in (*SHARED_PARAMETERS, *_HARMLESS)]  # noqa: SIM118
        if keys:
            remarks.append(
                f"the integrator {name!r} sets {', '.join(keys)}, for which gdpt has no equivalent"
            )
    return settings, remarks


def all_have_films(state: mi.parser.ParserState) -> bool:
    """Return whether every sensor of a scene has a film of its own.

    Args:
        state: As of :func:`settings_of_scene`.
    """
    import mitsuba as mi

    sensors = _children(state, state.root, mi.ObjectType.Sensor)
    return all(any(True for _ in _children(state, s, mi.ObjectType.Film)) for s in sensors)


def _settings(properties: mi.Properties) -> dict[str, Any]:
    import mitsuba as mi

    # Of a copy: what has been read counts as known, and misspelt parameters would pass.
    properties = mi.Properties(properties)
    keys = list(properties.keys())
    name = properties.plugin_name()
    if name != _OWN:
        keys = [key for key in SHARED_PARAMETERS if key in keys]
    return PATH_TRACERS.get(name, {}) | {key: properties[key] for key in keys}


def _innermost(state: Any, node: Any) -> Iterator[Any]:
    """Yield the integrators inside one that contain no others; itself if it contains none."""
    children = list(_children(state, node, node.type))
    if not children:
        yield node
    for child in children:
        yield from _innermost(state, child)


def _children(state: Any, node: Any, kind: Any) -> Iterator[Any]:
    import mitsuba as mi

    for key in node.props.keys():  # noqa: SIM118  (not a dict)
        if node.props.type(key) == mi.Properties.Type.ResolvedReference:
            child = state.nodes[node.props[key].index()]
            if child.type == kind:
                yield child
