"""Weights that ship: they load, say where they come from, and have a model card."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from mitsuba_gdpt import denoisers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import LEVELS
from mitsuba_gdpt.denoisers.learned import weights
from mitsuba_gdpt.denoisers.learned.methods import PRESETS
from mitsuba_gdpt.denoisers.learned.methods import SHIPPED as METHODS
from mitsuba_gdpt.errors import WeightsError

ROOT = Path(__file__).parents[2]
OWN = sorted((ROOT / "mitsuba_gdpt" / "denoisers" / "weights").glob("*.safetensors"))
MORE = sorted((ROOT / "weights" / "mitsuba_gdpt_weights").glob("*.safetensors"))
SHIPPED = [*OWN, *MORE]
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


def test_methods_are_what_ships() -> None:
    names = sorted(path.name.rsplit("-", 2)[0] for path in SHIPPED)
    assert names == sorted(METHODS)
    recurrent = {name for name in METHODS if denoisers.find(name).recurrent}
    assert recurrent == {"rdae", "rdae-grad", "rdae-oidn"}


def test_what_the_levels_of_quality_need_is_part_of_the_package() -> None:
    own = {path.name.rsplit("-", 2)[0] for path in OWN}
    needed = {candidate.call.method for level in LEVELS.values() for candidate in level.candidates}
    assert own == needed & set(PRESETS)
    assert sum(path.stat().st_size for path in OWN) < 5 << 20


def test_where_weights_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the environment, then the package, then distributions and the checkout."""
    assert MORE[0].parent in weights.folders()
    mine = tmp_path / OWN[0].name
    mine.write_bytes(OWN[0].read_bytes())
    name = mine.name.rsplit("-", 2)[0]
    assert weights.find_weights(name) == OWN[0]
    monkeypatch.setenv(weights.ENVIRONMENT_VARIABLE, str(tmp_path))
    assert weights.find_weights(name) == mine
    point = EntryPoint("mine", f"{__name__}:ROOT", weights.ENTRY_POINTS)
    monkeypatch.setattr(weights, "entry_points", lambda group: [point])
    monkeypatch.setattr(weights, "_installed", weights._installed.__wrapped__)  # what is cached
    assert ROOT in weights.folders()
    monkeypatch.setattr(weights, "_CHECKOUT", tmp_path / "none")
    with pytest.raises(WeightsError, match="install mitsuba-gdpt-weights"):
        weights.find_weights("ngpt-small")
