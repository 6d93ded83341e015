"""Objects from process to process, with the contents of their tensors in memory that both have mapped.

An object goes over the connection as a pickle, the tensors in it as places in an anonymous file in memory (memfd), whose
descriptor follows. So tensors take nothing from /dev/shm, which is small in containers; the receiver copies nothing; and
the memory is free as soon as the receiver lets go of them.
"""

import io
import mmap
import os
import pickle
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Self

import torch
from torch import Tensor

ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the memory."""

    shape: torch.Size
    dtype: torch.dtype
    begin: int

    @property
    def num_bytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize

    def of(self, memory: mmap.mmap) -> Tensor:
        """The tensor in place; keeps the memory."""
        flat = torch.frombuffer(memory, dtype=self.dtype, count=self.shape.numel(), offset=self.begin)
        return flat.view(self.shape)


@dataclass(frozen=True)
class Parcel:
    """An object on its way, to one receiver or several.

    Attributes:
        content: The pickle.
        file: Descriptor of the memory; -1 where no tensor needs any.
    """

    content: bytes
    places: list[_Place] = field(default_factory=list)
    file: int = -1

    @classmethod
    def of(cls, value: object) -> Self:
        """Copies the tensors of an object into memory of their own, until `close`.

        Raises:
            OSError: There is not enough memory, or too many files are open.
        """
        buffer = io.BytesIO()
        pickler = _Pickler(buffer)
        pickler.dump(value)
        if not pickler.places:
            return cls(buffer.getvalue())
        parcel = cls(buffer.getvalue(), pickler.places, os.memfd_create("tensors"))
        try:
            os.ftruncate(parcel.file, _end_of(parcel.places))
            memory = mmap.mmap(parcel.file, 0)
            for place, tensor in zip(parcel.places, pickler.tensors, strict=True):
                place.of(memory).copy_(tensor)
        except BaseException:
            parcel.close()
            raise
        return parcel

    def send(self, connection: Connection) -> None:
        """Sends it. Blocks only while the receiver has many messages to read."""
        connection.send((self.content, self.places))
        if self.places:
            send_handle(connection, self.file, None)

    def close(self) -> None:
        """Frees the memory as far as this process holds it."""
        if self.places:
            os.close(self.file)


def receive(connection: Connection) -> Any:
    """The next object; blocks until it has come.

    Raises:
        EOFError, ConnectionError: The sender is gone.
    """
    content, places = connection.recv()
    if not places:
        return pickle.loads(content)
    file = recv_handle(connection)
    try:
        # Present at once: the tensors are about to be read as a whole.
        memory = mmap.mmap(file, _end_of(places), flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    finally:
        os.close(file)
    return _Unpickler(io.BytesIO(content), [place.of(memory) for place in places]).load()


class _Pickler(pickle.Pickler):
    """Leaves the contents of plain tensors out."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []
        self.places: list[_Place] = []

    def persistent_id(self, value: Any) -> int | None:
        # A tensor of another type, or one that learns, is more than its contents.
        if type(value) is not Tensor or value.requires_grad or value.layout != torch.strided or not value.numel():
            return None
        begin = -(-_end_of(self.places) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self.tensors.append(value)
        self.places.append(_Place(value.shape, value.dtype, begin))
        return len(self.places) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, number: Any) -> Tensor:
        tensor: Tensor = self._tensors[number]
        return tensor


def _end_of(places: list[_Place]) -> int:
    return places[-1].begin + places[-1].num_bytes if places else 0
