/* SPDX-License-Identifier: MIT */
#include "qcow2/internal.h"

bool
progress_stops(struct image *image, const struct image_progress *progress,
    uint64_t done, uint64_t total)
{
	bool stops;

	if (!progress)
		return false;
	monitor_leave(&image->monitor);
	stops = progress->report(progress->arg, done, total);
	monitor_enter(&image->monitor);
	return stops;
}
