/* SPDX-License-Identifier: MIT */
#include "server/progress.h"

#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include "server/stop.h"

void
progress_begin(struct progress *progress, const char *what, int64_t fd)
{
	*progress = (struct progress){
		.what = what,
		.fd = (int)fd,
		.is_shown = isatty(STDERR_FILENO),
		.percent = UINT_MAX,
		.told_percent = UINT_MAX,
	};
	/* Who wanted to know of it may be gone. */
	if (fd)
		signal(SIGPIPE, SIG_IGN);
}

/* Nobody may listen any more; the work goes on. */
static void
tell(struct progress *progress, uint64_t done, uint64_t total,
    unsigned percent)
{
	char line[64];
	int length;
	ssize_t put;

	/* Who stops us may have left off reading. */
	if (!progress->fd || percent == progress->told_percent ||
	    stop_is_wanted())
		return;
	progress->told_percent = percent;
	length = snprintf(line, sizeof(line), "%" PRIu64 " %" PRIu64 "\n",
	    done, total);
	put = write(progress->fd, line, (size_t)length);
	(void)put;
}

void
progress_set(struct progress *progress, uint64_t done, uint64_t total)
{
	unsigned percent = (unsigned)((double)done / (double)total * 100);

	tell(progress, done, total, percent);
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

static bool
report(void *arg, uint64_t done, uint64_t total)
{
	struct progress *progress = arg;

	progress_set(progress, done, total);
	return stop_is_wanted();
}

struct image_progress
progress_stoppable(struct progress *progress, const char *what, int64_t fd)
{
	progress_begin(progress, what, fd);
	stop_begin();
	return (struct image_progress){report, progress};
}
