/* SPDX-License-Identifier: MIT */
/*
 * Metadata contexts: which there are, and which the client selects.
 *
 * A selection is for the export that it names, counts if that is the one that
 * is chosen, and is replaced by the next one even if that fails.
 * (Specification: "Metadata querying".)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "server/connection.h"
#include "server/context.h"
#include "server/export.h"
#include "server/handshake_internal.h"

uint64_t
handshake_contexts_for(const struct handshake *handshake,
    struct nbd_text name)
{
	if (handshake->contexts == 0 ||
	    !nbd_text_equal(name, handshake->context_name))
		return 0;
	return handshake->contexts;
}

/* A name, or (in LIST) what names begin with, up to a colon: "base:". */
static bool
query_matches(struct nbd_text query, const char *name, bool listing)
{
	if (nbd_text_equal(query, name))
		return true;
	return listing && query.bytes > 0 && query.bytes < strlen(name) &&
	    query.start[query.bytes - 1] == ':' &&
	    !memcmp(query.start, name, query.bytes);
}

/* The contexts of the export that are asked for. */
static uint64_t
contexts_asked(const struct export *export, struct nbd_option_meta *meta,
    bool listing)
{
	bool all = listing && meta->queries == 0;
	struct nbd_text query;
	uint64_t asked = 0;

	for (unsigned i = 0; all && i < export->contexts_count; i++)
		asked |= UINT64_C(1) << i;
	while (nbd_option_next_query(meta, &query))
		for (unsigned i = 0; i < export->contexts_count; i++)
			if (query_matches(query, export->contexts[i].name,
			    listing))
				asked |= UINT64_C(1) << i;
	return asked;
}

static co_fn int
put_contexts(struct handshake *handshake, const struct export *export,
    uint64_t asked)
{
	bool listing = handshake->option.type == NBD_OPT_LIST_META_CONTEXT;

	for (unsigned i = 0; i < export->contexts_count; i++) {
		int err;

		if (!(asked >> i & 1))
			continue;
		handshake->out_bytes += nbd_option_reply_put_meta_context(
		    handshake_reply_end(handshake), handshake->option.type,
		    listing ? 0 : i + 1,
		    nbd_text_of(export->contexts[i].name));
		err = handshake_make_room(handshake);
		if (err)
			return err;
	}
	return handshake_put_ack(handshake);
}

static int
remember_contexts(struct handshake *handshake, struct nbd_text name,
    uint64_t asked)
{
	handshake->context_name = strndup(name.start ? name.start : "",
	    name.bytes);
	if (!handshake->context_name) {
		connection_note(handshake->connection, "out of memory");
		return -ENOMEM;
	}
	handshake->contexts = asked;
	return 0;
}

void
handshake_forget_contexts(struct handshake *handshake)
{
	free(handshake->context_name);
	handshake->context_name = NULL;
	handshake->contexts = 0;
}

int
handshake_meta_context(struct handshake *handshake)
{
	bool listing = handshake->option.type == NBD_OPT_LIST_META_CONTEXT;
	const struct export *export;
	struct nbd_option_meta meta;
	uint64_t asked;
	uint32_t error;
	int err;

	/* Setting replaces what was set before, even if it fails. */
	if (!listing)
		handshake_forget_contexts(handshake);
	if (!handshake_has_chunks(handshake))
		return handshake_put_error(handshake, NBD_REP_ERR_INVALID,
		    "structured replies or extended headers come first");
	err = nbd_option_parse_meta(handshake->data,
	    handshake->option.data_bytes, &meta);
	if (err)
		return handshake_put_error(handshake, NBD_REP_ERR_INVALID,
		    "the option's lengths do not add up");
	export = export_find(handshake->exports, meta.name);
	error = handshake_objection(handshake, export);
	if (error)
		return handshake_put_objection(handshake, error);
	asked = contexts_asked(export, &meta, listing);
	if (!listing && asked) {
		err = remember_contexts(handshake, meta.name, asked);
		if (err)
			return err;
	}
	return put_contexts(handshake, export, asked);
}
