"""Screen-space motion: reprojected pixels see the same point; cameras are those of Mitsuba."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mitsuba_gdpt import rendering, scenes
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.errors import ConfigError, FormatError, LayoutError
from mitsuba_gdpt.motion import PinholeCamera, add_known_motion, add_motion, screen_motion
from mitsuba_gdpt.rendering import Source
from mitsuba_gdpt.scenes import Camera

pytestmark = pytest.mark.usefixtures("variant_llvm_rgb")

WIDTH, HEIGHT = 96, 64
FILM = {"type": "hdrfilm", "width": WIDTH, "height": HEIGHT, "rfilter": {"type": "box"}}
BEFORE = Camera(origin=(0.3, 0.9, 3.2), target=(0.0, 0.2, 0.0), fov=50.0)
NOW = Camera(origin=(-0.2, 1.1, 2.9), target=(0.1, 0.3, 0.0), up=(0.1, 1.0, 0.0), fov=44.0)


def sensor(camera: Camera, **film: int) -> Any:
    import mitsuba as mi

    return mi.load_dict({**camera.as_dict(), "film": {**FILM, **film}})


def pinhole(camera: Camera, **film: int) -> PinholeCamera:
    return PinholeCamera.from_sensor(sensor(camera, **film))


def still_life(**more: Any) -> Source:
    import mitsuba as mi

    turn = mi.ScalarTransform4f().rotate([1, 0, 0], -90)
    scene = mi.load_dict(
        {
            "type": "scene",
            "floor": {"type": "rectangle", "to_world": turn.scale(5)},
            "ball": {"type": "sphere", "radius": 0.5, "center": [0, 0.5, 0]},
            "sky": {"type": "constant"},
            **more,
        },
        optimize=False,
    )
    return Source("still life", scene)


def render(source: Source, camera: Camera, spp: int = 16, **film: int) -> FrameBuffers:
    integrator = rendering.make_integrator({"features": "position", "max_depth": 3, "shifts": 0})
    return rendering.render(source, integrator, spp=spp, sensor=sensor(camera, **film))


def world(points: torch.Tensor, camera: PinholeCamera) -> torch.Tensor:
    matrix = torch.tensor(camera.to_world)
    return points.double() @ matrix[:3, :3].T + matrix[:3, 3]


def look_up(image: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Interpolate an (H, W, C) image at pixel positions (H, W, 2), pixel centres at .5."""
    height, width, _ = image.shape
    grid = where / torch.tensor([width, height]) * 2 - 1
    found = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None].double(), grid[None].double(), align_corners=False
    )
    return found[0].permute(1, 2, 0)


def centres(height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y], dim=-1)


class TestReprojection:
    @pytest.fixture
    def errors(self) -> torch.Tensor:
        """Distance between a point and what the reprojected pixel sees, in pixels; where seen."""
        source = still_life()
        before, now = render(source, BEFORE), render(source, NOW)
        motion = screen_motion(now.depth, pinhole(NOW), pinhole(BEFORE))
        source_pixel = centres() + motion
        inside = ((source_pixel > 1) & (source_pixel < torch.tensor([WIDTH, HEIGHT]) - 1)).all(-1)
        seen = look_up(world(before.position, pinhole(BEFORE)), source_pixel)
        distance = torch.linalg.vector_norm(seen - world(now.position, pinhole(NOW)), dim=-1)
        footprint = now.depth[..., 0] * 2 * np.tan(np.radians(NOW.fov / 2)) / WIDTH
        solid = (now.depth[..., 0] > 0) & (look_up(before.depth, source_pixel)[..., 0] > 0)
        near = now.depth[..., 0] < 4  # further away a pixel sees a long stretch of the floor
        usable = inside & solid & near
        assert usable.float().mean() > 0.4
        return (distance / footprint)[usable]

    def test_same_point(self, errors: torch.Tensor) -> None:
        assert errors.median() < 0.1
        assert (errors < 1).float().mean() > 0.85  # the rest is hidden by the ball in one view

    def test_motion_is_large(self) -> None:
        now = render(still_life(), NOW, spp=1)
        motion = screen_motion(now.depth, pinhole(NOW), pinhole(BEFORE))
        assert motion[..., 0].abs().median() > 3
        assert motion[..., 1].abs().median() > 1


def test_agrees_with_the_rendered_position() -> None:
    """For directly visible points depth says what ``position`` says."""
    now, camera, previous = render(still_life(), NOW, spp=256), pinhole(NOW), pinhole(BEFORE)
    points = world(now.position, camera)
    inverse = torch.tensor(np.linalg.inv(previous.to_world))
    before = points @ inverse[:3, :3].T + inverse[:3, 3]
    pixel = before @ torch.tensor(previous.to_pixel).T
    expected = pixel[..., :2] / pixel[..., 2:] - centres()
    motion = screen_motion(now.depth, camera, previous)
    even = (now.depth[..., 0] > 0) & (now.depth[..., 0] < 4)
    difference = (motion - expected).abs().amax(-1)[even]
    assert difference.median() < 0.02
    assert torch.quantile(difference, 0.9) < 0.1


def test_virtual_image_behind_a_mirror() -> None:
    """A mirror at z = 0 shows the wall at z = 2 (behind the camera) as if it were at z = -2."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    mirror = {"type": "rectangle", "to_world": t().scale(4), "bsdf": {"type": "conductor"}}
    wall = {
        "type": "rectangle",
        "to_world": t().translate([0, 0, 2]).rotate([0, 1, 0], 180).scale(9),
    }
    virtual = {"type": "rectangle", "to_world": t().translate([0, 0, -2]).scale(9)}
    before = Camera(origin=(0.2, 0.0, 1.5), target=(0.0, 0.1, 0.0))
    now = Camera(origin=(-0.1, 0.1, 1.4), target=(0.1, 0.0, 0.0))
    motions = []
    for shapes in ({"mirror": mirror, "wall": wall}, {"virtual": virtual}):
        scene = mi.load_dict({"type": "scene", "sky": {"type": "constant"}, **shapes})
        depth = render(Source("mirror", scene), now, spp=4).depth
        motions.append(screen_motion(depth, pinhole(now), pinhole(before)))
    assert motions[0].abs().max() > 5
    torch.testing.assert_close(*motions, rtol=0, atol=0.02)


def test_camera_at_rest_has_no_motion() -> None:
    frame = render(still_life(), NOW, spp=2)
    assert torch.equal(
        screen_motion(frame.depth, pinhole(NOW), pinhole(NOW)), torch.zeros(HEIGHT, WIDTH, 2)
    )


def test_direction_of_the_axes() -> None:
    """After the camera moved right or down, content is further left or up than before."""
    depth = torch.full((HEIGHT, WIDTH, 1), 3.0)
    before = Camera(origin=(0.0, 0.0, 3.0), target=(0.0, 0.0, 0.0))  # its right is world +X
    right = replace(before, origin=(0.1, 0.0, 3.0), target=(0.1, 0.0, 0.0))
    down = replace(before, origin=(0.0, -0.1, 3.0), target=(0.0, -0.1, 0.0))
    motion = screen_motion(depth, pinhole(right), pinhole(before))
    assert (motion[..., 0] > 0).all()
    assert motion[..., 1].abs().max() < 1e-3
    motion = screen_motion(depth, pinhole(down), pinhole(before))
    assert (motion[..., 1] > 0).all()
    assert motion[..., 0].abs().max() < 1e-3


def test_escaped_rays_follow_the_rotation_only() -> None:
    sky = torch.zeros(HEIGHT, WIDTH, 1)
    moved = replace(BEFORE, origin=(5.3, 0.9, 3.2), target=(5.0, 0.2, 0.0))
    motion = screen_motion(sky, pinhole(moved), pinhole(BEFORE))
    assert motion.abs().max() < 1e-3
    turned = screen_motion(sky, pinhole(NOW), pinhole(BEFORE))
    far = screen_motion(torch.full_like(sky, 1e7), pinhole(NOW), pinhole(BEFORE))
    assert turned.abs().max() > 3
    torch.testing.assert_close(turned, far, rtol=0, atol=1e-2)


def test_behind_the_previous_camera_leads_out_of_the_frame() -> None:
    turned = replace(BEFORE, target=(0.6, 1.6, 6.4))  # looks the other way
    motion = screen_motion(torch.full((HEIGHT, WIDTH, 1), 2.0), pinhole(turned), pinhole(BEFORE))
    assert torch.equal(motion, torch.tensor([float(WIDTH), float(HEIGHT)]).expand_as(motion))


class TestPinholeCamera:
    @pytest.mark.parametrize(
        "film",
        [{}, {"crop_width": 20, "crop_height": 30, "crop_offset_x": 40, "crop_offset_y": 10}],
    )
    def test_projects_rendered_points_to_their_pixels(self, film: dict[str, int]) -> None:
        frame = render(still_life(), NOW, spp=256, **film)
        camera = pinhole(NOW, **film)
        pixel = frame.position.double() @ torch.tensor(camera.to_pixel).T
        error = pixel[..., :2] / pixel[..., 2:] - centres(frame.height, frame.width)
        even = (frame.depth[..., 0] > 0) & (frame.depth[..., 0] < 4)
        assert torch.quantile(error.abs().amax(-1)[even], 0.9) < 0.1

    def test_is_that_of_mitsuba(self) -> None:
        import mitsuba as mi

        camera = pinhole(NOW)
        expected = np.array(sensor(NOW).world_transform().matrix).reshape(4, 4)
        np.testing.assert_allclose(camera.to_world, expected)
        np.testing.assert_allclose(camera.near, 0.01, rtol=1e-4)
        focal = WIDTH / 2 / np.tan(np.radians(NOW.fov / 2))
        intrinsics = [[-focal, 0, WIDTH / 2], [0, -focal, HEIGHT / 2], [0, 0, 1]]
        np.testing.assert_allclose(camera.to_pixel, intrinsics, atol=1e-3)
        assert mi.variant() == "llvm_ad_rgb"

    def test_lens_is_taken_for_a_pinhole(self) -> None:
        lens = pinhole(replace(NOW, aperture=0.2))
        np.testing.assert_allclose(lens.to_pixel, pinhole(NOW).to_pixel, atol=1e-3)

    def test_other_sensors_are_refused(self) -> None:
        import mitsuba as mi

        orthographic = mi.load_dict({"type": "orthographic", "film": FILM})
        with pytest.raises(ConfigError, match="no perspective camera"):
            PinholeCamera.from_sensor(orthographic)

    def test_metadata_round_trip(self) -> None:
        camera = pinhole(NOW)
        again = PinholeCamera.from_metadata(camera.metadata())
        assert np.array_equal(again.to_world, camera.to_world)
        assert np.array_equal(again.to_pixel, camera.to_pixel)
        assert again.near == camera.near

    @pytest.mark.parametrize(
        "change",
        [
            {"camera_near": "far"},
            {"camera_to_world": "[[1"},
            {"camera_to_world": "[[1, 0], [0, 1]]"},
            {"camera_to_pixel": "[]"},
        ],
    )
    def test_damaged_metadata(self, change: dict[str, str]) -> None:
        with pytest.raises(FormatError):
            PinholeCamera.from_metadata({**pinhole(NOW).metadata(), **change})
        with pytest.raises(FormatError, match="no camera in this metadata"):
            PinholeCamera.from_metadata({})


class TestBuffer:
    def test_is_appended(self) -> None:
        frame = render(still_life(), NOW, spp=1)
        more = add_motion(frame, pinhole(NOW), pinhole(BEFORE))
        assert more.names == (*frame.names, "motion")
        assert more.layout.channels[-2:] == ("motion.X", "motion.Y")
        assert torch.equal(more.data[..., :-2], frame.data)
        expected = screen_motion(frame.depth, pinhole(NOW), pinhole(BEFORE))
        assert torch.equal(more.motion, expected)

    def test_first_frame(self) -> None:
        frame = render(still_life(), NOW, spp=1)
        assert not add_motion(frame, pinhole(NOW), None).motion.any()

    def test_twice(self) -> None:
        frame = add_motion(render(still_life(), NOW, spp=1), pinhole(NOW), None)
        with pytest.raises(LayoutError, match="have motion already"):
            add_motion(frame, pinhole(NOW), None)

    def test_cameras_of_the_metadata(self) -> None:
        frame = render(still_life(), NOW, spp=1)
        assert add_known_motion(frame, pinhole(BEFORE)) == (frame, None)
        known = FrameBuffers(frame.data, frame.layout, pinhole(NOW).metadata())
        more, camera = add_known_motion(known, pinhole(BEFORE))
        assert camera is not None
        assert torch.equal(more.motion, screen_motion(frame.depth, pinhole(NOW), pinhole(BEFORE)))
        assert add_known_motion(more, None)[0] is more

    def test_wrong_depth(self) -> None:
        with pytest.raises(LayoutError, match=r"expected \(H, W, 1\)"):
            screen_motion(torch.zeros(4, 4), pinhole(NOW), pinhole(NOW))

    def test_cannot_be_rendered(self) -> None:
        with pytest.raises(ConfigError, match="motion cannot be rendered: it takes the camera of"):
            rendering.make_integrator({"features": "roughness,motion"})


def test_camera_of_a_builtin_scene_has_an_up_vector() -> None:
    camera = scenes.describe("corner-gallery").camera
    assert camera.up == (0.0, 1.0, 0.0)
    rolled = pinhole(replace(camera, up=(1.0, 0.0, 0.0)))
    assert not np.allclose(rolled.to_world, pinhole(camera).to_world)
