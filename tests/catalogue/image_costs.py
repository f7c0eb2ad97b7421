# SPDX-License-Identifier: MIT
"""
Small images that want much: time, memory, or room on the disk.

Opening one, telling about it, checking it and reading some of it takes no more
than two seconds of CPU time each; opening it no more than 128 MiB, working with
it no more than 1 GiB.  What check has to do is bounded by what is in the file,
each table once for the disk and for every snapshot; it may still be long if the
file is, so it must end at once when it is told to.
"""

import os
import signal
import struct
import time
import zlib

from case import check
from image_case import case
from programs import SANITIZED, WORK_RSS_MIB, Process, Refused
from qcow2_file import (COMPRESSED, COMPRESSION_BIT, COPIED, REFCOUNT_BLOCK,
                        Qcow2, entries)

MIB = 1 << 20
L1_ENTRIES_MAX = 1 << 22
REFCOUNT_TABLE_ENTRIES_MAX = 1 << 20
INTERRUPT_SECONDS = 5
# Tables that a sanitizer can look through in the time.
FEWER = 8 if SANITIZED else 1


def use(t, path, limit=16 * MIB):
    """Everything that may be done with it, each time within the limits."""
    t.look("info", path, 0, 1)
    t.look("check", path, 0, 1, 2, 3, rss_mib=WORK_RSS_MIB)
    for writable in (True, False):
        try:
            t.read_all(path, writable=writable, limit=limit)
        except Refused as refused:
            refused.done.check_sane()


def all_to_one_table(cluster_bits, refcount_order):
    """The longest L1 table, of one L2 table, of one cluster."""
    image = Qcow2(cluster_bits=cluster_bits, refcount_order=refcount_order)
    span = image.cluster_bytes // 8 * image.cluster_bytes
    image.set(l1_size=L1_ENTRIES_MAX,
              size=min(L1_ENTRIES_MAX * span, (1 << 63) - 1))
    l2, host = image.take(), image.take()
    image.put_table(l2, host | COPIED, image.cluster_bytes // 8)
    l1 = image.take()
    image.set(l1_table_offset=l1)
    return image.put_table(l1, l2 | COPIED, L1_ENTRIES_MAX)


@case
def cve_2015_5162_l1_table_of_one_l2_table(t):
    """
    Guards against CVE-2015-5162: four million entries of the L1 table that all
    name one L2 table, which was then gone through four million times.
    """
    for cluster_bits, order in ((9, 6), (16, 4), (21, 6)):
        path = all_to_one_table(cluster_bits, order).write("big.qcow2")
        use(t, path)
        os.unlink(path)


@case
def cve_2015_5162_full_l1_table(t):
    """
    Guards against an index of tables that costs more than the tables: the
    longest L1 table, each entry with a table of its own, and as many refcount
    blocks as there can be.
    """
    count = L1_ENTRIES_MAX // FEWER
    image = Qcow2(cluster_bits=9)
    l1 = image.take(count * 8 // 512)
    image.set(l1_table_offset=l1, l1_size=count, size=count * 64 * 512)
    first = image.take(count)
    image.put_table(l1, first | COPIED, count, step=512)
    path = write_without_refcounts(image, "full.qcow2")
    t.look("info", path, 0)
    t.serves(path, limit=MIB)
    os.unlink(path)


def write_without_refcounts(image, path):
    """Too many clusters for one block."""
    image.refcounts = lambda: struct.pack(">256H", *[1] * 256)
    return image.write(path)


@case
def cve_2015_5162_refcount_table_of_one_block(t):
    """
    Guards against a refcount table of 8 MiB that names one block a million
    times, or the table itself.
    """
    for cluster_bits, order in ((9, 4), (16, 0), (21, 6)):
        image = Qcow2(cluster_bits=cluster_bits, refcount_order=order)
        count = 8 * MIB >> cluster_bits
        table = image.take(count)
        image.set(refcount_table_offset=table, refcount_table_clusters=count)
        image.put_table(table, REFCOUNT_BLOCK * image.cluster_bytes,
                        REFCOUNT_TABLE_ENTRIES_MAX)
        path = write_without_refcounts(image, "big.qcow2")
        use(t, path)
        os.unlink(path)


@case
def cve_2015_5162_empty_refcount_blocks(t):
    """
    Guards against a search for the end of the image in a million refcount
    blocks, all of them holes of a sparse file.
    """
    for cluster_bits, order in ((9, 0), (12, 4)):
        image = Qcow2(cluster_bits=cluster_bits, refcount_order=order)
        cluster = image.cluster_bytes
        count = 8 * MIB >> cluster_bits
        blocks = REFCOUNT_TABLE_ENTRIES_MAX - 1
        table = image.take(count)
        first = image.clusters * cluster
        image.set(refcount_table_offset=table, refcount_table_clusters=count)
        image.put(table, entries(REFCOUNT_BLOCK * cluster))
        image.put_table(table + 8, first, blocks, step=cluster)
        image.file_bytes = first + blocks * cluster
        path = write_without_refcounts(image, "holes.qcow2")
        # Its counts are not worth a check.
        t.look("info", path, 0)
        for writable in (True, False):
            try:
                t.read_all(path, writable=writable)
            except Refused as refused:
                refused.done.check_sane()
                check(writable or not t.program.rules_of_qnbd,
                      "it is not served read-only either")
        os.unlink(path)


def snapshots(count, extra=16, id_size=4, name_size=4, l1_size=0):
    """A table of so many snapshots, all with the same L1 table."""
    image = Qcow2()
    l1 = image.take(-(-max(l1_size, 1) * 8 // 65536))
    entry_bytes = -(-(40 + extra + id_size + name_size) // 8) * 8
    table = image.take(-(-count * entry_bytes // 65536))
    image.put_pieces(table, count * entry_bytes, (
        (struct.pack(">QIHHIIQII", l1, l1_size, id_size, name_size, 0, 0, 0, 0,
                     extra) + bytes(extra)
         + b"%0*d" % (id_size, number) + b"n" * name_size)
        .ljust(entry_bytes, b"\0") for number in range(count)))
    return image.set(nb_snapshots=count, snapshots_offset=table)


@case
def cve_2015_5162_snapshots(t):
    """
    Guards against snapshots without end: as many as there may be, with names
    as long as they may be, with an L1 table of 32 MiB that all have.
    """
    # Past the limit of the table, 64 MiB, they are refused.
    for image in (snapshots(65536 // FEWER), snapshots(1000, 1024, 16384, 40000),
                  snapshots(2000, 1024, 16384, 40000),
                  snapshots(8000 // FEWER, l1_size=L1_ENTRIES_MAX)):
        path = image.write("snapshots.qcow2")
        use(t, path, MIB)
        os.unlink(path)


@case
def cve_2015_5162_bitmaps(t):
    """
    Guards against bitmaps whose tables are one and the same, each time read
    anew: sixty thousand of 32 MiB.
    """
    count, table_entries = 60000 // FEWER, 1 << 22
    image = Qcow2(autoclear_features=1)
    table = image.take(table_entries * 8 // 65536)
    directory = image.take(-(-count * 32 // 65536))
    image.put_pieces(directory, count * 32, (
        struct.pack(">QIIBBHI", table, table_entries, 0, 1, 16, 5, 0)
        + b"%05d" % number + bytes(3) for number in range(count)))
    image.extend(0x23852875, struct.pack(">IIQQ", count, 0, count * 32,
                                         directory))
    path = image.write("bitmaps.qcow2")
    use(t, path, MIB)


def bombs(compressed, zstd=False):
    """A disk of 512 MiB whose clusters of 2 MiB are all the same bytes."""
    image = Qcow2(size=512 * MIB, cluster_bits=21)
    if zstd:
        image.set(incompatible_features=COMPRESSION_BIT)
        image.compression_type = 1
    l2, host = image.take(), image.take()
    shift = 62 - (21 - 8)
    sectors = (len(compressed) - 1) // 512
    image.put(3 * image.cluster_bytes, entries(l2 | COPIED))
    image.put_table(l2, COMPRESSED | sectors << shift | host, 256)
    return image.put(host, compressed.ljust(-(-len(compressed) // 512) * 512,
                                            b"\0"))


def deflated(size):
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return engine.compress(bytes(size)) + engine.flush()


# A frame of one block that says: this byte, 128 KiB times; and so on.
def zstd_frame(blocks, window=0xA8):
    head = struct.pack("<IBB", 0xFD2FB528, 0, window)
    block = (128 * 1024 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (128 * 1024 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return head + block * (blocks - 1) + last


@case
def cve_2013_2096_compressed_bombs(t):
    """
    Guards against compressed clusters that are larger inside than a cluster,
    or want a window of gigabytes: zlib, and zstd.
    """
    limit = 32 * MIB // FEWER
    for image in (bombs(deflated(2 * MIB)), bombs(deflated(256 * MIB)),
                  bombs(zstd_frame(16), True), bombs(zstd_frame(2000), True),
                  bombs(zstd_frame(16, 0xFF), True)):
        path = image.write("bomb.qcow2")
        before = os.stat(path).st_blocks
        use(t, path, limit)
        check(os.stat(path).st_blocks <= before + 64,
              "reading it took room on the disk")
        os.unlink(path)


@case
def cve_2013_2096_huge_disks(t):
    """
    Guards against a virtual size that becomes room on the host's disk, or in
    memory: the largest disk each size of clusters can have.
    """
    for cluster_bits in (9, 12, 16, 21):
        image = Qcow2(cluster_bits=cluster_bits)
        span = image.cluster_bytes // 8 * image.cluster_bytes
        size = min(L1_ENTRIES_MAX * span, (1 << 63) - 512)
        count = -(-size // span)
        l1 = image.take(-(-count * 8 // image.cluster_bytes))
        image.set(size=size, l1_size=count, l1_table_offset=l1)
        path = write_without_refcounts(image, "huge.qcow2")
        use(t, path, MIB)
        check(os.stat(path).st_blocks * 512 < 16 * MIB,
              f"{os.stat(path).st_blocks * 512} bytes on disk")
        os.unlink(path)


def make_chain(length):
    """top.qcow2 over so many others; returns the top."""
    Qcow2().write("0.qcow2")
    for number in range(1, length + 1):
        Qcow2().back(f"{number - 1}.qcow2", "qcow2").write(f"{number}.qcow2")
    return f"{length}.qcow2"


def refuses_loop(t, path):
    """Not just because it is long."""
    done = t.refuses(path)
    check("comes back to a file" in done.errors, done.errors)


@case
def cve_2015_5162_chains(t):
    """
    Guards against backing chains without end: one longer than is allowed, one
    that comes back to its top, or to itself, or to its middle.
    """
    t.serves(make_chain(64))
    top = make_chain(65)
    if t.program.rules_of_qnbd:
        done = t.refuses(top)
        check("more than 64 files" in done.errors, done.errors)
    else:
        t.read_all(top)
    t.look("info", top, 0)
    for target in ("20.qcow2", "0.qcow2", "30.qcow2"):
        Qcow2().back(target, "qcow2").write("0.qcow2")
        if t.program.rules_of_qnbd:
            refuses_loop(t, "30.qcow2")
            t.refuses(top)
        t.look("info", top, 0)
        t.look("check", top, 0)
    for name in ("0.qcow2", "./0.qcow2", "../" + os.path.basename(os.getcwd())
                 + "/0.qcow2"):
        Qcow2().back(name, "qcow2").write("0.qcow2")
        if t.program.rules_of_qnbd:
            refuses_loop(t, "0.qcow2")


def long_work():
    """A check that is lawful, and takes very long: tables of 2 TiB of holes."""
    image = Qcow2(cluster_bits=21)
    count = 1 << 20
    l1 = image.take(4)
    first = image.take(count)
    image.set(l1_table_offset=l1, l1_size=count, size=1 << 59)
    image.put_table(l1, first, count, step=image.cluster_bytes)
    image.refcounts = lambda: struct.pack(">256H", *[1] * 256)
    return image


@case
def cve_2015_5162_check_ends_when_told_to(t):
    """
    Guards against a check that cannot be stopped, of a file that has too much
    to check: SIGINT and SIGTERM end it at once.
    """
    path = long_work().write("long.qcow2")
    for number in (signal.SIGINT, signal.SIGTERM):
        process = Process(t.program.look_command("check", path, "qcow2"))
        time.sleep(0.3)
        check(not process.poll(), "it was over soon; there was no need")
        os.kill(process.process.pid, number)
        begun = time.monotonic()
        done = process.wait()
        check(time.monotonic() - begun < INTERRUPT_SECONDS,
              f"it took {time.monotonic() - begun:.1f} s to end")
        check(done.status == -number or done.status > 0,
              f"status {done.status} after signal {number}")
        check(done.rss_mib <= WORK_RSS_MIB, f"{done.rss_mib:.0f} MiB")
