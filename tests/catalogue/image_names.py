# SPDX-License-Identifier: MIT
"""Files that an image names, and files that a guest makes look like one."""

import os
import shutil
import socket
import struct

from case import check, check_equal, write
from image_case import SECRET, case
from programs import Refused
from qcow2_file import (DATA_FILE, DATA_FILE_BIT, REFCOUNT_TABLE, Qcow2)

RAW_BYTES = 4 << 20


def overlay_bytes(name, form="raw", size=1 << 20):
    """A whole qcow2 file, with a backing file, as a guest might write it."""
    path = "made-by-guest"
    Qcow2(size=size).back(name, form).write(path)
    with open(path, "rb") as file:
        data = file.read()
    os.unlink(path)
    return data


def guest_writes(t, path, data):
    with t.program.serve(path, "raw") as server:
        client = server.client()
        write(client, 0, data)
        client.disconnect()
        server.stop().check_sane()


def make_raw(path="disk.raw"):
    with open(path, "wb") as file:
        file.write(b"boot sector".ljust(512, b"\0"))
        file.truncate(RAW_BYTES)
    return path


@case
def cve_2008_2004_raw_stays_raw(t):
    """
    Guards against a format that is guessed: a guest writes the header of a
    qcow2 image, over a file of the host, to its raw disk.  When the server is
    started again, the disk holds that header, and is as large as before.
    """
    t.secret()
    path = make_raw()
    for name in ("secret", os.path.abspath("secret")):
        data = overlay_bytes(name)
        guest_writes(t, path, data)
        with t.only_opens(path):
            disk = t.serves(path, "raw", limit=RAW_BYTES)
        check_equal(len(disk), RAW_BYTES, "the size of the disk")
        check(disk.startswith(data), "the disk is not what was written")
        check(SECRET[:64] not in disk, "the secret is on the disk")


@case
def cve_2010_2237_raw_is_no_qcow2_without_being_told(t):
    """
    Guards against the way in for CVE-2010-2237, CVE-2011-3147, CVE-2015-1851
    and CVE-2026-27211: the raw disk of a guest, started without its format,
    must be refused while it is still innocent, or told what it is.
    """
    done = t.refuses(make_raw())
    if t.program.rules_of_qnbd:
        check("-f raw" in done.errors, f"no way out is said: {done.errors}")


@case
def cve_2026_24708_backing_format_is_not_guessed(t):
    """
    Guards against CVE-2026-24708 and CVE-2015-1851: an overlay that does not
    say what its backing file is.  The guest had that as a raw disk once, and
    wrote the header of an image over a file of the host.
    """
    t.secret()
    base = make_raw("base.raw")
    with open(base, "r+b") as file:
        file.write(overlay_bytes("secret"))
    path = Qcow2().back(base).write("overlay.qcow2")
    with t.only_opens(path, base):
        t.hides(path)
    with t.only_opens(path):
        t.look("info", path, 0)
        t.look("check", path, 0)
    told = Qcow2().back(base, "raw").write("told.qcow2")
    with t.only_opens(told, base):
        disk = t.serves(told)
    check(SECRET[:64] not in disk, "the secret is on the disk")


def hides_backing(t, name, form="raw", **limits):
    """An overlay with this name in it gives nothing away, to nobody."""
    # Its own directory, so that all else is out of it.
    os.makedirs("images", exist_ok=True)
    path = Qcow2().back(name, form).write("images/overlay.qcow2")
    with t.only_opens("overlay.qcow2", directory="images"), \
            t.only_opens("images"):
        done = t.hides(path, **limits)
        t.look("info", path, 0)
        t.look("check", path, 0)
    return done


@case
def cve_2015_5163_backing_file_outside(t):
    """
    Guards against CVE-2015-5163: the name of any file of the host for a
    backing file: absolute, through "..", by way of symbolic links.
    """
    secret = os.path.abspath(t.secret())
    os.makedirs("images/below")
    os.symlink(secret, "images/link")
    os.symlink("../secret", "images/relative-link")
    os.symlink("..", "images/up")
    os.symlink(os.getcwd(), "images/below/away")
    for name in (secret, "../secret", "./../secret", "below/../../secret",
                 "below/..//../secret", "link", "relative-link", "up/secret",
                 "below/away/secret", f"/proc/self/cwd/{secret}",
                 f"/proc/self/root{secret}", "//" + secret):
        hides_backing(t, name)
    check_equal(open("secret", "rb").read(), SECRET, "the secret")


@case
def cve_2015_5163_backing_file_that_is_none(t):
    """
    Guards against a backing file that hangs the server, or has no end: a FIFO
    that nobody writes, /dev/zero, a directory, a socket.
    """
    os.makedirs("images/directory")
    os.mkfifo("images/fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("images/socket")
        for name in ("fifo", "directory", "socket", "/dev/zero", "/dev/null",
                     "/dev/stdin", "/proc/self/mem"):
            for form in ("raw", "qcow2"):
                path = Qcow2().back(name, form).write("images/overlay.qcow2")
                if t.program.rules_of_qnbd:
                    t.refuses(path, statuses=(1, 77))
                elif name != "fifo":
                    t.hides(path)
                with t.only_opens("overlay.qcow2", directory="images"):
                    t.look("info", path, 0)
                    t.look("check", path, 0)


def pseudo_names(secret, port):
    """What QEMU takes for more than the name of a file."""
    return (
        'json:{"driver":"raw","file":{"driver":"file","filename":"%s"}}'
        % secret,
        'json:{"driver":"file","filename":"%s"}' % secret,
        f'json:{{"driver":"nbd","host":"127.0.0.1","port":"{port}"}}',
        "json:{", "json:", f"file:{secret}", "file:../secret",
        f"raw:{secret}", f"qcow2:{secret}", f"nbd://127.0.0.1:{port}/x",
        f"nbd:127.0.0.1:{port}", f"nbd+tcp://127.0.0.1:{port}",
        f"nbd:unix:{os.path.abspath('sock')}",
        f"nbd+unix:///x?socket={os.path.abspath('sock')}",
        f"http://127.0.0.1:{port}/x", f"ssh://127.0.0.1:{port}/x",
        f"blkdebug::{secret}", f"fat:{os.getcwd()}", f"host_device:{secret}",
        "fd:0", "file://" + secret, "null-co://", ":" + secret)


@case
def cve_2024_4467_pseudo_protocols(t):
    """
    Guards against CVE-2024-4467: "json:...", "nbd://...", "file:..." for a
    backing file, which open what is not in the image's directory, or connect
    to it.  Looking at such an image opens that one file and nothing else.
    """
    secret = os.path.abspath(t.secret())
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind("sock")
        for listening in (tcp, unix):
            listening.listen()
            listening.setblocking(False)
        for name in pseudo_names(secret, tcp.getsockname()[1]):
            path = Qcow2().back(name, "raw").write("overlay.qcow2")
            with t.only_opens("overlay.qcow2"):
                if t.program.rules_of_qnbd:
                    done = t.refuses(path, statuses=(77,))
                    check("only plain file names" in done.errors,
                          f"{name}: {done.errors}")
                elif "nbd" not in name and "//127" not in name:
                    # A connection to us would wait for our greeting.
                    t.hides(path)
                t.look("info", path, 0)
                t.look("check", path, 0)
        for listening in (tcp, unix):
            try:
                listening.accept()
                check(False, "somebody connected")
            except BlockingIOError:
                pass


@case
def cve_2024_4467_info_and_check_open_one_file(t):
    """
    Guards against CVE-2024-4467 in looking: info and check of the top of a
    chain, whose backing files are there, could be opened, and would hang.
    """
    os.mkfifo("fifo")
    t.secret("data")
    Qcow2().write("base.qcow2")
    for name, form in (("base.qcow2", "qcow2"), ("fifo", "raw"),
                       ("fifo", "qcow2"), ("absent", "qcow2")):
        path = Qcow2().back(name, form).write("overlay.qcow2")
        with t.only_opens("overlay.qcow2"):
            t.look("info", path, 0)
            t.look("check", path, 0)


@case
def cve_2024_32498_external_data_file(t):
    """
    Guards against CVE-2024-32498: an image whose data is in another file, and
    which names any file of the host for that.  It is neither served nor
    described; checking its tables opens that one file only.
    """
    secret = os.path.abspath(t.secret())
    for name in (secret, "secret", "../secret", "",
                 'json:{"driver":"file","filename":"%s"}' % secret,
                 f"file:{secret}", "/dev/zero"):
        for autoclear in (0, 2):
            image = Qcow2(incompatible_features=DATA_FILE_BIT,
                          autoclear_features=autoclear)
            if name:
                image.extend(DATA_FILE, name.encode())
            path = image.write("external.qcow2")
            if t.program.rules_of_qnbd:
                with t.only_opens(path):
                    done = t.refuses(path, writable=True)
                    t.refuses(path)
                    t.look("info", path, 1)
                    t.look("check", path, 0, 2, 3)
                check("external data file" in done.errors, done.errors)
            else:
                t.hides(path)


@case
def cve_2024_32498_data_file_name_without_its_bit(t):
    """
    Guards against a data file that is opened because it is named, though the
    image has its data itself.
    """
    secret = os.path.abspath(t.secret())
    for autoclear in (0, 2):
        image = Qcow2(autoclear_features=autoclear)
        image.extend(DATA_FILE, secret.encode())
        image.map_data(b"mine".ljust(65536, b"\0"))
        path = image.write("named.qcow2")
        with t.only_opens(path):
            try:
                disk = t.read_all(path)
                check(disk.startswith(b"mine"), "the data is not the image's")
            except Refused:
                check(not t.program.rules_of_qnbd, "it is refused")
            t.look("info", path, 0)
            t.look("check", path, 0)


@case
def qcow2_image_is_not_written_when_refused(t):
    """
    Guards against a repair, a bit in the header or a new length, in an image
    that was then refused: whatever the reason, not one byte changes.
    """
    with open("short.qcow2", "wb") as file:
        file.write(b"QFI\xfb")
    shutil.copy(Qcow2().write("sound.qcow2"), "cut.qcow2")
    os.truncate("cut.qcow2", REFCOUNT_TABLE * 65536)
    twice = Qcow2(size=1 << 30)
    l2 = twice.take()
    twice.put(3 * 65536, struct.pack(">2Q", l2 | 1 << 63, l2 | 1 << 63))
    refused = [
        "short.qcow2", "cut.qcow2", twice.write("twice.qcow2"),
        Qcow2(incompatible_features=1 << 63).write("unknown.qcow2"),
        Qcow2(incompatible_features=DATA_FILE_BIT).write("external.qcow2"),
        Qcow2(autoclear_features=3).back("absent", "raw")
        .write("backless.qcow2"),
        Qcow2(autoclear_features=3, nb_snapshots=1).write("snapshot.qcow2"),
        Qcow2(autoclear_features=3, refcount_table_clusters=99)
        .write("refcounts.qcow2"),
    ]
    if t.program.rules_of_qnbd:
        # Dirty images are repaired, and qemu-nbd writes to corrupt ones never.
        refused += [
            Qcow2(incompatible_features=bits, autoclear_features=3)
            .write(f"damaged{bits}.qcow2") for bits in (2, 3)]
    for path in refused:
        t.refuses(path, writable=True)
    # The locks are gone, too.
    t.serves("sound.qcow2", writable=True)
