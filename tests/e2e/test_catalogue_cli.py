"""``mitsuba-gdpt catalogue``: from a scene file to a catalogue and its contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mitsuba_gdpt.cli import main
from mitsuba_gdpt.scenes import Catalogue

ROOM = """<scene version="3.0.0">
  <sensor type="perspective">
    <float name="fov" value="60"/>
    <film type="hdrfilm">
      <integer name="width" value="32"/><integer name="height" value="18"/>
    </film>
    <transform name="to_world">
      <lookat origin="0.3,0.2,3.2" target="0,-0.4,-1" up="0,1,0"/>
    </transform>
  </sensor>
  <bsdf type="twosided" id="paint">
    <bsdf type="diffuse"><rgb name="reflectance" value="$shade"/></bsdf>
  </bsdf>
  <shape type="cube">
    <transform name="to_world"><scale x="3" y="1.5" z="4"/></transform><ref id="paint"/>
  </shape>
  <shape type="cube">
    <transform name="to_world">
      <scale x="0.7" y="0.8" z="0.7"/><translate x="-0.5" y="-0.7" z="-1.5"/>
    </transform>
    <ref id="paint"/>
  </shape>
  <shape type="sphere">
    <point name="center" x="1.4" y="-0.8" z="-1"/><float name="radius" value="0.7"/>
    <ref id="paint"/>
  </shape>
  <shape type="sphere">
    <point name="center" x="0" y="1.2" z="0"/><float name="radius" value="0.2"/>
    <emitter type="area"><rgb name="radiance" value="12"/></emitter>
  </shape>
</scene>"""


def _run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in arguments])
    return int(stopped.value.code or 0)


def test_propose_then_review(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scene = tmp_path / "scenes" / "My Room.xml"
    scene.parent.mkdir()
    scene.write_text(ROOM)
    file = tmp_path / "my.toml"
    variant = ("--variant", "llvm_ad_rgb")
    words = ("-D", "shade=0.6", "--author", "Nobody", *variant)
    assert _run("catalogue", "propose", scene, "-o", file, *words) == 0
    assert "of sampled views are good" in capfd.readouterr().out
    assert 'source = "scenes/My Room.xml"' in file.read_text()
    (entry,) = Catalogue.open(file).scenes
    assert (entry.name, entry.author, entry.parameters) == ("my-room", "Nobody", {"shade": "0.6"})
    assert entry.boxes
    assert entry.targets

    size = ("--count", 2, "--width", 32, "--spp", 2)
    assert _run("catalogue", "review", file, "-o", tmp_path / "sheets", *size, *variant) == 0
    assert "my-room.png: " in capfd.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "sheets" / "my-room.png"))
    first = sheet[8 : 8 + 18, 8 : 8 + 32]
    assert first.std() > 5, "a view is a picture, not a flat colour"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("propose", "builtin:chess", "-o", "x.txt"), "x.txt should end in .toml"),
        (("propose", "builtin:ches", "-o", "x.toml"), "did you mean 'chess'"),
        (("propose", "builtin:chess", "-o", "x.toml", "--split", "val"), "--split is 'val'"),
        (("review", "none.toml", "-o", "x"), "no such catalogue"),
        (("review", "builtin", "-o", "x", "--scene", "ches"), "did you mean 'chess'"),
        (("review", "dev", "--root", "nowhere", "-o", "x"), "missing scene files"),
    ],
)
def test_errors(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("catalogue", *words) == 2
    assert message in capfd.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing is written"
