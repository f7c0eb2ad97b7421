/* SPDX-License-Identifier: MIT */
#include "tests/schedule/server_site.h"

#include <stdlib.h>
#include <string.h>

/* No run takes as long, unless it waits for something that never comes. */
#define TIME_MAX_NS 3600000000000ull

unsigned
site_client_loop(const struct site *site)
{
	return site->crew->options.loops;
}

co_fn static void
visit_main(void *arg)
{
	struct site *site = arg;

	site->visit(site);
	site->visit_over = true;
	if (site->waiter)
		co_wake(site->waiter);
}

co_fn static void
wait_for_visit(struct site *site)
{
	if (site->visit_over)
		return;
	site->waiter = co_self();
	co_suspend();
}

static void
look_for_leavings(struct site *site)
{
	const struct server *server = &site->server;

	if (atomic_load(&server->connections_count) ||
	    atomic_load(&server->exports.list[0]->connections))
		crew_fail(site->crew, "connections are left behind");
	for (unsigned i = 0; i < server->loops_count; i++)
		if (server->loops[i].connections ||
		    atomic_load(&server->loops[i].connections_count))
			crew_fail(site->crew,
			    "connections of loop %u are left behind", i);
}

/* The life of the server, on loop 0, where server/serve.c lives it, too. */
co_fn static void
director_main(void *arg)
{
	struct site *site = arg;
	struct crew *crew = site->crew;
	struct server *server = &site->server;
	int err;

	crew_must(export_add(&server->exports, SITE_EXPORT, "simulated",
	    crew->image), "export");
	crew_must(server_accept(server, &site->listener), "accept");
	sim_start(crew->sim, site_client_loop(site), &site->visit_start,
	    visit_main, site);
	if (site->stop_after_ns)
		loop_sleep(site->stop_after_ns);
	else
		wait_for_visit(site);
	site->stopping = true;
	server_accept_end(server, &site->listener);
	sim_close(crew->sim, site->listener.fd);
	server_drain(server);
	look_for_leavings(site);
	crew->image = NULL;
	err = export_close_all(&server->exports);
	site->closed_well = !err;
	if (err && !crew->options.troubled)
		crew_fail(crew, "close: %s", strerror(-err));
	wait_for_visit(site);
}

void
site_play(struct site *site, void (*visit)(struct site *site))
{
	const struct server_limits limits = SERVER_LIMITS_DEFAULT;
	struct crew *crew = site->crew;
	struct loop *loops[SERVER_LOOPS_MAX];
	enum sim_end end;

	for (unsigned i = 0; i < crew->options.loops; i++)
		loops[i] = sim_loop(crew->sim, i);
	crew_must(server_init_on(&site->server, loops, crew->options.loops,
	    &limits), "server");
	if (site->tls) {
		site->server.tls = site->tls->tls;
		site->server.tls_is_optional = true;
	}
	site->listener = (struct listener){.fd = sim_listen(crew->sim)};
	site->visit = visit;
	sim_start(crew->sim, 0, &site->director_start, director_main, site);
	end = sim_run_until(crew->sim, sim_now_ns(crew->sim) + TIME_MAX_NS);
	if (end != SIM_DONE)
		crew_fail(crew, "deadlock while serving (%d)", end);
	server_destroy(&site->server);
}
