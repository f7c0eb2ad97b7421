/* SPDX-License-Identifier: MIT */
#include "qcow2/quarantine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "qcow2/internal.h"
#include "runtime/loop.h"

/* Clusters whose refcounts are changed before others get a turn. */
#define RELEASE_CLUSTERS 512

static struct quarantine_run *
run_at(const struct quarantine *quarantine, size_t index)
{
	return &quarantine->runs[(quarantine->first + index) &
	    (quarantine->room - 1)];
}

int
quarantine_make_room(struct image *image, size_t count)
{
	struct quarantine *quarantine = &image->quarantine;
	size_t room = quarantine->room ? quarantine->room : 64;
	struct quarantine_run *runs;

	while (room < quarantine->count + count)
		room *= 2;
	if (room == quarantine->room)
		return 0;
	runs = malloc(room * sizeof(*runs));
	if (!runs)
		return -ENOMEM;
	for (size_t i = 0; i < quarantine->count; i++)
		runs[i] = *run_at(quarantine, i);
	free(quarantine->runs);
	quarantine->runs = runs;
	quarantine->first = 0;
	quarantine->room = room;
	return 0;
}

void
quarantine_add(struct image *image, uint64_t cluster, uint64_t count)
{
	struct quarantine *quarantine = &image->quarantine;
	uint64_t cut = image->barrier.cuts + 1;
	struct quarantine_run *last = NULL;

	assert(monitor_entered(&image->monitor) && count > 0);
	quarantine->clusters += count;
	if (quarantine->count > 0)
		last = run_at(quarantine, quarantine->count - 1);
	if (last && last->cluster + last->count == cluster &&
	    last->cut == cut && last->epoch == image->epochs.now) {
		last->count += count;
		return;
	}
	assert(quarantine->count < quarantine->room);
	quarantine_watch(image);
	*run_at(quarantine, quarantine->count++) = (struct quarantine_run){
		.cluster = cluster, .count = count, .cut = cut,
		.epoch = image->epochs.now,
		.since_ns = loop_now_ns(loop_self()),
	};
}

void
quarantine_add_entry(struct image *image, uint64_t entry)
{
	uint64_t first;
	uint64_t count = entry_clusters(entry, image->cluster_bits, &first);

	if (count > 0)
		quarantine_add(image, first, count);
}

bool
quarantine_wants_barrier(struct image *image)
{
	struct quarantine *quarantine = &image->quarantine;
	uint64_t now_ns;

	if (quarantine->count == 0)
		return false;
	if (quarantine->count > QUARANTINE_RUNS_MAX ||
	    quarantine->clusters << image->cluster_bits >
	    QUARANTINE_BYTES_MAX)
		return true;
	now_ns = loop_now_ns(loop_self());
	if (now_ns - run_at(quarantine, 0)->since_ns < QUARANTINE_AGE_NS ||
	    now_ns - quarantine->asked_ns < QUARANTINE_AGE_NS)
		return false;
	quarantine->asked_ns = now_ns;
	return true;
}

/* ---- watching ---- */

co_fn static void
look(void *arg)
{
	struct image *image = arg;

	monitor_enter(&image->monitor);
	image->quarantine.timer_loop = NULL;
	if (quarantine_wants_barrier(image))
		barrier_request(image);
	else if (image->quarantine.count > 0)
		quarantine_watch(image);
	monitor_leave(&image->monitor);
}

static void
start_look(struct task *task)
{
	struct timer *timer = container_of(task, struct timer, task);
	struct quarantine *quarantine = container_of(timer,
	    struct quarantine, timer);
	struct image *image = container_of(quarantine, struct image,
	    quarantine);

	co_start_beyond_limit(&quarantine->timer_start, look, image);
}

void
quarantine_watch(struct image *image)
{
	struct quarantine *quarantine = &image->quarantine;
	struct loop *loop = loop_self();

	assert(monitor_entered(&image->monitor));
	if (quarantine->timer_loop || image->failed || image->closing)
		return;
	quarantine->timer_loop = loop;
	quarantine->timer.task.run = start_look;
	timer_start(loop, &quarantine->timer,
	    loop_now_ns(loop) + QUARANTINE_AGE_NS);
}

/* On the timer's loop; if it has fired already, look() is under way. */
static void
stop_timer(void *arg)
{
	struct quarantine *quarantine = arg;

	if (!quarantine->timer.running)
		return;
	timer_stop(loop_self(), &quarantine->timer);
	quarantine->timer_loop = NULL;
}

void
quarantine_unwatch(struct image *image)
{
	assert(image->closing);
	while (image->quarantine.timer_loop) {
		loop_call(image->quarantine.timer_loop, stop_timer,
		    &image->quarantine);
		/* Lets a look that is under way end. */
		co_yield();
	}
}

void
quarantine_free(struct quarantine *quarantine)
{
	free(quarantine->runs);
	quarantine->runs = NULL;
}

/*
 * Punches first and lowers the refcounts after, so that nobody can find the
 * clusters free while the punch is on its way.
 */
co_fn static void
release_last(struct image *image, uint64_t cluster, uint64_t count)
{
	if (guard_new(image, cluster << image->cluster_bits,
	    count << image->cluster_bits))
		return;
	if (image->discard != IMAGE_DISCARD_IGNORE)
		file_fallocate(image->file, FILE_PUNCH,
		    cluster << image->cluster_bits,
		    count << image->cluster_bits);
	alloc_give_back(image, cluster << image->cluster_bits, count);
}

void
quarantine_let_out(struct image *image, uint64_t cluster, uint64_t count)
{
	while (count > 0 && !image->failed) {
		uint64_t part = count < RELEASE_CLUSTERS ? count :
		    RELEASE_CLUSTERS;
		bool is_last;

		if (refcount_scan_last(image, cluster, part, &part,
		    &is_last)) {
			part = 1;
			dirty_note_leak(image);
		} else if (is_last) {
			release_last(image, cluster, part);
		} else if (refcount_drop_run(image, cluster, part)) {
			dirty_note_leak(image);
		}
		cluster += part;
		count -= part;
		if (count > 0)
			co_yield();
	}
}

void
quarantine_release(struct image *image)
{
	struct quarantine *quarantine = &image->quarantine;
	uint64_t released = 0;

	while (quarantine->count > 0 && !image->failed) {
		struct quarantine_run run = *run_at(quarantine, 0);

		if (run.cut > image->barrier.stable_cut ||
		    !epoch_drained(&image->epochs, run.epoch))
			return;
		quarantine->first = (quarantine->first + 1) &
		    (quarantine->room - 1);
		quarantine->count--;
		quarantine->clusters -= run.count;
		quarantine_let_out(image, run.cluster, run.count);
		released += run.count;
		if (released >= RELEASE_CLUSTERS) {
			released = 0;
			co_yield();
		}
	}
}
