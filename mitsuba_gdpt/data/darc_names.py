"""The map of names in a Darc file: a pickle, of which nothing is run.

A pickle can name any function to call, and sizes to allocate. Here dictionaries, texts and numbers
are built, and all else is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from mitsuba_gdpt.errors import FormatError


class _Inert:
    """Stands for NumPy's classes and functions in a pickle; keeps what it is given."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


#: What pickles of a NumPy array that holds a dictionary refer to: modules by old and new name, and
#: the detour that old protocols take for bytes.
_NUMPY_PICKLES = {
    (module, name)
    for module, names in {
        "numpy.core.multiarray": ("_reconstruct", "scalar"),
        "numpy._core.multiarray": ("_reconstruct", "scalar"),
        "numpy": ("ndarray", "dtype"),
        "_codecs": ("encode",),
    }.items()
    for name in names
}


#: Opcodes of a dictionary of texts and numbers, in any protocol, alone or in an array of NumPy.
#: All others are refused: sets and other keys whose hash takes for ever, what is allocated in the
#: size that the file names, objects.
_OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.MEMOIZE),
    *(pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.GET, pickle.BINGET),
    *(pickle.LONG_BINGET, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1),
    *(pickle.BININT2, pickle.LONG, pickle.LONG1, pickle.UNICODE, pickle.BINUNICODE),
    *(pickle.SHORT_BINUNICODE, pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.TUPLE, pickle.EMPTY_TUPLE, pickle.TUPLE1),
    *(pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND),
    *(pickle.APPENDS, pickle.EMPTY_DICT, pickle.DICT, pickle.SETITEM, pickle.SETITEMS),
)


class _NamesUnpickler(pickle._Unpickler):
    """Builds dictionaries, texts and numbers only.

    The implementation in Python: that in C sizes tables by numbers found in the file.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES
    }

    def load_dict(self) -> None:
        """Make a dictionary of what follows the mark."""
        items = self.pop_mark()  # type: ignore[attr-defined]
        self._check_keys(items[::2])
        self.append(dict(zip(items[::2], items[1::2], strict=True)))  # type: ignore[attr-defined]

    def load_setitem(self) -> None:
        """Add one item to a dictionary."""
        stack = self.stack  # type: ignore[attr-defined]
        self._check_keys(stack[-2:-1])
        value, key = stack.pop(), stack.pop()
        stack[-1][key] = value

    def load_setitems(self) -> None:
        """Add what follows the mark to a dictionary."""
        items = self.pop_mark()  # type: ignore[attr-defined]
        self._check_keys(items[::2])
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))  # type: ignore[attr-defined]

    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems

    @staticmethod
    def _check_keys(keys: Iterable[Any]) -> None:
        """Refuse keys but texts, before they are hashed: that of nested tuples takes for ever."""
        for key in keys:
            if not isinstance(key, str | bytes | _Inert):
                raise FormatError(f"a name is a {type(key).__name__}; expected text")

    def find_class(self, module: str, name: str) -> Any:
        """Replace what NumPy writes by something inert; refuse all else."""
        if (module, name) in _NUMPY_PICKLES:
            return _Inert
        raise FormatError(f"it refers to {module}.{name}, which is not allowed")


def read_names(blob: bytes) -> dict[str, int]:
    """Read an ``.npy`` file of one pickled dictionary without unpickling it for real.

    Args:
        blob: Bytes of the file.

    Raises:
        FormatError: It holds anything else.
    """
    stream = io.BytesIO(blob)
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise FormatError(f"it is an .npy of version {version}; expected 1.0 or 2.0")
    shape, _, dtype = read_header(stream)
    if shape != () or dtype != np.dtype(object):
        raise FormatError(f"it is an array {dtype} {shape}; expected one dictionary")
    array = _NamesUnpickler(stream).load()
    # The state of an object array: version, shape, type, order, list of objects.
    names = array.state[4][0] if isinstance(array, _Inert) else array
    if not isinstance(names, dict):
        raise FormatError(f"it is a {type(names).__name__}; expected a dictionary")
    return {_text(name): _integer(value) for name, value in names.items()}


def _text(name: Any) -> str:
    if isinstance(name, str):
        return name
    return _bytes(name).decode()


def _bytes(value: Any) -> bytes:
    if isinstance(value, _Inert) and value.arguments[1:] == ("latin1",):  # encode(text, "latin1")
        return str(value.arguments[0]).encode("latin1")
    if not isinstance(value, bytes):
        raise FormatError(f"got a {type(value).__name__}; expected text")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, _Inert) and len(value.arguments) == 2:  # scalar(dtype, bytes)
        dtype, data = value.arguments
        kind = dtype.arguments[0] if isinstance(dtype, _Inert) and dtype.arguments else ""
        if kind in ("i4", "i8", "u4", "u8"):
            return int.from_bytes(_bytes(data), "little", signed=kind.startswith("i"))
    if not isinstance(value, int):
        raise FormatError(f"an array number is a {type(value).__name__}; expected an integer")
    return value
