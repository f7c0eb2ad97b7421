/* SPDX-License-Identifier: MIT */
#include "tests/crash/reopener.h"

#include <errno.h>
#include "qcow2/image_reopen.h"
#include "qcow2/internal.h"
#include "runtime/loop.h"
#include "tests/crash/crew.h"
#include "tests/key.h"

/* Between two, some requests. */
#define PAUSE_NS_MAX 2000000

/* Half of them are refused, for too many keys, when all is stable. */
co_fn static int
reopen_now(struct crew *crew)
{
	const struct image_key keys[] = {test_key, test_key};
	struct image_options how = {
		.format = IMAGE_QCOW2, .writable = true,
		.loops = crew->options.loops,
		.discard = crew->options.discard,
		.keys = keys, .keys_count = sim_below(crew->sim, 2) ? 2 : 0,
	};
	struct error error;
	int err = image_reopen(crew->image, &how, &error);

	if (how.keys_count > 0 && err == -EINVAL)
		return 0;
	if (crew_is_failure(crew, err))
		crew_fail(crew, "reopen: %s", error.message);
	return err;
}

void
reopener_work(struct crew *crew)
{
	for (unsigned i = 0; i < crew->options.reopenings; i++) {
		loop_sleep(sim_below(crew->sim, PAUSE_NS_MAX));
		crew_record_flush(crew, reopen_now);
	}
}
