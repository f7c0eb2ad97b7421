#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Writes the seeds of fuzz_header to corpus/header beside it.

Each seed is the length of a file in sectors and its first bytes: a header
that is right, or one with a single lie in it.  Inputs that fuzzing finds are
added by hand, under other names.
"""
import struct
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus" / "header"

MAGIC = 0x514649FB
FORMAT, FEATURES, BITMAPS = 0xE2792ACA, 0x6803F857, 0x23852875
CRYPTO, DATA_FILE, UNKNOWN = 0x0537BE77, 0x44415441, 0xFEEDFACE
CLUSTER = 4096
FILE_SECTORS = 16 * CLUSTER // 512


def extension(kind, data, length=None):
    if length is None:
        length = len(data)
    padding = b"\0" * (-len(data) % 8)
    return struct.pack(">II", kind, length) + data + padding


def feature(kind, bit, name):
    return struct.pack("BB46s", kind, bit, name)


def bitmaps(count=1, reserved=0, size=64, offset=4 * CLUSTER):
    return struct.pack(">IIQQ", count, reserved, size, offset)


def header(version=3, extensions=b"", backing=b"", additional=b"\0" * 8,
           **fields):
    """A header of an 8 MiB disk; backing is put behind the extensions."""
    value = dict(cluster_bits=12, size=8 << 20, crypt=0, l1_size=4,
                 l1=2 * CLUSTER, table=CLUSTER, table_clusters=1,
                 snapshots=0, snapshots_offset=0, incompatible=0,
                 compatible=0, autoclear=0, order=4, length=None,
                 backing_offset=None, backing_size=None)
    value.update(fields)
    if version == 2:
        additional = b""
    additional += b"\0" * (-len(additional) % 8)
    fixed = 72 if version == 2 else 104 + len(additional)
    if value["length"] is None:
        value["length"] = fixed
    if value["backing_offset"] is None:
        value["backing_offset"] = fixed + len(extensions) if backing else 0
    if value["backing_size"] is None:
        value["backing_size"] = len(backing)
    v = value
    data = struct.pack(">IIQIIQIIQQIIQ", MAGIC, version, v["backing_offset"],
                       v["backing_size"], v["cluster_bits"], v["size"],
                       v["crypt"], v["l1_size"], v["l1"], v["table"],
                       v["table_clusters"], v["snapshots"],
                       v["snapshots_offset"])
    if version != 2:
        data += struct.pack(">QQQII", v["incompatible"], v["compatible"],
                            v["autoclear"], v["order"], v["length"])
    return data + additional + extensions + backing


def snapshot(name, extra=b""):
    """An entry of the snapshot table, to stand right behind byte 104."""
    return struct.pack(">QIHHIIQII", 2 * CLUSTER, 4, 1, len(name), 1, 2, 3,
                       4, len(extra)) + extra + b"1" + name


END = struct.pack(">II", 0, 0)
NAMES = feature(0, 0, b"dirty bit") + feature(0, 40, b"shiny\x1b[2J") + \
    feature(1, 0, b"lazy refcounts") + feature(2, 0, b"bitmaps")
ENTRIES = struct.pack(">8Q", 0x8000000000002000, 0x3001, 1,
                      0x4000000000001234, 0x4400000000002345,
                      0x8000000000000000, 0x0100000000001000, 0x1800)

SEEDS = {
    "v2": header(2, END),
    "v2-backing": header(2, extension(FORMAT, b"raw") + END, b"base.raw"),
    "v3": header(extensions=extension(FEATURES, NAMES) + END),
    "v3-backing": header(
        extensions=extension(FORMAT, b"qcow2") +
        extension(FEATURES, NAMES) + END, backing=b"base.qcow2"),
    "v3-zstd": header(additional=b"\1" + b"\0" * 7, incompatible=8),
    "v3-zstd-no-bit": header(additional=b"\1" + b"\0" * 7),
    "v3-no-additional": header(additional=b""),
    "v3-future-fields": header(
        additional=b"\0" + b"future" * 3 + b"\0" * 5,
        extensions=extension(UNKNOWN, b"one") + extension(1, b"") +
        extension(UNKNOWN, b"two") + END, compatible=~0 & 2**64 - 1,
        autoclear=1 << 63),
    "v3-512-refcount-64": header(
        cluster_bits=9, size=1 << 20, l1_size=32, l1=2048, table=512,
        order=6),
    "v3-2m-refcount-1": header(cluster_bits=21, l1_size=1, l1=4 << 20,
                               table=2 << 20, order=0),
    "v3-bitmaps": header(extensions=extension(BITMAPS, bitmaps()) + END,
                         autoclear=1),
    "v3-bitmaps-far": header(
        extensions=extension(BITMAPS, bitmaps(offset=2**64 - 4096)) + END),
    "v3-snapshots": header(snapshots=2, snapshots_offset=3 * CLUSTER,
                           additional=snapshot(b"before", b"x" * 24)),
    "v3-snapshot-long-extra": header(
        additional=snapshot(b"n", b"x" * 1024)),
    "v3-dirty-corrupt": header(incompatible=3),
    "v3-unknown-feature": header(
        extensions=extension(FEATURES, NAMES) + END, incompatible=1 << 40),
    "v3-aes": header(crypt=1),
    "v3-luks": header(crypt=2, extensions=extension(
        CRYPTO, struct.pack(">QQ", 5 * CLUSTER, 592)) + END),
    "v3-data-file": header(incompatible=4, extensions=extension(
        DATA_FILE, b"data.raw") + END),
    "v3-extended-l2": header(incompatible=16),
    "v3-extension-too-long": header(
        extensions=extension(UNKNOWN, b"", 0xFFFFFFFF)),
    "v3-extension-twice": header(
        extensions=extension(FORMAT, b"raw") + extension(FORMAT, b"qcow2")),
    "v3-backing-name-far": header(backing_offset=CLUSTER - 4,
                                  backing_size=5),
    "v3-backing-name-at-end": header(backing_offset=CLUSTER,
                                     backing_size=0),
    "v3-length-odd": header(length=105),
    "v3-length-huge": header(length=0xFFFFFFF8),
    "v3-l1-huge": header(l1_size=0xFFFFFFFF),
    "v3-l1-wraps": header(l1=2**64 - CLUSTER, l1_size=1024),
    "v3-table-huge": header(table_clusters=0xFFFFFFFF),
    "v3-size-huge": header(size=2**63 - 1),
    "v3-entries": header(extensions=END + ENTRIES),
    "v1": header(1),
    "cluster-bits-huge": header(cluster_bits=0xFFFFFFFF),
    "cut": header()[:60],
}


def main():
    CORPUS.mkdir(parents=True, exist_ok=True)
    for name, data in SEEDS.items():
        sectors = FILE_SECTORS
        if "2m" in name:
            sectors = (8 << 20) // 512
        (CORPUS / name).write_bytes(struct.pack(">I", sectors) + data)


if __name__ == "__main__":
    main()
