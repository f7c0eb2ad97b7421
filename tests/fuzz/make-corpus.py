#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Writes the seeds of fuzz_options and fuzz_requests to corpus/ beside it.

Each seed is one conversation, right or with one lie in it; what the first
byte means stands at the top of the targets.  Inputs that fuzzing finds are
added by hand, under other names.
"""
import struct
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"

IHAVEOPT = 0x49484156454F5054
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_META, \
    SET_META, EXTENDED = 1, 2, 3, 5, 6, 7, 8, 9, 10, 11
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
RESIZE = 8
NONE, DATA, HOLE, BLOCK_STATUS, STATUS_EXT, ERROR, ERROR_OFFSET = \
    0, 1, 2, 5, 6, 0x8001, 0x8002
PAYLOAD_LEN = 32
GIB = 1 << 30
# Everything that can be offered, of an export that can be written.
OFFERED = 0xded


# What a client sends during the handshake.

def option(kind, data=b"", length=None):
    if length is None:
        length = len(data)
    return struct.pack(">QII", IHAVEOPT, kind, length) + data


def counted(text):
    return struct.pack(">I", len(text)) + text


def go_data(name, *infos):
    return counted(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def meta_data(name, *queries):
    return counted(name) + struct.pack(">I", len(queries)) + \
        b"".join(map(counted, queries))


def client(*options, flags=3):
    return b"\0" + struct.pack(">I", flags) + b"".join(options)


# What a server sends during the handshake.

def reply(kind, answer, data=b""):
    return struct.pack(">QIII", 0x3E889045565A9, kind, answer,
                       len(data)) + data


def server(*replies):
    return b"\1NBDMAGICIHAVEOPT\0\3" + b"".join(replies)


# Transmission.

def request(kind, offset=0, length=0, flags=0, payload=b"", magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, kind, 0xC00C1E, offset,
                       length) + payload


def extended(kind, offset=0, length=0, flags=0, payload=b"",
             magic=0x21E41C71):
    return struct.pack(">IHHQQQ", magic, flags, kind, 0xC00C1E, offset,
                       length) + payload


def choice(length, *ids):
    payload = struct.pack(f">Q{len(ids)}I", length, *ids)
    return extended(STATUS, 0, len(payload), PAYLOAD_LEN, payload)


def requests(*sent, size=8 * GIB, offered=OFFERED, block_shift=0, terms=3):
    return b"\0" + struct.pack(">QHBB", size, offered, block_shift, terms) + \
        b"".join(sent)


def simple(error=0):
    return struct.pack(">IIQ", 0x67446698, error, 0xC00C1E)


def chunk(kind, payload=b"", flags=1):
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, 0xC00C1E,
                       len(payload)) + payload


def extended_chunk(kind, payload=b"", flags=1, length=None):
    if length is None:
        length = len(payload)
    return struct.pack(">IHHQQQ", 0x6E8A278C, flags, kind, 0xC00C1E, 4096,
                       length) + payload


def error_payload(error, message, tail=b""):
    return struct.pack(">IH", error, len(message)) + message + tail


def replies(*sent):
    return b"\1" + b"".join(sent)


OPTIONS = {
    "export-name": client(option(EXPORT_NAME, b"disk")),
    "export-name-4096": client(option(EXPORT_NAME, b"n" * 4096), flags=1),
    "flag-unknown": client(option(GO, go_data(b"")), flags=0x80000003),
    "info-then-go": client(option(INFO, go_data(b"disk", 0, 1, 2, 3)),
                           option(GO, go_data(b"disk", 3))),
    "go-count-lies": client(option(GO, counted(b"disk") + b"\x80\2\0\1\0\3"),
                            option(GO, go_data(b""))),
    "go-name-lies": client(option(GO, b"\xff\xff\xff\xffdisk\0\0")),
    "go-longer": client(option(GO, go_data(b"disk", 3) + b"\0"),
                        option(GO, go_data(b"disk", 3) + b"\0" * 8),
                        option(GO, go_data(b"disk", 3)[:-1])),
    "list-abort": client(option(LIST), option(LIST, b"junk"),
                         option(0xFFFFFFF0, b"?" * 40),
                         option(ABORT, b"ignored")),
    "meta": client(option(STRUCTURED),
                   option(LIST_META, meta_data(b"disk")),
                   option(LIST_META, meta_data(b"disk", b"base:")),
                   option(SET_META, meta_data(b"disk", b"base:allocation",
                                              b"x-none:of", b"",
                                              b"base:allocation")),
                   option(GO, go_data(b"disk", 3))),
    "extended": client(
        option(EXTENDED, b"junk"), option(EXTENDED), option(STRUCTURED),
        option(SET_META, meta_data(b"disk", b"base:allocation",
                                   b"qemu:allocation-depth", b"qemu:")),
        option(GO, go_data(b"disk", 3))),
    "meta-lies": client(option(SET_META, counted(b"d") + b"\xff\xff\xff\xff"),
                        option(SET_META, counted(b"d") + b"\0\0\0\1"
                               b"\x7f\xff\xff\xffbase:"),
                        option(SET_META, meta_data(b"d", b"base:") + b"x")),
    "starttls-4gib": client(option(STARTTLS),
                            option(STARTTLS, b"x", length=0xFFFFFFFF)),
    "server-list": server(reply(LIST, 2, counted(b"disk") + b"of Ann"),
                          reply(LIST, 2, counted(b"")),
                          reply(LIST, 1)),
    "server-go": server(
        reply(GO, 3, struct.pack(">HQH", 0, 8 * GIB, OFFERED)),
        reply(GO, 3, b"\0\1disk"),
        reply(GO, 3, b"\0\2of Ann"),
        reply(GO, 3, struct.pack(">HIII", 3, 1, 4096, 32 << 20)),
        reply(GO, 3, b"\x42\x42?"),
        reply(GO, 1)),
    "server-meta-error": server(
        reply(SET_META, 4, b"\0\0\0\1base:allocation"),
        reply(SET_META, 1),
        reply(GO, 0x80000006, b"no such export")),
    "server-lies": server(reply(LIST, 2, b"\0\0\0\5disk"),
                          reply(GO, 3, b"\0\0\1"),
                          reply(GO, 3, struct.pack(">HIII", 3, 3, 5, 1)),
                          reply(GO, 3, b"")),
}

REQUESTS = {
    "each-command": requests(
        request(READ, 4096, 4096), request(WRITE, 0, 5, payload=b"hello"),
        request(FLUSH), request(TRIM, 0, 0xFFFFF000), request(CACHE, 0, 512),
        request(ZEROES, GIB, 0xFFFFF000), request(STATUS, 0, 0xFFFFFFFF),
        request(DISC)),
    "each-flag": requests(
        request(READ, 0, 512, 1 | 4), request(WRITE, 0, 1, 1, b"x"),
        request(FLUSH, flags=1), request(ZEROES, 0, 512, 1 | 2 | 16),
        request(STATUS, 0, 512, 8), request(CACHE, 0, 512, 1)),
    "flags-wrong": requests(
        request(READ, 0, 512, 2), request(WRITE, 0, 1, 4, b"x"),
        request(FLUSH, flags=8), request(TRIM, 0, 512, 16),
        request(ZEROES, 0, 512, 32), request(99, 0, 0, 0xFFFF)),
    "read-only": requests(
        request(READ, 0, 512), request(WRITE, 0, 3, payload=b"abc"),
        request(TRIM, 0, 512), request(ZEROES, 0, 512), request(FLUSH),
        offered=OFFERED | 2),
    "past-the-end": requests(
        request(READ, 8 * GIB - 1, 2), request(WRITE, 8 * GIB, 1, 0, b"x"),
        request(TRIM, 2**64 - 1, 1), request(ZEROES, 2**64 - 4096, 8192),
        request(STATUS, 8 * GIB + 1, 1), request(CACHE, 2**63, 2**31)),
    "no-bytes": requests(
        request(READ), request(WRITE), request(TRIM), request(CACHE),
        request(ZEROES), request(STATUS), request(READ, 8 * GIB)),
    "payload-limits": requests(
        request(READ, 0, (32 << 20) - 1), request(READ, 0, 32 << 20),
        request(READ, 0, (32 << 20) + 1), request(READ, 0, 0xFFFFFFFF),
        request(WRITE, 0, (32 << 20) + 1)),
    "flush-with-range": requests(
        request(FLUSH, 1, 0), request(FLUSH, 0, 1), request(DISC, 1, 1, 1)),
    "simple-client": requests(
        request(READ, 0, 512, 4), request(STATUS, 0, 512),
        request(READ, 0, 0xFFFFFFFF), offered=0x6D, terms=0),
    "unaligned": requests(
        request(READ, 1, 512), request(READ, 512, 511),
        request(READ, 512, 512), block_shift=9),
    "bad-magic": requests(request(READ, 0, 1),
                          request(READ, 0, 1, magic=0x25609514)),
    "extended-each-command": requests(
        extended(READ, 4096, 4096),
        extended(WRITE, 0, 5, PAYLOAD_LEN, b"hello"), extended(FLUSH),
        extended(TRIM, 0, 8 * GIB), extended(CACHE, GIB, 5 * GIB),
        extended(ZEROES, 0, 8 * GIB), extended(STATUS, 0, 8 * GIB),
        extended(RESIZE, 9 * GIB), extended(DISC), terms=15,
        offered=OFFERED | 0x1200),
    "extended-payloads": requests(
        extended(READ, 0, 512, PAYLOAD_LEN, bytes(512)),
        extended(WRITE, 0, 512), extended(TRIM, 0, 4, PAYLOAD_LEN, b"1234"),
        extended(99, 0, 4, PAYLOAD_LEN, b"1234"),
        extended(WRITE, 0, 2**32 + 4, PAYLOAD_LEN, b"1234"), terms=15),
    "extended-choices": requests(
        choice(8 * GIB, 1), choice(512, 3, 1, 2), choice(512, 1, 1),
        choice(512, 4), choice(512, 0), choice(512), choice(0, 1),
        choice(2**64 - 1, 1), terms=15, offered=OFFERED | 0x1000),
    "extended-shortened": requests(
        extended(READ, 8 * GIB, 512), extended(TRIM, 16 * GIB, 1),
        extended(RESIZE, GIB, 1), terms=31, offered=OFFERED | 0x200),
    "extended-bad-magic": requests(
        extended(READ, 0, 1), request(READ, 0, 1), terms=15),
    "replies-extended": replies(
        extended_chunk(DATA, struct.pack(">Q", 4096) + b"data", 0),
        extended_chunk(HOLE, struct.pack(">QI", 8192, 65536), 0),
        extended_chunk(ERROR_OFFSET, error_payload(5, b"bad", b"\0" * 8), 0),
        extended_chunk(NONE)),
    "replies-extended-status": replies(
        extended_chunk(STATUS_EXT, struct.pack(">IIQQQQ", 1, 2, 2**44, 3,
                                               1, 2**63))),
    "replies-extended-lies": replies(
        extended_chunk(STATUS_EXT, struct.pack(">IIQQ", 1, 2, 1, 0), 0),
        extended_chunk(STATUS_EXT, struct.pack(">IIQQ", 1, 1, 0, 0), 0),
        extended_chunk(NONE, length=2**32)),
    "replies-simple": replies(simple(), simple(22), simple(28)),
    "replies-read": replies(
        chunk(DATA, struct.pack(">Q", 4096) + b"data", 0),
        chunk(HOLE, struct.pack(">QI", 8192, 65536), 0), chunk(NONE)),
    "replies-status": replies(
        chunk(BLOCK_STATUS, struct.pack(">IIIII", 1, 65536, 0,
                                        0xFFFFFFFF, 3))),
    "replies-error": replies(
        chunk(ERROR, error_payload(5, b"bad")),
        chunk(ERROR_OFFSET, error_payload(28, b"", b"\0" * 8), 0),
        chunk(0xBEEF, error_payload(22, b"new", b"tail"))),
    "replies-lies": replies(
        chunk(HOLE, b"\0" * 12, 0), chunk(BLOCK_STATUS, b"\0" * 12, 0),
        chunk(ERROR, error_payload(0, b"bad")),
        chunk(ERROR_OFFSET, b"\0\0\0\5\0\x0b" + b"0" * 11)),
}


def main():
    for name, seeds in (("options", OPTIONS), ("requests", REQUESTS)):
        directory = CORPUS / name
        directory.mkdir(parents=True, exist_ok=True)
        for seed, data in seeds.items():
            (directory / seed).write_bytes(data)


if __name__ == "__main__":
    main()
