# SPDX-License-Identifier: MIT
"""
A raw NBD client for tests: it can send anything, and believes nothing.

Sending is free: every field of every message can be set, so that cases can
break the rules on purpose.  Receiving is strict: whatever comes back is held
against the protocol, and the first byte that breaks it raises BadServer.  So
each case checks the framing of all replies it meets without saying so.

Every socket operation has a deadline; a server that hangs raises TimedOut.
Section names in messages are those of the NBD protocol document.
"""

import socket
import ssl
import struct
import time

TIMEOUT_SECONDS = 5.0

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

STRING_BYTES_MAX = 4096
PAYLOAD_BYTES_DEFAULT = 32 * MIB
STATUS_BYTES_MAX = 4 + (8 << 20)
STATUS_EXT_BYTES_MAX = 8 + (16 << 20)
# No option reply of any known kind comes near this.
OPTION_REPLY_BYTES_MAX = 64 * KIB

# Magic numbers.
NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
EXTENDED_REQUEST_MAGIC = 0x21E41C71
EXTENDED_REPLY_MAGIC = 0x6E8A278C

# Handshake and client flags.
FLAG_FIXED_NEWSTYLE = 1
FLAG_NO_ZEROES = 2

# Options.
OPT_EXPORT_NAME = 1
OPT_ABORT = 2
OPT_LIST = 3
OPT_PEEK_EXPORT = 4
OPT_STARTTLS = 5
OPT_INFO = 6
OPT_GO = 7
OPT_STRUCTURED_REPLY = 8
OPT_LIST_META_CONTEXT = 9
OPT_SET_META_CONTEXT = 10
OPT_EXTENDED_HEADERS = 11

# Option replies.
REP_ACK = 1
REP_SERVER = 2
REP_INFO = 3
REP_META_CONTEXT = 4
REP_ERR_BIT = 1 << 31
REP_ERR_UNSUP = REP_ERR_BIT + 1
REP_ERR_POLICY = REP_ERR_BIT + 2
REP_ERR_INVALID = REP_ERR_BIT + 3
REP_ERR_PLATFORM = REP_ERR_BIT + 4
REP_ERR_TLS_REQD = REP_ERR_BIT + 5
REP_ERR_UNKNOWN = REP_ERR_BIT + 6
REP_ERR_SHUTDOWN = REP_ERR_BIT + 7
REP_ERR_BLOCK_SIZE_REQD = REP_ERR_BIT + 8
REP_ERR_TOO_BIG = REP_ERR_BIT + 9
REP_ERR_EXT_HEADER_REQD = REP_ERR_BIT + 10

REP_NAMES = {
    REP_ACK: "ACK", REP_SERVER: "SERVER", REP_INFO: "INFO",
    REP_META_CONTEXT: "META_CONTEXT", REP_ERR_UNSUP: "ERR_UNSUP",
    REP_ERR_POLICY: "ERR_POLICY", REP_ERR_INVALID: "ERR_INVALID",
    REP_ERR_PLATFORM: "ERR_PLATFORM", REP_ERR_TLS_REQD: "ERR_TLS_REQD",
    REP_ERR_UNKNOWN: "ERR_UNKNOWN", REP_ERR_SHUTDOWN: "ERR_SHUTDOWN",
    REP_ERR_BLOCK_SIZE_REQD: "ERR_BLOCK_SIZE_REQD",
    REP_ERR_TOO_BIG: "ERR_TOO_BIG",
    REP_ERR_EXT_HEADER_REQD: "ERR_EXT_HEADER_REQD",
}

# Information types.
INFO_EXPORT = 0
INFO_NAME = 1
INFO_DESCRIPTION = 2
INFO_BLOCK_SIZE = 3

# Transmission flags.
HAS_FLAGS = 1 << 0
READ_ONLY = 1 << 1
SEND_FLUSH = 1 << 2
SEND_FUA = 1 << 3
ROTATIONAL = 1 << 4
SEND_TRIM = 1 << 5
SEND_WRITE_ZEROES = 1 << 6
SEND_DF = 1 << 7
CAN_MULTI_CONN = 1 << 8
SEND_RESIZE = 1 << 9
SEND_CACHE = 1 << 10
SEND_FAST_ZERO = 1 << 11
BLOCK_STATUS_PAYLOAD = 1 << 12

# Commands.
READ = 0
WRITE = 1
DISC = 2
FLUSH = 3
TRIM = 4
CACHE = 5
WRITE_ZEROES = 6
BLOCK_STATUS = 7
RESIZE = 8

COMMAND_NAMES = {
    READ: "READ", WRITE: "WRITE", DISC: "DISC", FLUSH: "FLUSH", TRIM: "TRIM",
    CACHE: "CACHE", WRITE_ZEROES: "WRITE_ZEROES",
    BLOCK_STATUS: "BLOCK_STATUS", RESIZE: "RESIZE",
}

# Command flags.
FUA = 1 << 0
NO_HOLE = 1 << 1
DF = 1 << 2
REQ_ONE = 1 << 3
FAST_ZERO = 1 << 4
PAYLOAD_LEN = 1 << 5

# Structured replies.
REPLY_DONE = 1
REPLY_NONE = 0
REPLY_OFFSET_DATA = 1
REPLY_OFFSET_HOLE = 2
REPLY_BLOCK_STATUS = 5
REPLY_BLOCK_STATUS_EXT = 6
REPLY_ERR_BIT = 1 << 15
REPLY_ERROR = REPLY_ERR_BIT + 1
REPLY_ERROR_OFFSET = REPLY_ERR_BIT + 2

# States of base:allocation.
STATE_HOLE = 1
STATE_ZERO = 2
BASE_ALLOCATION = b"base:allocation"
ALLOCATION_DEPTH = b"qemu:allocation-depth"

# Errors.
EPERM = 1
EIO = 5
ENOMEM = 12
EINVAL = 22
ENOSPC = 28
EOVERFLOW = 75
ENOTSUP = 95
ESHUTDOWN = 108

ERROR_NAMES = {
    0: "success", EPERM: "EPERM", EIO: "EIO", ENOMEM: "ENOMEM",
    EINVAL: "EINVAL", ENOSPC: "ENOSPC", EOVERFLOW: "EOVERFLOW",
    ENOTSUP: "ENOTSUP", ESHUTDOWN: "ESHUTDOWN",
}


class WireError(Exception):
    """Anything that went wrong between the server and us."""


class TimedOut(WireError):
    """The server neither answered nor closed."""


class Closed(WireError):
    """The server closed the connection where more was due."""


class BadServer(WireError):
    """The server sent what the protocol does not allow."""


def error_name(error):
    return ERROR_NAMES.get(error, f"error {error}")


def option_name(kind):
    return REP_NAMES.get(kind, f"reply type {kind:#x}")


def pack_export_query(name, infos=()):
    """The data of INFO and GO."""
    return (struct.pack(">I", len(name)) + name
            + struct.pack(">H", len(infos))
            + b"".join(struct.pack(">H", info) for info in infos))


def pack_context_query(name, queries=()):
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return (struct.pack(">I", len(name)) + name
            + struct.pack(">I", len(queries))
            + b"".join(struct.pack(">I", len(query)) + query
                       for query in queries))


def pack_option(option, data=b"", length=None, magic=IHAVEOPT):
    """One option; length may lie about the data."""
    if length is None:
        length = len(data)
    return struct.pack(">QII", magic, option, length) + data


def pack_request(command, flags=0, cookie=0, offset=0, length=0, data=b"",
                 magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset,
                       length) + data


def pack_extended(command, flags=0, cookie=0, offset=0, length=0, data=b"",
                  magic=EXTENDED_REQUEST_MAGIC):
    return struct.pack(">IHHQQQ", magic, flags, command, cookie, offset,
                       length) + data


def pack_choice(length, contexts):
    """The payload of a BLOCK_STATUS that chooses its contexts."""
    return struct.pack(f">Q{len(contexts)}I", length, *contexts)


class OptionReply:
    """One reply to one option."""

    def __init__(self, option, kind, data):
        self.option = option
        self.kind = kind
        self.data = data

    @property
    def is_error(self):
        return bool(self.kind & REP_ERR_BIT)

    @property
    def is_final(self):
        return self.is_error or self.kind == REP_ACK

    def __repr__(self):
        return option_name(self.kind)


class Reply:
    """All that came back for one request."""

    def __init__(self):
        self.error = 0
        self.message = b""
        self.error_offset = None
        self.simple = False
        self.data = b""
        # (type, offset, length) of each content chunk, in order of arrival.
        self.chunks = []
        # context id -> [(length, status), ...]
        self.extents = {}
        self.done = False


class Request:
    """One request on its way, and the rules its reply must keep."""

    def __init__(self, command, flags, cookie, offset, length):
        self.command = command
        self.flags = flags
        self.cookie = cookie
        self.offset = offset
        self.length = length
        # Of a BLOCK_STATUS: the contexts it chooses, None for all.
        self.contexts = None
        self.reply = Reply()

    def __repr__(self):
        name = COMMAND_NAMES.get(self.command, f"command {self.command}")
        return (f"{name} flags={self.flags:#x} offset={self.offset:#x} "
                f"length={self.length:#x}")

    def bad(self, text):
        return BadServer(f"{self}: {text}")

    def set_error(self, error):
        """Only listed values, and each only where its meaning fits."""
        if error not in ERROR_NAMES:
            raise self.bad(f"unlisted error {error} (Error values)")
        if error == ENOTSUP and not (self.command == WRITE_ZEROES
                                     and self.flags & FAST_ZERO):
            raise self.bad("ENOTSUP without FAST_ZERO (Error values)")
        if error == EOVERFLOW and not self.may_overflow():
            raise self.bad("EOVERFLOW for a request of lawful size "
                           "(Error values)")
        self.reply.error = self.reply.error or error

    def may_overflow(self):
        if self.command == READ and self.flags & DF:
            return self.length > 64 * KIB
        if self.command == WRITE or self.flags & FAST_ZERO:
            return False
        return self.length > PAYLOAD_BYTES_DEFAULT

    def add_content(self, kind, offset, length):
        if self.command != READ:
            raise self.bad("a content chunk for what is not a READ")
        end = offset + length
        if offset < self.offset or end > self.offset + self.length:
            raise self.bad(f"chunk {offset:#x}+{length:#x} lies outside the "
                           "request (Structured reply types)")
        for _, other, other_length in self.reply.chunks:
            if offset < other + other_length and other < end:
                raise self.bad(f"chunk {offset:#x}+{length:#x} overlaps an "
                               "earlier one (Structured reply types)")
        self.reply.chunks.append((kind, offset, length))
        if self.flags & DF and len(self.reply.chunks) > 1:
            raise self.bad("DF, and more than one content chunk "
                           "(NBD_CMD_READ)")

    def add_status(self, context, extents):
        if self.command != BLOCK_STATUS:
            raise self.bad("a status chunk for what is not a BLOCK_STATUS")
        if context in self.reply.extents:
            raise self.bad(f"two status chunks for context {context}")
        if any(length == 0 for length, _ in extents):
            raise self.bad("an extent of length 0")
        lengths = [length for length, _ in extents]
        if self.flags & REQ_ONE:
            if len(extents) != 1 or lengths[0] > self.length:
                raise self.bad(f"REQ_ONE, and got lengths {lengths[:4]}")
        elif sum(lengths[:-1]) >= self.length:
            raise self.bad("more extents than the request needs: all but the "
                           f"last cover {sum(lengths[:-1]):#x}")
        self.reply.extents[context] = extents

    def finish(self, contexts):
        """The checks that need the whole reply."""
        reply = self.reply
        reply.done = True
        if reply.error:
            return
        if self.command == READ and not reply.simple:
            covered = sum(length for _, _, length in reply.chunks)
            if covered != self.length:
                raise self.bad(f"success, and {covered:#x} bytes described")
        if self.command == BLOCK_STATUS:
            if reply.simple:
                raise self.bad("success by a simple reply")
            due = set(contexts if self.contexts is None else self.contexts)
            if set(reply.extents) != due:
                raise self.bad(f"status for contexts {set(reply.extents)}, "
                               f"due {due}")


class Client:
    """
    One connection.  After go() or export_name(): size and flags of the
    export; after structured_reply() and set_contexts(): what was agreed.
    """

    def __init__(self, address, timeout=TIMEOUT_SECONDS):
        family = (socket.AF_UNIX if isinstance(address, str)
                  else socket.AF_INET)
        self.timeout = timeout
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(address)
        if family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.structured = False
        self.extended = False
        self.contexts = {}
        self.size = None
        self.flags = None
        self.infos = {}
        self.pending = {}
        self.next_cookie = 0x1000
        self.received_bytes = 0
        # Whether TLS ended in any way but the proper one.
        self.broken_off = False
        # Whether the server has begun a reply and not yet ended it.
        self.in_message = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    # Bytes.

    def send(self, data):
        self.sock.settimeout(self.timeout)
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise TimedOut(f"server took no more of our {len(data)} bytes "
                           f"for {self.timeout:g} s") from None
        except (ConnectionError, ssl.SSLEOFError):
            raise Closed("server closed while we were sending") from None

    def send_until_closed(self, data):
        """Sends what the server will take; True if it closed before the end."""
        try:
            self.send(data)
            return False
        except Closed:
            return True

    def receive(self, count):
        """Exactly count bytes."""
        data = bytearray(count)
        view = memoryview(data)
        got = 0
        deadline = time.monotonic() + self.timeout
        while got < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"no answer for {self.timeout:g} s (have {got} "
                               f"of {count} bytes)")
            self.sock.settimeout(left)
            try:
                part = self.sock.recv_into(view[got:])
            except TimeoutError:
                continue
            except (ConnectionError, ssl.SSLError) as error:
                self.broken_off = isinstance(error, ssl.SSLError)
                part = 0
            if part == 0:
                raise Closed(f"server closed after {got} of {count} bytes")
            got += part
        self.received_bytes += count
        return bytes(data)

    def end_of_input(self):
        """Tells the server that nothing more will come; replies still may."""
        self.sock.shutdown(socket.SHUT_WR)

    def receive_to_end(self):
        """Drops all that comes until the server closes."""
        while True:
            try:
                self.receive(1)
            except Closed:
                return

    def expect_closed(self):
        """The server must close now, and say nothing before it does."""
        try:
            byte = self.receive(1)
        except Closed:
            return
        except TimedOut:
            raise TimedOut("server did not close the connection within "
                           f"{self.timeout:g} s") from None
        raise BadServer(f"server sent {byte.hex()}... where it must close")

    # Handshake.

    def start_tls(self, context):
        """STARTTLS, which must be accepted, and the handshake of TLS."""
        replies = self.option(OPT_STARTTLS)
        if len(replies) != 1 or replies[0].kind != REP_ACK:
            raise BadServer(f"STARTTLS got {replies}")
        self.wrap(context)

    def wrap(self, context):
        """The handshake of TLS, after the ACK."""
        self.sock.settimeout(self.timeout)
        try:
            self.sock = context.wrap_socket(self.sock,
                                            server_hostname="localhost",
                                            suppress_ragged_eofs=False)
        except (ssl.SSLError, ConnectionError) as error:
            raise Closed(f"no TLS: {error}") from None

    def greeting(self):
        """Reads the server's greeting; returns its handshake flags."""
        magic, option_magic, flags = struct.unpack(">QQH", self.receive(18))
        if magic != NBDMAGIC or option_magic != IHAVEOPT:
            raise BadServer(f"greeting {magic:#x} {option_magic:#x}")
        return flags

    def send_flags(self, flags):
        self.send(struct.pack(">I", flags))

    def begin(self):
        """Up to the first option, as any client of today does it."""
        self.greeting()
        self.send_flags(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES)

    def send_option(self, option, data=b"", length=None, magic=IHAVEOPT):
        self.send(pack_option(option, data, length, magic))

    def option_reply(self, option):
        """The next reply, which must be one to option."""
        magic, echoed, kind, length = struct.unpack(">QIII", self.receive(20))
        if magic != OPTION_REPLY_MAGIC:
            raise BadServer(f"option reply magic {magic:#x}")
        if echoed != option:
            raise BadServer(f"reply to option {echoed}, expected {option}")
        if length > OPTION_REPLY_BYTES_MAX:
            raise BadServer(f"option reply of {length} bytes")
        data = self.receive(length)
        reply = OptionReply(option, kind, data)
        check_option_reply(reply)
        return reply

    def option_replies(self, option):
        """All replies to option, the final one last."""
        replies = [self.option_reply(option)]
        while not replies[-1].is_final:
            if len(replies) > 1000:
                raise BadServer(f"no end of replies to option {option}")
            replies.append(self.option_reply(option))
        return replies

    def option(self, option, data=b""):
        """Sends option and returns all replies to it."""
        self.send_option(option, data)
        return self.option_replies(option)

    def structured_reply(self):
        """Negotiates structured replies; True if the server agrees."""
        final = self.option(OPT_STRUCTURED_REPLY)[-1]
        self.structured = final.kind == REP_ACK
        return self.structured

    def extended_headers(self):
        """Negotiates extended headers; True if the server agrees."""
        final = self.option(OPT_EXTENDED_HEADERS)[-1]
        self.extended = final.kind == REP_ACK
        # They bring chunks with them.
        self.structured = self.structured or self.extended
        return self.extended

    def set_contexts(self, name, queries):
        """SET_META_CONTEXT; returns the final reply, keeps the contexts."""
        replies = self.option(OPT_SET_META_CONTEXT,
                              pack_context_query(name, queries))
        self.contexts = {}
        if replies[-1].kind == REP_ACK:
            for reply in replies[:-1]:
                context, = struct.unpack(">I", reply.data[:4])
                if context in self.contexts:
                    raise BadServer(f"two contexts share the id {context}")
                self.contexts[context] = reply.data[4:]
        return replies[-1]

    def go(self, name, infos=(), option=OPT_GO):
        """GO (or INFO); returns the final reply."""
        self.send_option(option, pack_export_query(name, infos))
        return self.finish_go(option)

    def finish_go(self, option=OPT_GO):
        replies = self.option_replies(option)
        self.infos = {}
        for reply in replies[:-1]:
            kind, = struct.unpack(">H", reply.data[:2])
            if kind in self.infos:
                raise BadServer(f"information type {kind} sent twice")
            self.infos[kind] = reply.data[2:]
        if replies[-1].kind == REP_ACK:
            if INFO_EXPORT not in self.infos:
                raise BadServer("ACK without INFO_EXPORT (NBD_REP_INFO)")
            self.set_export(*struct.unpack(">QH", self.infos[INFO_EXPORT]))
        return replies[-1]

    def export_name(self, name, padding):
        """EXPORT_NAME; padding says whether 124 zero bytes are due."""
        self.send_option(OPT_EXPORT_NAME, name)
        self.set_export(*struct.unpack(">QH", self.receive(10)))
        if padding and any(self.receive(124)):
            raise BadServer("padding of EXPORT_NAME is not zero")

    def set_export(self, size, flags):
        if not flags & HAS_FLAGS:
            raise BadServer("transmission flags without HAS_FLAGS")
        if flags & SEND_FAST_ZERO and not flags & SEND_WRITE_ZEROES:
            raise BadServer("SEND_FAST_ZERO without SEND_WRITE_ZEROES")
        self.size = size
        self.flags = flags

    # Transmission.

    def pack(self, command, flags=0, cookie=0, offset=0, length=0, data=b""):
        """A request with the header that was agreed upon."""
        if not self.extended:
            return pack_request(command, flags, cookie, offset, length, data)
        if command == WRITE:
            flags |= PAYLOAD_LEN
        return pack_extended(command, flags, cookie, offset, length, data)

    def send_request(self, command, offset=0, length=0, flags=0, data=b"",
                     cookie=None):
        """
        Sends a request and remembers it; the cookie must be a new one.  A
        WRITE gets the flag that extended headers want.
        """
        if cookie is None:
            cookie = self.next_cookie
            self.next_cookie += 1
        request = Request(command, flags, cookie, offset, length)
        self.pending[cookie] = request
        self.send(self.pack(command, flags, cookie, offset, length))
        if data:
            self.send(data)
        return request

    def send_choice(self, offset, length, contexts, flags=0, payload=None):
        """A BLOCK_STATUS that chooses its contexts; payload may lie."""
        if payload is None:
            payload = pack_choice(length, contexts)
        request = self.expect_request(BLOCK_STATUS, offset, length,
                                      self.next_cookie, flags)
        request.contexts = contexts
        self.next_cookie += 1
        self.send(pack_extended(BLOCK_STATUS, flags | PAYLOAD_LEN,
                                request.cookie, offset, len(payload),
                                payload))
        return request

    def expect_request(self, command, offset, length, cookie, flags=0):
        """Remembers a request that was sent by other means."""
        request = Request(command, flags, cookie, offset, length)
        self.pending[cookie] = request
        return request

    def next_reply(self):
        """Reads until some request is done, and returns that request."""
        while True:
            request = self.read_message()
            if request.reply.done:
                return request

    def replies(self, count):
        return [self.next_reply() for _ in range(count)]

    def command(self, command, offset=0, length=0, flags=0, data=b"",
                cookie=None):
        """One request and its reply, with nothing else outstanding."""
        request = self.send_request(command, offset, length, flags, data,
                                    cookie)
        if self.next_reply() is not request:
            raise BadServer("reply to a request we did not wait for")
        return request.reply

    def disconnect(self, expect_closed=True):
        """A soft disconnect, and the server's part in it, or else ours."""
        self.send(self.pack(DISC))
        if expect_closed:
            self.expect_closed()
        else:
            self.close()

    def read_message(self):
        """One simple reply or one chunk; returns the request it is for."""
        magic, = struct.unpack(">I", self.receive(4))
        self.in_message = True
        if magic == EXTENDED_REPLY_MAGIC and self.extended:
            request = self.read_extended_chunk()
        elif self.extended:
            raise BadServer(f"reply magic {magic:#x} after extended headers "
                            "(Extended reply chunk message)")
        elif magic == SIMPLE_REPLY_MAGIC:
            request = self.read_simple_reply()
        elif magic == STRUCTURED_REPLY_MAGIC:
            request = self.read_structured_chunk()
        else:
            raise BadServer(f"reply magic {magic:#x}")
        self.in_message = False
        return request

    def find_request(self, cookie):
        if cookie not in self.pending:
            raise BadServer(f"reply with cookie {cookie:#x}, which no request "
                            "on its way has")
        return self.pending[cookie]

    def finish_request(self, request):
        del self.pending[request.cookie]
        request.finish(self.contexts)

    def read_simple_reply(self):
        error, cookie = struct.unpack(">IQ", self.receive(12))
        request = self.find_request(cookie)
        if self.structured and request.command == READ:
            raise request.bad("a simple reply where structured replies were "
                              "negotiated (Simple reply message)")
        if request.reply.chunks or request.reply.extents:
            raise request.bad("a simple reply among chunks")
        request.set_error(error)
        request.reply.simple = True
        if request.command == READ and not error:
            request.reply.data = self.receive(request.length)
        self.finish_request(request)
        return request

    def read_structured_chunk(self):
        flags, kind, cookie, length = struct.unpack(">HHQI", self.receive(16))
        request = self.find_request(cookie)
        if not self.structured:
            raise request.bad("a structured reply nobody negotiated")
        return self.read_chunk(request, flags, kind, length)

    def read_extended_chunk(self):
        flags, kind, cookie, offset, length = struct.unpack(
            ">HHQQQ", self.receive(28))
        request = self.find_request(cookie)
        if offset != request.offset:
            raise request.bad(f"a chunk with the offset {offset:#x} "
                              "(Extended reply chunk message)")
        return self.read_chunk(request, flags, kind, length)

    def read_chunk(self, request, flags, kind, length):
        if flags & ~REPLY_DONE:
            raise request.bad(f"chunk flags {flags:#x}")
        self.read_payload(request, kind, flags, length)
        if flags & REPLY_DONE:
            self.finish_request(request)
        return request

    def read_payload(self, request, kind, flags, length):
        if kind == REPLY_NONE:
            if length or not flags & REPLY_DONE:
                raise request.bad(f"NONE with length {length}, flags {flags}")
        elif kind == REPLY_OFFSET_DATA:
            self.read_data(request, length)
        elif kind == REPLY_OFFSET_HOLE:
            self.read_hole(request, length)
        elif kind == REPLY_BLOCK_STATUS and not self.extended:
            self.read_status(request, length)
        elif kind == REPLY_BLOCK_STATUS_EXT and self.extended:
            self.read_status_ext(request, length)
        elif kind in (REPLY_ERROR, REPLY_ERROR_OFFSET):
            self.read_error(request, kind, length)
        else:
            raise request.bad(f"chunk type {kind}")

    def place(self, request, offset, data):
        """Puts data where it belongs in what the request reads."""
        if len(request.reply.data) != request.length:
            request.reply.data = bytearray(request.length)
        at = offset - request.offset
        request.reply.data[at:at + len(data)] = data

    def read_data(self, request, length):
        if length < 9:
            raise request.bad(f"OFFSET_DATA of length {length}")
        offset, = struct.unpack(">Q", self.receive(8))
        request.add_content(REPLY_OFFSET_DATA, offset, length - 8)
        self.place(request, offset, self.receive(length - 8))

    def read_hole(self, request, length):
        if length != 12:
            raise request.bad(f"OFFSET_HOLE of length {length}")
        offset, hole = struct.unpack(">QI", self.receive(12))
        if hole == 0:
            raise request.bad("a hole of no bytes")
        request.add_content(REPLY_OFFSET_HOLE, offset, hole)
        if request.length <= PAYLOAD_BYTES_DEFAULT:
            self.place(request, offset, bytes(hole))

    def read_status(self, request, length):
        if length < 12 or length % 8 != 4 or length > STATUS_BYTES_MAX:
            raise request.bad(f"BLOCK_STATUS of length {length}")
        data = self.receive(length)
        context, = struct.unpack(">I", data[:4])
        extents = list(struct.iter_unpack(">II", data[4:]))
        request.add_status(context, extents)

    def read_status_ext(self, request, length):
        if length < 24 or length % 16 != 8 or length > STATUS_EXT_BYTES_MAX:
            raise request.bad(f"BLOCK_STATUS_EXT of length {length}")
        data = self.receive(length)
        context, count = struct.unpack(">II", data[:8])
        if count * 16 + 8 != length:
            raise request.bad(f"BLOCK_STATUS_EXT of length {length} says "
                              f"that it has {count} descriptors")
        extents = list(struct.iter_unpack(">QQ", data[8:]))
        request.add_status(context, extents)

    def read_error(self, request, kind, length):
        fixed = 6 if kind == REPLY_ERROR else 14
        if not fixed <= length <= fixed + STRING_BYTES_MAX:
            raise request.bad(f"error chunk of length {length}")
        error, message_length = struct.unpack(">IH", self.receive(6))
        if error == 0 or fixed + message_length > length:
            raise request.bad(f"error chunk: error {error}, message "
                              f"{message_length}, chunk {length}")
        request.reply.message = self.receive(message_length)
        check_string("error message", request.reply.message)
        if kind == REPLY_ERROR_OFFSET:
            offset, = struct.unpack(">Q", self.receive(8))
            if not (request.offset <= offset
                    < request.offset + request.length):
                raise request.bad(f"error at {offset:#x}, outside it")
            request.reply.error_offset = offset
        self.receive(length - fixed - message_length)
        request.set_error(error)


def check_string(what, data):
    """Strings of the protocol: UTF-8, no NUL, at most 4096 bytes."""
    if len(data) > STRING_BYTES_MAX:
        raise BadServer(f"{what} of {len(data)} bytes (Conventions)")
    if b"\0" in data:
        raise BadServer(f"{what} with a NUL byte (Conventions)")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadServer(f"{what} is not UTF-8: {data[:40]!r}") from None


def check_info(data):
    if len(data) < 2:
        raise BadServer("INFO without a type")
    kind, = struct.unpack(">H", data[:2])
    due = {INFO_EXPORT: 12, INFO_BLOCK_SIZE: 14}.get(kind)
    if due is not None and len(data) != due:
        raise BadServer(f"information type {kind} has {len(data)} bytes")
    if kind in (INFO_NAME, INFO_DESCRIPTION):
        check_string("name or description", data[2:])


def check_option_reply(reply):
    """The form of one reply; what it means is for the case to judge."""
    if reply.is_error:
        check_string("error message", reply.data)
        return
    if reply.kind == REP_ACK:
        if reply.data:
            raise BadServer(f"ACK with {len(reply.data)} bytes of data")
    elif reply.kind == REP_SERVER and reply.option == OPT_LIST:
        if len(reply.data) < 4:
            raise BadServer("SERVER without a name length")
        length, = struct.unpack(">I", reply.data[:4])
        if length > len(reply.data) - 4:
            raise BadServer("SERVER with a name longer than the reply")
        check_string("export name", reply.data[4:4 + length])
        check_string("export description", reply.data[4 + length:])
    elif reply.kind == REP_INFO and reply.option in (OPT_INFO, OPT_GO):
        check_info(reply.data)
    elif (reply.kind == REP_META_CONTEXT
          and reply.option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT)):
        if len(reply.data) < 4:
            raise BadServer("META_CONTEXT without an id")
        check_string("context name", reply.data[4:])
        if b":" not in reply.data[4:]:
            raise BadServer("a context name without a colon")
    else:
        raise BadServer(f"{reply} in reply to option {reply.option}")
