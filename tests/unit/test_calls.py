"""Methods with options as values: one grammar, one decoder, wherever a call is written."""

from __future__ import annotations

import json
import pickle
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mitsuba_gdpt import FrameBuffers, Layout, add_motion, denoise, stream
from mitsuba_gdpt.decoding import Text, decode
from mitsuba_gdpt.denoisers import Call, find, methods, registry
from mitsuba_gdpt.denoisers.learned import weights
from mitsuba_gdpt.errors import ConfigError, LayoutError, NonFiniteError
from mitsuba_gdpt.motion import PinholeCamera

CAMERA = PinholeCamera(np.eye(4), np.array([[-7.0, 0, 3], [0, -7, 3], [0, 0, 1]]))
NESTED = "temporal(frames=4, using=oidn(ensemble=4))"


def frame() -> FrameBuffers:
    layout = Layout.make(variances=True)
    data = torch.rand(6, 7, layout.count, generator=torch.Generator().manual_seed(0))
    return FrameBuffers(data, layout)


class TestText:
    @pytest.mark.parametrize(
        ("text", "method", "options"),
        [
            ("none", "none", {}),
            ("oidn()", "oidn", {}),
            (" oidn ( hdr = false , ensemble=4 ) ", "oidn", {"hdr": False, "ensemble": 4}),
            ("oidn(aux=none, prefilter=None)", "oidn", {"aux": None, "prefilter": None}),
            ("nfor(bandwidths=(0.5, 1))", "nfor", {"bandwidths": (0.5, 1.0)}),
            ("nfor(bandwidths=[2])", "nfor", {"bandwidths": (2.0,)}),
            ("poisson-l2(alpha=1)", "poisson-l2", {"alpha": 1.0}),
            ("oidn(weights='a, (b).tza')", "oidn", {"weights": "a, (b).tza"}),
            ("oidn(weights=/a/b=c.tza)", "oidn", {"weights": "/a/b=c.tza"}),
            (NESTED, "temporal", {"frames": 4, "using": Call("oidn", {"ensemble": 4})}),
            ("oidn,aux=raw,hdr=true", "oidn", {"aux": "raw", "hdr": True}),
            ("temporal,frames=4,using=oidn,ensemble=4", "temporal", Call.parse(NESTED).options),
            ("nfor,bandwidths=(0.5,1.0)", "nfor", {"bandwidths": (0.5, 1.0)}),
        ],
    )  # fmt: skip
    def test_is_read(self, text: str, method: str, options: dict[str, object]) -> None:
        call = Call.parse(text)
        assert (call.method, call.options) == (method, options)
        assert all(type(call.options[name]) is type(options[name]) for name in options)
        assert Call.parse(str(call)) == call  # and is written so that it reads the same
        assert Call.parse(call) is call

    def test_is_written(self) -> None:
        call = Call("temporal", {"using": "oidn-fusion(using=oidn(hdr=false), weight=2)"})
        assert str(call) == "temporal(using=oidn-fusion(using=oidn(hdr=false), weight=2.0))"
        assert str(Call("oidn", {"weights": Path("a b.tza")})) == 'oidn(weights="a b.tza")'
        assert str(Call("nfor", {"bandwidths": [1, 2]})) == "nfor(bandwidths=(1.0, 2.0))"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "expected NAME"),
            ("nothing", "unknown reconstruction method 'nothing'"),
            ("temporal(using=nothing)", "unknown reconstruction method 'nothing'"),
            ("temporal,using=oidn,frames=4", "'oidn' has no option 'frames'"),
            ("oidn(aux)", "sets no option"),
            ("oidn(aux=)", "sets no option"),
            ("oidn(aux=raw, aux=none)", "one that is set"),
            ("oidn(aux=raw", "expected NAME"),
            ("oidn(aux=(raw)", "does not close"),
            ("oidn(aux=raw))", "closes a bracket"),
            ("oidn(ensemble=4.5)", "ensemble is '4.5'; expected a whole number"),
            ("oidn(ensemble=true)", "ensemble is 'true'"),
            ("oidn(hdr=2)", "hdr is '2'; expected true or false"),
            ("poisson-l2(alpha=nan)", "alpha is nan; expected a finite number"),
            ("poisson-l2(alpha=1e999)", "alpha is inf; expected a finite number"),
            ("poisson-l2(alpha=" + "9" * 5000 + ")", "expected NAME"),
            ("nfor(bandwidths=(a, 1))", r"bandwidths\[0\] is 'a'"),
            ("temporal(using=" * 250 + "none" + ")" * 250, "expected NAME"),
            ("temporal(using=" * 100_000, "expected NAME"),
        ],
    )
    def test_is_refused(self, text: str, message: str) -> None:
        start = time.perf_counter()
        with pytest.raises(ConfigError, match=message) as caught:
            denoise(frame(), text)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
        assert time.perf_counter() - start < 60


class TestOptions:
    @pytest.mark.parametrize(
        ("method", "options"),
        [
            ("oidn", {"input_scale": "2"}),
            ("oidn", {"input_scale": float("nan")}),
            ("oidn", {"ensemble": 4.0}),
            ("oidn", {"quality": 3}),
            ("nfor", {"bandwidths": 0.5}),
            ("nfor", {"bandwidths": (0.5, float("inf"))}),
            ("nfor", {"patch_radius": 1.5}),
            ("poisson-l1", {"alpha": None}),
            ("poisson-l1", {"cg_iterations": 10**400}),
            ("ngpt-small", {"memory": float("nan")}),
            ("ngpt-small", {"weights": 3}),
            ("temporal", {"frames": "4"}),
            ("temporal", {"using": 4}),
        ],
    )
    def test_of_another_type_are_refused(self, method: str, options: dict[str, object]) -> None:
        with pytest.raises(ConfigError, match=next(iter(options))):
            denoise(frame(), method, **options)

    def test_mean_the_same_everywhere(self) -> None:
        expected = denoise(frame(), "poisson-l1", alpha=0.5, irls_iterations=3)
        text = "poisson-l1(alpha=0.5, irls_iterations=3)"
        written = {"alpha": Text("0.5"), "irls_iterations": Text("3")}  # of the command line
        for image in (
            denoise(frame(), text),
            denoise(frame(), Call.parse(text)),
            denoise(frame(), "poisson-l1(alpha=9)", alpha=0.5, irls_iterations=3),
            denoise(frame(), "poisson-l1", **written),
            stream(text)(frame()),
            denoise(frame(), f"temporal(frames=1, using={text})"),
        ):
            assert torch.equal(image, expected)

    def test_of_every_method_have_a_type(self) -> None:
        for method in methods():
            assert set(method.types) == set(method.options)
            for name, default in method.options.items():
                decode(method.types[name], default, name)


class TestValue:
    def test_equal_hashed_pickled(self) -> None:
        a, b = Call.parse(NESTED), Call("temporal", {"frames": 4, "using": "oidn,ensemble=4"})
        assert a == b
        assert len({a, b, Call("temporal")}) == 2
        assert pickle.loads(pickle.dumps(a)) == a
        assert Call.parse(json.loads(json.dumps(str(a)))) == a

    def test_knows_what_its_methods_read(self) -> None:
        assert "dx" in Call("temporal").reads
        assert "dx" not in Call.parse("temporal(using=oidn)").reads
        assert "dx.var" in Call.parse("temporal(using=oidn-fusion(using=poisson-l2))").requires
        assert find("temporal").inner == find("oidn-fusion").inner == ("using",)
        assert find("oidn").inner == ()

    def test_knows_what_keeps_it_from_running(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Call("temporal", {"using": "none"}).obstacle is None
        monkeypatch.setattr(weights, "folders", list)
        obstacle = Call.parse("temporal(using=ngpt-small)").obstacle
        assert "no weights for 'ngpt-small'" in str(obstacle)

    def test_identity_has_the_weights(self) -> None:
        own = Call("ngpt-small", {"precision": "float32"}).identity
        assert own.startswith("ngpt-small-v")
        assert own.endswith("(precision=float32)")
        assert Call("temporal").identity.startswith("temporal(using=ngpt-fusion-v")
        assert Call("poisson-l2").identity == "poisson-l2"


class TestInnerMethods:
    """What a method and all that it calls need is checked once, before the outermost runs."""

    @pytest.fixture
    def counts(self, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
        """Count looks for numbers that are not finite, and for obstacles of ``oidn``."""
        counts: Counter[str] = Counter()
        validate, oidn = FrameBuffers.validate, find("oidn")

        def counting(self: FrameBuffers, names: Iterable[str] | None = None) -> None:
            counts["validate"] += 1
            validate(self, names)

        def check(options: Mapping[str, object]) -> None:
            counts["check"] += 1

        monkeypatch.setattr(FrameBuffers, "validate", counting)
        monkeypatch.setitem(registry._METHODS, "oidn", replace(oidn, check=check))
        return counts

    @pytest.mark.parametrize(
        ("call", "checks"),
        [
            ("poisson-l2", 0),
            ("oidn", 1),
            ("ngpt-fusion(using=oidn(aux=raw))", 1),
            ("oidn-fusion(using=oidn(aux=none))", 1),
            ("temporal(using=oidn-fusion(using=oidn(aux=raw)))", 1),
        ],
    )
    def test_everything_is_checked_once(self, counts: Counter[str], call: str, checks: int) -> None:
        assert denoise(frame(), call).shape == (6, 7, 3)
        assert counts == Counter(validate=1, check=checks)

    def test_each_frame_of_a_sequence_is_checked(self, counts: Counter[str]) -> None:
        sequence = stream("temporal(using=oidn)")
        for _ in range(3):
            sequence(add_motion(frame(), CAMERA, CAMERA))
        assert counts == Counter(validate=3, check=3)

    @pytest.mark.parametrize(
        ("call", "name", "lacking"),
        [
            ("temporal(using=oidn-fusion(using=poisson-l2))", "oidn-fusion", "dx.var"),
            ("temporal(using=nfor)", "nfor", "primal.var"),
        ],
    )
    def test_the_method_that_lacks_a_buffer_is_named(
        self, call: str, name: str, lacking: str
    ) -> None:
        plain = FrameBuffers(torch.rand(6, 7, Layout.make().count), Layout.make())
        with pytest.raises(LayoutError, match=f"method '{name}' needs .*{lacking}"):
            denoise(plain, call)

    def test_what_only_an_inner_method_reads_has_to_be_finite(self) -> None:
        buffers = frame()
        buffers["dx.var"][2, 3] = float("nan")
        assert "dx.var" not in Call.parse("temporal(using=oidn)").reads
        denoise(buffers, "temporal(using=oidn)")
        with pytest.raises(NonFiniteError, match=r"dx\.var: 1"):
            denoise(buffers, "temporal(using=oidn-fusion)")
