# SPDX-License-Identifier: MIT
"""
qemu:allocation-depth, beside base:allocation: which layer of a chain says what
a place holds (docs/interop/nbd.txt of QEMU).
"""

import wire
from case import (case, check, check_equal, check_error, check_kind,
                  pass_through, write)
from meta_context import haggle_structured, list_contexts
from wire import (ALLOCATION_DEPTH, BASE_ALLOCATION, BLOCK_STATUS, KIB, MIB,
                  REP_ACK, REQ_ONE)


@case("meta depth")
def c41_qemu_is_a_wildcard_in_lists(t):
    """
    Guards against contexts that nobody can find: "qemu:" lists those of that
    namespace, no query lists all, each once.  Spec:
    "NBD_OPT_LIST_META_CONTEXT".
    """
    client = haggle_structured(t)
    for queries, expected in (([b"qemu:"], {ALLOCATION_DEPTH}),
                              ([ALLOCATION_DEPTH], {ALLOCATION_DEPTH}),
                              ([], {ALLOCATION_DEPTH, BASE_ALLOCATION}),
                              ([b"base:", b"qemu:", ALLOCATION_DEPTH],
                               {ALLOCATION_DEPTH, BASE_ALLOCATION})):
        names = [name for _, name in list_contexts(client, t.name, queries)]
        check_equal(set(names), expected, f"contexts for {queries}")
        check_equal(len(names), len(expected), "number of contexts")


@case("meta depth")
def c40_qemu_wildcard_selects_nothing(t):
    """
    Guards against a wildcard, or a part of a name, in SET.  Spec: "Metadata
    querying".
    """
    client = haggle_structured(t)
    for query in (b"qemu:", b"qemu:alloc", b"qemu:allocation-depth:",
                  b"qemu:allocation-depths", b"qemu", b"QEMU:allocation-depth"):
        final = client.set_contexts(t.name, [query])
        check_kind(final, REP_ACK, wire.REP_ERR_INVALID)
        check_equal(client.contexts, {}, f"contexts for {query}")


@case("meta depth")
def c42_each_context_has_its_chunk(t):
    """
    Guards against mixing up ids where several contexts are selected, in any
    order and more than once.  Spec: "NBD_CMD_BLOCK_STATUS".
    """
    for queries in ([BASE_ALLOCATION, ALLOCATION_DEPTH],
                    [ALLOCATION_DEPTH, BASE_ALLOCATION, ALLOCATION_DEPTH]):
        client = t.open(contexts=queries)
        check_equal(sorted(client.contexts.values()),
                    sorted(set(queries)), "contexts")
        for flags in (0, REQ_ONE):
            both = pass_through(client, BLOCK_STATUS, 0, length=4 * MIB,
                                flags=flags).extents
            for context, name in client.contexts.items():
                alone, only = t.open_status(context=name)
                extents = pass_through(alone, BLOCK_STATUS, 0,
                                       length=4 * MIB, flags=flags).extents
                check_equal(both[context], extents[only], f"{name} alone")


@case("meta depth write", setting="overlay", fresh=True)
def c42_depth_tells_the_layer(t):
    """
    Guards against wrong layers: 0 where none has data, 1 for the image itself,
    2 for the one below.
    """
    client, context = t.open_status(context=ALLOCATION_DEPTH)
    write(client, 14 * MIB, b"d" * 64 * KIB)

    def depth(offset):
        reply = client.command(BLOCK_STATUS, offset, 512, REQ_ONE)
        check_error(reply, 0, what="BLOCK_STATUS")
        return reply.extents[context][0][1]

    check_equal(depth(14 * MIB), 1, "depth of what was written")
    check_equal(depth(MIB), 2, "depth of the base")
    check_equal(depth(13 * MIB), 0, "depth of nothing")


@case("meta depth", fresh=True)
def c42_depth_of_an_image_alone(t):
    """
    Guards against holes that count as data, and the other way round.
    """
    client, context = t.open_status(context=ALLOCATION_DEPTH)
    extents = pass_through(client, BLOCK_STATUS, 0,
                           length=3 * MIB).extents[context]
    check_equal([state for _, state in extents], [1, 0, 1], "depths")
    check(extents[0][0] == extents[1][0] == MIB, "extents of other lengths")
