#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards extended headers with a client that others wrote: libnbd from 1.18 on,
# through its Python module.  Lengths past 4 GiB arrive as they were meant, in
# one request each, on a disk of 16 TiB; what lies past its end is refused, and
# the session goes on.  Debian 12 has an older libnbd: tests/conformance has the
# same with bare sockets.  With a libnbd that was only built:
#
#	PYTHONPATH=LIBNBD/python:LIBNBD/python/.libs \
#	LD_LIBRARY_PATH=LIBNBD/lib/.libs tests/system/test-extended-peer.sh
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img
/usr/bin/python3 -c 'import nbd' 2>/dev/null ||
    skip "no Python module nbd; install python3-libnbd"
/usr/bin/python3 -c 'import nbd; nbd.NBD.get_extended_headers_negotiated' \
    2>/dev/null ||
    skip "this libnbd has no extended headers; 1.18 and newer do"

cat >client.py <<'END'
import errno
import sys

import nbd

TIB = 1 << 40
HOLE, DATA = 3, 0

disk = nbd.NBD()
disk.add_meta_context("base:allocation")
disk.add_meta_context("qemu:allocation-depth")
disk.connect_uri(sys.argv[1])
assert disk.get_extended_headers_negotiated()
assert disk.get_size() == 16 * TIB


def status(length, offset):
    extents = {}

    def add(context, _, entries, __):
        extents.setdefault(context, []).extend(entries)
    disk.block_status_64(length, offset, add)
    return extents["base:allocation"], extents["qemu:allocation-depth"]


def refused(error, function, *arguments):
    try:
        function(*arguments)
    except nbd.Error as failure:
        assert failure.errnum == error, failure
    else:
        raise AssertionError(f"{function} was not refused")


assert status(16 * TIB, 0) == ([(16 * TIB, HOLE)], [(16 * TIB, 0)])
CLUSTER = 2 << 20
disk.pwrite(b"x" * CLUSTER, 3 * TIB)
disk.pwrite(b"y" * CLUSTER, 15 * TIB)
lengths = (3 * TIB, CLUSTER, 12 * TIB - CLUSTER, CLUSTER, TIB - CLUSTER)
assert status(16 * TIB, 0) == (
    list(zip(lengths, (HOLE, DATA, HOLE, DATA, HOLE))),
    list(zip(lengths, (0, 1, 0, 1, 0)))), status(16 * TIB, 0)

disk.set_strict_mode(0)
refused(errno.ENOSPC, disk.zero, 16 * TIB, TIB)
refused(errno.EINVAL, disk.trim, 16 * TIB, TIB)
refused(errno.EINVAL, status, 16 * TIB, TIB)
assert disk.pread(CLUSTER, 3 * TIB) == b"x" * CLUSTER

disk.cache(16 * TIB, 0)
disk.zero(12 * TIB, 0)
assert disk.pread(CLUSTER, 3 * TIB) == bytes(CLUSTER)
assert disk.pread(CLUSTER, 15 * TIB) == b"y" * CLUSTER
disk.trim(16 * TIB, 0)
assert status(16 * TIB, 0)[0] == [(16 * TIB, HOLE)]
disk.flush()
disk.shutdown()
END

qemu-img create -q -f qcow2 -o cluster_size=2M huge.qcow2 16T
start_qnbd huge.qcow2
/usr/bin/python3 client.py "$uri" || fail "libnbd did not get what it is due"
stop_qnbd
qemu-img check -q huge.qcow2 || fail "the image is damaged"
