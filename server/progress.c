/* SPDX-License-Identifier: MIT */
#include "server/progress.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

void
progress_begin(struct progress *progress, const char *what)
{
	*progress = (struct progress){
		.what = what,
		.is_shown = isatty(STDERR_FILENO),
		.percent = UINT_MAX,
	};
}

void
progress_set(struct progress *progress, uint64_t done, uint64_t total)
{
	unsigned percent = (unsigned)(done * 100 / total);

	if (!progress->is_shown || percent == progress->percent)
		return;
	progress->percent = percent;
	fprintf(stderr, "\r%s: %u %%\033[K", progress->what, percent);
}

void
progress_clear(struct progress *progress)
{
	if (!progress->is_shown || progress->percent == UINT_MAX)
		return;
	progress->percent = UINT_MAX;
	fprintf(stderr, "\r\033[K");
}
