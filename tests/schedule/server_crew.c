/* SPDX-License-Identifier: MIT */
#include "tests/schedule/server_crew.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tests/schedule/server_client.h"

/* Requests that one client has under way at most. */
#define WINDOW_MAX 12

/* Of pauses, and of the time after which some servers stop. */
#define PAUSE_NS 50000000
#define STOP_NS 2000000000

/* One in so many: */
#define STOPS_EARLY 8
#define BAD_REQUEST 24
#define NO_LENGTH 64
#define ABRUPT 6
#define FICKLE 12
#define KNOCKS 12
#define VANISHES 8
#define GARBLED 8
#define LONG_READ 24

/* More than what TLS sends in one piece, twice. */
#define LONG_BYTES (300u << 10)

struct visitor {
	struct site *site;
	unsigned number;
	unsigned left;		/* requests to send */
	struct co_start start;
	struct client client;
	struct client_request slots[WINDOW_MAX];
	bool used[WINDOW_MAX];
};

struct crowd {
	struct visitor visitors[CREW_CLIENTS_MAX];
	unsigned here;
	struct co *waiter;
};

static bool
one_in(struct visitor *visitor, unsigned count)
{
	return sim_below(visitor->site->crew->sim, count) == 0;
}

/* ---- what to ask ---- */

static void
choose_kind_of_read(struct visitor *visitor, struct nbd_request *wire)
{
	bool structured = visitor->client.options.structured;

	wire->type = NBD_CMD_READ;
	if (structured && one_in(visitor, 3)) {
		wire->type = NBD_CMD_BLOCK_STATUS;
		if (one_in(visitor, 3))
			wire->flags |= NBD_CMD_FLAG_REQ_ONE;
	} else if (one_in(visitor, 16)) {
		wire->type = NBD_CMD_CACHE;
	} else if (structured && one_in(visitor, 3)) {
		wire->flags |= NBD_CMD_FLAG_DF;
	}
}

static void
choose_kind(struct visitor *visitor, enum record_kind kind,
    struct nbd_request *wire)
{
	switch (kind) {
	case RECORD_REQUEST_WRITE:
		wire->type = NBD_CMD_WRITE;
		break;
	case RECORD_REQUEST_ZERO:
		wire->type = NBD_CMD_WRITE_ZEROES;
		if (one_in(visitor, 2))
			wire->flags |= NBD_CMD_FLAG_NO_HOLE;
		if (one_in(visitor, 8))
			wire->flags |= NBD_CMD_FLAG_FAST_ZERO;
		break;
	case RECORD_REQUEST_TRIM:
		wire->type = NBD_CMD_TRIM;
		break;
	case RECORD_REQUEST_FLUSH:
		wire->type = NBD_CMD_FLUSH;
		break;
	default:
		choose_kind_of_read(visitor, wire);
	}
}

/* One that must be refused, and its payload passed over. */
static void
spoil(struct visitor *visitor, struct client_request *request)
{
	struct nbd_request *wire = &request->wire;

	wire->offset = visitor->site->crew->size_bytes & ~511ull;
	wire->length += SECTOR_BYTES;
	wire->type = one_in(visitor, 2) ? NBD_CMD_WRITE : NBD_CMD_READ;
	wire->flags = 0;
	request->expected = wire->type == NBD_CMD_WRITE ?
	    NBD_ENOSPC : NBD_EINVAL;
}

static void
choose(struct visitor *visitor, struct client_request *request)
{
	struct record chosen = crew_choose(visitor->site->crew,
	    visitor->number);

	*request = (struct client_request){
		.wire = {
			.offset = chosen.offset, .length = chosen.length,
			.flags = chosen.flags & RECORD_FUA ?
			    NBD_CMD_FLAG_FUA : 0,
		},
		.value = chosen.value,
	};
	choose_kind(visitor, chosen.kind, &request->wire);
	if (visitor->client.options.tls && one_in(visitor, LONG_READ)) {
		request->wire.type = NBD_CMD_READ;
		request->wire.offset = 0;
		request->wire.length = LONG_BYTES;
		request->wire.flags = 0;
	}
	if (one_in(visitor, BAD_REQUEST))
		spoil(visitor, request);
	else if (request->wire.type != NBD_CMD_BLOCK_STATUS &&
	    one_in(visitor, NO_LENGTH))
		request->wire.length = 0;
}

/* ---- a connection ---- */

static struct client_request *
free_slot(struct visitor *visitor, unsigned window)
{
	for (unsigned i = 0; i < window; i++) {
		if (visitor->used[i] && !visitor->slots[i].done)
			continue;
		visitor->used[i] = true;
		return &visitor->slots[i];
	}
	return NULL;
}

/* A push, often of less than all, so that what is cut in two waits there. */
co_fn static void
push(struct visitor *visitor)
{
	struct client *client = &visitor->client;
	struct sim *sim = visitor->site->crew->sim;

	if (client->out_bytes > 0 && one_in(visitor, 3)) {
		client_push(client, sim_below(sim, client->out_bytes));
		loop_sleep(sim_below(sim, PAUSE_NS));
	}
	client_push(client, 0);
}

co_fn static void
talk(struct visitor *visitor, unsigned requests, unsigned window)
{
	struct client *client = &visitor->client;
	struct sim *sim = visitor->site->crew->sim;

	for (unsigned i = 0; i < requests && !client->ended; i++) {
		struct client_request *request;

		while (!(request = free_slot(visitor, window))) {
			push(visitor);
			if (!client_wait_until(client, window - 1))
				return;
		}
		choose(visitor, request);
		client_queue(client, request);
		visitor->left--;
		if (one_in(visitor, 2))
			push(visitor);
		if (one_in(visitor, 8))
			loop_sleep(sim_below(sim, PAUSE_NS));
	}
}

/* In good order or not, with requests under way or not. */
co_fn static void
leave(struct visitor *visitor)
{
	struct client *client = &visitor->client;

	if (client->options.tls && one_in(visitor, GARBLED)) {
		client_leave(client, CLIENT_GARBLED);
		return;
	}
	if (one_in(visitor, ABRUPT)) {
		if (client->out_bytes > 0 && one_in(visitor, 2))
			client_push(client, sim_below(
			    visitor->site->crew->sim, client->out_bytes));
		client_leave(client, CLIENT_ABRUPT);
		return;
	}
	client_push(client, 0);
	if (one_in(visitor, 2))
		client_wait_until(client, 0);
	client_leave(client, one_in(visitor, 3) ? CLIENT_HALF_CLOSE :
	    CLIENT_DISC);
}

co_fn static int
connect_somehow(struct visitor *visitor)
{
	struct client_options options = {
		.number = visitor->number,
		.export_name = one_in(visitor, 4),
		.zeroes = one_in(visitor, 2),
		.structured = !one_in(visitor, 3),
		.curious = one_in(visitor, 4),
		.fickle = one_in(visitor, FICKLE),
		.slow = one_in(visitor, 4),
		.alone = visitor->site->crew->options.clients == 1,
	};

	options.extended = options.structured && !options.export_name &&
	    visitor->number % 2 == 1;
	if (visitor->site->tls && one_in(visitor, 2)) {
		options.tls = true;
		options.vanishes = one_in(visitor, VANISHES);
	}
	memset(visitor->used, 0, sizeof(visitor->used));
	return client_connect(&visitor->client, visitor->site, &options);
}

/* Comes and goes without a word, perhaps in the middle of the greeting. */
co_fn static void
knock(struct visitor *visitor)
{
	struct sim *sim = visitor->site->crew->sim;
	int fd = sim_connect(sim, visitor->site->listener.fd);

	if (fd < 0)
		return;
	loop_sleep(sim_below(sim, PAUSE_NS));
	sim_close(sim, fd);
}

co_fn static void
visitor_main(void *arg)
{
	struct visitor *visitor = arg;
	struct crowd *crowd = visitor->site->arg;
	struct sim *sim = visitor->site->crew->sim;

	while (visitor->left > 0) {
		int err;

		if (one_in(visitor, KNOCKS))
			knock(visitor);
		err = connect_somehow(visitor);
		if (err == -ECONNABORTED)
			continue;
		if (err)
			break;
		talk(visitor, 1 + (unsigned)sim_below(sim, visitor->left),
		    1 + (unsigned)sim_below(sim, WINDOW_MAX));
		leave(visitor);
	}
	if (--crowd->here == 0)
		co_wake(crowd->waiter);
}

/* ---- all of them ---- */

co_fn static void
visit(struct site *site)
{
	const struct crew_options *options = &site->crew->options;
	struct crowd *crowd = site->arg;

	crowd->waiter = co_self();
	crowd->here = options->clients;
	for (unsigned i = 0; i < options->clients; i++) {
		struct visitor *visitor = &crowd->visitors[i];

		visitor->site = site;
		visitor->number = i;
		visitor->left = options->requests;
		co_start(&visitor->start, visitor_main, visitor);
	}
	co_suspend();
}

bool
server_crew_work(struct crew *crew, struct tls_pairs *tls)
{
	struct site site = {.crew = crew, .tls = tls};
	struct crowd *crowd;

	if (!crew->image)
		return false;
	crowd = calloc(1, sizeof(*crowd));
	if (!crowd)
		abort();
	site.arg = crowd;
	if (sim_below(crew->sim, STOPS_EARLY) == 0)
		site.stop_after_ns = 1 + sim_below(crew->sim, STOP_NS);
	site_play(&site, visit);
	free(crowd);
	return site.closed_well;
}
