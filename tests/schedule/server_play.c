/* SPDX-License-Identifier: MIT */
#include "tests/schedule/server_play.h"

#include <check.h>
#include "qcow2/create.h"

static struct file *
create_base(void)
{
	const struct create_options options = {
		.version = 3, .cluster_bytes = CLUSTER,
		.refcount_bits = CREATE_REFCOUNT_BITS_DEFAULT,
		.size_bytes = DISK_BYTES,
	};
	struct file *base;
	struct error error;

	ck_assert_int_eq(file_sim_create(NULL, "disk", 0, &base), 0);
	file_sim_plain();
	if (create_image(base, "disk", &options, &error))
		ck_abort_msg("%s", error.message);
	return base;
}

void
play_site(uint64_t seed, void (*visit)(struct site *site),
    uint64_t stop_after_ns)
{
	struct crew_options options = {
		.seed = seed, .loops = 2, .served = true,
	};
	struct file *base = create_base();
	struct crew crew;
	struct site site = {.crew = &crew, .stop_after_ns = stop_after_ns};

	crew_create(&crew, &options, base);
	crew_open(&crew);
	site_play(&site, visit);
	if (!crew.failure[0])
		crew_check(&crew);
	ck_assert_str_eq(crew.failure, "");
	crew_free(&crew);
	file_close(base);
}

co_fn void
play_join(struct client *client, struct site *site, unsigned number)
{
	struct client_options options = {
		.number = number, .structured = true,
	};

	ck_assert_int_eq(client_connect(client, site, &options), 0);
}

struct client_request
play_request(uint16_t type, uint64_t offset, uint64_t length, uint64_t value)
{
	return (struct client_request){
		.wire = {.type = type, .offset = offset, .length = length},
		.value = value,
	};
}

co_fn void
play_ask(struct client *client, struct client_request *request)
{
	client_queue(client, request);
	client_push(client, 0);
}

co_fn void
play_finish(struct client *client, struct client_request *request)
{
	ck_assert(client_wait(client, request));
	ck_assert_uint_eq(request->error, request->expected);
}

co_fn void
play_on(void)
{
	loop_sleep(PAUSE_NS);
}

const struct connection *
play_connection(const struct site *site)
{
	for (unsigned i = 0; i < site->server.loops_count; i++)
		if (site->server.loops[i].connections)
			return site->server.loops[i].connections;
	ck_abort_msg("there is no connection");
	return NULL;
}
