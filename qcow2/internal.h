/* SPDX-License-Identifier: MIT */
/*
 * What the modules of the engine share: the image, and the order of waiting.
 *
 * Everything in struct image below "guarded" is touched only in its monitor.
 * A request waits in this order and never backwards:
 *
 *	door -> gate -> claim -> pin -> allocation -> barrier
 *
 * (a claim of sectors comes after one of clusters, and nothing after that).
 *
 * Nothing waits for a gate or a claim while it holds a pin or an allocation.
 * Pins are dropped before data I/O, and the slice is looked up again after.
 */
#ifndef QCOW2_INTERNAL_H
#define QCOW2_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "qcow2/alloc.h"
#include "qcow2/barrier.h"
#include "qcow2/claim.h"
#include "qcow2/dirty.h"
#include "qcow2/door.h"
#include "qcow2/entry.h"
#include "qcow2/epoch.h"
#include "qcow2/gate.h"
#include "qcow2/guard.h"
#include "qcow2/header.h"
#include "qcow2/image.h"
#include "qcow2/image_progress.h"
#include "qcow2/metadata.h"
#include "qcow2/moves.h"
#include "qcow2/pack.h"
#include "qcow2/quarantine.h"
#include "qcow2/refcount.h"
#include "qcow2/retired.h"
#include "qcow2/sharing.h"
#include "qcow2/slice.h"
#include "qcow2/snapshot.h"
#include "runtime/file.h"
#include "runtime/monitor.h"

struct aes;

/* Runs that one request reads or writes before others get a turn. */
#define TURN_RUNS 64

/* One image_read() on its way down the chain. */
struct reader {
	char *data;		/* where the byte at guest belongs */
	uint64_t guest;
	struct image_holes *holes;	/* or NULL: fill zeros in */
	const struct image *inside;	/* whose gate the caller has passed */
};

/* What a format does; arguments and results as those of image.h. */
struct image_ops {
	int (*read)(struct image *image, struct reader *reader,
	    uint64_t guest, uint64_t length);
	int (*plan)(struct image *image, struct image_plan *plan,
	    uint64_t guest, uint64_t length);
	/* One extent: as much of the range as has equal facts. */
	int (*status)(struct image *image, uint64_t guest, uint64_t length,
	    struct image_extent *extent);
	int (*write)(struct image *image, uint64_t guest, const void *data,
	    size_t length, unsigned flags);
	int (*write_compressed)(struct image *image, uint64_t guest,
	    const void *data, size_t length);	/* NULL: it cannot */
	int (*zero)(struct image *image, uint64_t guest, uint64_t length,
	    unsigned flags);
	int (*discard)(struct image *image, uint64_t guest, uint64_t length,
	    unsigned flags);
	int (*flush)(struct image *image);
	/*
	 * The end of writing: makes all of it stable and lets nothing go on,
	 * also on failure.  After resume() there may be requests again.
	 */
	int (*finish)(struct image *image);
	void (*resume)(struct image *image);
	/* Frees what the format added; file and names are image_open.c's. */
	void (*close)(struct image *image);
};

struct image {
	/* The same as long as it is open, but for what reopening changes. */
	struct door door;
	struct monitor monitor;
	struct gate gate;
	enum image_format format;
	char *path;
	uint32_t cluster_bytes;
	atomic_bool writable;		/* changed behind the closed door */
	_Atomic uint64_t size_bytes;	/* behind a closed gate, or door */
	/* What there is behind it for the state of a machine, or for an
	 * operation that makes the disk longer. */
	_Atomic uint64_t usable_bytes;

	/*
	 * From here on all is exchanged when it is opened anew (reopen.c).
	 * Settled by the opening.
	 */
	const struct image_ops *ops;
	struct file *file;
	struct image *backing;		/* or NULL */
	bool force_share;
	enum image_discard discard;
	enum image_detect_zeroes detect_zeroes;
	bool can_splice;		/* see image_plan() */
	bool encrypted;
	struct aes *aes;		/* if encrypted, and data is wanted */
	unsigned loops;

	/* qcow2 only; settled by the opening, too. */
	struct header header;
	struct snapshot_table snapshots;
	unsigned cluster_bits;
	unsigned l2_bits;		/* log2 of the entries of an L2 table */
	uint64_t vm_state_bytes;	/* of the snapshot that it is */
	uint64_t table_faults;		/* bad entries found at the opening */
	bool repaired;		/* or it was tried: the file has changed */

	/* qcow2 only, guarded. */
	struct entry_limits limits;
	uint64_t *l1;
	uint32_t l1_entries;		/* of it; on disk: the header's */
	uint64_t *refcount_table;
	uint64_t refcount_table_entries;
	struct metadata metadata;	/* which clusters are tables */
	struct slice_cache slices;
	struct dirty dirty;
	struct claim_list claims;
	struct claim_list sector_claims[CLAIM_PART_LISTS]; /* if encrypted */
	struct epochs epochs;
	struct refcounts refcounts;
	struct allocator allocator;
	struct quarantine quarantine;
	struct packer packer;
	struct barrier barrier;
	struct moves moves;
	struct co_mutex l2_making;	/* one new L2 table at a time */
	/* The L1 table of a snapshot that is being applied, or NULL. */
	const uint64_t *adopted;
	uint32_t adopted_entries;
	struct sharing *sharing;	/* or NULL: nothing is being shared */
	struct retired retired;
	/* By a barrier, or as a whole: one at a time. */
	struct co_mutex header_writing;
	/* Of incompatible features, whoever writes: the last lock of all. */
	struct co_mutex features_writing;
	uint64_t zeroed_epoch;		/* see kept_room_usable(); 0: none */
	uint64_t end_cluster;		/* from here on nothing is in use */
	uint64_t device_bytes;		/* of a block device */
	bool corrupt;			/* see guard.h */
	bool cuts_file;			/* at the end: it was emptied */
	bool closing;

	/* Set when a write has completed; cleared by the cut that covers it. */
	atomic_bool unsynced;

	/* raw only, guarded by the monitor. */
	struct co_mutex syncing;
	uint64_t syncs;			/* that have begun */

	atomic_bool failed;		/* O6, or corrupt: no more writes */
};

extern const struct image_ops qcow2_ops;
extern const struct image_ops raw_ops;

/*
 * Turns an opened file into an image of its format.  On failure image holds
 * nothing that its caller did not put there.
 */
co_fn int qcow2_open(struct image *image, const struct image_options *options,
    struct error *error);
/*
 * The first change of the header, if image is to be written: not before all
 * its backing files are open, as what is refused must stay as it is.
 */
co_fn int qcow2_begin_writing(struct image *image, struct error *error);
co_fn int raw_plan(struct image *image, struct image_plan *plan,
    uint64_t guest, uint64_t length);
co_fn int raw_open(struct image *image, const struct image_options *options,
    struct error *error);

/* Reads from an image of any format what lies inside it; zeros beyond. */
co_fn int image_read_layer(struct image *image, struct reader *reader,
    uint64_t guest, uint64_t length);

/* The bytes from guest on are zeros: notes a hole or fills them in. */
void reader_zeros(struct reader *reader, uint64_t guest, uint64_t length);

/*
 * Whether the range lies inside the disk as it is now.  In the monitor, behind
 * the gate, and true until the epoch is left.  Who holds gate.operation is
 * asking for himself, and has the usable bytes behind the end, too.
 */
bool image_has(const struct image *image, uint64_t guest, uint64_t length);

/* The same for whoever comes from outside, at any moment: a first look. */
bool image_shows(const struct image *image, uint64_t guest, uint64_t length);

/* Where the byte at guest belongs. */
static inline char *
reader_target(const struct reader *reader, uint64_t guest)
{
	return reader->data + (guest - reader->guest);
}

/*
 * Reads and inflates the cluster of a compressed entry into a buffer of one
 * cluster.  Not in the monitor.  -EIO, -ENOMEM.
 */
co_fn int read_compressed_cluster(struct image *image, uint64_t entry,
    char *cluster);

/*
 * Zeros count clusters of one L2 slice and leaves none without room in the
 * file (on_disk: and on the disk of the host), under a claim, in the monitor.
 * -ENOSPC, -EIO, -ENOMEM: some may be done.
 */
co_fn int room_keep(struct image *image, uint64_t guest, uint64_t count,
    bool on_disk);

/*
 * For whole clusters from guest on, or up to the end: each has room of its own
 * afterwards, as room_keep() does it.  Not in the monitor; so is the next.
 */
co_fn int qcow2_set_aside(struct image *image, uint64_t guest,
    uint64_t length, bool on_disk);

/* Writes zeros where the range does not read as zeros, and with keep_room also
 * where there is no host cluster. */
co_fn int qcow2_write_zeros(struct image *image, uint64_t guest,
    uint64_t length, bool keep_room);

/* Writes zeros to all of it. */
co_fn int raw_write_zeros(struct image *image, uint64_t guest,
    uint64_t length);

/*
 * After -ENOSPC, not in the monitor: gives back to the host what is in
 * quarantine.  Whether it may be worth another try.
 */
co_fn bool qcow2_make_host_room(struct image *image);

/*
 * Writes to clusters of one L2 slice that have no host clusters and that the
 * caller has claimed, in the monitor; *donep is how many bytes, at least 1.
 */
co_fn int qcow2_write_claimed(struct image *image, uint64_t guest,
    const void *data, size_t length, size_t *donep);

/* -ENOTSUP, and says why, if it has internal snapshots. */
int image_refuse_snapshots(const struct image *image, struct error *error);

/*
 * Reports to progress, unless it is NULL, and whether it says to stop.  In the
 * monitor, which it leaves meanwhile.
 */
co_fn bool progress_stops(struct image *image,
    const struct image_progress *progress, uint64_t done, uint64_t total);

struct l2_run;
/* l2_pin(), l2_run(), l2_unpin(), in the monitor. */
co_fn int qcow2_find_run(struct image *image, uint64_t guest,
    uint64_t length, struct l2_run *run);

/* After end_cluster has moved: entries may point that far. */
static inline void
image_extend(struct image *image)
{
	uint64_t end = image->end_cluster << image->cluster_bits;

	if (image->limits.host_end < end)
		image->limits.host_end = end;
}

/* How many clusters a table of so many bytes has. */
static inline uint64_t
table_clusters(const struct image *image, uint64_t bytes)
{
	return (bytes + image->cluster_bytes - 1) >> image->cluster_bits;
}

/* How many L1 entries lead to a disk of that length; 0: too many. */
static inline uint32_t
l1_entries_for(const struct image *image, uint64_t disk_bytes)
{
	unsigned span_bits = image->cluster_bits + image->l2_bits;
	uint64_t entries = disk_bytes >> span_bits;

	entries += (disk_bytes & ((1ull << span_bits) - 1)) != 0;
	if (entries == 0)
		entries = 1;
	return entries <= HEADER_L1_BYTES_MAX / ENTRY_BYTES ?
	    (uint32_t)entries : 0;
}

/* How much of the range from guest on one L2 slice maps. */
static inline uint64_t
step_length(const struct image *image, uint64_t guest, uint64_t length)
{
	uint64_t slice_span = (uint64_t)image->slices.slice_bytes /
	    ENTRY_BYTES << image->cluster_bits;
	uint64_t room = slice_span - guest % slice_span;

	return length < room ? length : room;
}

/* qcow2's parts of image_ops. */
co_fn int qcow2_read(struct image *image, struct reader *reader,
    uint64_t guest, uint64_t length);
co_fn int qcow2_plan(struct image *image, struct image_plan *plan,
    uint64_t guest, uint64_t length);
co_fn int qcow2_status(struct image *image, uint64_t guest, uint64_t length,
    struct image_extent *extent);
co_fn int qcow2_write(struct image *image, uint64_t guest, const void *data,
    size_t length, unsigned flags);
co_fn int qcow2_write_compressed(struct image *image, uint64_t guest,
    const void *data, size_t length);
co_fn int qcow2_zero(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags);
co_fn int qcow2_discard(struct image *image, uint64_t guest,
    uint64_t length, unsigned flags);
co_fn int qcow2_flush(struct image *image);

#endif
