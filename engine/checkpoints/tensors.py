"""Tensors that still lie in a file: where their numbers are, read one at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.checkpoints.pickle_stream import Buffer, damaged
from engine.errors import WeightsError

DIMENSIONS_AT_MOST = 8

# Names of number types -> numpy's; bfloat16, which numpy lacks, is read as its bits.
DTYPES = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("u1"),
}


@dataclass(eq=False)
class Storage:
    """`count` numbers of one type, from byte `start` of data on (set last where the file says it
    last)."""

    data: Buffer
    dtype: str
    start: int
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.count * DTYPES[self.dtype].itemsize

    def checked(self, end: int) -> Storage:
        """Itself; raises WeightsError if it does not lie before byte `end`."""
        if self.count < 0 or self.start < 0 or self.start + self.nbytes > end:
            raise damaged()
        return self


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A view of a storage; offset and stride count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.stride)
        if any(type(n) is not int or n < 0 for n in numbers):
            raise damaged()
        if len(self.shape) != len(self.stride) or len(self.shape) > DIMENSIONS_AT_MOST:
            raise damaged()
        if self.count:
            last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride))
            # Strides of 0 could make a tensor of any size from one number.
            if last >= self.storage.count or self.count > self.storage.count:
                raise WeightsError(
                    "The model's file is damaged: a tensor claims more numbers than are stored.",
                    "Download the file again from its original place.",
                )

    @property
    def count(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)

    def read(self) -> np.ndarray:
        """A copy as float32, C-contiguous."""
        kind = DTYPES[self.storage.dtype]
        if not self.count:
            return np.zeros(self.shape, np.float32)
        first = self.storage.start + self.offset * kind.itemsize
        room = self.storage.count - self.offset
        flat = np.frombuffer(self.storage.data, kind, room, first)
        steps = [s * kind.itemsize for s in self.stride]
        view = np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False)
        if self.storage.dtype == "bfloat16":
            bits = np.array(view, np.uint32, order="C")
            bits <<= np.uint32(16)
            return bits.view(np.float32)
        with np.errstate(over="ignore"):  # becomes infinite, which the caller refuses
            return np.array(view, np.float32, order="C")
