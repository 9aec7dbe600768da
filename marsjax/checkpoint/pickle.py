"""Reads zstd-compressed pickles from outside as plain data, without running them.

A pickle is a program that may call anything it can name. Here its opcodes are read by a small machine that has no
call in it: it knows numbers, text, bytes, lists, tuples, dictionaries and NumPy arrays of numbers, turns instances of
classes that the caller admits by name into inert `Record`s, and refuses everything else. Python's own unpickler is
not used.
"""

import dataclasses
import io
import math
import pathlib
import pickletools
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import zstandard

from marsjax.core import files
from marsjax.core.errors import InputError, brief

MAX_BYTES = 2**28
"""Most bytes of a pickle, decompressed."""
MAX_STEPS = 2**24
"""Most opcodes of a pickle; with `MAX_BYTES` this bounds time and memory."""

# A file of numbers has about one opcode for a byte of zstd, and unpacks to a few bytes; what is made to swell has more.
_STEPS_A_BYTE, _BYTES_A_BYTE = 2, 64
_HARMLESS_STEPS, _HARMLESS_BYTES = 2**20, 2**26

# A run of 4 bytes can stand for 128 KiB, so this many compressed bytes become 32 MiB at most.
_CHUNK_BYTES = 1024
# Bytes may turn up as text, as bytes and as an array, all of one size.
_COPIES = 4
_MAX_ITEMS = 2**31
_NUMBERS = {f"{kind}{size}" for kind, sizes in {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}.items()
            for size in sizes}
_PUSH = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE",
         "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DTYPE_STATES = (1, 2, 3, 4)
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}


class UnsafePickleError(InputError):
    """A pickle names something that is not admitted, or asks for something that only running it could do."""


@dataclasses.dataclass
class Record:
    """An instance of an admitted class, as data: nothing of the class itself is imported or run."""

    module: str
    name: str
    args: tuple[Any, ...]
    """What the pickle would have called the class with."""
    fields: dict[str, Any]
    """Its attributes."""


@dataclasses.dataclass(frozen=True)
class _Name:
    """A global that is admitted; a word, not the thing."""

    module: str
    name: str


@dataclasses.dataclass
class _NumberType:
    """A NumPy dtype that the pickle is still making."""

    dtype: np.dtype


def load_zstd(path: str | pathlib.Path, allowed: Collection[tuple[str, str]] = (), max_bytes: int = MAX_BYTES,
              max_steps: int = MAX_STEPS) -> Any:
    """The data in a zstd-compressed pickle.

    `allowed` holds (module, name) of the classes whose instances become `Record`s. Raises UnsafePickleError (a
    InputError) with the file and the name that is refused; InputError with the file and the reason where it is no
    zstd file, is cut off or broken, or grows past `max_bytes` or `max_steps`, or past what a file of its size can
    hold; OSError where it cannot be read.
    """
    size = files.check_regular(path)
    data = _decompress(pathlib.Path(path), min(max_bytes, max(_HARMLESS_BYTES, _BYTES_A_BYTE * size)))
    return _read(data, str(path), allowed, min(max_steps, max(_HARMLESS_STEPS, _STEPS_A_BYTE * size)))


def loads(data: bytes | bytearray, where: str = "pickle", allowed: Collection[tuple[str, str]] = (),
          max_steps: int = MAX_STEPS) -> Any:
    """The data in a pickle given as bytes; `where` names it in errors, which are those of `load_zstd`."""
    return _read(io.BytesIO(data), where, allowed, max_steps)


def _read(data: io.BytesIO, where: str, allowed: Collection[tuple[str, str]], max_steps: int) -> Any:
    try:
        return _Machine(frozenset(allowed), _COPIES * len(data.getbuffer()), max_steps).run(data)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{where}: {error}") from None
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: broken pickle: {brief(error, 160)}") from error


def _decompress(path: pathlib.Path, max_bytes: int) -> io.BytesIO:
    data, frame = io.BytesIO(), zstandard.ZstdDecompressor().decompressobj()
    with path.open("rb") as file:
        files.refuse_stand_in(path, file.read(64))
        file.seek(0)
        while not frame.eof and (chunk := file.read(_CHUNK_BYTES)):
            try:
                data.write(frame.decompress(chunk))
            except zstandard.ZstdError as error:
                raise InputError(f"{path}: not a zstd file, or a broken one: {brief(error)}") from error
            if data.tell() > max_bytes:
                raise InputError(f"{path}: more than {max_bytes} bytes when decompressed")
        if not frame.eof:
            raise InputError(f"{path}: the zstd data is cut off after {file.tell()} bytes")
        if frame.unused_data or file.read(1):
            raise InputError(f"{path}: something follows the end of the zstd data")
    data.seek(0)
    return data


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, allowed: frozenset[tuple[str, str]], max_copied: int, max_steps: int) -> None:
        self.allowed, self.copies_left, self.max_steps = allowed, max_copied, max_steps
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: io.BytesIO) -> Any:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step >= self.max_steps:
                raise InputError(f"it has more than {self.max_steps} steps")
            name = opcode.name
            if name == "STOP":
                break
            if name in _PUSH:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _GETS:
                if argument not in self.memo:
                    raise InputError(f"nothing is memorised as {argument}")
                self.stack.append(self.memo[argument])
            elif name == "MEMOIZE" or name in _PUTS:
                self.memo[len(self.memo) if argument is None else argument] = self.top()
            elif name == "MARK":
                self.marks.append(len(self.stack))
            elif name in _TUPLES:
                self.stack.append(tuple(reversed([self.pop() for _ in range(_TUPLES[name])])))
            elif name in _STEPS:
                _STEPS[name](self, argument)
            else:
                raise self.refused(f"opcode {name}")
        if len(self.stack) != 1 or self.marks:
            raise InputError(f"{len(self.stack)} objects are left at the end, expected 1")
        return self.stack[0]

    def refused(self, what: str) -> UnsafePickleError:
        names = [f"{module}.{name}" for module, name in sorted(self.allowed)]
        admitted = ", ".join(names[:2]) + ", ..." * (len(names) > 2) or "none"
        return UnsafePickleError(f"refused {what}; expected numbers, text, lists, dictionaries, NumPy arrays of "
                                 f"numbers, and of classes: {admitted}")

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise InputError("an object is missing on the stack")
        return self.stack[-1]

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise InputError("a mark is missing on the stack")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def make_list(self, _: Any) -> None:
        self.stack.append(self.pop_mark())

    def make_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_mark()))

    def make_dict(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.set_items(items)

    def append(self, _: Any) -> None:
        self.extend([self.pop()])

    def appends(self, _: Any) -> None:
        self.extend(self.pop_mark())

    def extend(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise self.refused(f"appending to a {type(target).__name__}")
        target.extend(items)

    def setitem(self, _: Any) -> None:
        value = self.pop()
        self.set_items([self.pop(), value])

    def setitems(self, _: Any) -> None:
        self.set_items(self.pop_mark())

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not dict:
            raise self.refused(f"setting items of a {type(target).__name__}")
        if len(items) % 2:
            raise InputError("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Nested tuples are hashed in time exponential in their depth, and large numbers can be made to collide.
            if not isinstance(key, str | bytes) and not (isinstance(key, int) and -(2**31) <= key < 2**31):
                raise self.refused(f"a key that is a {type(key).__name__}, and no text or 32-bit integer")
            target[key] = value

    def find_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push_name(module, name)

    def find_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise InputError("a global whose name is no text")
        self.push_name(module, name)

    def push_name(self, module: str, name: str) -> None:
        if (module, name) not in self.allowed and (module, name) not in _CALLS and (module, name) not in _WORDS:
            raise self.refused(f"global {brief(module)}.{brief(name)}")
        self.stack.append(_Name(module, name))

    def call(self, _: Any) -> None:
        args, target = self.pop(), self.pop()
        if not isinstance(target, _Name) or type(args) is not tuple:
            raise self.refused(f"a call of a {type(target).__name__}")
        key = (target.module, target.name)
        if key in _CALLS:
            self.stack.append(_CALLS[key](self, args))
        elif key in self.allowed:
            self.stack.append(Record(target.module, target.name, args, {}))
        else:
            raise self.refused(f"a call of {target.module}.{target.name}")

    def new_object(self, _: Any) -> None:
        args, target = self.pop(), self.pop()
        if not isinstance(target, _Name) or (target.module, target.name) not in self.allowed or type(args) is not tuple:
            raise self.refused(f"a new object of a {type(target).__name__}")
        self.stack.append(Record(target.module, target.name, args, {}))

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Record):
            if type(state) is not dict:
                raise self.refused(f"a state of {target.module}.{target.name} that is no dictionary of attributes")
            target.fields = state
        elif isinstance(target, np.ndarray):
            if type(state) is not tuple or len(state) != 5:
                raise self.refused("an array with an unknown state")
            _, shape, dtype, is_fortran, data = state
            self.fill(target, shape, dtype, bool(is_fortran), data)
        elif isinstance(target, _NumberType):
            self.set_byte_order(target, state)
        else:
            raise self.refused(f"a state of a {type(target).__name__}")

    def set_byte_order(self, target: _NumberType, state: Any) -> None:
        is_known = type(state) is tuple and len(state) >= 5 and state[0] in _DTYPE_STATES
        if not is_known or state[1] not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise self.refused("a dtype that is no plain number")
        target.dtype = target.dtype.newbyteorder(state[1])

    def number_type(self, args: tuple[Any, ...]) -> _NumberType:
        if not args or not isinstance(args[0], str) or args[0] not in _NUMBERS:
            named = repr(args[0][:80]) if args and isinstance(args[0], str) else "without a name"
            raise self.refused(f"dtype {named}")
        return _NumberType(np.dtype(args[0]))

    def new_array(self, args: tuple[Any, ...]) -> np.ndarray:
        if len(args) != 3 or args[0] != _Name("numpy", "ndarray"):
            raise self.refused("an array of another class than numpy.ndarray")
        return np.empty(0, np.int8)

    def buffer_array(self, args: tuple[Any, ...]) -> np.ndarray:
        if len(args) != 4 or args[3] not in ("C", "F"):
            raise self.refused("an array of an unknown order")
        array: np.ndarray = np.empty(0, np.int8)
        self.fill(array, args[2], args[1], args[3] == "F", args[0])
        return array

    def scalar(self, args: tuple[Any, ...]) -> np.generic:
        if len(args) != 2:
            raise self.refused("a scalar without its bytes")
        array: np.ndarray = np.empty(0, np.int8)
        self.fill(array, (), args[0], False, args[1])
        return array.reshape(1)[0]

    def encode(self, args: tuple[Any, ...]) -> bytes:
        # How bytes look in pickles of protocols 0 to 2.
        if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
            raise self.refused("_codecs.encode of anything but text to latin1")
        self.spend(len(args[0]))
        return args[0].encode("latin1")

    def empty_bytes(self, args: tuple[Any, ...]) -> bytes:
        # How b"" looks in them.
        if args:
            raise self.refused("a call of bytes with arguments")
        return b""

    def spend(self, size: int) -> None:
        # One object may be copied out of the memo again and again; what comes of it is bounded by the pickle's size.
        self.copies_left -= size
        if self.copies_left < 0:
            raise self.refused("more data than the pickle holds")

    def fill(self, array: np.ndarray, shape: Any, dtype: Any, is_fortran: bool, data: Any) -> None:
        """Gives an empty array its contents, after they have been checked against each other."""
        if not isinstance(dtype, _NumberType) or not isinstance(data, bytes | bytearray):
            raise self.refused("an array of anything but numbers")
        if (type(shape) is not tuple or len(shape) > 32
                or not all(type(n) is int and 0 <= n <= _MAX_ITEMS for n in shape)
                or math.prod(n for n in shape if n) > _MAX_ITEMS):
            raise self.refused("an array of an impossible shape")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise InputError(f"an array of shape {shape[:4]} and {dtype.dtype} has {len(data)} bytes of data")
        self.spend(len(data))
        array.__setstate__((1, shape, dtype.dtype, is_fortran, bytes(data)))  # type: ignore[arg-type]


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, version: None, "FRAME": lambda machine, size: None,
    "LIST": _Machine.make_list, "TUPLE": _Machine.make_tuple, "DICT": _Machine.make_dict,
    "APPEND": _Machine.append, "APPENDS": _Machine.appends, "SETITEM": _Machine.setitem, "SETITEMS": _Machine.setitems,
    "GLOBAL": _Machine.find_global, "STACK_GLOBAL": _Machine.find_stack_global, "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new_object, "BUILD": _Machine.build}
_CALLS: dict[tuple[str, str], Callable[[_Machine, tuple[Any, ...]], Any]] = {
    ("numpy", "dtype"): _Machine.number_type, ("_codecs", "encode"): _Machine.encode,
    ("__builtin__", "bytes"): _Machine.empty_bytes}
for _core in ("numpy._core", "numpy.core"):
    _CALLS[f"{_core}.multiarray", "_reconstruct"] = _Machine.new_array
    _CALLS[f"{_core}.multiarray", "scalar"] = _Machine.scalar
    _CALLS[f"{_core}.numeric", "_frombuffer"] = _Machine.buffer_array
_WORDS = {("numpy", "ndarray")}
