"""NumPy's npy and npz files."""

import io
import math
import zipfile

import numpy as np

from .raster import Raster, Undecodable

_MAX_BYTES = 2**31


def decode_npy(data: bytes) -> Raster:
    """An array of numbers; objects, which would run code, are refused."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran_order, dtype = read_header(file)
    if dtype.kind not in "biuf":
        raise Undecodable(f"array of {dtype}: save it as numbers")
    start, count = file.tell(), math.prod(shape)
    if start + count * dtype.itemsize > len(data):
        raise Undecodable("truncated")
    flat = np.frombuffer(data, dtype, count, start)
    array = flat.reshape(shape, order="F" if fortran_order else "C")
    pixels = np.ascontiguousarray(array, dtype.newbyteorder("="))
    return Raster("npy", pixels, 8 * dtype.itemsize)


def decode_npz(data: bytes, names: tuple[str, ...]) -> Raster:
    """The only array, or else the one that has the first of ``names`` that there is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {
            member.filename.removesuffix(".npy"): member
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }
        if not members:
            raise Undecodable("a zip archive without NumPy arrays")
        by_lower = {name.lower(): name for name in members}
        chosen = [by_lower[name] for name in names if name in by_lower]
        if len(members) > 1 and not chosen:
            raise Undecodable(
                f"with the arrays {', '.join(members)}: name one of them {names[0]}, or save "
                "it alone"
            )
        member = members[chosen[0]] if chosen else next(iter(members.values()))
        if member.file_size > _MAX_BYTES:
            raise Undecodable(f"whose array has {member.file_size} bytes")
        return decode_npy(archive.read(member))
