"""Pickles from outside are read as data: nothing in one is ever run, and what would have to run is refused by name."""

import builtins
import contextlib
import os
import pathlib
import pickle
import pickletools
import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from marsjax.checkpoint import pickle as safe_pickle
from marsjax.checkpoint.pickle import Record, UnsafePickleError, load_zstd, loads
from tests.helpers import fixture_folder

ADMITTED = ("somewhere.else", "Thing")
COMMAND = "touch canary"


class Thing:
    """Stands for a class of the program that wrote a file."""


Thing.__module__, Thing.__qualname__ = ADMITTED


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable, *args: object, state: object = None) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple:
        return self.call


def write(path: pathlib.Path, data: bytes) -> pathlib.Path:
    path.write_bytes(zstandard.ZstdCompressor().compress(data))
    return path


def name(module: str, attribute: str) -> bytes:
    """GLOBAL as protocol 0 writes it."""
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def thing_pickle(fields: bytes) -> bytes:
    return b"\x80\x04" + stack_name(*ADMITTED) + b")\x81" + fields + b"b."


OBJECT_ARRAY = np.array([Calls(os.system, COMMAND)], dtype=object)

ATTACKS = {
    "os.system": pickle.dumps(Calls(os.system, COMMAND)),
    "os.system, protocol 0": pickle.dumps(Calls(os.system, COMMAND), 0),
    "eval": pickle.dumps(Calls(builtins.eval, f"__import__('os').system({COMMAND!r})")),
    "posix": name("posix", "system") + text(COMMAND) + b"\x85R.",
    "getattr": pickle.dumps(Calls(getattr, 1, "real")),
    "stack global": b"\x80\x04" + stack_name("os", "system") + text(COMMAND) + b"\x85R.",
    "dotted name": b"\x80\x04" + stack_name("numpy._core.multiarray", "os.system") + text(COMMAND) + b"\x85R.",
    "dots below an admitted class": b"\x80\x04" + stack_name(ADMITTED[0], "Thing.__init__.__globals__") + b".",
    "module inside numpy": name("numpy.core.multiarray", "_reconstruct.__globals__") + b".",
    "other numpy function": name("numpy", "load") + text("x") + b"\x85R.",
    "numpy subclass": name("numpy._core.multiarray", "_reconstruct") + name("numpy", "matrix")
                      + b"K\x00\x85C\x01b\x87R.",
    "INST": b"(" + text(COMMAND) + b"ios\nsystem\n.",
    "OBJ": b"(" + name(*ADMITTED) + text(COMMAND) + b"o.",
    "NEWOBJ of a function": name("os", "system") + text(COMMAND) + b"\x85\x81.",
    "NEWOBJ of an array": name("numpy", "ndarray") + b")\x81.",
    "an array of no class": name("numpy._core.multiarray", "_reconstruct") + text("x") + b"K\x00\x85C\x01b\x87R.",
    "NEWOBJ_EX": stack_name(*ADMITTED) + b")}\x92.",
    "copyreg": name("copyreg", "_reconstructor") + name(*ADMITTED) + name("builtins", "object") + b"N\x87R.",
    "extension registry": b"\x80\x02\x82\x01.",
    "extension registry, 4 bytes": b"\x80\x02\x84\x01\x00\x00\x00.",
    "persistent id": b"P1\n.",
    "binary persistent id": b"K\x01Q.",
    "next buffer": b"\x80\x05\x97.",
    "object array": pickle.dumps(OBJECT_ARRAY),
    "object array, protocol 2": pickle.dumps(OBJECT_ARRAY, 2),
    "array of text": pickle.dumps(np.array(["a"])),
    "record array": pickle.dumps(np.zeros(1, [("a", "i4")])),
    "state of slots": thing_pickle(b"N}" + text("__class__") + name(*ADMITTED) + b"s\x86"),
    "state of a number": thing_pickle(b"K\x01"),
    "state set on a class": name(*ADMITTED) + b"}" + text("x") + b"K\x01sb.",
    "state of a list": b"]}b.",
    "hidden in a field": thing_pickle(b"}" + text("bins") + name("os", "system") + text(COMMAND) + b"\x85Rs"),
    "hidden in admitted arguments": stack_name(*ADMITTED) + name("os", "system") + text(COMMAND) + b"\x85R\x85R.",
    "call of a called object": stack_name(*ADMITTED) + b")R)R.",
    "call of an array": pickle.dumps(np.arange(3))[:-1] + b")R.",
    "append to an object": stack_name(*ADMITTED) + b")RK\x01a.",
    "items of an object": stack_name(*ADMITTED) + b")RK\x01K\x02s.",
    "_codecs with another codec": name("_codecs", "encode") + text("x") + text("rot13") + b"\x86R.",
    "bytes of a size": name("__builtin__", "bytes") + b"J\xff\xff\xff\x7f\x85R.",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_run(attack: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "attack.zstd", ATTACKS[attack])
    with pytest.raises(UnsafePickleError, match=r"attack\.zstd: refused "):
        load_zstd(path, allowed={ADMITTED})
    assert not pathlib.Path("canary").exists()


def test_the_canary_would_be_seen(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(ATTACKS["os.system"])
    assert pathlib.Path("canary").exists()


def test_the_refused_name_and_what_is_expected_are_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UnsafePickleError, match=r"'posix'\.'system'; expected .* classes: somewhere.else.Thing"):
        load_zstd(write(tmp_path / "x.zstd", ATTACKS["os.system"]), allowed={ADMITTED})


def test_an_admitted_class_becomes_a_record() -> None:
    got = loads(thing_pickle(b"}" + text("x") + b"K\x01s"), allowed={ADMITTED})
    assert got == Record(*ADMITTED, args=(), fields={"x": 1})
    assert loads(stack_name(*ADMITTED) + b"K\x05\x85R.", allowed={ADMITTED}) == Record(*ADMITTED, args=(5,), fields={})
    with pytest.raises(UnsafePickleError, match="Thing"):
        loads(thing_pickle(b"}"))


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray | np.generic):
        # Unpickling makes arrays native where their bytes were swapped, NumPy's own way too.
        return (type(a) is type(b) and a.dtype.newbyteorder("=") == b.dtype and a.shape == b.shape
                and np.array_equal(a, b) and (a.ndim < 2 or a.flags.f_contiguous == b.flags.f_contiguous))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


PLAIN = [0, -1, 2**70, -(2**40), 1.5, float("inf"), True, False, None, "é", "", b"\xff\x00", b"", (), (1,),
         (1, 2, 3, 4), {"a": [1, {2: "b"}]}, [[], [1] * 3000]]
ARRAYS = [np.arange(6, dtype=np.int32).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
          np.zeros((0, 15)), np.array(3), np.arange(3, dtype=">i4"), np.array([True, False]),
          np.float64(2.5), np.bool_(True), np.uint8(7),
          np.arange(8, dtype=np.float16)[::2], np.zeros(5000)]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_and_arrays_of_every_protocol(protocol: int) -> None:
    samples = [(np.full((1024, 15), i, np.int32), [i, 2]) for i in range(3)]
    expected = [*PLAIN, *ARRAYS, samples]
    shared = [expected, expected]
    got = loads(pickle.dumps(shared, protocol))
    assert same(shared, got) and got[0] is got[1]


def test_pickles_of_older_numpy() -> None:
    data = pickle.dumps(ARRAYS, 2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in data
    assert same(ARRAYS, loads(data))


def array_pickle(shape: bytes, code: str = "i4", data: bytes = b"\x00" * 8) -> bytes:
    return (b"\x80\x04" + stack_name("numpy._core.multiarray", "_reconstruct") + stack_name("numpy", "ndarray")
            + b"K\x00\x85C\x01b\x87R(K\x01" + shape + stack_name("numpy", "dtype") + text(code) + b"\x89\x88\x87R"
            + b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C" + bytes([len(data)]) + data
            + b"tb.")


HUGE = b"\x8a\x08" + struct.pack("<q", 2**62)


@pytest.mark.parametrize(
    ("shape", "code"),
    [(b"K\x03\x85", "i4"), (b"K\x01\x85", "i4"), (b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86", "i4"),
     (HUGE + b"\x85", "i4"), (HUGE + HUGE + b"\x86", "i4"), (b"K\x00" + HUGE + b"\x86", "i4"),
     (b"J\xff\xff\xff\xff\x85", "i4"), (b"(" + b"K\x01" * 65 + b"t", "i4"), (b"]", "i4"),
     (b"G?\xf0\0\0\0\0\0\0\x85", "i4"),
     (b"K\x02\x85", "O"), (b"K\x02\x85", "V0"), (b"K\x02\x85", "S0"), (b"K\x01\x85", "M8[ns]"), (b"K\x02\x85", "<<i4"),
     (b"K\x02\x85", "i4,i4")],
)
def test_shapes_and_types_are_checked_before_anything_is_made(shape: bytes, code: str) -> None:
    np.testing.assert_array_equal(loads(array_pickle(b"K\x02\x85")), [0, 0])
    with pytest.raises(ValueError, match="pickle: "):
        loads(array_pickle(shape, code))


def test_zip_bomb(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "bomb.zstd", b"\x80\x04B" + struct.pack("<I", 2**27) + bytes(2**27) + b".")
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"bomb.zstd: more than 1000000 bytes when decompressed"):
            load_zstd(path, max_bytes=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**26


def test_too_many_steps() -> None:
    with pytest.raises(ValueError, match="more than 1000 steps"):
        loads(b"(" + b"]" * 2000 + b"l.", max_steps=1000)


DOUBLED = b"(" + b")\x94" + b"".join(b"h" + bytes([i, ord("h"), i]) + b"\x86\x94" for i in range(60)) + b"t"
"""A tuple of pairs, each of two of the one before: small, but 2**60 to hash, compare or print."""


@pytest.mark.parametrize(
    "pickled",
    [DOUBLED + b"}h\x3cK\x01s.", DOUBLED + name("numpy", "dtype") + b"h\x3c\x85R.",
     DOUBLED + stack_name("numpy._core.multiarray", "scalar") + b"h\x3ch\x3c\x86R.", DOUBLED + b"h\x3c)R.",
     DOUBLED + b"h\x3c)\x81.", DOUBLED + b"h\x3ch\x3cb.", DOUBLED + b"h\x3cK\x01a.",
     DOUBLED + name("_codecs", "encode") + b"h\x3ch\x3c\x86R."],
    ids=["key", "dtype", "scalar", "call", "new object", "state", "append", "encode"],
)
def test_objects_that_grow_when_looked_at_are_not_looked_at(pickled: bytes) -> None:
    with pytest.raises(UnsafePickleError):
        loads(pickled)


def test_what_is_copied_out_of_the_memo_is_bounded() -> None:
    copies = b"h\x00h\x01h\x02\x86R" * 1000
    with pytest.raises(UnsafePickleError, match="more data than the pickle holds"):
        loads(b"(" + name("_codecs", "encode") + b"\x94" + text("x" * 200) + b"\x94" + text("latin1") + b"\x94" + copies
              + b"l.")


def test_arrays_copied_out_of_the_memo_are_bounded() -> None:
    data = name("numpy", "dtype") + text("u1") + b"\x89\x88\x87R\x94" + b"C\xff" + bytes(255) + b"\x94"
    array = b"h\x02(h\x01h\x00K\xff\x85" + text("C") + b"tR"
    with pytest.raises(UnsafePickleError, match="more data than the pickle holds"):
        loads(b"(" + data + name("numpy._core.numeric", "_frombuffer") + b"\x94" + array * 1000 + b"l.")


def test_keys_that_collide() -> None:
    with pytest.raises(UnsafePickleError, match="a key that is a int"):
        loads(pickle.dumps({2**61 - 1: 1}))


def test_deep_nesting() -> None:
    depth = 200_000
    got = loads(b"]" * depth + b"a" * (depth - 1) + b".")
    for _ in range(depth - 1):
        (got,) = got
    assert got == []


@pytest.mark.parametrize("keep", [0, 3, 10, 500, -1])
def test_cut_off_files(keep: int, tmp_path: pathlib.Path) -> None:
    data = zstandard.ZstdCompressor().compress(pickle.dumps([*PLAIN, np.random.default_rng(0).random(500)]))
    path = tmp_path / "cut.zstd"
    path.write_bytes(data[:keep])
    with pytest.raises(ValueError, match=r"cut.zstd: the zstd data is cut off after"):
        load_zstd(path)


def test_not_zstd_broken_or_followed_by_something(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.zstd"
    path.write_bytes(pickle.dumps(PLAIN))
    with pytest.raises(ValueError, match=r"x.zstd: not a zstd file"):
        load_zstd(path)
    data = zstandard.ZstdCompressor(write_checksum=True).compress(pickle.dumps(np.arange(1000)))
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"x.zstd: not a zstd file, or a broken one"):
        load_zstd(path)
    path.write_bytes(data + b"more")
    with pytest.raises(ValueError, match=r"x.zstd: something follows"):
        load_zstd(path)
    with pytest.raises(FileNotFoundError):
        load_zstd(tmp_path / "missing.zstd")


@pytest.mark.parametrize(
    "broken",
    [b"", b".", b"K", b"K\x01", b"0.", b"a.", b"(.", b"K\x01(a.", b"(K\x01e.", b"](K\x01ala.",
     b"t.", b"h\x00.", b"\xff.", b"}(K\x01u.",
     b"K\x01K\x02.", b"K\x01K\x01\x93.", b"}s.", b"R.", b"I12345678x\n.", b"\x8c\x01\xff.", b"\x8c\x05ab", b"F1x\n.",
     b"I" + b"9" * 5000 + b"\n.", pickle.dumps(PLAIN)[:-1], array_pickle(b"K\x01\x85")],
)
def test_broken_pickles(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"^pickle: "):
        loads(broken)


GOLDEN = fixture_folder() / "converters" / "order-interval.zstd"


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_change_of_a_real_pickle_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(zstandard.ZstdDecompressor().stream_reader(GOLDEN.open("rb")).read())
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(ValueError):
        loads(data, allowed={("market_simulation.utils.bin_converter", "BinConverter")})


def test_every_opcode_is_known_to_be_read_or_refused() -> None:
    read = {*safe_pickle._PUSH, *safe_pickle._CONSTANTS, *safe_pickle._TUPLES, *safe_pickle._PUTS, *safe_pickle._GETS,
            *safe_pickle._STEPS, "MARK", "MEMOIZE", "STOP"}
    refused = {"INST", "OBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER",
               "READONLY_BUFFER", "STRING", "BINSTRING", "SHORT_BINSTRING", "DUP", "POP", "POP_MARK", "EMPTY_SET",
               "FROZENSET", "ADDITEMS"}
    assert read | refused == {opcode.name for opcode in pickletools.opcodes}
    assert not read & refused
