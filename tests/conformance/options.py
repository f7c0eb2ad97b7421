# SPDX-License-Identifier: MIT
"""Option haggling: every option is answered, and the stream stays in step."""

import struct

import wire
from case import (case, check, check_equal, check_haggles, check_kind,
                  check_serves)
from wire import (INFO_BLOCK_SIZE, INFO_DESCRIPTION, INFO_EXPORT, INFO_NAME,
                  KIB, MIB, OPT_GO, OPT_INFO, REP_ACK, REP_ERR_INVALID,
                  REP_ERR_POLICY, REP_ERR_UNKNOWN, REP_ERR_UNSUP)

ALL_INFOS = (INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE)


def list_names(client):
    """The names LIST gives."""
    replies = client.option(wire.OPT_LIST)
    check_kind(replies[-1], REP_ACK)
    names = []
    for reply in replies[:-1]:
        length, = struct.unpack(">I", reply.data[:4])
        names.append(reply.data[4:4 + length])
    return names


@case()
def c04_unknown_options_are_refused_one_by_one(t):
    """
    Guards against closing on, ignoring, or half-answering options we do not
    have.  Spec: "Baseline".
    """
    client = t.haggle()
    for option in (0, wire.OPT_PEEK_EXPORT, 12, 77, 1 << 31, 0xFFFFFFFF):
        replies = client.option(option)
        check_equal(len(replies), 1, f"number of replies to option {option}")
        check_kind(replies[0], REP_ERR_UNSUP)


@case()
def c04_data_of_unknown_options_is_consumed(t):
    """
    Guards against reading the data of an option we do not know as the next
    option.  Spec: "Baseline", "Newstyle negotiation".
    """
    client = t.haggle()
    trap = wire.pack_option(wire.OPT_ABORT)
    for size in (1, len(trap), 100, 4095, 4096, 4097, 8 * KIB):
        data = (trap * (size // len(trap) + 1))[:size]
        replies = client.option(99, data)
        check_equal(len(replies), 1, f"replies to {size} bytes of data")
        check_kind(replies[0], REP_ERR_UNSUP)
    check_kind(client.go(t.name), REP_ACK)


@case()
def c04_pipelined_unknown_options_stay_in_step(t):
    """
    Guards against losing what arrives in the same segment as the data to be
    skipped.  Spec: "Baseline".
    """
    client = t.haggle()
    client.send(wire.pack_option(99, b"x" * 777) + wire.pack_option(98)
                + wire.pack_option(97, b"y" * 5)
                + wire.pack_option(wire.OPT_LIST)
                + wire.pack_option(OPT_GO, wire.pack_export_query(t.name)))
    for option in (99, 98, 97):
        check_kind(client.option_replies(option)[-1], REP_ERR_UNSUP)
    check_kind(client.option_replies(wire.OPT_LIST)[-1], REP_ACK)
    check_kind(client.finish_go(), REP_ACK)
    check_serves(client, t.image)


@case()
def c04_list_names_the_export(t):
    """
    Guards against a LIST that is empty or leads nowhere: each name it gives
    can be opened.  Spec: "Baseline", "NBD_OPT_LIST".
    """
    client = t.haggle()
    names = list_names(client)
    check(t.name in names, f"LIST gave {names}, not {t.name}")
    check_equal(len(names), len(set(names)), "number of different names")
    for name in names:
        check_kind(client.go(name, option=OPT_INFO), REP_ACK)


@case(setting="two")
def c04_two_exports_are_told_apart(t):
    """
    Guards against serving one image under the name of another.  Spec:
    "NBD_OPT_LIST", "NBD_OPT_INFO and NBD_OPT_GO".
    """
    names = list_names(t.haggle())
    for name, image in t.server.images.items():
        check(name.encode() in names, f"LIST gave {names}, not {name}")
        client = t.open(name.encode())
        check_equal(client.size, image.size, f"size of {name}")
        check_serves(client, image)


@case("empty_name")
def c04_empty_name_is_the_only_export(t):
    """
    Guards against clients that name no export finding nothing, where there is
    just one.  Spec: "NBD_OPT_EXPORT_NAME", "NBD_OPT_INFO and NBD_OPT_GO".
    """
    client = t.open(b"")
    check_equal(client.size, t.image.size, "size of the default export")
    check_serves(client, t.image)
    client = t.haggle()
    client.export_name(b"", padding=False)
    check_serves(client, t.image)


@case(setting="two", own=True)
def c04_empty_name_is_unknown_among_two(t):
    """
    Guards against guessing: with two exports there is no default one.  Spec:
    "NBD_OPT_INFO and NBD_OPT_GO".
    """
    client = t.haggle()
    check_kind(client.go(b""), REP_ERR_UNKNOWN)
    check_kind(client.go(t.name), REP_ACK)


def refuses_data(t, option, *kinds):
    """Data on an option that has none is an error, and is consumed."""
    client = t.haggle()
    trap = wire.pack_option(wire.OPT_ABORT)
    for data in (b"x", trap, b"y" * 4097):
        replies = client.option(option, data)
        check_equal(len(replies), 1, f"replies to option {option} with data")
        check_kind(replies[0], *kinds)
        check_haggles(client)
    return client


@case()
def c05_list_with_data_is_invalid(t):
    """
    Guards against treating a malformed LIST as a good one, or losing step on
    its data.  Spec: "NBD_OPT_LIST".
    """
    client = refuses_data(t, wire.OPT_LIST, REP_ERR_INVALID)
    check(t.name in list_names(client), "LIST lost the export")


@case("structured")
def c05_structured_reply_with_data_is_invalid(t):
    """
    Guards against switching to structured replies by a malformed option: the
    client would not expect them.  Spec: "NBD_OPT_STRUCTURED_REPLY".
    """
    client = refuses_data(t, wire.OPT_STRUCTURED_REPLY, REP_ERR_INVALID)
    check_kind(client.go(t.name), REP_ACK)
    check_equal(client.flags & wire.SEND_DF, 0, "SEND_DF")
    check_serves(client, t.image)


@case()
def c05_starttls_with_data_stays_in_step(t):
    """
    Guards against closing or hanging on STARTTLS with data.  Spec:
    "NBD_OPT_STARTTLS", "NOTLS mode".
    """
    refuses_data(t, wire.OPT_STARTTLS, REP_ERR_INVALID, REP_ERR_UNSUP,
                 REP_ERR_POLICY)


@case()
def c05_extended_headers_with_data_stays_in_step(t):
    """
    Guards against losing step on a newer option that carries data.  Spec:
    "Baseline".
    """
    refuses_data(t, wire.OPT_EXTENDED_HEADERS, REP_ERR_INVALID, REP_ERR_UNSUP)


@case()
def c06_abort_is_acknowledged(t):
    """
    Guards against hanging up on a polite client.  Spec: "NBD_OPT_ABORT".
    """
    client = t.haggle()
    check_kind(client.option(wire.OPT_ABORT)[-1], REP_ACK)
    client.expect_closed()


@case()
def c06_data_on_abort_is_ignored(t):
    """
    Guards against an error for the data of ABORT, which is to be ignored.
    Spec: "NBD_OPT_ABORT".
    """
    for data in (b"x", b"y" * 4096):
        client = t.haggle()
        check_kind(client.option(wire.OPT_ABORT, data)[-1], REP_ACK)


@case()
def c06_abort_without_reading_is_no_error(t):
    """
    Guards against dying of a broken pipe when the client aborts and is gone
    before our ACK.  Spec: "NBD_OPT_ABORT".
    """
    for _ in range(20):
        client = t.haggle()
        client.send_option(wire.OPT_ABORT)
        client.close()


@case()
def c08_starttls_is_refused_without_tls(t):
    """
    Guards against an ACK to STARTTLS where there is no TLS: the client would
    send its next bytes encrypted.  Spec: "NOTLS mode".
    """
    client = t.haggle()
    replies = client.option(wire.OPT_STARTTLS)
    check_equal(len(replies), 1, "number of replies to STARTTLS")
    check_kind(replies[0], REP_ERR_POLICY, REP_ERR_UNSUP)
    check_kind(client.go(t.name), REP_ACK)
    check_serves(client, t.image)


@case()
def c08_tls_is_never_required_without_tls(t):
    """
    Guards against ERR_TLS_REQD from a server that has no TLS.  Spec: "NOTLS
    mode".
    """
    client = t.haggle()
    name_query = wire.pack_context_query(b"nowhere")
    for option, data in ((wire.OPT_LIST, b""), (99, b""),
                         (wire.OPT_STRUCTURED_REPLY, b""),
                         (OPT_INFO, wire.pack_export_query(b"nowhere")),
                         (OPT_GO, wire.pack_export_query(b"nowhere")),
                         (wire.OPT_LIST_META_CONTEXT, name_query),
                         (wire.OPT_SET_META_CONTEXT, name_query)):
        final = client.option(option, data)[-1]
        check(final.kind != wire.REP_ERR_TLS_REQD,
              f"option {option} got ERR_TLS_REQD")


def refuses_go(t, data):
    """INFO and GO with this data are invalid, and haggling goes on."""
    for option in (OPT_INFO, OPT_GO):
        client = t.haggle()
        check_kind(client.option(option, data)[-1], REP_ERR_INVALID)
        check_haggles(client)
        check_kind(client.go(t.name), REP_ACK)
        check_serves(client, t.image)


@case()
def c13_name_longer_than_the_option_is_invalid(t):
    """
    Guards against reading a name beyond the option's data.  Spec:
    "NBD_OPT_INFO and NBD_OPT_GO".
    """
    name = t.name
    for length in (len(name) + 1, len(name) + 2, len(name) + 3, 4096,
                   0x7FFFFFFF, 0xFFFFFFFA, 0xFFFFFFFF):
        refuses_go(t, struct.pack(">I", length) + name + b"\0\0")


@case()
def c13_short_data_is_invalid(t):
    """
    Guards against reading fields that are not there.  Spec: "NBD_OPT_INFO and
    NBD_OPT_GO".
    """
    whole = wire.pack_export_query(b"")
    for size in range(len(whole)):
        refuses_go(t, whole[:size])


@case()
def c13_request_count_must_match_the_data(t):
    """
    Guards against reading requests past the data, and against data that
    nobody reads.  Spec: "NBD_OPT_INFO and NBD_OPT_GO".
    """
    head = struct.pack(">I", len(t.name)) + t.name
    for count, data in ((1, b""), (1, b"\0"), (2, b"\0\3"), (0xFFFF, b"\0\3"),
                        (0, b"\0"), (0, b"\0\3"), (1, b"\0\3\0"),
                        (1, b"\0\3\0\1")):
        refuses_go(t, head + struct.pack(">H", count) + data)


@case()
def c13_unknown_information_types_are_ignored(t):
    """
    Guards against failing for requests of newer clients.  Spec: "NBD_OPT_INFO
    and NBD_OPT_GO".
    """
    client = t.haggle()
    infos = (4, 0x7FFF, INFO_BLOCK_SIZE, 0xFFFF)
    check_kind(client.go(t.name, infos), REP_ACK)
    check_serves(client, t.image)


@case()
def c13_export_information_is_always_sent(t):
    """
    Guards against a GO that succeeds without size and flags, whether asked
    for or not.  Spec: "NBD_REP_INFO".
    """
    for infos in ((), (INFO_EXPORT,), (INFO_NAME,), ALL_INFOS):
        for option in (OPT_INFO, OPT_GO):
            client = t.haggle()
            check_kind(client.go(t.name, infos, option), REP_ACK)
            check_equal(client.size, t.image.size, "size of the export")


@case(own=True)
def c13_many_requests_of_one_kind_are_harmless(t):
    """
    Guards against answering once per repeated request, or running over an
    array of them.  No client may send these; ours are answered once or
    refused.  Spec: "NBD_OPT_INFO and NBD_OPT_GO".
    """
    client = t.haggle()
    client.send_option(OPT_GO, wire.pack_export_query(
        t.name, (INFO_NAME, INFO_BLOCK_SIZE) * 2000))
    replies = client.option_replies(OPT_GO)
    check(len(replies) < 20 or replies[-1].is_error,
          f"{len(replies)} replies to one GO")
    check_kind(replies[-1], REP_ACK, REP_ERR_INVALID, wire.REP_ERR_TOO_BIG)


@case()
def c13_haggling_goes_on_after_a_failed_go(t):
    """
    Guards against closing, or keeping half a choice, after GO for a name we
    do not have.  Spec: "NBD_OPT_INFO and NBD_OPT_GO".
    """
    client = t.haggle()
    for option in (OPT_INFO, OPT_GO, OPT_GO):
        replies = client.option(option, wire.pack_export_query(b"nowhere"))
        check_equal(len(replies), 1, "number of replies")
        check_kind(replies[0], REP_ERR_UNKNOWN)
        check_haggles(client)
    check_kind(client.go(t.name), REP_ACK)
    check_serves(client, t.image)


@case()
def c13_name_information_is_the_listed_name(t):
    """
    Guards against a canonical name that LIST does not know.  Spec:
    "NBD_INFO_NAME".
    """
    client = t.haggle()
    names = list_names(client)
    check_kind(client.go(t.name, ALL_INFOS, OPT_INFO), REP_ACK)
    name = client.infos.get(INFO_NAME, t.name)
    check(name in names, f"INFO_NAME {name} is not among {names}")


@case()
def c14_info_then_go_tell_the_same(t):
    """
    Guards against INFO and GO that disagree about size, flags or sizes of
    blocks, with structured replies and without.  Spec: "NBD_OPT_INFO and
    NBD_OPT_GO".
    """
    for structured in (False, True):
        client = t.haggle()
        if structured:
            client.structured_reply()
        check_kind(client.go(t.name, ALL_INFOS, OPT_INFO), REP_ACK)
        before = client.infos
        check_kind(client.go(t.name, ALL_INFOS), REP_ACK)
        check_equal(client.infos, before, "information from GO")


@case()
def c14_export_name_and_go_tell_the_same(t):
    """
    Guards against a second opinion from EXPORT_NAME.  Spec:
    "NBD_INFO_EXPORT".
    """
    go = t.open()
    old = t.haggle()
    old.export_name(t.name, padding=False)
    check_equal((old.size, old.flags), (go.size, go.flags),
                "size and flags from EXPORT_NAME")


@case()
def c16_block_sizes_keep_the_rules(t):
    """
    Guards against sizes that clients must reject: all are checked against
    each other.  Spec: "Size constraints", "NBD_INFO_BLOCK_SIZE".
    """
    client = t.haggle()
    check_kind(client.go(t.name, (INFO_BLOCK_SIZE,)), REP_ACK)
    if INFO_BLOCK_SIZE not in client.infos:
        # None sent means the defaults, which c15 holds it to.
        return
    minimum, preferred, maximum = struct.unpack(
        ">III", client.infos[INFO_BLOCK_SIZE])
    sizes = f"sizes {minimum}, {preferred}, {maximum}"
    check(minimum and minimum & minimum - 1 == 0, f"{sizes}: minimum")
    check(minimum <= 64 * KIB, f"{sizes}: minimum above 65536")
    check(preferred & preferred - 1 == 0, f"{sizes}: preferred")
    check(preferred >= max(minimum, 512), f"{sizes}: preferred too small")
    check(maximum >= preferred, f"{sizes}: maximum below preferred")
    check(maximum >= min(MIB, client.size), f"{sizes}: maximum below 1 MiB")
    check_equal(client.size % minimum, 0, f"{sizes}: size modulo minimum")


@case(own=True)
def c16_block_sizes_are_told_when_asked(t):
    """
    Guards against INFO_BLOCK_SIZE going missing: one byte is our minimum, and
    32 MiB our largest payload.  Spec: "NBD_INFO_BLOCK_SIZE".
    """
    client = t.haggle()
    check_kind(client.go(t.name, (INFO_BLOCK_SIZE,)), REP_ACK)
    check(INFO_BLOCK_SIZE in client.infos, "no INFO_BLOCK_SIZE")
    minimum, _, maximum = struct.unpack(">III",
                                        client.infos[INFO_BLOCK_SIZE])
    check_equal(minimum, 1, "minimum block size")
    check_equal(maximum, 32 * MIB, "maximum payload")


@case()
def c16_client_that_asked_is_never_told_to_ask(t):
    """
    Guards against ERR_BLOCK_SIZE_REQD for a client that did request block
    sizes.  Spec: "NBD_OPT_INFO and NBD_OPT_GO".
    """
    for option in (OPT_INFO, OPT_GO):
        client = t.haggle()
        check_kind(client.go(t.name, (INFO_BLOCK_SIZE,), option), REP_ACK)
