/* SPDX-License-Identifier: MIT */
/* A client's handshake: one option at a time, each answer looked at. */
#include <errno.h>
#include <stdlib.h>
#include "proto/handshake.h"
#include "proto/option.h"
#include "proto/option_reply.h"
#include "tests/schedule/server_client_internal.h"

/* An option of no standard. */
#define OPTION_UNKNOWN 77

/* The end of the stream takes no longer to arrive. */
#define END_NS 3000000000ull

/* What the replies to one option said. */
struct answer {
	uint32_t type;		/* of the last reply: ACK, or an error */
	uint64_t export_bytes;
	uint16_t flags;
	unsigned servers;
	unsigned contexts;
};

static int
take_reply(const struct nbd_option_reply *reply, const uint8_t *data,
    struct answer *answer)
{
	struct nbd_text name, description;
	struct nbd_info info;
	uint32_t id;
	int err = 0;

	answer->type = reply->type;
	switch (reply->type) {
	case NBD_REP_SERVER:
		answer->servers++;
		return nbd_option_reply_parse_server(data, reply->data_bytes,
		    &name, &description);
	case NBD_REP_META_CONTEXT:
		answer->contexts++;
		return nbd_option_reply_parse_meta_context(data,
		    reply->data_bytes, &id, &name);
	case NBD_REP_INFO:
		err = nbd_option_reply_parse_info(data, reply->data_bytes,
		    &info);
		if (!err && info.type == NBD_INFO_EXPORT) {
			answer->export_bytes = info.export_bytes;
			answer->flags = info.transmission_flags;
		}
		return err;
	}
	return 0;
}

co_fn static int
receive_reply(struct client *client, uint32_t option, struct answer *answer)
{
	uint8_t header[NBD_OPTION_REPLY_HEADER_BYTES];
	struct nbd_option_reply reply;
	uint8_t *data;
	int err = client_receive(client, header, sizeof(header));

	if (!err)
		err = nbd_option_reply_parse(header, &reply);
	if (!err && reply.option != option)
		err = -EPROTO;
	if (err)
		return err;
	data = malloc(reply.data_bytes + 1);
	if (!data)
		return -ENOMEM;
	err = client_receive(client, data, reply.data_bytes);
	if (!err)
		err = take_reply(&reply, data, answer);
	free(data);
	return err;
}

/* Sends an option and takes all replies to it. */
co_fn static int
ask(struct client *client, uint8_t *wire, size_t bytes, uint32_t option,
    struct answer *answer)
{
	int err = client_send(client, wire, bytes);

	*answer = (struct answer){0};
	while (!err && answer->type != NBD_REP_ACK &&
	    !(answer->type & NBD_REP_FLAG_ERROR))
		err = receive_reply(client, option, answer);
	return err;
}

co_fn static int
ask_simply(struct client *client, uint32_t option, struct answer *answer)
{
	uint8_t wire[NBD_OPTION_HEADER_BYTES];

	return ask(client, wire, nbd_option_put(wire, option), option, answer);
}

/* All else is wrong, unless the server stops. */
static int
expect(struct client *client, const struct answer *answer, uint32_t type)
{
	if (answer->type == type)
		return 0;
	if (answer->type == NBD_REP_ERR_SHUTDOWN && client->site->stopping)
		return -ESHUTDOWN;
	return -EPROTO;
}

co_fn static int
ask_around(struct client *client)
{
	struct answer answer;
	int err = ask_simply(client, NBD_OPT_LIST, &answer);

	if (!err)
		err = expect(client, &answer, NBD_REP_ACK);
	if (!err && answer.servers != 1)
		err = -EPROTO;
	if (!err)
		err = ask_simply(client, OPTION_UNKNOWN, &answer);
	return err ? err : expect(client, &answer, NBD_REP_ERR_UNSUP);
}

co_fn static int
ask_for_structure(struct client *client)
{
	struct nbd_text context = nbd_text_of(NBD_META_CONTEXT_ALLOCATION);
	struct nbd_text name = nbd_text_of(SITE_EXPORT);
	uint8_t wire[256];
	struct answer answer;
	int err = ask_simply(client, client->options.extended ?
	    NBD_OPT_EXTENDED_HEADERS : NBD_OPT_STRUCTURED_REPLY, &answer);

	if (!err)
		err = expect(client, &answer, NBD_REP_ACK);
	if (!err)
		err = ask(client, wire, nbd_option_put_meta(wire,
		    NBD_OPT_SET_META_CONTEXT, name, &context, 1),
		    NBD_OPT_SET_META_CONTEXT, &answer);
	if (!err)
		err = expect(client, &answer, NBD_REP_ACK);
	return !err && answer.contexts != 1 ? -EPROTO : err;
}

/* ---- choosing the export ---- */

co_fn static int
choose_by_name(struct client *client, struct answer *answer)
{
	uint8_t wire[NBD_EXPORT_BYTES_MAX];
	size_t bytes = nbd_option_put_export_name(wire,
	    nbd_text_of(SITE_EXPORT));
	int err = client_send(client, wire, bytes);

	if (!err)
		err = client_receive(client, wire, client->options.zeroes ?
		    NBD_EXPORT_BYTES_MAX : NBD_EXPORT_BYTES);
	if (!err)
		nbd_handshake_parse_export(wire, &answer->export_bytes,
		    &answer->flags);
	return err;
}

co_fn static int
choose_by_go(struct client *client, struct answer *answer)
{
	const uint16_t infos[] = {NBD_INFO_BLOCK_SIZE, NBD_INFO_DESCRIPTION};
	struct nbd_text name = nbd_text_of(SITE_EXPORT);
	uint8_t wire[256];
	int err = 0;

	if (client->options.curious) {
		err = ask(client, wire, nbd_option_put_go(wire, NBD_OPT_INFO,
		    name, infos, 2), NBD_OPT_INFO, answer);
		if (!err)
			err = expect(client, answer, NBD_REP_ACK);
	}
	if (!err)
		err = ask(client, wire, nbd_option_put_go(wire, NBD_OPT_GO,
		    name, infos, 2), NBD_OPT_GO, answer);
	return err ? err : expect(client, answer, NBD_REP_ACK);
}

co_fn static int
choose_export(struct client *client)
{
	bool structured = client->options.structured;
	struct answer answer;
	int err = client->options.export_name ?
	    choose_by_name(client, &answer) : choose_by_go(client, &answer);

	if (err)
		return err;
	client->flags = answer.flags;
	if (answer.export_bytes != client->site->crew->size_bytes ||
	    !(answer.flags & NBD_FLAG_CAN_MULTI_CONN) ||
	    structured != !!(answer.flags & NBD_FLAG_SEND_DF))
		return -EPROTO;
	return 0;
}

/* ABORT is acknowledged, and then the stream ends; not by the deadline. */
co_fn static int
abort_handshake(struct client *client)
{
	struct loop *loop = loop_self();
	struct answer answer;
	uint64_t began_ns;
	uint8_t byte;
	int err = ask_simply(client, NBD_OPT_ABORT, &answer);

	if (!err)
		err = expect(client, &answer, NBD_REP_ACK);
	if (err)
		return err;
	began_ns = loop_now_ns(loop);
	if (client_receive(client, &byte, 1) != -ENODATA ||
	    loop_now_ns(loop) - began_ns > END_NS)
		return -EPROTO;
	return -ECONNABORTED;
}

co_fn static int
ask_for_tls(struct client *client)
{
	struct answer answer;
	int err = ask_simply(client, NBD_OPT_STARTTLS, &answer);

	if (!err)
		err = expect(client, &answer, NBD_REP_ACK);
	return err ? err : client_start_tls(client);
}

int
client_shake_hands(struct client *client)
{
	uint8_t wire[NBD_GREETING_BYTES];
	uint16_t flags;
	int err = client_receive(client, wire, sizeof(wire));

	if (!err)
		err = nbd_handshake_parse_greeting(wire, &flags);
	if (err)
		return err;
	err = client_send(client, wire, nbd_handshake_put_client_flags(wire,
	    flags & (client->options.zeroes ? (uint16_t)~NBD_FLAG_NO_ZEROES :
	    UINT16_MAX)));
	if (!err && client->options.tls)
		err = ask_for_tls(client);
	if (!err && client->options.curious)
		err = ask_around(client);
	if (!err && client->options.structured)
		err = ask_for_structure(client);
	if (err)
		return err;
	return client->options.fickle ? abort_handshake(client) :
	    choose_export(client);
}
