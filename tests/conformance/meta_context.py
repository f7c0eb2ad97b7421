# SPDX-License-Identifier: MIT
"""Choosing metadata contexts, and who may then ask for block status."""

import struct

import wire
from case import (case, check, check_equal, check_error, check_haggles,
                  check_kind, check_serves)
from wire import (BASE_ALLOCATION, BLOCK_STATUS, KIB, OPT_LIST_META_CONTEXT,
                  OPT_SET_META_CONTEXT, REP_ACK, REP_ERR_INVALID,
                  REP_ERR_UNKNOWN)


def haggle_structured(t):
    client = t.haggle()
    check(client.structured_reply(), "no structured replies")
    return client


def list_contexts(client, name, queries):
    """The (id, name) pairs LIST_META_CONTEXT gives."""
    replies = client.option(OPT_LIST_META_CONTEXT,
                            wire.pack_context_query(name, queries))
    check_kind(replies[-1], REP_ACK)
    return [(struct.unpack(">I", reply.data[:4])[0], reply.data[4:])
            for reply in replies[:-1]]


def check_no_status(client, name):
    """After GO, BLOCK_STATUS is refused and the connection goes on."""
    client.contexts = {}
    check_kind(client.go(name), REP_ACK)
    reply = client.command(BLOCK_STATUS, 0, 4096)
    check_error(reply, wire.EINVAL, what="BLOCK_STATUS without a context")


def check_status(client, name):
    check_kind(client.go(name), REP_ACK)
    check_error(client.command(BLOCK_STATUS, 0, 4096), 0, what="BLOCK_STATUS")


@case("structured")
def c38_status_needs_a_context(t):
    """
    Guards against block status for a client that never chose a context.
    Spec: "Metadata querying".
    """
    client = haggle_structured(t)
    check_no_status(client, t.name)
    check_serves(client, t.image)


@case()
def c38_status_needs_structured_replies(t):
    """
    Guards against a structured answer to a client that reads simple replies
    only.  Spec: "Metadata querying", "Structured reply chunk message".
    """
    client = t.open()
    reply = client.command(BLOCK_STATUS, 0, 4096)
    check_error(reply, wire.EINVAL, what="BLOCK_STATUS")
    check_serves(client, t.image)


@case("meta", setting="two")
def c38_contexts_belong_to_one_export(t):
    """
    Guards against contexts chosen for one export being used on another.
    Spec: "NBD_OPT_SET_META_CONTEXT".
    """
    client = haggle_structured(t)
    check_kind(client.set_contexts(b"beta", [BASE_ALLOCATION]), REP_ACK)
    check_no_status(client, b"alpha")
    client = haggle_structured(t)
    client.set_contexts(b"beta", [BASE_ALLOCATION])
    client.set_contexts(b"alpha", [BASE_ALLOCATION])
    check_status(client, b"alpha")


@case("meta")
def c38_other_options_keep_the_contexts(t):
    """
    Guards against losing the chosen contexts to harmless options before GO.
    Spec: "NBD_OPT_SET_META_CONTEXT".
    """
    client = haggle_structured(t)
    check_kind(client.set_contexts(t.name, [BASE_ALLOCATION]), REP_ACK)
    client.option(wire.OPT_LIST)
    list_contexts(client, t.name, [])
    check_haggles(client)
    check_kind(client.go(t.name, option=wire.OPT_INFO), REP_ACK)
    check_status(client, t.name)


@case("meta")
def c38_failed_go_keeps_the_contexts(t):
    """
    Guards against comparing the name with that of the first GO: the one that
    enters transmission counts.  Spec: "NBD_OPT_SET_META_CONTEXT".
    """
    client = haggle_structured(t)
    check_kind(client.set_contexts(t.name, [BASE_ALLOCATION]), REP_ACK)
    check_kind(client.go(b"nowhere"), REP_ERR_UNKNOWN)
    check_status(client, t.name)


@case("meta")
def c38_export_name_may_use_contexts_too(t):
    """
    Guards against tying contexts to GO alone.  Spec: "Metadata querying".
    """
    client = haggle_structured(t)
    check_kind(client.set_contexts(t.name, [BASE_ALLOCATION]), REP_ACK)
    client.export_name(t.name, padding=False)
    check_error(client.command(BLOCK_STATUS, 0, 4096), 0, what="BLOCK_STATUS")


def check_replaced(t, expected, data):
    """A second SET_META_CONTEXT with this data ends the first one's choice."""
    client = haggle_structured(t)
    check_kind(client.set_contexts(t.name, [BASE_ALLOCATION]), REP_ACK)
    check_kind(client.option(OPT_SET_META_CONTEXT, data)[-1], *expected)
    check_no_status(client, t.name)


@case("meta")
def c39_empty_choice_replaces(t):
    """
    Guards against keeping old contexts when the client takes none.  Spec:
    "NBD_OPT_SET_META_CONTEXT".
    """
    check_replaced(t, [REP_ACK], wire.pack_context_query(t.name, []))
    check_replaced(t, [REP_ACK],
                   wire.pack_context_query(t.name, [b"x-nobody:has"]))


@case("meta")
def c39_malformed_choice_replaces(t):
    """
    Guards against keeping old contexts after ERR_INVALID.  Spec:
    "NBD_OPT_SET_META_CONTEXT".
    """
    good = wire.pack_context_query(t.name, [BASE_ALLOCATION])
    check_replaced(t, [REP_ERR_INVALID], good[:-1])
    check_replaced(t, [REP_ERR_INVALID], good[:3])


@case("meta")
def c39_choice_for_unknown_export_replaces(t):
    """
    Guards against keeping old contexts after ERR_UNKNOWN.  Some servers do
    not look at the name before GO; there the names differ.  Spec:
    "NBD_OPT_SET_META_CONTEXT".
    """
    check_replaced(t, [REP_ERR_UNKNOWN, REP_ACK],
                   wire.pack_context_query(b"nowhere", [BASE_ALLOCATION]))


@case("meta")
def c40_contexts_need_structured_replies(t):
    """
    Guards against contexts without the replies that carry their status.
    Spec: "NBD_OPT_SET_META_CONTEXT".
    """
    client = t.haggle()
    check_kind(client.set_contexts(t.name, [BASE_ALLOCATION]),
               REP_ERR_INVALID)
    check_haggles(client)
    check(client.structured_reply(), "no structured replies")
    check_no_status(client, t.name)


@case("meta")
def c40_nothing_asked_selects_nothing(t):
    """
    Guards against a default choice for zero queries.  Spec:
    "NBD_OPT_SET_META_CONTEXT".
    """
    client = haggle_structured(t)
    check_kind(client.set_contexts(t.name, []), REP_ACK)
    check_equal(client.contexts, {}, "selected contexts")
    check_no_status(client, t.name)


@case("meta")
def c40_unknown_namespace_is_ignored(t):
    """
    Guards against failing, or selecting, on queries for contexts of other
    programs.  Spec: "NBD_OPT_LIST_META_CONTEXT".
    """
    client = haggle_structured(t)
    queries = [b"x-test:leaf", b"qemu-not:", BASE_ALLOCATION, b"x-a:b:c"]
    check_kind(client.set_contexts(t.name, queries), REP_ACK)
    check_equal(list(client.contexts.values()), [BASE_ALLOCATION],
                "selected contexts")
    check_status(client, t.name)


@case("meta")
def c40_unknown_leaf_and_wildcard_select_nothing(t):
    """
    Guards against prefix matches: neither base: nor a longer or shorter leaf
    name selects anything.  Spec: "The base: metadata namespace".
    """
    client = haggle_structured(t)
    queries = [b"base:", b"base:alloc", b"base:allocations", b"base:nothing"]
    for query in queries:
        check_kind(client.set_contexts(t.name, [query]), REP_ACK)
        check_equal(client.contexts, {}, f"contexts for {query}")
    check_no_status(client, t.name)


@case("meta")
def c40_repeated_query_selects_once(t):
    """
    Guards against two contexts with one id, and two status chunks for one
    context.  Spec: "NBD_OPT_SET_META_CONTEXT".
    """
    client = haggle_structured(t)
    check_kind(client.set_contexts(t.name, [BASE_ALLOCATION] * 3), REP_ACK)
    check_equal(len(client.contexts), 1, "number of selected contexts")
    check_status(client, t.name)


@case("meta")
def c40_malformed_queries_are_invalid(t):
    """
    Guards against lengths that reach past the option, in LIST and SET alike.
    Spec: "NBD_OPT_LIST_META_CONTEXT".
    """
    name = struct.pack(">I", len(t.name)) + t.name
    query = struct.pack(">I", 4) + b"x-a:"
    one, two = struct.pack(">I", 1), struct.pack(">I", 2)
    for option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
        client = haggle_structured(t)
        for data in (b"", b"\0" * 3, name, name + one[:2], name + one,
                     name + two + query,
                     name + one + query[:-1], name + one + query[:2],
                     name + struct.pack(">I", 0xFFFFFFFF) + query,
                     struct.pack(">I", len(t.name) + 1) + t.name):
            check_kind(client.option(option, data)[-1], REP_ERR_INVALID)
        check_haggles(client)


@case("meta")
def c40_query_without_colon_is_harmless(t):
    """
    Guards against a crash, or a choice, on queries that are no context names.
    Either ignored or ERR_INVALID.  Spec: "NBD_OPT_LIST_META_CONTEXT".
    """
    client = haggle_structured(t)
    for query in (b"", b"base", b"baseallocation", b":", b"x" * 300):
        final = client.set_contexts(t.name, [query])
        check_kind(final, REP_ACK, REP_ERR_INVALID)
        check_equal(client.contexts, {}, f"contexts for {query}")
    check_no_status(client, t.name)


@case("meta")
def c40_many_queries_are_answered(t):
    """
    Guards against quadratic work or a fixed array behind the queries.
    ERR_TOO_BIG is allowed.  Spec: "NBD_OPT_SET_META_CONTEXT".
    """
    client = haggle_structured(t)
    queries = [b"x-many:%d" % i for i in range(1000)] + [BASE_ALLOCATION]
    final = client.set_contexts(t.name, queries)
    check_kind(final, REP_ACK, wire.REP_ERR_TOO_BIG)
    if final.kind == REP_ACK:
        check_equal(list(client.contexts.values()), [BASE_ALLOCATION],
                    "selected contexts")
    check_kind(client.go(t.name), REP_ACK)


@case("meta")
def c41_no_query_lists_all_contexts(t):
    """
    Guards against an empty list for a client that wants to see all.  Spec:
    "NBD_OPT_LIST_META_CONTEXT".
    """
    client = haggle_structured(t)
    names = [name for _, name in list_contexts(client, t.name, [])]
    check(BASE_ALLOCATION in names or b"base:" in names,
          f"LIST_META_CONTEXT gave {names}")


@case("meta")
def c41_base_is_a_wildcard_in_lists(t):
    """
    Guards against treating base: in LIST as the unknown leaf it is in SET.
    Spec: "The base: metadata namespace".
    """
    client = haggle_structured(t)
    for query in (b"base:", BASE_ALLOCATION):
        names = [name for _, name in list_contexts(client, t.name, [query])]
        check_equal(names, [BASE_ALLOCATION], f"contexts for {query}")
    check_equal(list_contexts(client, t.name, [b"x-nobody:has"]), [],
                "contexts for an unknown namespace")


@case("meta")
def c41_listed_contexts_have_id_zero(t):
    """
    Guards against ids in LIST, where the field is reserved.  Spec:
    "NBD_OPT_LIST_META_CONTEXT".
    """
    client = haggle_structured(t)
    for context, name in list_contexts(client, t.name, [b"base:"]):
        check_equal(context, 0, f"id of {name}")


@case("meta")
def c41_list_selects_nothing(t):
    """
    Guards against LIST having the effect of SET.  Spec:
    "NBD_OPT_LIST_META_CONTEXT".
    """
    client = haggle_structured(t)
    list_contexts(client, t.name, [BASE_ALLOCATION])
    check_no_status(client, t.name)


@case("meta", own=True)
def c41_unknown_export_has_no_contexts(t):
    """
    Guards against contexts of an export that does not exist.  Spec:
    "NBD_REP_ERR_UNKNOWN".
    """
    client = haggle_structured(t)
    for option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
        for queries in ([], [BASE_ALLOCATION]):
            data = wire.pack_context_query(b"nowhere", queries)
            check_kind(client.option(option, data)[-1], REP_ERR_UNKNOWN)
    check_haggles(client)


@case("meta")
def c40_long_query_is_consumed(t):
    """
    Guards against losing step on a query of the largest size.  Spec:
    "Conventions", "NBD_OPT_SET_META_CONTEXT".
    """
    client = haggle_structured(t)
    query = b"x-" + b"q" * (4 * KIB - 3) + b":"
    check_kind(client.set_contexts(t.name, [query, BASE_ALLOCATION]),
               REP_ACK)
    check_status(client, t.name)
