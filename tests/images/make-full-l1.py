#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Makes a qcow2 image of 16 TiB with an L2 table behind each L1 entry.

	make-full-l1.py FILE

32,768 tables of 64 KiB.  Every 64th has a cluster of zeros as its first entry
and the others are empty, so that nearly all of the file is a hole.
"""

import struct
import sys

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
L2_SPAN = CLUSTER * (CLUSTER // 8)
DISK_BYTES = 16 << 40
L1_ENTRIES = DISK_BYTES // L2_SPAN
REFCOUNT_ORDER = 4
BLOCK_CLUSTERS = CLUSTER * 8 >> REFCOUNT_ORDER

# In clusters: the header, the refcount table, the L1 table, two refcount
# blocks, the L2 tables.
L1_START = 2
L1_CLUSTERS = L1_ENTRIES * 8 // CLUSTER
BLOCKS_START = L1_START + L1_CLUSTERS
TABLES_START = BLOCKS_START + 2
CLUSTERS = TABLES_START + L1_ENTRIES

COPIED = 1 << 63
ZERO = 1


def header():
    """Version 3, no features."""
    return struct.pack(
        ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, CLUSTER_BITS, DISK_BYTES,
        0, L1_ENTRIES, L1_START * CLUSTER, CLUSTER, 1, 0, 0, 0, 0, 0,
        REFCOUNT_ORDER, 104)


def main():
    assert CLUSTERS <= 2 * BLOCK_CLUSTERS
    tables = [(TABLES_START + i) * CLUSTER for i in range(L1_ENTRIES)]
    with open(sys.argv[1], "xb") as file:
        def put(offset, data):
            file.seek(offset)
            file.write(data)

        put(0, header())
        put(CLUSTER, struct.pack(">QQ", BLOCKS_START * CLUSTER,
                                 (BLOCKS_START + 1) * CLUSTER))
        put(L1_START * CLUSTER, struct.pack(
            f">{L1_ENTRIES}Q", *(table | COPIED for table in tables)))
        put(BLOCKS_START * CLUSTER, b"\0\1" * CLUSTERS)
        for table in tables[::64]:
            put(table, struct.pack(">Q", ZERO))
        file.truncate(CLUSTERS * CLUSTER)


main()
