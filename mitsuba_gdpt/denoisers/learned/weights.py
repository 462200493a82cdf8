"""Weights of networks: safetensors files that say what they are, loaded strictly.

A file is named ``NAME-TAG-HASH.safetensors``, where HASH is the first 8 digits of the SHA-256 of
its contents, and describes itself in its metadata; see docs/models/README.md. Nothing is ever
unpickled.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch.overrides import TorchFunctionMode

from mitsuba_gdpt.decoding import decode
from mitsuba_gdpt.denoisers.learned.backbone import BackboneConfig, BackboneModel
from mitsuba_gdpt.denoisers.learned.dense import DenseModel, DenseModelConfig
from mitsuba_gdpt.denoisers.learned.fusion import FusionModel, FusionModelConfig
from mitsuba_gdpt.denoisers.learned.kpcn import KPCN, KPCNConfig
from mitsuba_gdpt.denoisers.learned.model import Model
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModel, RecurrentModelConfig
from mitsuba_gdpt.errors import ConfigError, GDPTError, WeightsError
from mitsuba_gdpt.files import replace_file

#: Version of the metadata; files of another version are refused.
FORMAT_VERSION = "1"
#: Names a folder in which weights are looked for first.
ENVIRONMENT_VARIABLE = "MITSUBA_GDPT_WEIGHTS"
#: Entry points of distributions that bring weights: the path of their folder.
ENTRY_POINTS = "mitsuba_gdpt.weights"
#: Metadata that every file has.
REQUIRED = ("format_version", "name", "tag", "arch", "config", "recipe", "commit", "licence")

_SUFFIX = ".safetensors"
_OWN = Path(__file__).parents[1] / "weights"
_CHECKOUT = Path(__file__).parents[3] / "weights" / "mitsuba_gdpt_weights"
#: Largest file, and largest size and list in a configuration: a damaged or foreign file must not
#: take all memory, or an hour, before it is refused. Shipped files stay below a tenth of these.
_LARGEST_FILE = 1 << 29
_LARGEST_SIZE = 2048
_LONGEST_LIST = 128
_LONGEST_REASON = 400  # characters of a message
#: What Python raises for values of other types and sizes than expected.
_MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError)

#: A folder of an absolute path; what follows is the name of a file.
_FOLDER = re.compile(
    r"""(?:(?<=^)|(?<=[\s"'=,;:(\[{]))(?:~|[A-Za-z]:)?[/\\](?:[^/\\\s"',;:()\[\]{}]+[/\\])+""",
    re.MULTILINE,
)
_FILE_NAME = re.compile(r"(?P<name>.+)-(?P<tag>[A-Za-z0-9_.]+)-(?P<hash>[0-9a-f]{8})\.safetensors")

#: Architectures: configuration class, and the model made from it.
ARCHITECTURES: dict[str, tuple[type[Any], Callable[[Any], Model]]] = {
    "backbone": (BackboneConfig, BackboneModel),
    "dense-unet": (DenseModelConfig, DenseModel),
    "fusion": (FusionModelConfig, FusionModel),
    "kpcn": (KPCNConfig, KPCN),
    "recurrent-unet": (RecurrentModelConfig, RecurrentModel),
}


@dataclass(frozen=True)
class WeightsInfo:
    """What a file says about itself.

    Attributes:
        path: The file.
        name: Method that it is for (``ngpt-small``).
        tag: Version of these weights (``v1``).
        arch: A key of :data:`ARCHITECTURES`.
        config: Configuration of that architecture: features, transfer functions, sizes.
        metadata: Everything else: ``recipe``, ``commit``, ``licence``, ``trained_on``, ...
    """

    path: Path
    name: str
    tag: str
    arch: str
    config: Any
    metadata: Mapping[str, str]


def make_model(config: Any) -> Model:
    """Build an untrained model from its configuration.

    Raises:
        ConfigError: It is no configuration of a known architecture.
    """
    return ARCHITECTURES[architecture_of(config)][1](config)


def architecture_of(config: Any) -> str:
    """Return the name of the architecture that a configuration belongs to."""
    for name, (kind, _) in ARCHITECTURES.items():
        if isinstance(config, kind):
            return name
    raise ConfigError(f"got a {type(config).__name__}; expected a configuration of a model")


def save_weights(
    model: Model,
    folder: str | os.PathLike[str],
    *,
    name: str,
    tag: str,
    recipe: str,
    commit: str,
    licence: str,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the weights of a model, atomically, under a name that contains their hash.

    Args:
        model: A model with a ``config`` attribute.
        folder: Where to put the file.
        name: Method that the weights are for.
        tag: Version of the weights; letters, digits, dots and underscores.
        recipe: How they were trained, for people or as JSON. Of absolute paths, here and in the
            other entries, only the last part is kept: files are for others.
        commit: Version of the source code that trained them.
        licence: SPDX identifier.
        metadata: Further entries, for example ``trained_on``.

    Returns:
        The path of the file.

    Raises:
        ConfigError: ``name`` or ``tag`` cannot be part of a file name, or the configuration names
            a file by its absolute path.
        WeightsError: A parameter is not finite.
        FormatError: The file cannot be written.
    """
    config: Any = model.config
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if bad := [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]:
        raise WeightsError(f"cannot save weights that are not finite: {', '.join(bad)}")
    check_portable(config)
    description = {
        **(metadata or {}),
        "format_version": FORMAT_VERSION,
        "name": name,
        "tag": tag,
        "arch": architecture_of(config),
        "config": json.dumps(dataclasses.asdict(config), sort_keys=True),
        "recipe": recipe,
        "commit": commit,
        "licence": licence,
    }
    portable = {key: _FOLDER.sub("", value) for key, value in description.items()}
    contents = _canonical(save(tensors, portable))
    path = Path(folder) / f"{name}-{tag}-{_hash(contents)}{_SUFFIX}"
    if not _FILE_NAME.fullmatch(path.name):
        raise ConfigError(f"name {name!r} and tag {tag!r} do not make a valid file name")
    replace_file(path, lambda temporary: temporary.write_bytes(contents))
    return path


def check_portable(config: Any) -> None:
    """Refuse a configuration that names a file by its absolute path: others do not have it there.

    Raises:
        ConfigError: One does.
    """
    text = json.dumps(dataclasses.asdict(config))
    if found := _FOLDER.search(text):
        name = text[found.start() :].split('"')[0]
        raise ConfigError(
            f"the model names the file {name}, which others do not have there; "
            f"give a path relative to where its weights are used"
        )


def folders() -> list[Path]:
    """Return where weights are looked for by name, the most particular place first.

    That is the folder of the environment, the weights of the default, which are part of this
    package, those of installed distributions (``mitsuba-gdpt-weights``), and in a checkout the
    source of that.
    """
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    found = [*([given] if given else ()), _OWN, *_installed(), _CHECKOUT]
    return list(dict.fromkeys(path for path in map(Path, found) if path.is_dir()))


@functools.cache
def _installed() -> tuple[Path, ...]:
    # Once: to look through all distributions takes longer than some methods do.
    return tuple(Path(point.load()) for point in entry_points(group=ENTRY_POINTS))


def find_weights(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of the weights that are here under a name, or the path itself.

    Args:
        name_or_path: Name of a method whose weights ship, a file, or a folder with one file of
            weights: that of a training run.

    Raises:
        WeightsError: There is no such file, or a folder has none or several.
    """
    text = os.fspath(name_or_path)
    if os.sep in text and Path(text).is_dir():
        return _only_file(Path(text))
    if text.endswith(_SUFFIX) or os.sep in text:
        if not Path(text).is_file():
            raise WeightsError(f"{text}: no such file; expected weights (NAME-TAG-HASH{_SUFFIX})")
        return Path(text)
    for folder in folders():
        matches = [
            path
            for path in sorted(folder.glob("*" + _SUFFIX))
            if (match := _FILE_NAME.fullmatch(path.name)) and match["name"] == text
        ]
        if len(matches) > 1:
            raise WeightsError(
                f"{len(matches)} files in {folder} are for {text!r}: "
                f"{', '.join(path.name for path in matches)}; keep one, or pass a path"
            )
        if matches:
            return matches[0]
    if Path(text).is_dir():
        return _only_file(Path(text))
    raise WeightsError(
        f"no weights for {text!r} here; install mitsuba-gdpt-weights, pass weights=FILE, or make "
        f"them with 'mitsuba-gdpt train {text} DATA...'"
    )


def _only_file(folder: Path) -> Path:
    """Return the file of weights in a folder."""
    files = sorted(folder.glob("*" + _SUFFIX))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or f"no file that ends in {_SUFFIX}"
        raise WeightsError(
            f"{folder} has {names}; expected one file of weights, as a run leaves them. Pass a file"
        )
    return files[0]


def load_weights(name_or_path: str | os.PathLike[str]) -> Model:
    """Load a model with its weights, ready for inference.

    Args:
        name_or_path: Name of a method whose weights ship (``"ngpt-small"``), or a file.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        WeightsError: The file is missing, damaged, renamed, of another version, does not fit its
            own configuration, or contains NaN or infinity.
    """
    model, info = read_weights(find_weights(name_or_path))
    del info
    model.prepare_inference()
    return model


def read_weights(path: str | os.PathLike[str]) -> tuple[Model, WeightsInfo]:
    """Load a model with its weights as they were trained, and what the file says about them.

    Raises:
        WeightsError: See :func:`load_weights`.
    """
    path = Path(path)
    contents = _contents(path)
    info = _parse(path, contents)
    try:
        tensors = load(contents)
        # No memory, whatever sizes the configuration asks for.
        with torch.device("meta"), _NoInitialValues():
            _check_fit(make_model(info.config), tensors)
        model = make_model(info.config)
        model.load_state_dict(tensors, strict=True)
    except (SafetensorError, RuntimeError, *_MALFORMED) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise WeightsError(f"{path}: the tensors do not fit the configuration: {reason}") from error
    if bad := [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]:
        raise WeightsError(
            f"{path}: NaN or infinity in {len(bad)} of {len(tensors)} tensors, the first of them "
            f"{bad[0]}; expected finite weights. Train them again, or use others"
        )
    return model, info


def _contents(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise WeightsError(f"{path}: {size} bytes; expected weights of {_LARGEST_FILE} at most")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot read these weights: {error.strerror}") from error


def describe(name_or_path: str | os.PathLike[str]) -> WeightsInfo:
    """Return what a file of weights says about itself, without making the model.

    Raises:
        WeightsError: See :func:`load_weights`.
    """
    path = find_weights(name_or_path)
    return _described(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _described(path: Path, modified: int) -> WeightsInfo:
    return _parse(path, _contents(path))


class _NoInitialValues(TorchFunctionMode):
    """Leaves parameters as they are allocated.

    To ask the meta device for random values makes torch import its compiler, which takes seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        initialises = getattr(func, "__module__", None) == torch.nn.init.__name__
        if initialises or func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_fit(model: Model, tensors: Mapping[str, torch.Tensor]) -> None:
    """Compare names, shapes and types of a model's tensors with those of a file.

    Raises:
        WeightsError: They differ.
    """
    expected = {key: (tuple(t.shape), t.dtype) for key, t in model.state_dict().items()}
    given = {key: (tuple(t.shape), t.dtype) for key, t in tensors.items()}
    if missing := [key for key in expected if key not in given]:
        raise WeightsError(f"{len(missing)} are missing, the first of them {missing[0]}")
    if unknown := [key for key in given if key not in expected]:
        raise WeightsError(f"{len(unknown)} are too many, the first of them {unknown[0]}")
    if wrong := [key for key in expected if expected[key] != given[key]]:
        key = wrong[0]
        raise WeightsError(f"{key} is {given[key]}, expected {expected[key]}")


@functools.lru_cache(maxsize=4)
def _cached(path: Path, modified: int, device: torch.device) -> Model:
    return load_weights(path).to(device)


def cached_model(name_or_path: str | os.PathLike[str], device: torch.device) -> Model:
    """Load a model as :func:`load_weights`, or return the one loaded before."""
    path = find_weights(name_or_path)
    return _cached(path, path.stat().st_mtime_ns, device)


def _hash(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:8]


def _split(contents: bytes) -> tuple[Any, bytes]:
    """Take a safetensors file apart: header (JSON), and the bytes of the tensors."""
    size = int.from_bytes(contents[:8], "little")
    return json.loads(contents[8 : 8 + size]), contents[8 + size :]


def _canonical(contents: bytes) -> bytes:
    """Sort the header, whose order is random otherwise: equal weights shall have equal names."""
    header, tensors = _split(contents)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8, as the format recommends
    return len(text).to_bytes(8, "little") + text + tensors


def _parse(path: Path, contents: bytes) -> WeightsInfo:
    """Check a file's name and read its metadata."""
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise WeightsError(
            f"{path}: not named as weights are; expected NAME-TAG-HASH{_SUFFIX}, "
            f"this one's hash is {_hash(contents)}"
        )
    if match["hash"] != _hash(contents):
        raise WeightsError(
            f"{path}: the contents have the hash {_hash(contents)}, the name says "
            f"{match['hash']}: the file is damaged or was changed. Get it again"
        )
    try:
        metadata = _split(contents)[0]["__metadata__"]
        missing = [key for key in REQUIRED if not isinstance(metadata.get(key), str)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: not a safetensors file with metadata") from error
    if missing:
        raise WeightsError(f"{path}: no {', '.join(missing)} in the metadata")
    if metadata["format_version"] != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format version {metadata['format_version']:.40}; this version of "
            f"mitsuba_gdpt reads {FORMAT_VERSION}"
        )
    if metadata["arch"] not in ARCHITECTURES:
        raise WeightsError(
            f"{path}: unknown architecture {metadata['arch'][:40]!r}; expected one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    kind, _ = ARCHITECTURES[metadata["arch"]]
    try:
        described = json.loads(metadata["config"])
        if described.get("limit") == 0:  # of files from before, where it had no effect
            del described["limit"]
        _check_sizes(described)
        config = decode(kind, described, "config")
    except RecursionError as error:
        raise WeightsError(f"{path}: bad configuration: nested too deeply") from error
    except (GDPTError, *_MALFORMED) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise WeightsError(f"{path}: bad configuration: {reason}") from error
    return WeightsInfo(path, metadata["name"], metadata["tag"], metadata["arch"], config, metadata)


def _check_sizes(value: Any) -> None:
    """Refuse numbers and lists of a configuration that no network has.

    Raises:
        ConfigError: There is one.
    """
    if isinstance(value, dict | list):
        if len(value) > _LONGEST_LIST:
            raise ConfigError(f"a list of {len(value)}; expected {_LONGEST_LIST} at most")
        for item in value.values() if isinstance(value, dict) else value:
            _check_sizes(item)
    elif isinstance(value, int | float) and not abs(value) <= _LARGEST_SIZE:
        raise ConfigError(f"the number {value:g}; expected {_LARGEST_SIZE} at most")
