"""The table of buffers: every row says what it is, and every list is derived from that."""

from __future__ import annotations

import pytest
import torch

from mitsuba_gdpt import channels
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import KINDS, TABLE, Buffer, Layout
from mitsuba_gdpt.denoisers.learned.features import Feature, InputConfig, preprocess
from mitsuba_gdpt.errors import LayoutError
from mitsuba_gdpt.training import augment
from tests import examples

ALL = Layout(TABLE)

#: What is known of each kind: components, and powers of exposure, colour of the light and colour
#: of the surfaces that its values are multiplied with.
COMPONENTS = {
    "radiance": 3,
    "reflectance": 3,
    "direction": 3,
    "point": 3,
    "distance": 1,
    "share": 1,
    "count": 1,
    "displacement": 2,
}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
class TestEveryBuffer:
    def test_has_a_kind(self, row: Buffer) -> None:
        assert row.kind in KINDS
        assert len(row) == (1 if row.variance_of else COMPONENTS[row.kind])
        if row.variance_of is not None:
            base = channels.buffer(row.variance_of)
            assert row.name == base.name + channels.VARIANCE_SUFFIX
            assert (row.kind, row.difference, row.demodulated) == (
                base.kind,
                base.difference,
                base.demodulated,
            )

    def test_network_sees_it_exposed_if_it_is_radiance(self, row: Buffer) -> None:
        data = torch.rand(1, 8, 8, ALL.count, generator=torch.Generator().manual_seed(0))
        config = InputConfig((Feature(row.name),))
        plain, twice = (
            preprocess(data, ALL, config, alignment=1, exposure=torch.full((1, 1, 1, 1), scale))
            for scale in (1.0, 2.0)
        )
        power = (1 if row.variance_of is None else 2) if row.kind == "radiance" else 0
        torch.testing.assert_close(twice.input, plain.input * 2**power)

    def test_augmentation_of_colours(self, row: Buffer) -> None:
        data = torch.rand(4, 4, ALL.count, generator=torch.Generator().manual_seed(0))
        start = examples.frame(data, ALL, torch.rand(1, 4, 4, 3))
        colour, brightness = torch.tensor([0.5, 2.0, 0.25]), 3.0
        factor = {"radiance": colour * brightness, "reflectance": colour}.get(row.kind)
        if factor is None:
            factor = torch.ones(1)
        if row.variance_of is not None:
            factor = factor.square().mean()
        changed = augment.multiply(start, colour, brightness)
        torch.testing.assert_close(changed.buffers[row.name], start.buffers[row.name] * factor)
        permuted = augment.permute(start, (2, 0, 1)).buffers[row.name]
        coloured = row.kind in ("radiance", "reflectance") and row.variance_of is None
        expected = start.buffers[row.name]
        assert torch.equal(permuted, expected[..., [2, 0, 1]] if coloured else expected)

    def test_crop_obeys_the_border_rule(self, row: Buffer) -> None:
        cropped = FrameBuffers(torch.ones(2, 6, 6, ALL.count), ALL).crop(1, 1, 3, 4)[row.name]
        zeros = int((cropped == 0).sum())
        at_border = {-2: 2 * 4, -3: 2 * 3, None: 0}[row.difference] * len(row)
        assert zeros == at_border
        if row.difference is not None:
            assert not cropped.select(row.difference, -1).any()


def test_a_row_without_a_kind_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="kind"):
        Buffer("novelty", ("I",), doc="what is missing here")  # type: ignore[call-arg]


def test_lists_are_those_of_the_table() -> None:
    assert channels.DIFFERENCE_AXES == {"dx": -2, "dy": -3}
    assert channels.GRADIENTS == ("dx", "dy", "dx.var", "dy.var")
    radiance = ("primal", "dx", "dy", "diffuse", "specular", "emission", "direct")
    assert channels.of_kind("radiance") == radiance
    assert channels.of_kind("direction", "displacement") == ("normal", "motion")


class TestLayout:
    def test_of_names_is_in_table_order(self) -> None:
        assert Layout.of(["depth", "dx", "primal"]).names == ("primal", "dx", "depth")
        with pytest.raises(LayoutError, match="unknown buffer 'nonsense'"):
            Layout.of(["nonsense"])

    def test_chosen_keeps_its_own_order(self) -> None:
        layout = Layout.from_channels(["depth.T", "dx.R", "dx.G", "dx.B", "R", "G", "B"])
        assert layout.chosen(["primal", "depth"]).names == ("depth", "primal")
        assert layout.indices(["primal", "depth"]) == [0, 4, 5, 6]
        with pytest.raises(LayoutError, match=r"no buffer albedo; there are: depth, dx, primal"):
            layout.chosen(["albedo"])
