/* SPDX-License-Identifier: MIT */
#include "server/context.h"

#include "qcow2/image.h"
#include "server/export.h"

static uint32_t
allocation_of(const struct image *image, const struct image_extent *extent)
{
	(void)image;
	if (!extent->zero)
		return 0;
	return NBD_STATE_ZERO | (extent->allocated ? 0 : NBD_STATE_HOLE);
}

/*
 * The layer of the chain that says what is there, counted from 1.  QEMU, whose
 * context it is, takes zeros behind the end of a layer for that layer's.
 */
static uint32_t
depth_of(const struct image *image, const struct image_extent *extent)
{
	if (extent->present)
		return extent->depth + 1u;
	for (unsigned depth = 0; depth <= extent->depth; depth++)
		image = image_backing(image);
	return image ? extent->depth + 2u : 0;
}

/* The facts of an image, as the states of a context. */
static co_fn int
describe_image(const struct export *export, uint64_t guest, uint64_t length,
    uint32_t (*state_of)(const struct image *image,
    const struct image_extent *extent),
    struct nbd_extent *extents, unsigned *countp)
{
	struct image_extent facts[CONTEXT_EXTENTS_MAX];
	unsigned count;
	int err = image_status(export->image, guest, length, facts,
	    CONTEXT_EXTENTS_MAX, &count);

	if (err)
		return err;
	for (unsigned i = 0; i < count; i++)
		extents[i] = (struct nbd_extent){
			.length = facts[i].length,
			.state = state_of(export->image, &facts[i]),
		};
	*countp = count;
	return 0;
}

static co_fn int
describe_allocation(const struct context *context,
    const struct export *export, uint64_t guest, uint64_t length,
    struct nbd_extent *extents, unsigned *countp)
{
	(void)context;
	return describe_image(export, guest, length, allocation_of, extents,
	    countp);
}

static co_fn int
describe_depth(const struct context *context, const struct export *export,
    uint64_t guest, uint64_t length, struct nbd_extent *extents,
    unsigned *countp)
{
	(void)context;
	return describe_image(export, guest, length, depth_of, extents,
	    countp);
}

static const struct context standard[] = {
	{NBD_META_CONTEXT_ALLOCATION, describe_allocation},
	{NBD_META_CONTEXT_DEPTH, describe_depth},
};

const struct context *
context_standard(unsigned *countp)
{
	*countp = sizeof(standard) / sizeof(standard[0]);
	return standard;
}

int
context_describe(const struct context *context, const struct export *export,
    uint64_t guest, uint64_t length, struct nbd_extent *extents,
    unsigned *countp)
{
	return context->describe(context, export, guest, length, extents,
	    countp);
}
