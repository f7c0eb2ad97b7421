#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes an image with every combination of the options of `qnbd create`, and the
same with qemu-img, in the current directory; of many, one in ONE_IN.

    create_options.py QNBD ONE_IN

What can be is made by both, sound for both, told of in the same way and holds
the same; what cannot be is refused by both, ours with its reason.  Where the
two differ on purpose, DIFFERENCES says so.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

KIB = 1024
DISK_BYTES = 1000 * KIB
KEY = "the key of tests"


class Backing(NamedTuple):
    name: str
    format: str
    size: int


BACKINGS = [None, Backing("short.raw", "raw", 300 * KIB),
            Backing("long.qcow2", "qcow2", 2000 * KIB)]


class Case(NamedTuple):
    compat: str
    cluster_size: int
    refcount_bits: int
    lazy_refcounts: str
    compression_type: str
    preallocation: str
    encryption: str
    backing: Backing

    def preallocates(self):
        return self.preallocation != "off"

    def has_room_past_backing(self):
        if not self.backing:
            return True
        clusters = -(-self.backing.size // self.cluster_size)
        return clusters * self.cluster_size < DISK_BYTES


VALUES = [["0.10", "1.1"], [256, 512, 3000, 64 * KIB], [1, 3, 16, 128],
          ["off", "on"], ["zlib", "zstd"],
          ["off", "metadata", "falloc", "full"], ["off", "on"], BACKINGS]

# Why a combination cannot be, and what ours says then.
REASONS = [
    (lambda case: case.cluster_size in (256, 3000),
     r"power of two from 512 to 2M, not"),
    (lambda case: case.refcount_bits in (3, 128),
     r"refcounts must have 1, 2, 4, 8, 16, 32 or 64 bits"),
    (lambda case: case.compat == "0.10" and case.refcount_bits == 1,
     r"refcounts of 1 bits need compat=1.1"),
    (lambda case: case.compat == "0.10" and case.lazy_refcounts == "on",
     r"lazy_refcounts needs compat=1.1"),
    (lambda case: case.compat == "0.10" and case.compression_type == "zstd",
     r"compression_type=zstd needs compat=1.1"),
    (lambda case: case.compat == "0.10" and case.encryption == "on" and
     case.preallocates(),
     r"preallocation of an encrypted image needs compat=1.1"),
    (lambda case: case.preallocates() and not case.has_room_past_backing(),
     r"preallocation would hide all that the backing file holds"),
]

# What only one of the two makes, and why.
DIFFERENCES = [
    # Ours preallocates what is past the end of the backing file.
    (lambda case: case.preallocates() and case.backing and
     case.has_room_past_backing(), "ours"),
    # What is preallocated there does not read as zeros.
    (lambda case: case.compat == "0.10" and case.encryption == "on" and
     case.preallocates() and not case.backing, "theirs"),
]


def run(*words):
    return subprocess.run(words, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def text_of(case):
    return ",".join(f"{name}={getattr(case, name)}" for name in
                    ("compat", "cluster_size", "refcount_bits",
                     "lazy_refcounts", "compression_type", "preallocation"))


def make_ours(qnbd, case, path):
    words = [qnbd, "create", "-o", f"{text_of(case)},"
             f"encryption={case.encryption}"]
    if case.backing:
        words += ["-b", f"../{case.backing.name}", "-F", case.backing.format]
    return run(*words, path, str(DISK_BYTES))


def secret():
    return ["--object", f"secret,id=key,data={KEY}"]


def make_theirs(case, path):
    options = text_of(case)
    if case.encryption == "on":
        options += ",encrypt.format=aes,encrypt.key-secret=key"
    words = ["qemu-img", "create", *secret(), "-q", "-f", "qcow2", "-o",
             options]
    if case.backing:
        words += ["-b", f"../{case.backing.name}", "-F", case.backing.format]
    return run(*words, path, str(DISK_BYTES))


def opts(case, path):
    words = f"driver=qcow2,file.driver=file,file.filename={path}"
    if case.encryption == "on":
        words += ",encrypt.key-secret=key"
    return words


def info(path):
    """What qemu-img tells, but for names, the room on the disk, its nodes."""
    done = run("qemu-img", "info", "--output=json", path)
    told = json.loads(done.stdout)
    for key in "filename", "actual-size", "full-backing-filename", "children":
        told.pop(key, None)
    return told


def content(case):
    return {None: b"", "raw": b"r" * 300 * KIB,
            "qcow2": b"q" * 2000 * KIB}[
                case.backing and case.backing.format]


def complaint_of_image(qnbd, case, path):
    """What is wrong with an image that can be; None: nothing."""
    done = run("qemu-img", "check", "-q", *secret(), "--image-opts",
               opts(case, path))
    if done.returncode:
        return f"qemu-img check: {done.stdout}"
    done = run(qnbd, "check", path)
    if done.returncode:
        return f"qnbd check: {done.stdout}"
    plain = path + ".raw"
    done = run("qemu-img", "convert", *secret(), "--image-opts",
               opts(case, path), "-O", "raw", plain)
    if done.returncode:
        return f"qemu-img convert: {done.stdout}"
    with open(plain, "rb") as file:
        held = file.read()
    os.unlink(plain)
    if held != content(case)[:DISK_BYTES].ljust(DISK_BYTES, b"\0"):
        return "it does not hold what it must"
    return None


def complaint(qnbd, case, directory):
    ours, theirs = f"{directory}/ours", f"{directory}/theirs"
    patterns = [pattern for wrong, pattern in REASONS if wrong(case)]
    only = [who for differs, who in DIFFERENCES if differs(case)]
    made = make_ours(qnbd, case, ours)
    made_there = make_theirs(case, theirs)
    if patterns:
        if made.returncode not in (1, 64):
            return f"ours: status {made.returncode}: {made.stdout}"
        if not any(re.search(pattern, made.stdout) for pattern in patterns):
            return f"ours says: {made.stdout}"
        if os.path.exists(ours):
            return "a file was left behind"
        if not made_there.returncode and "theirs" not in only:
            return "theirs makes it"
        return None
    if made.returncode:
        return f"ours: {made.stdout}"
    wrong = complaint_of_image(qnbd, case, ours)
    if wrong:
        return f"ours: {wrong}"
    if "ours" in only:
        return None if made_there.returncode else "theirs makes it, too"
    if made_there.returncode:
        return f"theirs: {made_there.stdout}"
    if case.encryption == "off":
        wrong = complaint_of_image(qnbd, case, theirs)
        if wrong:
            return f"theirs: {wrong}"
    if info(ours) != info(theirs):
        return f"info differs: {info(ours)} {info(theirs)}"
    return None


def try_case(qnbd, case):
    with tempfile.TemporaryDirectory(dir=".") as directory:
        wrong = complaint(qnbd, case, directory)
    return f"{case}: {wrong}" if wrong else None


def make_backings():
    with open("short.raw", "wb") as file:
        file.write(b"r" * 300 * KIB)
    with open("plain", "wb") as file:
        file.write(b"q" * 2000 * KIB)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "plain",
        "long.qcow2")


def main():
    qnbd, one_in = sys.argv[1], int(sys.argv[2])
    make_backings()
    cases = [Case(*values) for values in itertools.product(*VALUES)]
    # What is wrong alone is tried with all others only where these are few.
    cases = [case for case in cases if
             sum(wrong(case) for wrong, _ in REASONS) <= 2][::one_in]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = [line for line in pool.map(
            lambda case: try_case(qnbd, case), cases) if line]
    can_be = sum(not any(wrong(case) for wrong, _ in REASONS)
                 for case in cases)
    print(f"{len(cases)} combinations, {can_be} of which can be")
    for line in wrong[:10]:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
