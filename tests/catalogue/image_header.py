# SPDX-License-Identifier: MIT
"""
Each field of the header, and of the tables it leads to, at, below and above
its limits: offsets that are not aligned, that lie past the end of the file, and
whose sum with a length overflows.

A row is (fields or image, verdict).  qnbd must come to the verdict; all programs
must come to one in time, within their memory, and without a crash.
"""

import os
import struct

from case import Failure, check
from image_case import case
from programs import Refused
from qcow2_file import (L1, MAGIC, REFCOUNT_BLOCK, REFCOUNT_TABLE, Qcow2,
                        entries)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CLUSTER = 64 * KIB
FILE_BYTES = 4 * CLUSTER
U32, U64 = (1 << 32) - 1, (1 << 64) - 1

# Verdicts, and the exit statuses of info and of check that go with them.
SERVED = "served"
READ_ONLY = "served read-only"
REFUSED = "refused"
# By all but check, which needs no data.
UNREADABLE = "refused, but checked"
INFO = {SERVED: (0,), READ_ONLY: (0,), REFUSED: (1,), UNREADABLE: (1,)}
CHECK = {SERVED: (0, 2, 3), READ_ONLY: (0, 1, 2, 3), REFUSED: (1, 2),
         UNREADABLE: (0,)}


def long_file(file_bytes, **fields):
    """An image whose file goes on, with a hole; all of it is counted."""
    image = Qcow2(**fields)
    image.clusters = file_bytes // CLUSTER
    return image.put(image.fields["refcount_table_offset"],
                     entries(REFCOUNT_BLOCK * CLUSTER))


def try_serving(t, path, writable, expected):
    """One verdict of serve."""
    if not t.program.rules_of_qnbd:
        try:
            t.read_all(path, writable=writable, limit=64 * KIB)
        except Refused as refused:
            refused.done.check_sane()
    elif expected:
        t.serves(path, writable=writable, limit=64 * KIB)
    else:
        t.refuses(path, writable=writable)


def judge(t, what, image, verdict):
    path = image.write("field.qcow2")
    try:
        t.look("info", path, *INFO[verdict])
        t.look("check", path, *CHECK[verdict])
        try_serving(t, path, True, verdict == SERVED)
        if verdict != SERVED:
            try_serving(t, path, False, verdict == READ_ONLY)
    except Failure as failure:
        raise Failure(f"{what}: {failure}") from None
    os.unlink(path)


def judge_fields(t, *rows):
    for fields, verdict in rows:
        judge(t, fields, Qcow2().set(**fields), verdict)


def judge_values(t, name, refused, served=()):
    """The values of one field; the file is a sound one otherwise."""
    judge_fields(t, *(({name: value}, REFUSED) for value in refused),
                 *(({name: value}, SERVED) for value in served))


@case
def cve_2014_0143_l1_table(t):
    """
    Guards against CVE-2014-0143 where the L1 table is found: its length and
    place, their product and their sum, and the size of the disk.
    """
    judge_values(t, "l1_size", (0, 8193, 1 << 29, (1 << 29) + 1, 1 << 31, U32),
                 (1, 8192))
    judge_values(t, "l1_table_offset",
                 (0, 8, 512, CLUSTER - 1, L1 * CLUSTER + 512, FILE_BYTES,
                  1 << 62, U64 - 7, U64 - CLUSTER + 1, U64))
    judge_values(t, "size", (512 * MIB + 1, 1 << 62, (1 << 63) - 1, 1 << 63,
                             U64 - 511, U64), (0, 1, 512 * MIB))
    for entry_count, verdict in ((1 << 22, SERVED),
                                 ((1 << 22) + 1, REFUSED)):
        judge(t, f"L1 table of {entry_count}", long_file(
            64 * MIB, l1_size=entry_count), verdict)


@case
def cve_2014_0143_refcount_table(t):
    """
    Guards against CVE-2014-0143 where the refcount table is found: its length
    in clusters and its place, their product and their sum.
    """
    judge_values(t, "refcount_table_clusters",
                 (0, 4, 1 << 15, 1 << 16, (1 << 16) + 1, 1 << 31, U32), (1,))
    judge_values(t, "refcount_table_offset",
                 (0, 8, REFCOUNT_TABLE * CLUSTER + 512, FILE_BYTES, 1 << 62,
                  U64 - CLUSTER + 1, U64))
    for clusters, verdict in ((128, SERVED), (129, REFUSED)):
        judge(t, f"refcount table of {clusters} clusters", long_file(
            64 * MIB, refcount_table_clusters=clusters,
            refcount_table_offset=32 * MIB), verdict)


@case
def cve_2014_0144_fixed_fields(t):
    """
    Guards against CVE-2014-0144: fields that become shifts and lengths before
    anybody looked at them: version, cluster_bits, refcount_order,
    header_length, crypt_method, the features.
    """
    judge_values(t, "magic", (0, MAGIC + 1, U32), (MAGIC,))
    judge_values(t, "version", (0, 1, 4, 1 << 31, U32), (2, 3))
    judge_values(t, "crypt_method", (3, U32))
    judge_values(t, "refcount_order", (7, 31, 32, 63, 64, U32))
    judge_values(t, "header_length",
                 (0, 8, 72, 96, 103, 105, 111, CLUSTER + 8, 1 << 31, U32 - 7,
                  U32), (104, 112, 120, CLUSTER))
    judge_values(t, "incompatible_features",
                 (8, 1 << 5, 1 << 63, U64))
    judge_fields(t, ({"incompatible_features": 1 << 4}, UNREADABLE))
    judge_values(t, "compatible_features", (), (1, U64))
    judge_values(t, "autoclear_features", (), (4, U64))


@case
def cve_2014_0144_cluster_and_refcount_widths(t):
    """
    Guards against CVE-2014-0144 in what is derived from cluster_bits and
    refcount_order: each that is allowed, and those beside them.
    """
    for bits in (9, 12, 21):
        judge(t, f"cluster_bits {bits}", Qcow2(cluster_bits=bits), SERVED)
    for bits in (0, 1, 8, 22, 31, 32, 63, 64, 1 << 31, U32):
        judge(t, f"cluster_bits {bits}", Qcow2().set(cluster_bits=bits),
              REFUSED)
    for order in range(7):
        judge(t, f"refcount_order {order}", Qcow2(refcount_order=order),
              SERVED)
    image = Qcow2()
    image.compression_type = 1
    judge(t, "compression_type without its bit", image, REFUSED)
    for kind in (2, 255):
        image = Qcow2(incompatible_features=8)
        image.compression_type = kind
        judge(t, f"compression_type {kind}", image, REFUSED)


@case
def cve_2014_0144_backing_name_and_extensions(t):
    """
    Guards against CVE-2014-0144 in what follows the header: a backing file's
    name, and header extensions, that go on past the first cluster.
    """
    for offset, size in ((1, 4), (71, 4), (111, 4), (120, 1024), (120, U32),
                         (CLUSTER, 1), (CLUSTER - 4, 5), (CLUSTER + 1, 0),
                         (1 << 62, 4), (U64, 1), (U64 - 3, 8)):
        fields = {"backing_file_offset": offset, "backing_file_size": size}
        judge(t, fields, Qcow2(**fields), REFUSED)
    for offset, size in ((0, U32), (120, 0), (CLUSTER, 0)):
        fields = {"backing_file_offset": offset, "backing_file_size": size}
        judge(t, fields, Qcow2(**fields), SERVED)
    for kind in (0xE2792ACA, 0x6803F857, 0x23852875, 0x0537BE77, 0x44415441,
                 0x12345678):
        for length in (CLUSTER, 1 << 31, U32 - 7, U32):
            image = Qcow2().put(112, struct.pack(">II", kind, length))
            judge(t, f"extension {kind:#x} of {length}", image, REFUSED)


def with_snapshot(l1_offset=0, l1_size=0, id_size=1, name_size=1, extra=16,
                  **fields):
    """An image with one snapshot, whose table is the last of the file."""
    image = Qcow2(**fields)
    table = image.take()
    head = struct.pack(">QIHHIIQII", l1_offset, l1_size, id_size, name_size,
                       0, 0, 0, 0, extra)
    image.put(table, head + bytes(min(extra, 1024)) + b"1s")
    return image.set(**{"nb_snapshots": 1, "snapshots_offset": table,
                        **fields})


@case
def cve_2014_0145_l1_table_of_a_snapshot(t):
    """
    Guards against CVE-2014-0145: the L1 table of a snapshot, of any length and
    at any place, put into a buffer made for another one.  The disk itself is
    served all the same.
    """
    judge(t, "a good one", with_snapshot(L1 * CLUSTER + CLUSTER, 0), SERVED)
    for offset, size in ((8, 1), (L1 * CLUSTER + 512, 1), (1 << 62, 1),
                         (U64 - CLUSTER + 1, 8192), (U64, 1),
                         (5 * CLUSTER, 1 << 22), (L1 * CLUSTER, (1 << 22) + 1),
                         (L1 * CLUSTER, 1 << 29), (L1 * CLUSTER, U32),
                         (1 << 62, U32)):
        image = with_snapshot(offset, size)
        judge(t, f"L1 table of {size} at {offset:#x}", image, SERVED)
        # And that was no mistake: check sees it.
        path = image.write("snapshot.qcow2")
        t.look("check", path, 2)


@case
def cve_2014_0146_snapshot_table(t):
    """
    Guards against CVE-2014-0146: a snapshot table that cannot be loaded, after
    which the image was closed as if it had been.
    """
    for fields in ({"nb_snapshots": 65537}, {"nb_snapshots": 1 << 31},
                   {"nb_snapshots": U32}, {"nb_snapshots": 2000},
                   {"snapshots_offset": 0}, {"snapshots_offset": 8},
                   {"snapshots_offset": L1 * CLUSTER + 8},
                   {"snapshots_offset": 5 * CLUSTER},
                   {"snapshots_offset": 1 << 62},
                   {"snapshots_offset": U64 - CLUSTER + 1}):
        judge(t, fields, with_snapshot(**fields), REFUSED)
    for lengths in ({"extra": 1025}, {"extra": 1 << 31}, {"extra": U32},
                    {"extra": U32 - 40}, {"id_size": 65535},
                    {"name_size": 65535, "id_size": 65535}):
        judge(t, lengths, with_snapshot(**lengths), REFUSED)
    judge(t, "extra data at its limit", with_snapshot(extra=1024), SERVED)


@case
def cve_2014_0147_refcount_blocks_and_l2_tables(t):
    """
    Guards against CVE-2014-0147: entries of the refcount table and of the L1
    table that point to where no table can be, or to another table.  Such
    images can be read, as far as that goes, and are not written to.
    """
    places = (1, 512, 511, 2 * CLUSTER + 512, FILE_BYTES, 1 << 55, 1 << 62,
              U64, U64 - CLUSTER + 1, REFCOUNT_TABLE * CLUSTER, L1 * CLUSTER)
    for place in places:
        image = Qcow2().put(REFCOUNT_TABLE * CLUSTER, entries(place))
        judge(t, f"refcount block at {place:#x}", image, READ_ONLY)
        image = Qcow2().put(L1 * CLUSTER, entries(place))
        judge(t, f"L2 table at {place:#x}", image, READ_ONLY)


@case
def cve_2014_0147_refcounts_that_lie(t):
    """
    Guards against CVE-2014-0147 where a cluster is taken for free that is in
    use, or counted below zero: check tells, and writing over it all does not
    crash.  Where they lie about tables that every image has, none is written.
    """
    for refcount in (0, 2, 65535):
        image = Qcow2()
        image.refcounts = lambda value=refcount: struct.pack(
            ">4H", *[value] * 4)
        t.refuses(image.write("tables.qcow2"), writable=True)
        image = Qcow2()
        image.map_data(b"d" * CLUSTER)
        block = struct.pack(">6H", 1, 1, 1, 1, refcount, refcount)
        image.refcounts = lambda block=block: block
        path = image.write("refcounts.qcow2")
        t.look("check", path, 2, 3)
        with t.program.serve(path) as server:
            client = server.client()
            for command, length in ((4, CLUSTER), (1, CLUSTER), (6, CLUSTER),
                                    (1, CLUSTER), (3, 0)):
                data = b"w" * length if command == 1 else b""
                client.command(command, 0, length, data=data)
            client.disconnect()
            server.stop().check_sane()


@case
def cve_2014_0222_version_1(t):
    """
    Guards against CVE-2014-0222 and CVE-2014-0223: the sizes in a header of
    version 1.  No such image is opened, by its number alone.
    """
    for cluster_bits, l2_bits, size in ((12, 9, MIB), (9, 6, U64), (0, 0, 0),
                                        (16, 255, 1 << 63), (255, 255, U64)):
        header = struct.pack(">IIQIIQBBHIQ", MAGIC, 1, 0, 0, 0, size,
                             cluster_bits, l2_bits, 0, 0, 48)
        with open("old.qcow", "wb") as file:
            file.write(header.ljust(FILE_BYTES, b"\0"))
        done = t.refuses("old.qcow", writable=True)
        if t.program.rules_of_qnbd:
            check("version 1 is not supported" in done.errors, done.errors)
        t.look("info", "old.qcow", 1)
        t.look("check", "old.qcow", 1)
