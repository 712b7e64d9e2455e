"""The framing between Blender and the engine: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import io
import json
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from engine import wire
from engine.wire import (
    WireError,
    json_safe,
    pack_arrays,
    read_message,
    unpack_arrays,
    write_message,
)

ARRAYS = {
    "bool": np.array([True, False, True]),
    "u8": np.arange(12, dtype=np.uint8).reshape(2, 3, 2),
    "i16": np.array([[-5, 7]], np.int16),
    "i64": np.array([2**62, -1]),
    "f16": np.linspace(0, 1, 5, dtype=np.float16),
    "f32": np.array([[np.inf, -0.0], [np.nan, 1e-30]], np.float32),
    "f64": np.array(3.5),
    "none": np.zeros((0, 3), np.int32),
    "every second": np.arange(10, dtype=np.uint32)[::2],
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(4, dtype=">i4"),
}


def message(header, arrays=None) -> bytes:
    stream = io.BytesIO()
    write_message(stream, header, arrays)
    return stream.getvalue()


def safetensors(table: dict, data: bytes) -> bytes:
    head = json.dumps(table).encode()
    return struct.pack("<Q", len(head)) + head + data


def test_arrays_survive():
    header, arrays = read_message(io.BytesIO(message({"event": "x", "ü": [1, None]}, ARRAYS)))
    assert header == {"event": "x", "ü": [1, None]}
    assert set(arrays) == set(ARRAYS)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype.newbyteorder("=")
        assert array.shape == ARRAYS[name].shape
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned


def test_the_format_is_safetensors():
    library = pytest.importorskip("safetensors.numpy")
    native = {k: np.ascontiguousarray(v) for k, v in ARRAYS.items() if k != "big-endian"}
    theirs = library.load(b"".join(pack_arrays(native)))
    ours = unpack_arrays(library.save(native, metadata={"kind": "test"}))
    for name, array in native.items():
        np.testing.assert_array_equal(theirs[name], array)
        np.testing.assert_array_equal(ours[name], array)


def test_messages_follow_each_other_and_end():
    stream = io.BytesIO(
        message({"n": 1}) + message({"n": 2}, {"a": np.ones(3)}) + message({"n": 3})
    )
    assert [read_message(stream)[0]["n"] for _ in range(3)] == [1, 2, 3]
    assert read_message(stream) is None


def test_a_pipe_that_gives_one_byte_at_a_time():
    class Drip(io.BytesIO):
        def readinto(self, buffer):
            return super().readinto(memoryview(buffer)[:1])

    header, arrays = read_message(Drip(message({"n": 1}, {"a": np.arange(5)})))
    assert header == {"n": 1}
    np.testing.assert_array_equal(arrays["a"], np.arange(5))


def test_a_pipe_that_takes_little_at_a_time():
    class Narrow(io.BytesIO):
        def write(self, data):
            return super().write(memoryview(data)[:7])

    narrow = Narrow()
    write_message(narrow, {"n": 1}, {"a": np.arange(50)})
    assert narrow.getvalue() == message({"n": 1}, {"a": np.arange(50)})


def test_more_than_a_pipe_holds():
    big = np.random.default_rng(0).integers(0, 255, (3, 1 << 20), np.uint8)
    into, out = os.pipe()
    with os.fdopen(into, "rb", 0) as source, os.fdopen(out, "wb", 0) as sink:
        writer = threading.Thread(target=write_message, args=(sink, {}, {"big": big}))
        writer.start()
        np.testing.assert_array_equal(read_message(source)[1]["big"], big)
        writer.join()


def test_cut_off_anywhere_is_an_error():
    whole = message({"event": "x"}, {"a": np.arange(4)})
    for length in range(1, len(whole)):
        with pytest.raises(WireError):
            read_message(io.BytesIO(whole[:length]))


@pytest.mark.parametrize(
    "garbage",
    [
        b"Traceback (most recent call last):\n",
        b"\x00" * 64,
        b"TPW1" + struct.pack("<IQ", wire.MAX_HEADER + 1, 0) + b"{}",
        b"TPW1" + struct.pack("<IQ", 2, wire.MAX_BODY + 1) + b"{}",
        b"TPW1" + struct.pack("<IQ", 2, 0) + b"[]",
        b"TPW1" + struct.pack("<IQ", 2, 0) + b"\xff\xff",
        b"TPW1" + struct.pack("<IQ", 9000, 0) + b"[" * 9000,
        b"TPW1" + struct.pack("<IQ", 2, 3) + b"{}abc",
    ],
)
def test_garbage_is_an_error(garbage):
    with pytest.raises(WireError):
        read_message(io.BytesIO(garbage))


GOOD = {"dtype": "U8", "shape": [2, 2], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "table",
    [
        {"a": GOOD | {"dtype": "O"}},
        {"a": GOOD | {"dtype": "BF16"}},
        {"a": GOOD | {"dtype": ["U8"]}},
        {"a": GOOD | {"shape": [2, 3]}},
        {"a": GOOD | {"shape": [-2, -2]}},
        {"a": GOOD | {"shape": [2.0, 2]}},
        {"a": GOOD | {"shape": [True, 4]}},
        {"a": GOOD | {"shape": "22"}},
        {"a": GOOD | {"shape": [1] * 40 + [4]}},
        {"a": GOOD | {"data_offsets": [1, 5]}},
        {"a": GOOD | {"data_offsets": [-4, 0]}},
        {"a": GOOD | {"data_offsets": [0, 3]}},
        {"a": GOOD | {"data_offsets": [0]}},
        {"a": GOOD | {"shape": [8], "data_offsets": [0, 8]}},
        {"a": GOOD | {"shape": [2**40, 2**40], "data_offsets": [0, 2**80]}},
        {"a": GOOD, "b": GOOD},
        {"a": GOOD | {"shape": [2], "data_offsets": [0, 2]}},
        {"a": [1, 2]},
        {"a": None},
        {},
    ],
)
def test_a_table_that_does_not_fit_its_data_is_an_error(table):
    assert unpack_arrays(safetensors({"a": GOOD}, b"1234"))["a"].shape == (2, 2)
    with pytest.raises(WireError):
        unpack_arrays(safetensors(table, b"1234"))


@pytest.mark.parametrize("data", [b"", b"1234567", struct.pack("<Q", 2**63), b"\x02" + b"\0" * 7])
def test_arrays_without_a_table_are_an_error(data):
    with pytest.raises(WireError):
        unpack_arrays(data)


def test_writing_to_a_closed_pipe_is_an_error():
    into, out = os.pipe()
    os.close(into)
    with os.fdopen(out, "wb", 0) as sink, pytest.raises(WireError, match="closed"):
        write_message(sink, {})
    with pytest.raises(WireError, match="closed"):
        write_message(sink, {})
    with pytest.raises(WireError):
        read_message(sink)


def test_what_is_too_large_or_strange_is_refused_before_a_byte_is_written(monkeypatch):
    stream = io.BytesIO()
    with pytest.raises(ValueError, match="too large"):
        write_message(stream, {"text": "x" * (wire.MAX_HEADER + 1)})
    monkeypatch.setattr(wire, "MAX_BODY", 1000)
    with pytest.raises(ValueError, match="too large"):
        write_message(stream, {}, {"a": np.zeros(1000)})
    for strange in (np.array(["text"]), np.array([object()]), np.zeros(2, complex)):
        with pytest.raises(TypeError, match="cannot travel"):
            write_message(stream, {}, {"a": strange})
    with pytest.raises(TypeError, match="cannot travel"):
        write_message(stream, {"a": object()})
    assert stream.getvalue() == b""


def test_json_safe():
    value = {
        "path": Path("a") / "b",
        1: (np.float32(0.5), np.int64(3), np.bool_(True)),
        "array": np.eye(2),
        "bad": [float("nan"), np.float64("inf"), -float("inf")],
    }
    assert json_safe(value) == {
        "path": str(Path("a") / "b"),
        "1": [0.5, 3, True],
        "array": [[1.0, 0.0], [0.0, 1.0]],
        "bad": [None, None, None],
    }
    json.dumps(json_safe(value), allow_nan=False)
