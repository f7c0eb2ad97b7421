# SPDX-License-Identifier: MIT
"""
The disks under test: what they hold, and how they are made.

Each image has a size and ranges of data; the rest is hole and reads as zero.
Every eight bytes of data tell their own offset, so misplaced data shows.  The
first SCRATCH_START bytes of the main image are never written by any case.
"""

import array
import os
import struct
import subprocess

from wire import GIB, KIB, MIB, TIB

CLUSTER_BYTES = 64 * KIB
SCRATCH_START = 16 * MIB
# Where reads of the image called faulty begin to fail.
FAULT_START = 33 * MIB
# A host offset that is neither aligned to a cluster nor inside any file.
BAD_HOST_OFFSET = 0x7F0000000200
WORD_BASE = 0x5EED << 48


def pattern(start, end):
    """Data for [start, end), both multiples of 8."""
    words = array.array("Q", range(WORD_BASE + start, WORD_BASE + end, 8))
    words.byteswap()
    return words.tobytes()


class Image:
    """What an image holds; base is the image it is an overlay of."""

    def __init__(self, name, size, data, base=None):
        self.name = name
        self.size = size
        self.data = data
        self.base = base

    def content(self, offset, length):
        """The bytes of [offset, offset + length) before anyone wrote."""
        content = bytearray(length)
        end = offset + length
        for start, stop in self.data:
            low = max(start, offset)
            high = min(stop, end)
            if low >= high:
                continue
            padded = pattern(low & ~7, (high + 7) & ~7)
            skip = low & 7
            content[low - offset:high - offset] = \
                padded[skip:skip + high - low]
        return bytes(content)


IMAGES = {image.name: image for image in (
    Image("main", 64 * MIB + 1536,
          [(0, MIB), (2 * MIB, 3 * MIB), (8 * MIB, 12 * MIB)]),
    Image("alpha", MIB, [(0, MIB)]),
    Image("beta", 2 * MIB, [(MIB, 2 * MIB)]),
    Image("huge", 8 * GIB, []),
    Image("tebibytes", 16 * TIB, []),
    # No multiple of 512: its last 101 bytes must not be lost.
    Image("odd", MIB + 101, [(0, MIB + 101)]),
    Image("faulty", 64 * MIB, [(31 * MIB, 32 * MIB),
                               (FAULT_START, FAULT_START + MIB)]),
    Image("base", 16 * MIB, [(0, 4 * MIB)]),
    Image("overlay", 16 * MIB, [(0, 4 * MIB)], base="base"),
)}


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Store:
    """Makes each image once, and hands out copies of it."""

    def __init__(self, directory):
        self.directory = directory

    def path(self, name):
        return os.path.join(self.directory, name)

    def pki(self):
        """A directory with certificates, see tests/pki.sh."""
        path = self.path("pki")
        if not os.path.exists(path):
            script = os.path.join(os.path.dirname(os.path.dirname(
                os.path.abspath(__file__))), "pki.sh")
            run(script, path)
        return path

    def copy(self, name, form, directory):
        """A copy of the image for one server: form is raw or qcow2."""
        source = self.raw(name) if form == "raw" else self.qcow2(name)
        target = os.path.join(directory, os.path.basename(source))
        run("cp", "--sparse=always", source, target)
        return target

    def raw(self, name):
        image = IMAGES[name]
        path = self.path(f"{name}.raw")
        if os.path.exists(path):
            return path
        with open(path, "wb") as file:
            for start, end in image.data:
                file.seek(start)
                file.write(image.content(start, end - start))
            file.truncate(image.size)
        return path

    def qcow2(self, name):
        image = IMAGES[name]
        path = self.path(f"{name}.qcow2")
        if os.path.exists(path):
            return path
        if image.base:
            self.qcow2(image.base)
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2",
                "-b", f"{image.base}.qcow2", path)
        elif not image.data:
            run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
                f"cluster_size={CLUSTER_BYTES}", path, str(image.size))
        else:
            run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o",
                f"cluster_size={CLUSTER_BYTES}", self.raw(name), path)
        if name == "odd":
            set_virtual_size(path, image.size)
        if name == "faulty":
            break_cluster(path, FAULT_START)
        return path


def set_virtual_size(path, size):
    """qemu-img rounds sizes up to 512; others did not."""
    with open(path, "r+b") as file:
        file.seek(24)
        file.write(struct.pack(">Q", size))


def break_cluster(path, guest):
    """Points the L2 entry of guest to where no cluster can be."""
    with open(path, "r+b") as file:
        file.seek(40)
        l1_offset, = struct.unpack(">Q", file.read(8))
        l1_index, l2_index = divmod(guest // CLUSTER_BYTES, CLUSTER_BYTES // 8)
        file.seek(l1_offset + 8 * l1_index)
        l2_offset = struct.unpack(">Q", file.read(8))[0] & 0xFFFFFFFFFFFE00
        file.seek(l2_offset + 8 * l2_index)
        file.write(struct.pack(">Q", 1 << 63 | BAD_HOST_OFFSET))
