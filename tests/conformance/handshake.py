# SPDX-License-Identifier: MIT
"""The first bytes: greeting, client flags, EXPORT_NAME, option magic."""

import struct

import wire
from case import case, check, check_equal, check_kind, check_serves
from wire import FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES


@case()
def c01_greeting_has_known_flags_only(t):
    """
    Guards against handshake flags nobody defined, and a missing
    FIXED_NEWSTYLE.  Spec: "Handshake flags".
    """
    flags = t.connect().greeting()
    check(flags & FLAG_FIXED_NEWSTYLE, "FIXED_NEWSTYLE is not set")
    check_equal(flags & ~(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES), 0,
                "handshake flags beyond bits 0 and 1")


@case()
def c01_unknown_client_flag_closes(t):
    """
    Guards against going on with a client that wants what we do not know; it
    would take our next bytes for something else.  Spec: "Client flags".
    """
    for extra in (1 << 2, 1 << 16, 1 << 31, 0xFFFFFFFC):
        client = t.connect()
        client.greeting()
        client.send_flags(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES | extra)
        client.expect_closed()


@case()
def c01_plain_newstyle_client_is_served(t):
    """
    Guards against shutting out clients that set no flags at all: EXPORT_NAME
    is theirs.  Spec: "Newstyle negotiation", "NBD_OPT_EXPORT_NAME".
    """
    client = t.haggle(flags=0)
    client.export_name(t.name, padding=True)
    check_serves(client, t.image)
    client.disconnect()


@case()
def c02_export_name_pads_for_old_clients(t):
    """
    Guards against dropping the 124 zero bytes when the client did not ask
    for that; all later replies would be misread.  Spec: "Client flags".
    """
    client = t.haggle(FLAG_FIXED_NEWSTYLE)
    client.export_name(t.name, padding=True)
    check_serves(client, t.image)


@case()
def c02_no_zeroes_drops_the_padding(t):
    """
    Guards against padding although NO_ZEROES was agreed.  Spec: "Client
    flags".
    """
    client = t.haggle(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES)
    client.export_name(t.name, padding=False)
    check_equal(client.size, t.image.size, "size of the export")
    check_serves(client, t.image)


@case()
def c02_go_never_pads(t):
    """
    Guards against padding after GO, with NO_ZEROES and without.  Spec:
    "NBD_OPT_INFO and NBD_OPT_GO".
    """
    for flags in (FLAG_FIXED_NEWSTYLE, FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES):
        client = t.haggle(flags)
        check_kind(client.go(t.name), wire.REP_ACK)
        check_serves(client, t.image)


@case()
def c03_unknown_export_name_closes(t):
    """
    Guards against an answer where none exists: EXPORT_NAME cannot fail, so
    the session must end.  Spec: "Termination of the session during option
    haggling".
    """
    for name in (b"no such export", t.name + b"x", t.name[:-1], b"x" * 4096):
        client = t.haggle()
        client.send_option(wire.OPT_EXPORT_NAME, name)
        client.expect_closed()


@case()
def c03_overlong_export_name_closes(t):
    """
    Guards against names past 4096 bytes, cut short or copied whole.  Spec:
    "Conventions", "NBD_OPT_EXPORT_NAME".
    """
    client = t.haggle()
    client.send_until_closed(
        wire.pack_option(wire.OPT_EXPORT_NAME, t.name.ljust(4097, b"\0")))
    client.expect_closed()


@case()
def c46_bad_option_magic_closes(t):
    """
    Guards against resynchronising on garbage: after one wrong magic number
    nothing that follows can be trusted.  Spec: "Newstyle negotiation".
    """
    client = t.haggle()
    client.send_option(wire.OPT_LIST, magic=wire.IHAVEOPT ^ 1)
    client.expect_closed()


@case()
def c46_option_magic_is_checked_each_time(t):
    """
    Guards against checking the magic number of the first option only.  Spec:
    "Newstyle negotiation".
    """
    client = t.haggle()
    client.option(wire.OPT_LIST)
    client.send(struct.pack(">QII", 0, wire.OPT_LIST, 0))
    client.expect_closed()
