# SPDX-License-Identifier: MIT
"""
Errors that tell a person what was asked, why it failed, and where.
"""

import wire
from case import case, check, check_equal, check_error, check_serves
from images import FAULT_START
from wire import (EINVAL, EIO, ENOSPC, EPERM, KIB, MIB, READ, TRIM, WRITE,
                  WRITE_ZEROES)


def open_with_texts(t):
    """A client with structured replies, one with extended headers."""
    yield t.open(structured=True)
    yield t.open(extended=True)


def check_text(reply, *parts):
    text = reply.message.decode()
    for part in parts:
        check(part in text, f"\"{text}\" does not say \"{part}\"")


@case("write", own=True)
def message_of_what_is_past_the_end(t):
    """
    Guards against an error that leaves one to guess: the command, its place,
    the export and its size are in it.
    """
    size = t.image.size
    for client in open_with_texts(t):
        for command, error in ((READ, EINVAL), (WRITE, ENOSPC),
                               (WRITE_ZEROES, ENOSPC), (TRIM, EINVAL)):
            data = b"d" * 4096 if command == WRITE else b""
            reply = client.command(command, 1 << 30, 4096, 0, data)
            check_error(reply, error, what=wire.COMMAND_NAMES[command])
            check_text(reply, f"{wire.COMMAND_NAMES[command]} of 4 KiB at "
                       "1 GiB: it is past the end of the export",
                       "\"main\"", f"{size} bytes")


@case(setting="read-only", own=True)
def message_of_a_read_only_export(t):
    """
    Guards against EPERM without a reason.
    """
    for client in open_with_texts(t):
        reply = client.command(WRITE, 0, 512, 0, b"w" * 512)
        check_error(reply, EPERM, what="WRITE")
        check_text(reply, "WRITE of 512 bytes at 0 bytes: the export is "
                   "read-only")


@case(own=True)
def message_of_nonsense(t):
    """
    Guards against the same text for every mistake.
    """
    for client in open_with_texts(t):
        for command, flags, length, text in (
                (99, 0, 0, "there is no such command"),
                (READ, 1 << 15, 512, "flags that do not go with it"),
                (wire.FLUSH, 0, 512, "its offset and length must be 0"),
                (wire.BLOCK_STATUS, 0, 512, "no metadata context"),
                (wire.RESIZE, 0, 0, "was not offered")):
            reply = client.command(command, 0, length, flags)
            check_error(reply, EINVAL, what=f"command {command}")
            check_text(reply, text)
        check_serves(client, t.image)


@case("structured", setting="faulty", own=True)
def message_of_a_failed_read_has_the_offset(t):
    """
    Guards against losing what is known of an error: which byte could not be
    read.  Spec: "NBD_REPLY_TYPE_ERROR_OFFSET".
    """
    for client in open_with_texts(t):
        for offset, length in ((FAULT_START, 512), (FAULT_START, MIB),
                               (FAULT_START - 1, 2), (32 * MIB, 2 * MIB),
                               (FAULT_START - 500 * KIB, MIB),
                               (FAULT_START - 3 * MIB - 100, 4 * MIB),
                               (FAULT_START + 100, 64 * KIB)):
            reply = client.command(READ, offset, length)
            check_error(reply, EIO, what="READ of a broken place")
            at = reply.error_offset
            check(at is not None, "no offset")
            first = max(offset, FAULT_START)
            check(first - 511 <= at <= first,
                  f"failed at {at:#x}, not {first:#x}")
            check_text(reply, f"failed at {at}:", "its log says where")
        check_serves(client, t.image)


@case("write", setting="small", fresh=True, own=True)
def message_of_no_space(t):
    """
    Guards against ENOSPC that does not tell a full disk from the end of the
    export.
    """
    client = t.open(structured=True)
    errors = []
    for i in range(8):
        reply = client.command(WRITE, (20 + i) * MIB, MIB, 0, b"n" * MIB)
        if reply.error:
            errors.append(reply)
    check(errors, "everything found room")
    for reply in errors:
        check_equal(reply.error, ENOSPC, "error")
        check_text(reply, "no space left where the image lies")
