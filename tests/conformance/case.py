# SPDX-License-Identifier: MIT
"""
What a case is made of: the decorator that registers it, the trial it gets,
and the checks it makes.

    @case(needs="write trim")
    def c36_trim_keeps_what_lies_outside(t):
        '''Guards against ...  Spec: "NBD_CMD_TRIM".'''

needs names what the server must offer for the case to mean anything; where it
does not, the case is reported as skipped, with the reason:

    structured, extended   the option
    meta, depth            the context base:allocation, qemu:allocation-depth
    write                  the export is not read-only
    flush fua trim zeroes fast_zero cache df multi_conn resize  transmission
                           flags
    empty_name             the empty name stands for the one export

A number after the c groups the cases of one rule.  Cases that begin with cve
keep old holes of other servers closed; those with limit are our own limits.
"""

import os
import ssl

import wire
from wire import BASE_ALLOCATION, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES

CASES = []

FLAG_NEEDS = {
    "flush": (wire.SEND_FLUSH, "SEND_FLUSH"),
    "fua": (wire.SEND_FUA, "SEND_FUA"),
    "trim": (wire.SEND_TRIM, "SEND_TRIM"),
    "zeroes": (wire.SEND_WRITE_ZEROES, "SEND_WRITE_ZEROES"),
    "fast_zero": (wire.SEND_FAST_ZERO, "SEND_FAST_ZERO"),
    "cache": (wire.SEND_CACHE, "SEND_CACHE"),
    "df": (wire.SEND_DF, "SEND_DF"),
    "multi_conn": (wire.CAN_MULTI_CONN, "CAN_MULTI_CONN"),
    "resize": (wire.SEND_RESIZE, "SEND_RESIZE"),
}
OTHER_NEEDS = frozenset(
    "structured extended meta depth write empty_name".split())


class Failure(Exception):
    """The server did something wrong."""


class Unmet(Exception):
    """The case cannot be run here; the text says why."""


class ReadOnly(Unmet):
    """It would have to write."""


class Case:
    def __init__(self, function, needs, setting, own, fresh):
        self.function = function
        self.name = function.__name__
        self.needs = needs.split()
        self.setting = setting
        self.own = own
        self.fresh = fresh
        unknown = set(self.needs) - set(FLAG_NEEDS) - OTHER_NEEDS
        assert not unknown, f"{self.name}: unknown needs {unknown}"
        assert function.__doc__, f"{self.name} does not say what it is for"


def case(needs="", setting="main", own=False, fresh=False):
    """
    Registers a case.  setting: see servers.py.  own: a rule of qnbd's own
    rather than of the protocol.  fresh: it gets a server of its own, and may
    end it.
    """
    def register(function):
        CASES.append(Case(function, needs, setting, own, fresh))
        return function
    return register


def check(condition, text):
    if not condition:
        raise Failure(text)


def check_equal(got, expected, what):
    if got != expected:
        raise Failure(f"{what} is {got!r}, expected {expected!r}")


def check_kind(reply, *kinds):
    """An option reply is of one of these types."""
    if reply.kind not in kinds:
        raise Failure(f"option {reply.option} got {reply}, expected "
                      + " or ".join(wire.option_name(kind) for kind in kinds))


def check_error(reply, *errors, what="the request"):
    """A reply carries one of these errors (0 is success)."""
    if reply.error not in errors:
        raise Failure(f"{what} got {wire.error_name(reply.error)}, expected "
                      + " or ".join(wire.error_name(e) for e in errors))


def check_data(data, expected, offset=0):
    """Tells where the first difference is, rather than show megabytes."""
    if data == expected:
        return
    check_equal(len(data), len(expected), "length of data")
    at = next(i for i, (a, b) in enumerate(zip(data, expected)) if a != b)
    raise Failure(f"data differs at {offset + at:#x}: {data[at:at+8].hex()}, "
                  f"expected {expected[at:at+8].hex()}")


class Trial:
    """One run of one case against one server."""

    def __init__(self, running, timeout):
        self.server = running
        self.image = running.image
        self.name = running.name
        self.timeout = timeout
        self.clients = []

    def connect(self):
        """A connection on which nothing has been read or sent."""
        client = wire.Client(self.server.address, self.timeout)
        self.clients.append(client)
        return client

    def haggle(self, flags=FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES, tls=True):
        """A client in option haggling; with TLS if the server has it."""
        client = self.connect()
        client.greeting()
        client.send_flags(flags)
        if tls and self.server.has_tls():
            client.start_tls(self.tls_context())
        return client

    def tls_context(self, who="client"):
        """The client's side of TLS, with the certificate of who, or None."""
        directory = self.server.server.store.pki()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(
            os.path.join(directory, "server", "ca-cert.pem"))
        if who is not None:
            context.load_cert_chain(
                os.path.join(directory, who, "client-cert.pem"),
                os.path.join(directory, who, "client-key.pem"))
        return context

    def open(self, name=None, structured=False, contexts=(), extended=False):
        """A client in transmission."""
        client = self.haggle()
        name = self.name if name is None else name
        if extended:
            check(client.extended_headers(), "no extended headers here")
        elif structured or contexts:
            check(client.structured_reply(), "no structured replies here")
        if contexts:
            check_kind(client.set_contexts(name, contexts), wire.REP_ACK)
        check_kind(client.go(name), wire.REP_ACK)
        return client

    def open_each(self):
        """
        A client with simple replies; then, where there are such, one with
        structured replies, and one with extended headers.
        """
        yield self.open()
        client = self.haggle()
        if client.structured_reply():
            check_kind(client.go(self.name), wire.REP_ACK)
            yield client
        client = self.haggle()
        if client.extended_headers():
            check_kind(client.go(self.name), wire.REP_ACK)
            yield client

    def open_status(self, extended=False, context=BASE_ALLOCATION):
        """A client with one context; returns it and the context's id."""
        client = self.open(contexts=[context], extended=extended)
        check_equal(list(client.contexts.values()), [context],
                    "selected contexts")
        return client, next(iter(client.contexts))

    def close(self):
        for client in self.clients:
            client.close()


def check_serves(client, image):
    """The connection is in step: a read brings what the image holds."""
    reply = client.command(wire.READ, 0, 512)
    check_error(reply, 0, what="a read afterwards")
    check_data(reply.data, image.content(0, 512))


def check_haggles(client):
    """Haggling is in step: an unknown option gets its ERR_UNSUP."""
    replies = client.option(0x7A7A7A7A)
    check_equal(len(replies), 1, "number of replies to an unknown option")
    check_kind(replies[0], wire.REP_ERR_UNSUP)


def pass_through(client, command, offset, data=b"", length=None, flags=0):
    """A request that must succeed."""
    if length is None:
        length = len(data)
    reply = client.command(command, offset, length, flags, data)
    check_error(reply, 0, what=wire.COMMAND_NAMES[command])
    return reply


def write(client, offset, data, flags=0):
    pass_through(client, wire.WRITE, offset, data, flags=flags)


def read(client, offset, length, flags=0):
    return bytes(pass_through(client, wire.READ, offset, length=length,
                              flags=flags).data)
