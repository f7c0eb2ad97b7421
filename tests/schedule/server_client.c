/* SPDX-License-Identifier: MIT */
/* The life of a client, and what it sends. */
#include "tests/schedule/server_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/random.h"
#include "tests/schedule/server_client_internal.h"

void
client_fail(struct client *client, const char *what, uint64_t value)
{
	crew_fail(client->site->crew, "client %u: %s (%llu)",
	    client->options.number, what, (unsigned long long)value);
}

static void *
must_have(void *memory)
{
	if (memory)
		return memory;
	fprintf(stderr, "a client is out of memory\n");
	exit(1);
}

struct client_request *
client_find(const struct client *client, uint64_t cookie)
{
	struct client_request *request = client->in_flight;

	while (request && request->wire.cookie != cookie)
		request = request->next;
	return request;
}

/* ---- sending ---- */

/* Values differ in many bits, so that half a cookie is not one. */
static uint64_t
next_cookie(struct client *client)
{
	return random_mix(sim_random(client->site->crew->sim) ^
	    client->options.number);
}

static void
append(struct client *client, const void *bytes, size_t count)
{
	if (client->out_bytes + count > client->out_room) {
		client->out_room = 2 * client->out_room + count;
		client->out = must_have(realloc(client->out,
		    client->out_room));
	}
	memcpy(client->out + client->out_bytes, bytes, count);
	client->out_bytes += count;
}

void
client_queue(struct client *client, struct client_request *request)
{
	struct client_request **link = &client->in_flight;
	struct nbd_request *wire = &request->wire;
	uint8_t header[NBD_REQUEST_BYTES_MAX];

	wire->cookie = next_cookie(client);
	if (wire->length > 0 && (wire->type == NBD_CMD_READ ||
	    wire->type == NBD_CMD_WRITE)) {
		request->data = must_have(malloc(wire->length));
		memset(request->data, 0xa5, wire->length);
	}
	if (wire->type == NBD_CMD_WRITE)
		sector_fill(request->data, wire->length, CREW_SECTOR_SEED,
		    request->value, wire->offset);
	while (*link)
		link = &(*link)->next;
	*link = request;
	client->in_flight_count++;
	wire->extended = client->options.extended;
	if (wire->extended && wire->type == NBD_CMD_WRITE)
		wire->flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
	append(client, header, nbd_request_put(header, wire));
	if (request->data && wire->type == NBD_CMD_WRITE)
		append(client, request->data, wire->length);
}

void
client_push(struct client *client, size_t hold_back)
{
	uint8_t *out = client->out;
	size_t bytes = client->out_bytes;

	if (hold_back > bytes)
		hold_back = bytes;
	bytes -= hold_back;
	client->out = NULL;
	client->out_bytes = client->out_room = 0;
	if (hold_back > 0)
		append(client, out + bytes, hold_back);
	/* If it fails, the receiver sees the end, too. */
	if (bytes > 0 && !client->ended)
		(void)client_send(client, out, bytes);
	free(out);
}

/* ---- waiting ---- */

bool
client_wait(struct client *client, struct client_request *request)
{
	while (!request->done && !client->ended) {
		client->waiter = co_self();
		co_suspend();
	}
	return request->done;
}

bool
client_wait_until(struct client *client, unsigned count)
{
	while (client->in_flight_count > count && !client->ended) {
		client->waiter = co_self();
		co_suspend();
	}
	return !client->ended;
}

/* ---- connecting and leaving ---- */

static void
wipe(struct client *client)
{
	for (struct client_request *request = client->in_flight; request;
	    request = request->next)
		free(request->data);
	client_free_tls(client);
	free(client->out);
	client->in_flight = NULL;
	client->out = NULL;
}

int
client_connect(struct client *client, struct site *site,
    const struct client_options *options)
{
	struct sim *sim = site->crew->sim;
	int fd = sim_connect(sim, site->listener.fd);
	int err;

	if (fd < 0)
		return fd;
	*client = (struct client){.options = *options, .site = site};
	sock_open(&client->sock, fd);
	err = client_shake_hands(client);
	if (err) {
		if (!site->stopping && err != -ECONNABORTED)
			client_fail(client, "the handshake failed",
			    (uint64_t)-err);
		client_free_tls(client);
		sock_close(&client->sock);
		return err;
	}
	client_tap(client);
	co_start(&client->receiver_start, client_receive_all, client);
	return 0;
}

co_fn static void
ask_for_the_end(struct client *client, enum client_end end)
{
	struct nbd_request disc = {
		.type = NBD_CMD_DISC, .extended = client->options.extended,
	};
	uint8_t header[NBD_REQUEST_BYTES_MAX];

	client->leaves = true;
	switch (end) {
	case CLIENT_DISC:
		append(client, header, nbd_request_put(header, &disc));
		client_push(client, 0);
		break;
	case CLIENT_HALF_CLOSE:
		client_push(client, 0);
		if (client->tls)
			(void)client_end_tls(client);
		sim_shutdown_send(client->site->crew->sim, client->sock.fd);
		break;
	case CLIENT_ABRUPT:
		if (client->tls && sim_below(client->site->crew->sim, 2) == 0)
			client_spoil_tls(client, true);
		sock_shutdown(&client->sock);
		break;
	case CLIENT_GARBLED:
		client_spoil_tls(client, false);
		break;
	}
}

/* What is left unanswered, and what the server's last word was. */
static void
judge_end(struct client *client, enum client_end end)
{
	bool orderly = end == CLIENT_DISC || end == CLIENT_HALF_CLOSE;

	if (client->site->stopping)
		return;
	if (client->in_flight && orderly)
		client_fail(client, "requests were never answered",
		    client->in_flight_count);
	if (end == CLIENT_GARBLED && !client->alerted)
		client_fail(client, "TLS failed without an alert", 0);
}

/* Whatever was answered is stable before the last client's stream ends. */
static void
note_last_flush(struct client *client)
{
	struct crew *crew = client->site->crew;
	const struct record flush = {
		.kind = RECORD_REQUEST_FLUSH,
		.source = client->options.number,
	};
	size_t index = record_begin(crew->log, &flush);
	const struct record *entry = record_log_at(crew->log, index);
	size_t in_oracle = oracle_begin(crew->oracle, entry);

	record_end(crew->log, index, 0);
	oracle_end(crew->oracle, in_oracle, entry->completed, 0);
}

void
client_leave(struct client *client, enum client_end end)
{
	if (!client->ended)
		ask_for_the_end(client, end);
	client_wait_until(client, 0);
	while (!client->ended) {
		client->waiter = co_self();
		co_suspend();
	}
	judge_end(client, end);
	if (client->options.alone && client->ended_well &&
	    end != CLIENT_ABRUPT)
		note_last_flush(client);
	sock_close(&client->sock);
	wipe(client);
}

/* ---- all at once ---- */

void
client_do(struct client *client, uint16_t type, uint64_t offset,
    uint64_t length, uint64_t value, uint16_t flags)
{
	struct client_request request = {
		.wire = {
			.type = type, .flags = flags,
			.offset = offset, .length = length,
		},
		.value = value,
	};

	client_queue(client, &request);
	client_push(client, 0);
	if (!client_wait(client, &request) || request.error)
		client_fail(client, nbd_request_name(type), request.error);
}
