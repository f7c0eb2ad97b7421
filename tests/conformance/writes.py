# SPDX-License-Identifier: MIT
"""WRITE_ZEROES, TRIM and plain writes: what must hold in their contents."""

from case import (case, check, check_data, check_equal, check_error,
                  pass_through, read, write)
from images import SCRATCH_START
from wire import (ENOSPC, ENOTSUP, FAST_ZERO, FLUSH, FUA, KIB, MIB, NO_HOLE,
                  TRIM, WRITE, WRITE_ZEROES)

START = SCRATCH_START + 32 * MIB
AREA_BYTES = 512 * KIB
# Whole clusters, parts of one, across two, and the whole area.
RANGES = ((64 * KIB, 64 * KIB), (512, 512), (1000, 3), (65535, 2),
          (60000, 200000), (128 * KIB, 192 * KIB + 512), (0, AREA_BYTES))


def filled_area(client):
    """Writes a known text over the area; returns a model of it."""
    model = bytearray(i * 37 % 255 + 1 for i in range(4096)) * (
        AREA_BYTES // 4096)
    write(client, START, bytes(model))
    return model


def check_area(client, model):
    check_data(read(client, START, AREA_BYTES), bytes(model), START)


@case("write", setting="small")
def c22_file_too_large_is_enospc(t):
    """
    Guards against EFBIG sent as EINVAL or EIO when the image cannot grow, and
    against a connection or server lost by it.  Spec: "Error values".
    """
    client = t.open()
    errors = []
    for i in range(64):
        offset = SCRATCH_START + i * 256 * KIB
        reply = client.command(WRITE, offset, 256 * KIB,
                               data=b"f" * 256 * KIB)
        if reply.error:
            errors.append(reply.error)
    check(errors, "writes of 16 MiB fit into 1 MiB")
    check_equal(set(errors), {ENOSPC}, "errors when there is no room")
    check_data(read(client, 0, MIB), t.image.content(0, MIB))


@case("write zeroes fast_zero")
def c34_fast_zero_succeeds_or_changes_nothing(t):
    """
    Guards against a slow zeroing that was asked to be fast, and a refusal that
    has already zeroed a part.  Spec: "NBD_CMD_WRITE_ZEROES".
    """
    client = t.open()
    for flags in (FAST_ZERO, FAST_ZERO | NO_HOLE, FAST_ZERO | FUA):
        for offset, length in RANGES:
            model = filled_area(client)
            reply = client.command(WRITE_ZEROES, START + offset, length,
                                   flags)
            check_error(reply, 0, ENOTSUP, what="FAST_ZERO")
            if not reply.error:
                model[offset:offset + length] = bytes(length)
            check_area(client, model)


@case("write zeroes")
def c34_zeroes_without_fast_zero_never_fail_for_speed(t):
    """
    Guards against ENOTSUP, or any error, where the client can wait.  Spec:
    "NBD_CMD_WRITE_ZEROES".
    """
    client = t.open()
    for flags in (0, NO_HOLE, FUA, NO_HOLE | FUA):
        for offset, length in RANGES:
            pass_through(client, WRITE_ZEROES, START + offset, length=length,
                         flags=flags)


@case("write zeroes")
def c35_zeroes_read_back_as_zero(t):
    """
    Guards against zeroes rounded outward or inward, with NO_HOLE and without.
    Spec: "NBD_CMD_WRITE_ZEROES".
    """
    client = t.open()
    for flags in (0, NO_HOLE):
        for offset, length in RANGES:
            model = filled_area(client)
            pass_through(client, WRITE_ZEROES, START + offset, length=length,
                         flags=flags)
            model[offset:offset + length] = bytes(length)
            check_area(client, model)


@case("write zeroes")
def c35_zeroes_can_be_written_again(t):
    """
    Guards against writes lost in what was zeroed before.  Spec:
    "NBD_CMD_WRITE_ZEROES".
    """
    client = t.open()
    model = filled_area(client)
    for flags in (0, NO_HOLE):
        pass_through(client, WRITE_ZEROES, START, length=AREA_BYTES,
                     flags=flags)
        model[:] = bytes(AREA_BYTES)
        for offset, length in RANGES[:-1]:
            write(client, START + offset, b"z" * length)
            model[offset:offset + length] = b"z" * length
        check_area(client, model)


@case("write zeroes", setting="overlay")
def c35_zeroes_hide_the_base(t):
    """
    Guards against zeroing by dropping the cluster: the data of the base would
    shine through.  Spec: "NBD_CMD_WRITE_ZEROES".
    """
    client = t.open()
    for flags in (0, NO_HOLE):
        start = MIB if flags else 2 * MIB
        model = bytearray(t.image.content(start, AREA_BYTES))
        for offset, length in RANGES:
            pass_through(client, WRITE_ZEROES, start + offset, length=length,
                         flags=flags)
            model[offset:offset + length] = bytes(length)
            check_data(read(client, start, AREA_BYTES), bytes(model), start)


@case("write zeroes trim", setting="overlay")
def c35_zeroes_after_trim_hide_the_base(t):
    """
    Guards against a trim that makes the next zeroing believe there is nothing
    to do.  Spec: "NBD_CMD_WRITE_ZEROES", "NBD_CMD_TRIM".
    """
    client = t.open()
    start = 3 * MIB
    for flags in (0, NO_HOLE):
        write(client, start, b"o" * AREA_BYTES)
        pass_through(client, TRIM, start, length=AREA_BYTES)
        pass_through(client, WRITE_ZEROES, start, length=AREA_BYTES,
                     flags=flags)
        check_data(read(client, start, AREA_BYTES), bytes(AREA_BYTES), start)


@case("write trim")
def c36_trim_keeps_what_lies_outside(t):
    """
    Guards against a trim rounded outward, which eats its neighbours.  Spec:
    "NBD_CMD_TRIM".
    """
    client = t.open()
    for offset, length in RANGES:
        model = filled_area(client)
        pass_through(client, TRIM, START + offset, length=length)
        data = read(client, START, AREA_BYTES)
        check_data(data[:offset], bytes(model[:offset]), START)
        end = offset + length
        check_data(data[end:], bytes(model[end:]), START + end)


@case("write trim")
def c36_trimmed_ranges_can_be_written_again(t):
    """
    Guards against a write lost to a trim that was answered before it.  Spec:
    "NBD_CMD_TRIM".
    """
    client = t.open()
    for _ in range(8):
        pass_through(client, TRIM, START, length=AREA_BYTES)
        check_area(client, filled_area(client))


@case("write")
def c36_writes_in_flight_keep_apart(t):
    """
    Guards against payloads that land at another request's offset.  Spec:
    "Transmission".
    """
    client = t.open()
    model = filled_area(client)
    size = 3 * 4096 + 512
    for start in range(0, AREA_BYTES - size, size):
        data = bytes([start // size % 255 + 1]) * size
        client.send_request(WRITE, START + start, size, data=data)
        model[start:start + size] = data
    for request in client.replies(len(client.pending)):
        check_error(request.reply, 0, what=f"{request}")
    check_area(client, model)


@case("write multi_conn flush")
def c27_flushed_writes_show_on_all_connections(t):
    """
    Guards against a cache per connection behind CAN_MULTI_CONN.  Spec:
    "Transmission flags".
    """
    first, second, third = t.open(), t.open(), t.open()
    for i in range(1, 20):
        data = bytes([i]) * 70000
        write(first, START + 100, data)
        pass_through(second, FLUSH, 0)
        check_data(read(third, START + 100, len(data)), data, START + 100)


@case("write multi_conn fua")
def c27_fua_writes_show_on_all_connections(t):
    """
    Guards against FUA that is seen by its own connection only.  Spec:
    "Transmission flags".
    """
    first, second = t.open(), t.open()
    for i in range(1, 20):
        data = bytes([i]) * 5000
        write(first, START + 3, data, FUA)
        check_data(read(second, START + 3, len(data)), data, START + 3)
