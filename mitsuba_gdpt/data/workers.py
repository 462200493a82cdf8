"""Which Mitsuba variant the processes that render a data set use."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from mitsuba_gdpt import rendering
from mitsuba_gdpt.errors import VariantError

if TYPE_CHECKING:
    from mitsuba_gdpt.execution import ClusterOptions


def variant() -> str | None:
    """Return the variant of this process, None if none is set."""
    import mitsuba as mi

    name: str | None = mi.variant()
    return name


def with_variant(cluster: ClusterOptions | None) -> ClusterOptions | None:
    """Let workers set the variant of this process, unless they have a ``setup`` of their own.

    Args:
        cluster: Where to render; None for this process.

    Raises:
        VariantError: This process is to render, and no variant is set in it.
    """
    if cluster is None:
        if variant() is None:
            raise VariantError(
                "no Mitsuba variant is set; call mi.set_variant('llvm_ad_rgb') first"
            )
        return None
    if cluster.setup is not None:
        return cluster
    return dataclasses.replace(cluster, setup=functools.partial(rendering.set_variant, variant()))
