"""Weights that ship: they load, say where they come from, and have a model card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers.learned import weights
from mitsuba_gdpt.denoisers.learned.presets import PRESETS

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "mitsuba_gdpt" / "denoisers" / "weights").glob("*.safetensors"))
_LARGEST = 20 << 20


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_weights(path: Path) -> None:
    model, info = weights.read_weights(path)
    assert path.stat().st_size <= _LARGEST
    assert info.name in PRESETS
    assert weights.find_weights(info.name) == path
    assert info.metadata["licence"]
    card = ROOT / "docs" / "models" / f"{info.name}-{info.tag}.md"
    assert path.stem in card.read_text(), "the model card is of other weights"

    layout = Layout.make(features=("diffuse", "specular"), variances=True)
    data = torch.rand(1, 24, 40, layout.count, generator=torch.Generator().manual_seed(0))
    guides = data[:, None, ..., :3].expand(-1, len(model.guides), -1, -1, -1)
    with torch.no_grad():
        image = model(data, layout, guides)
    assert image.shape == (1, 24, 40, 3)
    assert torch.isfinite(image).all()


def test_a_learned_method_ships() -> None:
    assert SHIPPED
