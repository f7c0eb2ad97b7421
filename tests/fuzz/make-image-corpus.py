#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Writes the seeds of fuzz_image to corpus/image beside it.

A seed is

    template flags seed patches     a byte each, and then
    kind ...                        so many patches
    command ...                     up to the end

A patch is a byte, 16 * kind + region, and what its kind takes.  The region is
a part of the file, the header for instance.

    0..7    offset:16, kind + 1 bytes that go there
    8       index:16 flags host     an entry (host: a region, or a cluster)
    11      bit:16                  that is turned over
    13      sectors:16              the length of the file

A command is a byte; those but FLUSH, REOPEN and CHECK take offset:16 and
length, in units of 256 bytes (length is one more), and those that write data
the byte of which it consists.  Numbers of 16 bits are little-endian.

Inputs that fuzzing finds are added by hand, under other names.
"""
import struct
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus" / "image"

# Templates; see recipes[] of template.c.
NAMES = ["v3", "v3-snapshot", "v3-zstd", "v3-1k-zstd-snapshot", "v2",
         "v2-snapshot", "v3-refcount-64", "v3-refcount-1",
         "v3-refcount-8-snapshot", "v3-8k"]
V3, V3_SNAPSHOT = 0, 1
CLUSTER_BITS = [9, 9, 9, 10, 9, 9, 9, 9, 9, 13]

READ_ONLY, SMALL_CACHE, FULL_DISK = 1, 2, 4

(HEADER, REFCOUNT_TABLE, REFCOUNT_BLOCK, L1, L2, L2_LAST, SNAPSHOTS,
 SNAPSHOT_L1, COMPRESSED) = range(9)
REGIONS = 9     # from here on, a host is a cluster of the file
FAR = 255
COPIED, PACKED, ZERO, UNALIGNED, RESERVED, LONG = 128, 64, 1, 2, 4, 16

(READ, WRITE, WRITE_FUA, ZEROES, ZEROES_NO_HOLE, ZEROES_FAST, DISCARD, FLUSH,
 STATUS, PREFETCH, REOPEN, CHECK, COMPRESS) = range(13)
FROM_END = 128


def patch(region, offset, data):
    return struct.pack("<BH", 16 * (len(data) - 1) + region, offset) + data


def entry(region, index, flags, host):
    return struct.pack("<BHBB", 16 * 8 + region, index, flags, host)


def bit(region, number):
    return struct.pack("<BH", 16 * 11 + region, number)


def length(sectors):
    return struct.pack("<BH", 16 * 13, sectors)


def command(kind, offset=0, count=1, value=None):
    """count units of the disk from offset on."""
    if kind & 127 in (FLUSH, REOPEN, CHECK):
        return bytes([kind])
    has_value = kind & 127 in (WRITE, WRITE_FUA, COMPRESS)
    tail = bytes([value]) if has_value else b""
    return struct.pack("<BHB", kind, offset, count - 1) + tail


def everything(cluster_bits):
    """Each command, on clusters of each kind; a template repeats after 8."""
    per_cluster = (1 << cluster_bits) // 256
    data = b""
    for cluster in range(8):
        at = cluster * per_cluster
        data += command(WRITE, at + per_cluster // 2, 1, 0xA0 + cluster)
    for number, kind in enumerate([ZEROES, ZEROES_NO_HOLE, ZEROES_FAST,
                                   DISCARD, READ, STATUS, PREFETCH]):
        at = (8 + number) * per_cluster
        data += command(kind, at, min(2 * per_cluster, 256))
    data += command(CHECK) + command(WRITE_FUA, 3, 2, 0x5A)
    data += command(FROM_END | WRITE, 1, 3, 0xEE) + command(REOPEN)
    data += command(FROM_END | DISCARD, 0, 5) + command(FLUSH)
    data += command(WRITE, 20 * per_cluster, min(8 * per_cluster, 256), 7)
    return data


def packing(cluster_bits):
    """Streams beside each other, of which some are overwritten and freed."""
    per_cluster = (1 << cluster_bits) // 256
    data = b""
    for cluster in range(16, 24):
        data += command(DISCARD, cluster * per_cluster, per_cluster)
        data += command(COMPRESS, cluster * per_cluster, 1, cluster)
    data += command(FLUSH) + command(WRITE, 17 * per_cluster, 1, 0xAA)
    data += command(DISCARD, 18 * per_cluster, 3 * per_cluster)
    data += command(CHECK) + command(COMPRESS, 19 * per_cluster, 1, 0x55)
    data += command(READ, 16 * per_cluster, min(8 * per_cluster, 256))
    return data + command(REOPEN) + command(FROM_END | COMPRESS, 0, 1, 0x77)


def seed(template, *patches, flags=0, commands=None):
    if commands is None:
        commands = everything(CLUSTER_BITS[template])
    return bytes([template, flags, template + 1, len(patches)]) + \
        b"".join(patches) + commands


def put32(value):
    return struct.pack(">I", value)


def put64(value):
    return struct.pack(">Q", value)


# What is damaged, and how.
PATCHES = {
    "l2-at-l1": entry(L2, 0, COPIED, L1),
    "l2-at-own-table": entry(L2, 8, COPIED, L2),
    "l2-at-refcount-table-zero": entry(L2, 0, COPIED | ZERO, REFCOUNT_TABLE),
    "l2-twice": entry(L2, 2, COPIED, REGIONS + 8),
    "l2-unaligned": entry(L2, 1, COPIED | UNALIGNED, COMPRESSED),
    "l2-reserved": entry(L2, 1, COPIED | RESERVED, COMPRESSED),
    "l2-far": entry(L2, 1, COPIED, FAR),
    "l2-compressed-in-header": entry(L2, 1, PACKED, HEADER),
    "l2-compressed-long": entry(L2, 1, PACKED | LONG, COMPRESSED),
    "l2-zero-bit": bit(L2, 63),
    "l1-at-data": entry(L1, 0, COPIED, COMPRESSED),
    "l1-at-block": entry(L1, 0, COPIED, REFCOUNT_BLOCK),
    "l1-not-copied": bit(L1, 0),
    "refcount-0": patch(REFCOUNT_BLOCK, 16, b"\0\0"),
    "refcount-table-far": entry(REFCOUNT_TABLE, 60, 0, REFCOUNT_BLOCK),
    "refcount-table-at-l2": entry(REFCOUNT_TABLE, 0, 0, L2),
    "refcount-last-in-use": patch(REFCOUNT_BLOCK, 510, b"\0\1"),
    "compressed-broken": patch(COMPRESSED, 0, b"\xff" * 8),
    "snapshot-l1-far": patch(SNAPSHOTS, 0, put64(1 << 50)),
    "size-huge": patch(HEADER, 24, put64(1 << 40)),
    "size-odd": patch(HEADER, 31, b"\x17"),
    "l1-size-0": patch(HEADER, 36, put32(0)),
    "refcount-table-clusters-9": patch(HEADER, 56, put32(9)),
    "snapshots-1000": patch(HEADER, 60, put32(1000)),
    "autoclear": patch(HEADER, 88, b"\xff"),
    "cut": length(40),
}


def main():
    CORPUS.mkdir(parents=True, exist_ok=True)
    seeds = {name: seed(template) for template, name in enumerate(NAMES)}
    for name, change in PATCHES.items():
        seeds[name] = seed(
            V3_SNAPSHOT if name.startswith("snapshot") else V3, change)
    aes = patch(HEADER, 35, b"\1")
    seeds["aes"] = seed(V3, aes)
    seeds["aes-l2-twice"] = seed(V3, aes, PATCHES["l2-twice"])
    for name in "v3-1k-zstd-snapshot", "v2", "v3-8k":
        seeds["aes-" + name] = seed(NAMES.index(name), aes)
    seeds["small-cache"] = seed(V3, flags=SMALL_CACHE)
    seeds["full-disk"] = seed(V3, flags=FULL_DISK | 8)
    seeds["read-only"] = seed(V3, flags=READ_ONLY)
    for template, name in enumerate(NAMES):
        seeds["packing-" + name] = seed(
            template, commands=packing(CLUSTER_BITS[template]))
    seeds["packing-compressed-broken"] = seed(
        V3, PATCHES["compressed-broken"], commands=packing(CLUSTER_BITS[V3]))
    seeds["packing-refcount-0"] = seed(
        V3, PATCHES["refcount-0"], commands=packing(CLUSTER_BITS[V3]))
    for name, data in seeds.items():
        (CORPUS / name).write_bytes(data)


if __name__ == "__main__":
    main()
