"""NFOR: nonlinearly weighted first-order regression."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.denoisers.nfor import inputs
from mitsuba_gdpt.denoisers.nfor.inputs import Image
from mitsuba_gdpt.denoisers.nfor.nlmeans import PatchDistances, filter_images
from mitsuba_gdpt.denoisers.nfor.pair import Pair
from mitsuba_gdpt.denoisers.nfor.regression import regress
from mitsuba_gdpt.denoisers.nfor.selection import select, squared_error
from mitsuba_gdpt.denoisers.registry import register
from mitsuba_gdpt.errors import ConfigError


@register("nfor", needs=("primal", "albedo", "normal", "depth", "primal.var", "albedo.var", "normal.var", "depth.var"), uses=("visibility",), doc="x")
def nfor(buffers, *, halves=None, bandwidths=(0.5, 1.0), patch_radius=3, window_radius=9):
    colour, features = inputs.read(buffers, halves)
    if halves is None:
        image = _one_pass(colour, features, max(bandwidths), patch_radius, window_radius)
    else:
        image = _two_passes(colour, features, bandwidths, patch_radius, window_radius)
    return image.clamp_min_(0).movedim(0, -1).contiguous()


def _one_pass(colour, features, bandwidth, patch_radius, window_radius):
    smooth = torch.cat([_prefilter(f.value, f.value, f.variance) for f in features])
    d = PatchDistances(colour.value, colour.variance, patch_radius, window_radius)
    return regress(colour.value, smooth, d, [bandwidth])[0]

def _prefilter(image, guide, variance, r=5):
    return filter_images(image, PatchDistances(guide, variance, 3, r), 0.5)

SECOND_SCALE = 1.0
DEBUG = {}
def _two_passes(colour, features, bandwidths, patch_radius, window_radius):
    halves = colour.halves
    share = halves.share
    va, vb = 1 / share, 1 / (1 - share)
    fa = [_prefilter(f.halves.a, f.halves.b, f.variance * vb) for f in features]
    fb = [_prefilter(f.halves.b, f.halves.a, f.variance * va) for f in features]
    da = PatchDistances(halves.a, colour.variance * va, patch_radius, window_radius)
    db = PatchDistances(halves.b, colour.variance * vb, patch_radius, window_radius)
    a = regress(halves.a, torch.cat(fb), db, bandwidths)
    b = regress(halves.b, torch.cat(fa), da, bandwidths)
    cands = [Pair(x, y, share) for x, y in zip(a, b)]
    errors = torch.stack([squared_error(halves, colour.variance, c) for c in cands])
    d = PatchDistances(colour.value, colour.variance, 1, 9)
    first = select(errors, cands, d)
    DEBUG.update(cands=cands, errors=errors, first=first)
    pairs = [Pair(x, y, share) for x, y in zip(fa, fb)]
    final = torch.cat([_prefilter(p.mean(), p.mean(), p.variance(), 2) for p in pairs])
    m = first.mean()
    d = PatchDistances(m, first.variance() * SECOND_SCALE, patch_radius, window_radius)
    DEBUG.update(final=final, fa=fa)
    return regress(m, final, d, [1.0])[0]
