/* SPDX-License-Identifier: MIT */
#include "qcow2/l2_fault.h"

#include "runtime/log.h"

const char *
l2_fault(const struct image *image, uint64_t entry)
{
	const char *fault = entry_l2_fault(entry, &image->limits);
	struct entry_span span;

	if (fault)
		return fault;
	switch (entry_kind(entry)) {
	case CLUSTER_NORMAL:
	case CLUSTER_ZERO_ALLOCATED:
		if (metadata_find(&image->metadata, entry_host(entry),
		    image->cluster_bytes))
			return "points at metadata";
		return NULL;
	case CLUSTER_COMPRESSED:
		span = entry_compressed(entry, image->cluster_bits);
		if (metadata_find(&image->metadata, span.host, span.bytes))
			return "points at metadata";
		return NULL;
	default:
		return NULL;
	}
}

/*
 * Whether a bad entry proves that the image is corrupt: nobody who writes
 * images makes it, and the file's end being lost does not explain it.
 * Reserved bits prove nothing; they may be those of a program to come.
 */
static bool
proves_corruption(const struct image *image, uint64_t entry)
{
	const struct entry_limits *limits = &image->limits;
	uint64_t end = limits->host_end > limits->gap_end ?
	    limits->host_end : limits->gap_end;
	struct entry_span span = {entry_host(entry), image->cluster_bytes};

	if (entry & ENTRY_COMPRESSED) {
		span = entry_compressed(entry, image->cluster_bits);
		if (entry_copied(entry) || span.host >= ENTRY_HOST_END)
			return false;
		end += image->cluster_bytes;
	} else if (entry & ENTRY_L2_RESERVED) {
		return false;
	} else if (entry & ENTRY_ZERO && !limits->zero_flag) {
		return true;
	} else if (span.host & (image->cluster_bytes - 1)) {
		return true;
	}
	/* Behind the last refcount, or in a table. */
	return span.host + span.bytes > end + image->cluster_bytes - 1 ||
	    metadata_find(&image->metadata, span.host, span.bytes);
}

uint64_t
l2_fault_find(struct image *image, struct slice *slice)
{
	size_t count = image->slices.slice_bytes / ENTRY_BYTES;
	uint64_t proof = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t entry = entry_load(slice->data, i);
		const char *fault = entry ? l2_fault(image, entry) : NULL;

		if (!fault)
			continue;
		if (!slice->faulty)
			log_error("the L2 entry at 0x%llx (0x%llx) %s file=%s",
			    (unsigned long long)(slice->host +
			    i * ENTRY_BYTES), (unsigned long long)entry,
			    fault, image->file->name);
		slice->faulty = true;
		if (!proof && proves_corruption(image, entry))
			proof = entry;
	}
	return proof;
}
