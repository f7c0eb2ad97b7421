/* SPDX-License-Identifier: MIT */
#include "server/reload.h"

#include <string.h>
#include "runtime/log.h"
#include "runtime/thread.h"
#include "server/tls.h"

/* At the end it is looked so often whether it is done. */
#define LOOK_NS 10000000

static void *
reload_main(void *arg)
{
	struct reload *reload = arg;

	reload->err = tls_reload(reload->tls, &reload->error);
	loop_post(reload->loop, &reload->done);
	return NULL;
}

static void
tell(const struct reload *reload)
{
	if (reload->err)
		log_error("the new TLS files are not used, new clients meet "
		    "the old ones: %s", reload->error.message);
	else
		log_info("TLS files read again; new clients meet the new ones");
}

static void
begin(struct reload *reload)
{
	int err;

	reload->again = false;
	err = thread_start(&reload->thread, "qnbd-reload", reload_main,
	    reload);
	reload->running = !err;
	if (err)
		log_error("cannot start a thread to read the TLS files, new "
		    "clients meet the old ones: %s", strerror(-err));
}

static void
is_done(struct task *task)
{
	struct reload *reload = container_of(task, struct reload, done);

	pthread_join(reload->thread, NULL);
	reload->running = false;
	tell(reload);
	if (reload->again)
		begin(reload);
}

void
reload_start(struct reload *reload, struct tls *tls)
{
	if (reload->running) {
		reload->again = true;
		return;
	}
	reload->tls = tls;
	reload->loop = loop_self();
	reload->done.run = is_done;
	begin(reload);
}

void
reload_end(struct reload *reload)
{
	struct loop *loop = loop_self();
	uint64_t deadline_ns = loop_now_ns(loop) +
	    RELOAD_END_S * UINT64_C(1000000000);

	reload->again = false;
	while (reload->running && loop_now_ns(loop) < deadline_ns)
		loop_sleep(LOOK_NS);
	if (reload->running)
		log_warning("the TLS files are still being read; not waiting "
		    "for them");
}
