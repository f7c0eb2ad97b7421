/* SPDX-License-Identifier: MIT */
/*
 * Exports: the images that clients may ask for, and by which names.
 *
 * The table is filled before the first client comes and does not change while
 * any is there, so all loops read it without a lock.  Only the number of
 * connections moves, and, where clients may do that, the size.
 */
#ifndef SERVER_EXPORT_H
#define SERVER_EXPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "proto/option_reply.h"
#include "proto/text.h"
#include "runtime/co.h"

struct context;
struct image;

#define EXPORTS_MAX 1024

/* A preferred block size beyond these would be no help to a client. */
#define EXPORT_BLOCK_BYTES_MIN 4096u
#define EXPORT_BLOCK_BYTES_MAX (2u << 20)

struct export {
	char *name;		/* may be empty */
	char *description;	/* or NULL */
	struct image *image;
	_Atomic uint64_t size_bytes;
	uint16_t flags;		/* NBD_FLAG_, all that every client gets */
	struct nbd_block_size block_size;
	const struct context *contexts;	/* NBD_CONTEXTS_MAX at most */
	unsigned contexts_count;
	bool needs_tls;		/* clients have to start it first */
	atomic_uint connections;
};

struct export_table {
	struct export **list;	/* in the order of the command line */
	unsigned count;
};

/*
 * Adds image, which the table owns from then on.  description may be NULL.
 * -EEXIST: the name is taken; -ENAMETOOLONG; -E2BIG: too many; -ENOMEM.
 */
int export_add(struct export_table *table, const char *name,
    const char *description, struct image *image);

/* From then on clients may change the size of the exports that they write. */
void export_allow_resize(struct export_table *table);

/* The export of that name, or NULL; of one alone, "" is a name too. */
struct export *export_find(const struct export_table *table,
    struct nbd_text name);

/*
 * A connection begins to use export; ended by export_leave().  False: so many
 * do already (0: there is no limit).
 */
bool export_enter(struct export *export, unsigned connections_max);

/* When the last connection leaves, what it wrote is made stable first. */
co_fn void export_leave(struct export *export);

/*
 * Closes all images and empties the table.  0, or the first failure, which is
 * logged and means that something could not be made stable.
 */
co_fn int export_close_all(struct export_table *table);

#endif
