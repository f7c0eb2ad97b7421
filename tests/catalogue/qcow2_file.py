# SPDX-License-Identifier: MIT
"""
Makes qcow2 files as no honest program would.

An image is sound until somebody says otherwise: header, refcount table,
refcount block, L1 table and what is added, with refcounts of 1.  Fields of the
header are set by their names in the specification, to any number.
"""

import os
import struct

MAGIC = 0x514649FB
HEADER = struct.Struct(">IIQIIQIIQQIIQQQQII")
FIELDS = ("magic version backing_file_offset backing_file_size cluster_bits "
          "size crypt_method l1_size l1_table_offset refcount_table_offset "
          "refcount_table_clusters nb_snapshots snapshots_offset "
          "incompatible_features compatible_features autoclear_features "
          "refcount_order header_length").split()
FIELD_BYTES = dict(zip(FIELDS, (4, 4, 8, 4, 4, 8, 4, 4, 8, 8, 4, 4, 8, 8, 8, 8,
                                4, 4)))
BACKING_FORMAT = 0xE2792ACA
DATA_FILE = 0x44415441
COPIED = 1 << 63
COMPRESSED = 1 << 62
DATA_FILE_BIT = 1 << 2
COMPRESSION_BIT = 1 << 3
# A field of compression_type follows the others.
HEADER_LENGTH = 112
REFCOUNT_TABLE, REFCOUNT_BLOCK, L1 = 1, 2, 3
PIECE_BYTES = 1 << 20


def entries(*values):
    """A table of 8-byte entries."""
    return struct.pack(f">{len(values)}Q", *values)


def repeated(value, count):
    """The same for one value; in pieces, so that it costs no memory here."""
    piece = struct.pack(">Q", value) * (PIECE_BYTES // 8)
    left = count * 8
    while left > 0:
        yield piece[:left]
        left -= PIECE_BYTES


def counted(first, step, count):
    """A table of count entries, each by step higher; in pieces, too."""
    many = PIECE_BYTES // 8
    for start in range(0, count, many):
        stop = min(start + many, count)
        yield struct.pack(f">{stop - start}Q",
                          *range(first + start * step, first + stop * step,
                                 step))


class Qcow2:
    def __init__(self, size=1 << 20, cluster_bits=16, **fields):
        self.cluster_bytes = 1 << cluster_bits
        table = self.cluster_bytes // 8 * self.cluster_bytes
        self.fields = {
            "magic": MAGIC, "version": 3, "backing_file_offset": 0,
            "backing_file_size": 0, "cluster_bits": cluster_bits,
            "size": size, "crypt_method": 0, "l1_size": -(-size // table),
            "l1_table_offset": L1 * self.cluster_bytes,
            "refcount_table_offset": REFCOUNT_TABLE * self.cluster_bytes,
            "refcount_table_clusters": 1, "nb_snapshots": 0,
            "snapshots_offset": 0, "incompatible_features": 0,
            "compatible_features": 0, "autoclear_features": 0,
            "refcount_order": 4, "header_length": HEADER_LENGTH,
        }
        self.fields.update(fields)
        self.compression_type = 0
        self.extensions = []
        self.backing = None
        self.clusters = L1 + 1
        self.pieces = []
        self.file_bytes = 0

    def set(self, **fields):
        self.fields.update(fields)
        return self

    def extend(self, kind, data):
        """Adds a header extension."""
        self.extensions.append((kind, data))
        return self

    def back(self, name, form=None):
        """Names a backing file, and its format if there is one."""
        self.backing = os.fsencode(name)
        if form is not None:
            self.extend(BACKING_FORMAT, form.encode())
        return self

    def put(self, offset, *pieces):
        """Bytes at any place, one behind the other."""
        for piece in pieces:
            self.pieces.append((offset, piece))
            offset += len(piece)
        self.file_bytes = max(self.file_bytes, offset)
        return self

    def put_table(self, offset, value, count, step=0):
        """A table that says the same count times, or by step more each."""
        return self.put_pieces(offset, count * 8,
                               counted(value, step, count) if step
                               else repeated(value, count))

    def put_pieces(self, offset, length, pieces):
        """As put(), but made when they are written, to use little memory."""
        self.pieces.append((offset, pieces))
        self.file_bytes = max(self.file_bytes, offset + length)
        return self

    def take(self, count=1):
        """The offset of new clusters that have a refcount."""
        offset = self.clusters * self.cluster_bytes
        self.clusters += count
        return offset

    def map_data(self, data):
        """An L2 table whose first cluster is data; returns its offset."""
        l2, host = self.take(), self.take()
        self.put(L1 * self.cluster_bytes, entries(l2 | COPIED))
        self.put(l2, entries(host | COPIED))
        self.put(host, data)
        return l2

    def header(self):
        """All that is at the beginning of the file."""
        extensions = b"".join(
            struct.pack(">II", kind, len(data))
            + data.ljust(-(-len(data) // 8) * 8, b"\0")
            for kind, data in self.extensions) + bytes(8)
        values = dict(self.fields)
        length = 72 if values["version"] == 2 else HEADER_LENGTH
        if self.backing is not None:
            values["backing_file_offset"] = length + len(extensions)
            values["backing_file_size"] = len(self.backing)
        start = HEADER.pack(*(values[name] for name in FIELDS))
        start += bytes([self.compression_type]) + bytes(7)
        return start[:length] + extensions + (self.backing or b"")

    def refcounts(self):
        bits = 1 << self.fields["refcount_order"]
        if bits < 8:
            value = int("".join(["1".rjust(bits, "0")] * self.clusters), 2)
            return value.to_bytes(-(-self.clusters * bits // 8), "big")
        return (1).to_bytes(bits // 8, "big") * self.clusters

    def write(self, path):
        cluster = self.cluster_bytes
        with open(path, "wb") as file:
            file.write(self.header())
            file.seek(REFCOUNT_TABLE * cluster)
            file.write(entries(REFCOUNT_BLOCK * cluster))
            if self.fields["refcount_order"] <= 6:
                file.seek(REFCOUNT_BLOCK * cluster)
                file.write(self.refcounts()[:cluster])
            for offset, piece in self.pieces:
                file.seek(offset)
                file.writelines([piece] if isinstance(piece, bytes)
                                else piece)
            file.truncate(max(self.file_bytes, self.clusters * cluster))
        return path


def field_offset(name):
    """Where a field of the header stands."""
    return sum(FIELD_BYTES[before]
               for before in FIELDS[:FIELDS.index(name)])


def patch(path, name, value):
    """Changes one field of an image that is there already."""
    with open(path, "r+b") as file:
        file.seek(field_offset(name))
        file.write(value.to_bytes(FIELD_BYTES[name], "big"))
