/* SPDX-License-Identifier: MIT */
#include "server/tls_bio.h"

#include <pthread.h>
#include <string.h>
#include "runtime/buf.h"
#include "server/tls_session.h"

/* ---- what arrived ---- */

/* -1 and a retry is OpenSSL's EAGAIN. */
static int
input_read(BIO *bio, char *data, int size)
{
	struct tls_session *session = BIO_get_data(bio);
	size_t taken = (size_t)size;

	BIO_clear_retry_flags(bio);
	if (session->in_bytes == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	if (taken > session->in_bytes)
		taken = session->in_bytes;
	memcpy(data, session->in, taken);
	session->in += taken;
	session->in_bytes -= taken;
	return (int)taken;
}

/* ---- what is to be sent ---- */

static int
output_write(BIO *bio, const char *data, int bytes)
{
	struct tls_session *session = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	/* Past the kernel it would be out of step. */
	if (session->kernel_sends)
		return -1;
	if (!session->out)
		session->out = buf_get(TLS_OUT_BYTES);
	if (!session->out)
		return -1;
	if (session->out_bytes + (size_t)bytes > TLS_OUT_BYTES) {
		BIO_set_retry_write(bio);
		return -1;
	}
	memcpy(session->out + session->out_bytes, data, (size_t)bytes);
	session->out_bytes += (size_t)bytes;
	return bytes;
}

/* ---- both ---- */

/* There is nothing to flush, and nothing else is known here. */
static long
control(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *input_method, *output_method;

static BIO_METHOD *
make_method(const char *name)
{
	int type = BIO_get_new_index();

	return type < 0 ? NULL : BIO_meth_new(type | BIO_TYPE_SOURCE_SINK,
	    name);
}

/* For the life of the process. */
static void
make_methods(void)
{
	input_method = make_method("qnbd input");
	if (input_method) {
		BIO_meth_set_read(input_method, input_read);
		BIO_meth_set_ctrl(input_method, control);
	}
	output_method = make_method("qnbd output");
	if (output_method) {
		BIO_meth_set_write(output_method, output_write);
		BIO_meth_set_ctrl(output_method, control);
	}
}

static BIO *
make_bio(BIO_METHOD **method, struct tls_session *session)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	pthread_once(&once, make_methods);
	bio = *method ? BIO_new(*method) : NULL;
	if (!bio)
		return NULL;
	BIO_set_data(bio, session);
	BIO_set_init(bio, 1);
	return bio;
}

BIO *
tls_bio_new_input(struct tls_session *session)
{
	return make_bio(&input_method, session);
}

BIO *
tls_bio_new_output(struct tls_session *session)
{
	return make_bio(&output_method, session);
}
