/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the TLS of a connection, from the client's side.
 *
 * The input is a script.  Its first byte says whether the handshake comes
 * first, in good order; each step is one byte of what to do, one of how much
 * and what it needs: bytes sent as they are, or through the client's TLS, or
 * what the client has sent with some of it turned over or left out, new keys,
 * replies.
 *
 * Beyond not crashing: what is read is what the client wrote, whatever was
 * changed on the way, and what is to be sent stays within its limit.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "tests/fuzz/input.h"
#include "tests/tls_pair.h"

enum step {
	STEP_RAW,
	STEP_WRITE,
	STEP_FLIP,
	STEP_CUT,
	STEP_NEW_KEYS,
	STEP_REPLY,
	STEP_END,
	STEPS,
};

struct script {
	struct tls_pair pair;
	bool shaken;
	bool over;	/* the session has ended, well or not */
	uint8_t sent;	/* the next byte that the client will write */
	uint8_t got;	/* and the next that will be read */
};

static struct tls_pairs *
get_pairs(void)
{
	static struct tls_pairs pairs;

	if (!pairs.tls)
		tls_pairs_open(&pairs, NULL);
	return &pairs;
}

/* Everything that has arrived is taken. */
static void
read_all(struct script *script)
{
	struct tls_session *server = script->pair.server;
	uint8_t data[777];
	size_t bytes;
	int err = 0;

	if (!script->shaken)
		err = tls_session_shake(server);
	while (!err) {
		script->shaken = true;
		err = tls_session_read(server, data, sizeof(data), &bytes);
		for (size_t i = 0; !err && i < bytes; i++)
			assert(data[i] == script->got++);
	}
	assert(err == -EAGAIN || err == -EPROTO || err == -ENODATA);
	assert(err != -EPROTO || server->failed);
	script->over = err != -EAGAIN;
	assert(server->out_bytes <= TLS_OUT_BYTES);
}

static void
write_bytes(struct script *script, size_t bytes)
{
	uint8_t data[256];

	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)(script->sent + i);
	if (bytes > 0 && SSL_write(script->pair.client, data, (int)bytes) > 0)
		script->sent = (uint8_t)(script->sent + bytes);
}

/* What the client has sent, but for one byte or without its end. */
static void
spoil(struct script *script, size_t where, bool cut)
{
	char *data;
	long bytes = BIO_get_mem_data(script->pair.from_client, &data);
	size_t all = bytes > 0 ? (size_t)bytes : 0;

	if (all > 0 && !cut)
		data[where % all] ^= 0x41;
	tls_pair_feed(&script->pair, data, cut && all > 0 ? where % all : all);
	(void)BIO_reset(script->pair.from_client);
}

static void
reply(struct script *script, size_t bytes)
{
	static uint8_t data[256 * 600];
	struct iovec iov[2] = {{data, bytes}, {data, bytes * 600}};
	struct iovec *next = iov;
	unsigned count = 2;

	if (!tls_session_write(script->pair.server, &next, &count))
		tls_pair_carry_out(&script->pair);
}

static void
take_step(struct script *script, struct input *input, enum step step,
    size_t amount)
{
	SSL *client = script->pair.client;
	uint8_t *data;

	switch (step) {
	case STEP_RAW:
		data = input_take(input, amount);
		if (!data)
			return;
		tls_pair_feed(&script->pair, data, amount);
		free(data);
		return;
	case STEP_WRITE:
		write_bytes(script, amount);
		break;
	case STEP_FLIP:
	case STEP_CUT:
		write_bytes(script, amount / 2);
		spoil(script, amount, step == STEP_CUT);
		return;
	case STEP_NEW_KEYS:
		SSL_key_update(client, SSL_KEY_UPDATE_REQUESTED);
		SSL_do_handshake(client);
		break;
	case STEP_REPLY:
		reply(script, amount);
		return;
	default:
		SSL_shutdown(client);
	}
	tls_pair_carry_in(&script->pair);
}

int
LLVMFuzzerTestOneInput(const uint8_t *start, size_t bytes)
{
	struct input input = {start, bytes};
	struct script script = {0};

	if (bytes == 0)
		return 0;
	tls_pair_open(&script.pair, get_pairs());
	script.shaken = input.start[0] & 1;
	if (script.shaken) {
		int err = tls_pair_shake(&script.pair);

		assert(!err);
	}
	input.start++;
	input.bytes--;
	while (input.bytes >= 2 && !script.over) {
		enum step step = (enum step)(input.start[0] % STEPS);
		size_t amount = input.start[1];

		input.start += 2;
		input.bytes -= 2;
		if (!script.shaken)
			SSL_do_handshake(script.pair.client);
		take_step(&script, &input, step, amount);
		read_all(&script);
		if (!script.shaken)
			tls_pair_carry_out(&script.pair);
	}
	tls_session_end(script.pair.server);
	tls_pair_carry_out(&script.pair);
	tls_pair_close(&script.pair);
	return 0;
}
