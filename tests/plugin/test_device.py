"""From the render to the clean image on one device: no copies, and the CPU's result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import drjit as dr
import mitsuba as mi
import pytest
import torch

from mitsuba_gdpt import denoise
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.denoisers import find
from mitsuba_gdpt.denoisers.learned import methods, weights
from tests import profiling
from tests.statistical.cases import camera, stage

WIDTH, HEIGHT = 64, 48
PLANE = WIDTH * HEIGHT * 4  # bytes of one channel: less than that is no image

#: Methods of the registry. What has no shipped weights gets untrained ones of the real size.
METHODS = ("none", "poisson-l1", "poisson-l2", "ngpt", "ngpt-small", "kpcn-small")
METHODS += ("nfor", "oidn", "oidn-fusion", "optix", "ngpt-oidn")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of weights by method."""
    from mitsuba_gdpt.denoisers.learned.weights import make_model

    folder, files = tmp_path_factory.mktemp("weights"), {}
    for name in ("ngpt", "ngpt-small", "kpcn-small"):
        torch.manual_seed(0)
        model = make_model(methods.PRESETS[name].config)
        facts = {"tag": "v1", "recipe": "none", "commit": "0", "licence": "BSD-3-Clause"}
        files[name] = weights.save_weights(model, folder, name=name, **facts)
    return files


@pytest.fixture
def scene(device_variant: str) -> Any:
    sensor = camera()
    sensor["film"] = sensor["film"] | {"width": WIDTH, "height": HEIGHT}
    return mi.load_dict(stage({"type": "roughplastic"}, sensor=sensor))


def trace_paths(scene: Any, seed: int = 0) -> tuple[Any, Any]:
    """Return a Dr.Jit tensor of all buffers, and the integrator."""
    buffers = {"variances": True, "features": "diffuse,specular"}
    integrator = mi.load_dict({"type": "gdpt", "max_depth": 4} | buffers)
    return mi.render(scene, integrator=integrator, spp=8, seed=seed), integrator


def options_of(method: str, untrained: dict[str, Path]) -> dict[str, Any]:
    """Return what a method needs to run here, or skip the test."""
    if method in untrained:
        return {"weights": str(untrained[method]), "precision": "float32"}
    if (obstacle := find(method).obstacle) is not None:
        pytest.skip(str(obstacle))
    if method.startswith("ngpt"):
        return {"precision": "float32"}
    return {"window_radius": 4} if method == "nfor" else {}


@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_image_size_is_copied(
    method: str, scene: Any, untrained: dict[str, Path], tmp_path: Path
) -> None:
    options = options_of(method, untrained)

    def run(seed: int) -> Any:
        tensor, integrator = trace_paths(scene, seed)
        image = denoise(tensor, method, layout=integrator, **options)
        dr.eval(image)
        return image

    run(0)  # compiles, loads weights
    with profiling.copies(tmp_path) as copies:
        image = run(1)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert copies.operators  # it did record
    assert copies.of_at_least(PLANE) == []


def test_copies_are_seen(scene: Any, tmp_path: Path, device_variant: str) -> None:
    """The test above can fail: what it looks for is found where it is."""
    tensor, integrator = trace_paths(scene)
    frame = FrameBuffers.from_render(tensor, integrator)
    with profiling.copies(tmp_path) as copies:
        _ = tensor.array[3]
    assert 4 in {size for _, size in copies.of_at_least(1)}
    if device_variant.startswith("llvm"):  # on a GPU, Dr.Jit's own history has none of these
        assert copies.drjit == [4]
    else:
        with profiling.copies(tmp_path) as copies:
            frame.data.cpu().to("cuda")
        names = [name.split()[1] for name, size in copies.across if size >= PLANE]
        assert names == ["DtoH", "HtoD"]
        with profiling.copies(tmp_path) as copies:
            tensor.numpy()  # by Dr.Jit
        assert copies.of_at_least(PLANE)


def test_traces_are_understood(tmp_path: Path) -> None:
    """As torch writes them on a GPU."""
    events = [
        {"cat": "cpu_op", "name": "aten::copy_", "args": {"External id": 1}},
        {"cat": "gpu_memcpy", "name": "Memcpy DtoH (Device -> Pageable)", "args": {"bytes": 4096}},
        {"cat": "gpu_memcpy", "name": "Memcpy DtoD (Device -> Device)", "args": {"bytes": 4096}},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "args": {"bytes": 8}},
        {"cat": "kernel", "name": "gemm", "args": {}},
        {"ph": "M", "name": "process_name"},
    ]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": events}))
    copies = profiling.Copies()
    profiling.read_trace(path, copies)
    assert copies.operators == {"aten::copy_"}
    assert [size for _, size in copies.across] == [4096, 8]
    assert copies.of_at_least(100) == [("Memcpy DtoH (Device -> Pageable)", 4096)]


def test_a_render_is_handed_over_by_address(scene: Any, device_variant: str) -> None:
    tensor, integrator = trace_paths(scene)
    frame = FrameBuffers.from_render(tensor, integrator)
    again = torch.utils.dlpack.from_dlpack(tensor)  # alive at the same time: no second copy
    assert frame.data.data_ptr() == again.data_ptr()
    assert frame.data.is_cuda == device_variant.startswith("cuda")
    assert frame.dy.data_ptr() == again.data_ptr() + 4 * integrator.layout.slices["dy"].start


@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_cpu(method: str, scene: Any, untrained: dict[str, Path]) -> None:
    options = options_of(method, untrained)
    tensor, integrator = trace_paths(scene)
    frame = FrameBuffers.from_render(tensor, integrator)
    image = denoise(frame, method, **options)
    assert image.device == frame.device
    expected = denoise(frame.to("cpu"), method, **options)
    difference = (image.cpu() - expected).abs()
    # Convolutions on a GPU may use TF32, the library of oidn float16.
    assert float(difference.mean()) < 5e-3 * float(expected.abs().mean())


@pytest.mark.parametrize("method", ["ngpt-small", "ngpt-oidn"])
def test_half_precision_is_close(method: str, scene: Any, untrained: dict[str, Path]) -> None:
    options = options_of(method, untrained)
    tensor, integrator = trace_paths(scene)
    frame = FrameBuffers.from_render(tensor, integrator)
    exact = denoise(frame, method, **options)
    rough = denoise(frame, method, **options | {"precision": "bfloat16"})
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert float((rough - exact).abs().mean()) < 0.02 * float(exact.abs().mean())


@pytest.mark.parametrize("variances", [False, True])
def test_passes_do_not_show_in_the_mean(scene: Any, variances: bool) -> None:
    """A frame in one pass and in many are estimates of the same image, with the same noise."""
    images = []
    for lanes in (1 << 22, WIDTH * 7 * 16):
        integrator = mi.load_dict(
            {"type": "gdpt", "max_depth": 4, "max_lanes": lanes, "variances": variances}
        )
        tensor = mi.render(scene, integrator=integrator, spp=16)
        images.append(FrameBuffers.from_render(tensor, integrator))
    whole, split = images
    for name in ("primal", "dx", "dy"):
        a, b = whole[name].abs().mean(), split[name].abs().mean()
        assert float((a - b).abs()) < 0.1 * float(a), name
    if variances:
        ratio = whole["primal.var"].mean() / split["primal.var"].mean()
        assert 0.5 < float(ratio) < 2
    seams = [image.dy[6::7].abs().mean() for image in images]  # between tiles of 7 rows
    assert 0.5 < float(seams[0] / seams[1]) < 2


def test_a_model_stays_on_its_device(scene: Any, untrained: dict[str, Path]) -> None:
    """The cache of models does not give a GPU's network to the CPU, or the reverse."""
    path = untrained["ngpt-small"]
    tensor, integrator = trace_paths(scene)
    frame = FrameBuffers.from_render(tensor, integrator)
    wanted = (frame.device, torch.device("cpu"), frame.device)
    for where in wanted:
        model = weights.cached_model(str(path), where)
        assert {parameter.device.type for parameter in model.parameters()} == {where.type}
