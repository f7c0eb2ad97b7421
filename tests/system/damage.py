# SPDX-License-Identifier: MIT
"""Damages qcow2 images, one thing at a time, and compares two checkers.

	damage.py QNBD SEED COUNT IMAGE...

COUNT times, a copy of one of the images is damaged at random and checked by
qnbd and by qemu-img, as many at a time as there are processors.  Both must end with the same exit code, and with the same
numbers unless the image is corrupt.  The ways in which they may differ are the
functions below DIFFERENCES.

The images must have 8-byte L2 entries and no encryption, which qemu-img does
not check without the key.
"""

import concurrent.futures
import json
import os
import random
import re
import struct
import subprocess
import sys

COPIED = 1 << 63
COMPRESSED = 1 << 62
HOST_MASK = 0x00fffffffffffe00


class Image:
    """The tables of a sound image, and where in the file they are."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = bytearray(file.read())
        self.version, self.cluster_bits = self.u32(4), self.u32(20)
        self.cluster_bytes = 1 << self.cluster_bits
        self.l1_entries, self.l1 = self.u32(36), self.u64(40)
        self.reftable, self.reftable_clusters = self.u64(48), self.u32(56)
        self.snapshot_count, self.snapshots = self.u32(60), self.u64(64)
        self.refcount_order = self.u32(96) if self.version == 3 else 4
        self.clusters = -(-len(self.data) // self.cluster_bytes)

        self.l1_places = self.used(self.l1, self.l1_entries)
        self.snapshot_l1_places = []
        self.snapshot_places = []
        self.walk_snapshots()
        self.l2_places = self.below(self.l1_places)
        self.snapshot_l2_places = self.below(self.snapshot_l1_places)
        self.reftable_places = self.used(
            self.reftable, self.reftable_clusters * self.cluster_bytes // 8)
        self.bitmap_places = self.walk_bitmaps()

    def u16(self, at):
        return struct.unpack_from(">H", self.data, at)[0]

    def u32(self, at):
        return struct.unpack_from(">I", self.data, at)[0]

    def u64(self, at):
        return struct.unpack_from(">Q", self.data, at)[0]

    def used(self, table, entries):
        """Where the entries of a table are that are not zero."""
        return [table + 8 * i for i in range(entries)
                if self.u64(table + 8 * i)]

    def below(self, l1_places):
        return [place for l1_place in l1_places for place in
                self.used(self.u64(l1_place) & HOST_MASK,
                          self.cluster_bytes // 8)]

    def walk_snapshots(self):
        at = self.snapshots
        for _ in range(self.snapshot_count):
            self.snapshot_places.append(at)
            self.snapshot_l1_places += self.used(self.u64(at),
                                                 self.u32(at + 8))
            length = 40 + self.u32(at + 36) + self.u16(at + 12) + \
                self.u16(at + 14)
            at += -(-length // 8) * 8

    def walk_bitmaps(self):
        """Where the bytes of the directory and of the tables are."""
        at = self.u32(100) if self.version == 3 else 72
        while True:
            kind, length = self.u32(at), self.u32(at + 4)
            if kind == 0:
                return []
            if kind == 0x23852875:
                break
            at += 8 + -(-length // 8) * 8
        directory, length = self.u64(at + 24), self.u64(at + 16)
        return list(range(at + 8, at + 32)) + \
            list(range(directory, directory + length))


class Damage:
    """A copy of an image, and what was done to it."""

    def __init__(self, image, rng):
        self.image, self.rng = image, rng
        self.data = bytearray(image.data)
        self.kind, self.text = "", []

    def put64(self, at, value):
        self.text.append(f"u64 at {at:#x} {self.image.u64(at):#x} -> "
                         f"{value:#x}")
        struct.pack_into(">Q", self.data, at, value)

    def put32(self, at, value):
        self.text.append(f"u32 at {at:#x} {self.image.u32(at):#x} -> "
                         f"{value:#x}")
        struct.pack_into(">I", self.data, at, value)

    def some_host(self):
        """An offset that may be anything, most of them aligned."""
        image, rng = self.image, self.rng
        cluster = rng.choice([
            rng.randrange(image.clusters), rng.randrange(image.clusters),
            0, image.clusters - 1, image.clusters, image.clusters + 1,
            image.l1 >> image.cluster_bits,
            image.reftable >> image.cluster_bits,
            rng.randrange(1 << 40)])
        host = (cluster << image.cluster_bits) & HOST_MASK
        if image.cluster_bits > 9 and rng.randrange(6) == 0:
            host += 512 * rng.randrange(1, image.cluster_bytes // 512)
        return host

    def entry(self, place):
        """Changes an entry of an L1 or L2 table."""
        old, rng = self.image.u64(place), self.rng
        self.put64(place, rng.choice([
            old ^ COPIED,
            old ^ COPIED,
            old ^ (1 << rng.randrange(64)),
            old ^ (1 << rng.randrange(1, 9)),
            old ^ (1 << rng.randrange(56, 62)),
            old ^ 1,
            old ^ COMPRESSED,
            0,
            (old & ~HOST_MASK) | self.some_host(),
            (old & ~HOST_MASK) | self.some_host(),
            self.image.u64(rng.choice(self.image.l2_places or [place])),
            rng.randrange(1 << 64)]))

    # ---- kinds of damage ----

    def l2(self):
        self.entry(self.rng.choice(self.image.l2_places))

    def snapshot_l2(self):
        self.entry(self.rng.choice(self.image.snapshot_l2_places))

    def l1(self):
        self.entry(self.rng.choice(self.image.l1_places))

    def snapshot_l1(self):
        self.entry(self.rng.choice(self.image.snapshot_l1_places))

    def new_l2(self):
        """An entry where there was none."""
        host = self.image.u64(self.rng.choice(self.image.l1_places))
        place = (host & HOST_MASK) + 8 * self.rng.randrange(
            self.image.cluster_bytes // 8)
        self.put64(place, self.some_host() | self.rng.choice([COPIED, 0]))

    def refcount(self):
        image, rng = self.image, self.rng
        bits = 1 << image.refcount_order
        per_block = image.cluster_bytes * 8 // bits
        cluster = rng.randrange(image.clusters)
        block = image.u64(image.reftable + 8 * (cluster // per_block))
        if block == 0:
            return
        index = cluster % per_block
        if bits < 8:
            at = block + index * bits // 8
            self.text.append(f"refcount bits of cluster {cluster}")
            self.data[at] ^= 1 << (index * bits % 8 + rng.randrange(bits))
            return
        at, size = block + index * bits // 8, bits // 8
        old = int.from_bytes(self.data[at:at + size], "big")
        new = rng.choice([0, 1, 2, old + 1, max(old - 1, 0),
                          rng.randrange(1 << bits)]) % (1 << bits)
        self.text.append(f"refcount of cluster {cluster} {old} -> {new}")
        self.data[at:at + size] = new.to_bytes(size, "big")

    def refcount_table(self):
        image, rng = self.image, self.rng
        place = rng.choice(image.reftable_places)
        old = image.u64(place)
        self.put64(place, rng.choice([
            0, old ^ (1 << rng.randrange(64)), old + 512,
            old | 1 << rng.randrange(9), self.some_host(),
            image.clusters << image.cluster_bits]))

    def new_refcount_block(self):
        image = self.image
        entries = image.reftable_clusters * image.cluster_bytes // 8
        self.put64(image.reftable + 8 * self.rng.randrange(entries),
                   self.some_host())

    def truncate(self):
        length = self.rng.randrange(image_start(self.image),
                                    len(self.data))
        if self.rng.randrange(2):
            length &= -self.image.cluster_bytes
        self.text.append(f"cut from {len(self.data)} to {length}")
        del self.data[length:]

    def snapshot(self):
        rng, at = self.rng, self.rng.choice(self.image.snapshot_places)
        rng.choice([
            lambda: self.put64(at, self.some_host()),
            lambda: self.put32(at + 8, rng.randrange(4)),
            lambda: self.put32(at + 8, rng.randrange(1 << 32)),
            lambda: self.put32(at + 36, rng.choice([0, 8, 16, 1025])),
        ])()

    def header(self):
        image, rng = self.image, self.rng
        choices = [
            lambda: self.put32(0, rng.randrange(1 << 32)),
            lambda: self.put32(4, rng.randrange(6)),
            lambda: self.put32(20, rng.choice([0, 8, 22, 63, 1 << 31])),
            lambda: self.put32(36, image.l1_entries + rng.randrange(4)),
            lambda: self.put32(36, rng.choice([0, 1 << 23, 1 << 31])),
            lambda: self.put64(40, image.l1 + image.cluster_bytes),
            lambda: self.put64(48, image.reftable + image.cluster_bytes),
            lambda: self.put32(56, rng.choice([2, 1 << 30])),
            lambda: self.put32(60, rng.choice([0, 1, 65537])),
            lambda: self.put64(64, self.some_host() + image.cluster_bytes),
        ]
        if image.version == 3:
            choices += [
                lambda: self.put64(72, 1 << rng.randrange(64)),
                lambda: self.put64(80, 1 << rng.randrange(64)),
                lambda: self.put64(88, 1 << rng.randrange(64)),
                lambda: self.put32(96, rng.randrange(9)),
            ]
        rng.choice(choices)()

    def bitmap(self):
        at = self.rng.choice(self.image.bitmap_places)
        self.text.append(f"byte at {at:#x}, of bitmaps")
        self.data[at] ^= 1 << self.rng.randrange(8)

    def once(self):
        image = self.image
        kinds = [self.refcount, self.refcount, self.refcount_table,
                 self.new_refcount_block, self.truncate, self.header]
        if image.l2_places:
            kinds += [self.l2, self.l2, self.l2, self.l1, self.new_l2]
        if image.snapshot_places:
            kinds += [self.snapshot, self.snapshot_l1]
            if image.snapshot_l2_places:
                kinds += [self.snapshot_l2, self.snapshot_l2]
        if image.bitmap_places:
            kinds += [self.bitmap, self.bitmap]
        kind = self.rng.choice(kinds)
        self.kind += " " + kind.__name__
        kind()


def image_start(image):
    """Up to here, a cut file is no image at all."""
    return image.cluster_bytes


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120)
    text = done.stderr.decode(errors="replace")
    result = json.loads(done.stdout) if done.stdout.strip() else {}
    return done.returncode, result, text


def run_raw(command):
    """Just the exit code."""
    return subprocess.run(command, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, timeout=120).returncode


# ---- DIFFERENCES ----

# Findings of a kind that qnbd tells.
REPORTS_MAX = 1000

ONLY_WE_LOOK = "overlaps|zero flag in a version 2"


def corruptions(ours):
    return [line for line in ours[2].splitlines()
            if line.startswith("corrupt:")]


def only_we_look(ours, theirs):
    """qemu-img is content with two tables, or a table and data, in one
    cluster if the refcount is high enough, and with the zero flag in
    version 2 images.  Both lead to lost data."""
    lines = corruptions(ours)
    return ours[0] == 2 and theirs[0] in (0, 3) and lines and all(
        re.search(ONLY_WE_LOOK, line) for line in lines)


def bitmaps_do_not_matter(ours, theirs):
    """A bad bitmap keeps qemu-img from opening the image.  Here it is one
    fault among others, or none if it does not touch the question who uses
    which cluster."""
    return (ours[0] in (0, 2, 3) or ours[1]) and theirs[0] == 1 and \
        not theirs[1] and "bitmap" in theirs[2].lower()


def header_cannot_be(ours, theirs):
    """These make no sense to begin with, and nothing here opens such an
    image: qemu-img counts the header as corrupt, or does not mind."""
    return ours[0] == 1 and theirs[0] in (0, 2, 3) and re.search(
        "lies in the header|refcount_table_clusters is 0|header_length is|"
        "has a zero byte in it|is there twice", ours[2])


def not_used(ours, theirs):
    """The place of a snapshot table without entries means nothing."""
    return ours[0] in (0, 2, 3) and theirs[0] == 1 and \
        "snapshot table offset invalid" in theirs[2]


def we_count_more(ours, theirs):
    """As above, in an image that has other faults, too.  Of refcount blocks
    qemu-img does say that they have two users, once for each block.  And if
    a cluster has more users than its refcount can tell it counts each one of
    the two that an entry touches which is not aligned.  It does not look at
    the flags in an L2 table whose own refcount cannot be read."""
    more = ours[1].get("corruptions", 0) - theirs[1].get("corruptions", 0)
    lines = corruptions(ours)
    seen = sum(bool(re.search(ONLY_WE_LOOK, line)) for line in lines)
    if ours[1].get("check-errors"):
        seen += sum("marked as copied, but" in line for line in lines)
    twice = sum("more users than" in line for line in lines)
    rest = [{**numbers, "corruptions": 0} for numbers in (ours[1], theirs[1])]
    return rest[0] == rest[1] and -twice <= more <= seen


def not_gone_into(ours, theirs):
    """What cannot be an L2 table or a snapshot's L1 table is not read as one
    here; qemu-img does, and counts what it meets there."""
    return ours[0] == theirs[0] and theirs[1] and any(
        re.search(r"L1 table at .* (is not aligned|points nowhere|lies past|"
                  r"overlaps|has more users)|"
                  r"L1 table of entry .* of the snapshot table",
                  line) for line in corruptions(ours))


def too_many_to_tell(ours, theirs):
    """Data that is taken for a table.  Which faults qnbd has found is not
    printed any more."""
    return ours[0] == theirs[0] and theirs[1] and \
        len(corruptions(ours)) == REPORTS_MAX


def no_file_has_that(ours, theirs):
    """A refcount block at an offset of 2^63 or more.  Whatever is past the
    end of the file reads as zeros here; qemu-img cannot read it."""
    return ours[0] == 2 and theirs[0] == 1 and any(
        re.search(r"refcount table \(0x[89a-f]\w{15}\) lies past", line)
        for line in corruptions(ours))


def raw_data_file(ours, theirs):
    """An autoclear bit that means something with an external data file only;
    without one it is cleared by whoever writes to the image next."""
    return ours[0] in (0, 2, 3) and theirs[0] == 1 and \
        "data-file-raw requires" in theirs[2]


def bitmap_name(ours, theirs):
    """A bitmap's name with a zero byte in it is none here."""
    return any(re.search("entry .* of the bitmap directory, .* is malformed",
                         line) for line in corruptions(ours))


DIFFERENCES = [only_we_look, bitmaps_do_not_matter, header_cannot_be,
               not_used, no_file_has_that, raw_data_file, bitmap_name]


# Where the exit codes are equal.
NUMBERS = [we_count_more, not_gone_into, too_many_to_tell,
           bitmaps_do_not_matter, bitmap_name]


def compare(ours, theirs):
    """None if they agree, else in what they do not."""
    if ours[0] != theirs[0]:
        for difference in DIFFERENCES:
            if difference(ours, theirs):
                return difference
        return "exit codes"
    if ours[1] == theirs[1]:
        return None
    for difference in NUMBERS:
        if difference(ours, theirs):
            return difference
    return "numbers"


def check(qnbd, images, seed, number):
    """Damages an image as the seed and the number say, and checks it."""
    rng = random.Random(f"{seed} {number}")
    path, image = rng.choice(images)
    damage = Damage(image, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if len(damage.data) == len(image.data):
            damage.once()
    name = f"damaged-{number}.qcow2"
    with open(name, "wb") as file:
        file.write(damage.data)
    damage.data = None
    ours = run([qnbd, "check", "--json", name])
    theirs = run(["qemu-img", "check", "-f", "qcow2", "--output=json", name])
    found = compare(ours, theirs)
    if found and not callable(found):
        os.rename(name, f"differs-{number}.qcow2")
    else:
        os.unlink(name)
    return path, damage, ours, theirs, found


def main():
    qnbd, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    images = [(path, Image(path)) for path in sys.argv[4:]]
    codes, differences, failures = {}, {}, 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda number: check(qnbd, images, seed, number),
                           range(count))
    for number, result in enumerate(results):
        path, damage, ours, theirs, found = result
        codes[ours[0]] = codes.get(ours[0], 0) + 1
        if callable(found):
            differences[found.__name__] = \
                differences.get(found.__name__, 0) + 1
        elif found:
            failures += 1
            print(f"{number}: {path}:{damage.kind}: {damage.text}\n"
                  f"  {found}: qnbd {ours[0]} {ours[1]}\n"
                  f"  qemu-img {theirs[0]} {theirs[1]}\n"
                  f"--- qnbd\n{ours[2][:600]}"
                  f"--- qemu-img\n{theirs[2][:600]}", file=sys.stderr)
    print(f"seed {seed}: {count} damaged images, exit codes {codes}, "
          f"known differences {differences}")
    sys.exit(f"{failures} times they do not agree" if failures else 0)


if __name__ == "__main__":
    main()
