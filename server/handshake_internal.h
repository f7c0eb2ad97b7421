/* SPDX-License-Identifier: MIT */
/*
 * What the files of the handshake share: its state, and the way of an option.
 *
 *	handshake.c		one option after the other, until one leads on
 *	handshake_export.c	options that tell of exports, or choose one
 *	handshake_context.c	options that tell of contexts, or choose some
 *	handshake_access.c	who may use which export
 *	handshake_io.c		bytes in, replies out
 *
 * A file calls those below it.  An option is answered by one function, which
 * puts replies one behind the other; they are sent when it returns.
 */
#ifndef SERVER_HANDSHAKE_INTERNAL_H
#define SERVER_HANDSHAKE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/option.h"
#include "proto/option_reply.h"
#include "runtime/co.h"

struct connection;
struct export;
struct export_table;

/* The facts that GO tells besides a name and a description. */
#define HANDSHAKE_FACTS_BYTES 256

/*
 * All replies to one option, but to LIST, fit: GO's are the longest, and leave
 * room for one that is asked for by handshake_reply_end().
 */
#define HANDSHAKE_OUT_BYTES \
    (2 * NBD_OPTION_REPLY_BYTES_MAX + HANDSHAKE_FACTS_BYTES)

/* What answers an option returns one of these, or -errno: close. */
#define GO_ON 0
#define LEAD_ON 1	/* the handshake is over */

struct handshake {
	struct connection *connection;
	const struct export_table *exports;
	uint32_t client_flags;
	uint32_t bytes;			/* received so far */
	unsigned options;
	bool structured_replies;
	bool extended_headers;
	uint64_t contexts;		/* selected; see struct nbd_terms */
	char *context_name;		/* the export that they are for */

	struct nbd_option option;	/* the one being answered */
	uint8_t *data;

	/* Replies not sent yet; none when an option begins. */
	size_t out_bytes;
	uint8_t *out;			/* HANDSHAKE_OUT_BYTES of them */
};

/* ---- handshake_io.c; why it failed is noted ---- */

/* Receives exactly bytes.  -errno. */
co_fn int handshake_receive(struct handshake *handshake, void *data,
    size_t bytes);

/* Sends the replies there are.  -errno. */
co_fn int handshake_send(struct handshake *handshake);

/* The same if what room is left would not do for a longest one. */
co_fn int handshake_make_room(struct handshake *handshake);

/* Where the next reply goes; there is room for a longest one. */
uint8_t *handshake_reply_end(struct handshake *handshake);

/* Each ends the answer to an option.  GO_ON. */
int handshake_put_ack(struct handshake *handshake);
int handshake_put_error(struct handshake *handshake, uint32_t error,
    const char *message);

/* ---- handshake_access.c ---- */

/* TLS has to be on before anything else. */
bool handshake_must_start_tls(const struct handshake *handshake);

/*
 * What stands against the client's use of export (NULL: one that is not
 * there): an NBD_REP_ERR_, or 0.  Without TLS none can tell apart which exports
 * are only for those with it, and which do not exist.
 */
uint32_t handshake_objection(const struct handshake *handshake,
    const struct export *export);

/* The error that says so.  GO_ON. */
int handshake_put_objection(struct handshake *handshake, uint32_t error);

/* ---- handshake_context.c ---- */

/* Replies come in chunks, of one kind or the other. */
static inline bool
handshake_has_chunks(const struct handshake *handshake)
{
	return handshake->structured_replies || handshake->extended_headers;
}

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
co_fn int handshake_meta_context(struct handshake *handshake);

/* The contexts that were selected, if they are for the export of that name. */
uint64_t handshake_contexts_for(const struct handshake *handshake,
    struct nbd_text name);

void handshake_forget_contexts(struct handshake *handshake);

/* ---- handshake_export.c ---- */

/* EXPORT_NAME, the one option that has no error reply: closing says it all. */
int handshake_export_name(struct handshake *handshake);

/* GO, and INFO, which only tells the same. */
int handshake_go(struct handshake *handshake);

co_fn int handshake_list(struct handshake *handshake);

#endif
