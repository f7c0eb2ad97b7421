# SPDX-License-Identifier: MIT
"""TLS: who has to start it, what it wipes, and how it ends."""

import contextlib
import socket
import ssl
import struct
import warnings

import wire
from case import (Failure, case, check, check_equal, check_error,
                  check_haggles, check_kind, check_serves)
from wire import (FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, OPT_ABORT,
                  OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST,
                  OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT, OPT_STARTTLS,
                  OPT_STRUCTURED_REPLY, REP_ACK, REP_ERR_INVALID,
                  REP_ERR_TLS_REQD, REP_ERR_UNKNOWN)

UNKNOWN_OPTION = 0x7A7A7A7A


def all_options(name):
    """Every option but EXPORT_NAME, STARTTLS and ABORT, with fine data."""
    contexts = wire.pack_context_query(name, [wire.BASE_ALLOCATION])
    export = wire.pack_export_query(name)
    return ((OPT_LIST, b""), (OPT_INFO, export), (OPT_GO, export),
            (OPT_STRUCTURED_REPLY, b""), (OPT_LIST_META_CONTEXT, contexts),
            (OPT_SET_META_CONTEXT, contexts), (UNKNOWN_OPTION, b"data"))


def raw_send(client, data):
    """Past TLS."""
    socket.socket.sendall(client.sock, data)


@case(setting="tls")
def c05_starttls_with_data_is_invalid_with_tls(t):
    """
    Guards against closing, hanging or starting TLS on a malformed STARTTLS.
    Spec: "NBD_OPT_STARTTLS".
    """
    client = t.haggle(tls=False)
    for data in (b"x", wire.pack_option(OPT_ABORT), b"y" * 4097):
        replies = client.option(OPT_STARTTLS, data)
        check_equal(len(replies), 1, "number of replies")
        check_kind(replies[0], REP_ERR_INVALID)
    client.start_tls(t.tls_context())
    check_kind(client.go(t.name), REP_ACK)
    check_serves(client, t.image)


@case(setting="tls")
def c07_nothing_goes_before_tls(t):
    """
    Guards against options that are answered without TLS where it is a must.
    Spec: "FORCEDTLS mode".
    """
    client = t.haggle(tls=False)
    for name in (t.name, b"nowhere"):
        for option, data in all_options(name):
            replies = client.option(option, data)
            check_equal(len(replies), 1, f"replies to option {option}")
            check_kind(replies[0], REP_ERR_TLS_REQD)
    client.start_tls(t.tls_context())
    check_kind(client.go(t.name), REP_ACK)
    check_serves(client, t.image)


@case(setting="tls")
def c07_abort_is_acknowledged_before_tls(t):
    """
    Guards against refusing a polite goodbye for want of TLS.  Spec: "FORCEDTLS
    mode", "NBD_OPT_ABORT".
    """
    for data in (b"", b"x" * 100):
        client = t.haggle(tls=False)
        check_kind(client.option(OPT_ABORT, data)[-1], REP_ACK)
        client.expect_closed()


@case(setting="tls")
def c07_export_name_before_tls_terminates(t):
    """
    Guards against serving without TLS whoever does not ask.  Spec: "FORCEDTLS
    mode".
    """
    for flags in (0, FLAG_FIXED_NEWSTYLE, FLAG_FIXED_NEWSTYLE
                  | FLAG_NO_ZEROES):
        client = t.haggle(flags, tls=False)
        client.send_option(OPT_EXPORT_NAME, t.name)
        client.expect_closed()


@case(setting="tls")
def c07_tls_is_never_required_twice(t):
    """
    Guards against ERR_TLS_REQD when TLS is on.  Spec: "FORCEDTLS mode".
    """
    client = t.haggle()
    for option, data in all_options(b"nowhere"):
        final = client.option(option, data)[-1]
        check(final.kind != REP_ERR_TLS_REQD,
              f"option {option} got ERR_TLS_REQD")
    client.structured = True
    check_kind(client.go(t.name), REP_ACK)
    check_serves(client, t.image)


@case(setting="selective")
def c09_plain_clients_get_the_plain_export(t):
    """
    Guards against asking for TLS where it is the client's choice.  Spec:
    "SELECTIVETLS mode".
    """
    client = t.haggle(tls=False)
    check_kind(client.go(b"alpha"), REP_ACK)
    check_serves(client, t.image)
    client = t.haggle(tls=False)
    client.send_option(OPT_EXPORT_NAME, b"alpha")
    check_equal(len(client.receive(10)), 10, "EXPORT_NAME's answer")


@case(setting="selective")
def c09_tls_is_required_for_the_other_export_only(t):
    """
    Guards against ERR_TLS_REQD for anything but INFO and GO, and against an
    export that needs TLS being served without.  Spec: "SELECTIVETLS mode".
    """
    client = t.haggle(tls=False)
    for option in (OPT_INFO, OPT_GO):
        check_kind(client.option(option, wire.pack_export_query(b"beta"))[-1],
                   REP_ERR_TLS_REQD)
    for name in (b"beta", b"nowhere", b"alpha"):
        for option, data in all_options(name):
            if option in (OPT_INFO, OPT_GO):
                continue
            final = client.option(option, data)[-1]
            check(final.kind != REP_ERR_TLS_REQD,
                  f"option {option} got ERR_TLS_REQD")
    client = t.haggle(tls=False)
    client.send_option(OPT_EXPORT_NAME, b"beta")
    client.expect_closed()


@case("structured", setting="selective", own=True)
def c09_plain_clients_do_not_learn_of_the_other_export(t):
    """
    Guards against telling clients without TLS whether an export exists that
    needs it.
    """
    client = t.haggle(tls=False)
    client.structured_reply()
    for option in (OPT_INFO, OPT_GO, OPT_LIST_META_CONTEXT,
                   OPT_SET_META_CONTEXT):
        pack = (wire.pack_export_query if option in (OPT_INFO, OPT_GO)
                else wire.pack_context_query)
        beta, nowhere = (client.option(option, pack(name))[-1]
                         for name in (b"beta", b"nowhere"))
        check_equal((beta.kind, beta.data), (nowhere.kind, nowhere.data),
                    f"what option {option} got")
    listed = [reply.data[4:] for reply in client.option(OPT_LIST)[:-1]]
    check_equal(listed, [b"alpha"], "LIST")


@case(setting="selective")
def c09_with_tls_all_exports_are_there(t):
    """
    Guards against keeping exports from clients that did start TLS.  Spec:
    "SELECTIVETLS mode".
    """
    client = t.haggle()
    listed = [reply.data[4:] for reply in client.option(OPT_LIST)[:-1]]
    check_equal(listed, [b"alpha", b"beta"], "LIST")
    check_kind(client.go(b"nowhere"), REP_ERR_UNKNOWN)
    check_kind(client.go(b"beta"), REP_ACK)
    check_error(client.command(wire.READ, 0, 512), 0)
    client = t.haggle()
    check_kind(client.go(b"alpha"), REP_ACK)


@case(setting="tls")
def c10_a_second_starttls_is_invalid(t):
    """
    Guards against TLS inside TLS.  Spec: "FORCEDTLS mode".
    """
    client = t.haggle()
    for _ in range(2):
        replies = client.option(OPT_STARTTLS)
        check_equal(len(replies), 1, "number of replies")
        check_kind(replies[0], REP_ERR_INVALID)
        check_haggles(client)
    check_kind(client.go(t.name), REP_ACK)
    check_serves(client, t.image)


@case(setting="tls")
def c10_no_tls_without_fixed_newstyle(t):
    """
    Guards against starting TLS with a client that cannot read an answer.
    Spec: "Server-side requirements".
    """
    client = t.haggle(0, tls=False)
    client.send_option(OPT_STARTTLS)
    client.expect_closed()


@case("structured meta", setting="selective")
def c11_starttls_wipes_what_was_agreed(t):
    """
    Guards against options that somebody on the way slipped in before TLS
    (compare CVE-2021-3716).  Spec: "NBD_OPT_STARTTLS".
    """
    client = t.haggle(tls=False)
    check(client.structured_reply(), "no structured replies")
    check_kind(client.set_contexts(b"alpha", [wire.BASE_ALLOCATION]), REP_ACK)
    client.start_tls(t.tls_context())
    client.structured = False
    check_kind(client.option(OPT_SET_META_CONTEXT, wire.pack_context_query(
        b"alpha", [wire.BASE_ALLOCATION]))[-1], REP_ERR_INVALID)
    check_kind(client.go(b"alpha"), REP_ACK)
    check_equal(client.flags & wire.SEND_DF, 0, "SEND_DF")
    check_serves(client, t.image)
    # Structured replies again, but no context.
    client = t.haggle(tls=False)
    check(client.structured_reply(), "no structured replies")
    check_kind(client.set_contexts(b"alpha", [wire.BASE_ALLOCATION]), REP_ACK)
    client.start_tls(t.tls_context())
    check(client.structured_reply(), "no structured replies")
    client.contexts = {}
    check_kind(client.go(b"alpha"), REP_ACK)
    check_error(client.command(wire.BLOCK_STATUS, 0, 512), wire.EINVAL)


@case("extended", setting="selective")
def c11_starttls_wipes_extended_headers(t):
    """
    Guards against 32-byte headers that the client did not ask for inside TLS.
    Spec: "NBD_OPT_EXTENDED_HEADERS".
    """
    client = t.haggle(tls=False)
    check(client.extended_headers(), "no extended headers")
    client.start_tls(t.tls_context())
    client.structured = client.extended = False
    check_kind(client.go(b"alpha"), REP_ACK)
    check_equal(client.flags & wire.SEND_DF, 0, "SEND_DF")
    check_serves(client, t.image)


@case(setting="tls")
def c11_plain_text_behind_starttls_is_fatal(t):
    """
    Guards against taking options for the client's that somebody on the way
    put behind its STARTTLS (CVE-2021-3716).  Spec: "NBD_OPT_STARTTLS".
    """
    for trap in (wire.pack_option(OPT_LIST),
                 wire.pack_option(OPT_GO, wire.pack_export_query(t.name)),
                 b"\0" * 5, b"\x16\x03\x01" + b"\0" * 100):
        client = t.haggle(tls=False)
        client.send(wire.pack_option(OPT_STARTTLS) + trap)
        check_kind(client.option_reply(OPT_STARTTLS), REP_ACK)
        # The client goes on as if nothing were.
        with contextlib.suppress(wire.Closed):
            client.wrap(t.tls_context())
            raise Failure("TLS was started in spite of it")


@case(setting="tls")
def c12_a_handshake_that_fails_ends_it(t):
    """
    Guards against going on without TLS after a failed handshake.  Spec:
    "Server-side requirements".
    """
    option = wire.pack_option(OPT_LIST)
    for garbage in (b"\0" * 64, b"\x16\x03\x01\xff\xff" + b"x" * 70000,
                    b"GET / HTTP/1.1\r\n\r\n", option * 10):
        client = t.haggle(tls=False)
        check_kind(client.option(OPT_STARTTLS)[-1], REP_ACK)
        client.send_until_closed(garbage)
        answer = b""
        with contextlib.suppress(wire.Closed):
            while True:
                answer += client.receive(1)
        # Perhaps an alert, and nothing else.
        check(answer[:1] in (b"", b"\x15"), f"an answer: {answer!r}")


def refuses_tls(t, context):
    """The server has to notice, at the latest when it is spoken to."""
    client = t.haggle(tls=False)
    check_kind(client.option(OPT_STARTTLS)[-1], REP_ACK)
    try:
        client.wrap(context)
        client.option(OPT_LIST)
    except wire.Closed:
        return
    raise Failure("the client was let in")


@case(setting="tls")
def c12_strangers_are_not_let_in(t):
    """
    Guards against clients without a certificate, or with one that is not of
    our authority.  Spec: "Server-side requirements".
    """
    refuses_tls(t, t.tls_context(None))
    refuses_tls(t, t.tls_context("stranger"))
    refuses_tls(t, t.tls_context("expired"))


@case(setting="tls")
def c12_old_versions_of_tls_are_refused(t):
    """
    Guards against TLS 1.1 and before.  Spec: "TLS versions".
    """
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        context = t.tls_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.minimum_version = version
            context.maximum_version = version
        refuses_tls(t, context)


@case(setting="tls")
def c12_both_new_versions_of_tls_work(t):
    """
    Guards against losing clients that know TLS 1.2 only.  Spec: "TLS
    versions".
    """
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = t.tls_context()
        context.minimum_version = version
        context.maximum_version = version
        client = t.haggle(tls=False)
        client.start_tls(context)
        check_kind(client.go(t.name), REP_ACK)
        check_serves(client, t.image)
        check_equal(client.sock.version().replace("v", " "),
                    version.name.replace("v", " ").replace("_", "."),
                    "the version")


@case(setting="tls")
def c44_tls_ends_with_close_notify(t):
    """
    Guards against ends that a client cannot tell from a cut line.  Spec:
    "NBD_CMD_DISC".
    """
    client = t.open()
    client.send_request(wire.READ, 0, 4 * wire.MIB)
    client.send_request(wire.FLUSH)
    client.send(wire.pack_request(wire.DISC))
    for request in client.replies(2):
        check_error(request.reply, 0)
    client.expect_closed()
    check(not client.broken_off, "TLS was broken off")
    client = t.haggle()
    check_kind(client.option(OPT_ABORT)[-1], REP_ACK)
    client.expect_closed()
    check(not client.broken_off, "TLS was broken off after ABORT")


@case(setting="tls")
def tls_records_may_end_anywhere(t):
    """
    Guards against requests that are lost when a record does not end with them:
    one byte in a record, and several requests in one.
    """
    client = t.open()
    request = wire.pack_request(wire.READ, cookie=7, offset=512, length=512)
    for _ in range(3):
        client.expect_request(wire.READ, 512, 512, 7)
        for byte in request:
            client.send(bytes([byte]))
        check_error(client.next_reply().reply, 0)
    for count in (2, 100):
        data = b""
        for cookie in range(count):
            client.expect_request(wire.READ, 1024 * cookie, 1000, cookie)
            data += wire.pack_request(wire.READ, cookie=cookie,
                                      offset=1024 * cookie, length=1000)
        client.send(data)
        for request in client.replies(count):
            check_error(request.reply, 0)


@case(setting="tls")
def tls_garbage_in_a_session_ends_it(t):
    """
    Guards against carrying on, or worse, when what arrives is not of the
    session.
    """
    for garbage in (b"\0" * 100, b"\x17\x03\x03\x00\x20" + b"x" * 32,
                    b"\x17\x03\x03\xff\xff" + b"x" * 70000,
                    b"\x15\x03\x03\x00\x02\x02\x28",
                    struct.pack(">BHH", 22, 0x303, 4) + b"\0" * 4):
        client = t.open()
        check_serves(client, t.image)
        with contextlib.suppress(OSError):
            raw_send(client, garbage)
        client.receive_to_end()


def receive_alert(client):
    """What TLS says of the end, behind whatever else has been sent."""
    client.sock.settimeout(client.timeout)
    try:
        while client.sock.recv(65536):
            pass
    except ssl.SSLError as error:
        return error.reason or "no reason"
    except ConnectionError:
        return "a reset"
    return "a proper end"


@case(setting="tls")
def tls_a_session_that_fails_ends_with_an_alert(t):
    """
    Guards against a bare hangup where the client could be told what is wrong
    with what it sent, with replies under way or not.
    """
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for reads in (0, 1, 8):
            context = t.tls_context()
            context.maximum_version = version
            client = t.haggle(tls=False)
            client.start_tls(context)
            check_kind(client.go(t.name), REP_ACK)
            for _ in range(reads):
                client.send_request(wire.READ, 0, wire.MIB)
            raw_send(client, b"\x17\x03\x03\x00\x40" + b"x" * 64)
            reason = receive_alert(client)
            check("ALERT_BAD_RECORD_MAC" in reason,
                  f"{version.name}, {reads} reads: {reason}")


@case(setting="tls")
def tls_may_be_cut_off_anywhere(t):
    """
    Guards against sessions that stay behind when the client is gone without a
    word, in the handshake, in a record or in a reply.
    """
    client = t.haggle(tls=False)
    client.option(OPT_STARTTLS)
    client.close()
    client = t.haggle(tls=False)
    client.option(OPT_STARTTLS)
    client.send(b"\x16\x03\x01\x02\x00\x01")
    client.close()
    client = t.open()
    raw_send(client, b"\x17\x03\x03\x01")
    client.close()
    client = t.open()
    for _ in range(8):
        client.send_request(wire.READ, 0, 4 * wire.MIB)
    client.close()
