/* SPDX-License-Identifier: MIT */
#include "server/uri.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/listener.h"
#include "server/export.h"

/* Everything but what is safe in any part of a URI, and in a shell. */
static void
print_encoded(FILE *out, const char *text, const char *also_plain)
{
	for (; *text; text++) {
		unsigned char byte = (unsigned char)*text;

		if (isalnum(byte) || strchr("-._~", byte) ||
		    strchr(also_plain, byte))
			fputc(byte, out);
		else
			fprintf(out, "%%%02X", byte);
	}
}

/* A socket for all addresses is reached by the name of this machine. */
static const char *
host_of(const struct listener *listener)
{
	if (!strcmp(listener->address, "0.0.0.0") ||
	    !strcmp(listener->address, "::"))
		return "localhost";
	return listener->address;
}

/* A client need not stand in the directory of the server. */
static void
print_directory(FILE *out, const char *path)
{
	char *directory;

	if (path[0] == '/')
		return;
	directory = getcwd(NULL, 0);
	if (!directory)
		return;
	print_encoded(out, directory, "/");
	fputc('/', out);
	free(directory);
}

bool
uri_exists(const struct listener *listener)
{
	return !listener->is_unix || listener->path;
}

void
uri_print(FILE *out, const struct listener *listener,
    const struct export *export)
{
	const char *host;

	fputs(export->needs_tls ? "nbds" : "nbd", out);
	if (listener->is_unix) {
		fprintf(out, "+unix:///");
		print_encoded(out, export->name, "");
		fprintf(out, "?socket=");
		print_directory(out, listener->path);
		print_encoded(out, listener->path, "/");
		return;
	}
	host = host_of(listener);
	if (listener->is_vsock)
		fprintf(out, "+vsock://%u:%u", listener->vsock_cid,
		    listener->vsock_port);
	else
		fprintf(out, strchr(host, ':') ? "://[%s]:%u" : "://%s:%u",
		    host, listener->port);
	if (export->name[0]) {
		fputc('/', out);
		print_encoded(out, export->name, "");
	}
}

/* As one word for a shell. */
static void
print_quoted(FILE *out, const char *text)
{
	if (text[0] && !text[strspn(text, "abcdefghijklmnopqrstuvwxyz"
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/:@%+,")]) {
		fputs(text, out);
		return;
	}
	fputc('\'', out);
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", out);
		else
			fputc(*text, out);
	}
	fputc('\'', out);
}

void
uri_print_client(FILE *out, const struct listener *listener,
    const struct export *export)
{
	fprintf(out, "nbd-client ");
	if (export->needs_tls)
		fprintf(out, "-x -cacertfile ca-cert.pem "
		    "-certfile client-cert.pem -keyfile client-key.pem ");
	if (export->name[0]) {
		fprintf(out, "-N ");
		print_quoted(out, export->name);
		fputc(' ', out);
	}
	if (listener->is_unix) {
		fprintf(out, "-unix ");
		print_quoted(out, listener->path);
	} else {
		fprintf(out, "%s %u", host_of(listener), listener->port);
	}
	fprintf(out, " /dev/nbd0");
}

/* A comma would end the value. */
static void
print_value(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == ',')
			fputc(',', out);
		fputc(*text, out);
	}
}

/* QEMU's URIs have no TLS, so there it is told piece by piece. */
static void
print_tls_drive(FILE *out, const struct listener *listener,
    const struct export *export)
{
	fprintf(out, "-object tls-creds-x509,id=tls,endpoint=client,dir=DIR "
	    "-drive format=raw,file.driver=nbd,file.tls-creds=tls");
	if (listener->is_unix) {
		fprintf(out, ",file.path=");
		print_value(out, listener->path);
	} else {
		fprintf(out, ",file.host=%s,file.port=%u", host_of(listener),
		    listener->port);
	}
	if (export->name[0]) {
		fprintf(out, ",file.export=");
		print_value(out, export->name);
	}
}

void
uri_print_drive(FILE *out, const struct listener *listener,
    const struct export *export)
{
	if (export->needs_tls) {
		print_tls_drive(out, listener, export);
		return;
	}
	fprintf(out, "-drive file=");
	uri_print(out, listener, export);
	fprintf(out, ",format=raw");
}
