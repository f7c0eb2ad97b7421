/* SPDX-License-Identifier: MIT */
#include "qcow2/epoch.h"

#include <errno.h>
#include <stdlib.h>
#include "runtime/loop.h"

int
epochs_init(struct epochs *epochs, unsigned loops)
{
	struct epoch_counter *counters =
	    aligned_alloc(64, loops * sizeof(*counters));

	if (!counters)
		return -ENOMEM;
	for (unsigned i = 0; i < loops; i++) {
		atomic_init(&counters[i].in_flight[0], 0);
		atomic_init(&counters[i].in_flight[1], 0);
	}
	*epochs = (struct epochs){
		.now = 1, .loops = loops, .counters = counters,
	};
	return 0;
}

void
epochs_free(struct epochs *epochs)
{
	free(epochs->counters);
	epochs->counters = NULL;
}

atomic_uint *
epoch_enter(struct epochs *epochs)
{
	unsigned loop = loop_index(loop_self()) % epochs->loops;
	atomic_uint *ticket =
	    &epochs->counters[loop].in_flight[epochs->now & 1];

	atomic_fetch_add_explicit(ticket, 1, memory_order_relaxed);
	return ticket;
}

/* Exact, because nobody can enter while the caller is in the monitor. */
static bool
is_empty(const struct epochs *epochs, unsigned set)
{
	for (unsigned i = 0; i < epochs->loops; i++)
		if (atomic_load_explicit(&epochs->counters[i].in_flight[set],
		    memory_order_acquire))
			return false;
	return true;
}

bool
epochs_are_empty(const struct epochs *epochs)
{
	return is_empty(epochs, 0) && is_empty(epochs, 1);
}

bool
epoch_drained(struct epochs *epochs, uint64_t epoch)
{
	if (epochs->now == epoch) {
		/* The other set holds the epoch before. */
		if (!is_empty(epochs, (epoch + 1) & 1))
			return false;
		epochs->now++;
	}
	return epochs->now > epoch + 1 || is_empty(epochs, epoch & 1);
}
