/* SPDX-License-Identifier: MIT */
/*
 * qnbd tls: makes the certificates that `serve --tls` and its clients need,
 * and shows them.
 *
 * What is made lies in one directory, with the names that other NBD servers
 * and clients look for: the authority, the server, and in a directory of its
 * own each client, which gets that one whole.
 */
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "server/certificate.h"
#include "server/commands.h"
#include "server/tls_show.h"

#define AUTHORITY_NAME "qnbd certificate authority"
#define AUTHORITY_DAYS (20 * 365)
#define LEAF_DAYS (5 * 365)
#define DAYS_MAX (100 * 365)

enum verb {
	VERB_INIT,
	VERB_CLIENT,
	VERB_SHOW,
};

static const char *const verb_names[] = {
	[VERB_INIT] = "init",
	[VERB_CLIENT] = "client",
	[VERB_SHOW] = "show",
	NULL,
};

struct tls_options {
	const char *directory;
	struct option_texts hosts;
	int64_t days;
	bool renew;
	bool new_key;
	bool json;
};

#define FIELD(name) .offset = offsetof(struct tls_options, name)

static const struct option_spec tls_specs[] = {
	{ "dir", 0, OPTION_TEXT, "DIR",
	  "where the certificates are, or will be", FIELD(directory) },
	{ "host", 0, OPTION_TEXTS, "NAME",
	  "init: a name or an address of the server, repeatable",
	  FIELD(hosts) },
	{ "days", 0, OPTION_NUMBER, "N",
	  "how long a new certificate is valid (1825)", FIELD(days),
	  .min = 1, .max = DAYS_MAX },
	{ "renew", 0, OPTION_FLAG, NULL,
	  "replace the certificate, keep its key and the authority",
	  FIELD(renew) },
	{ "new-key", 0, OPTION_FLAG, NULL,
	  "with --renew: replace the key, too", FIELD(new_key) },
	{ "json", 0, OPTION_FLAG, NULL, "show: print JSON", FIELD(json) },
	{ .name = NULL },
};

/* ---- one with its key ---- */

/*
 * The key that a renewed certificate keeps.  So one file changes, at once, and
 * whatever comes between leaves two that go together.  None there is *keyp
 * NULL.
 */
static int
keep_key(const struct tls_options *options, const char *directory,
    const char *key_file, EVP_PKEY **keyp, struct error *error)
{
	int err;

	*keyp = NULL;
	if (!options->renew || options->new_key)
		return 0;
	err = certificate_load_key(directory, key_file, keyp, error);
	if (err == -ENOENT)
		return 0;
	if (err)
		error_hint(error, "to replace it, too: add --new-key");
	return err;
}

/* Makes what is asked for and writes it into directory. */
static int
make_and_save(const struct tls_options *options,
    struct certificate_request *request, const struct certificate *authority,
    const char *directory, const char *file, const char *key_file,
    struct error *error)
{
	struct certificate made;
	int err = keep_key(options, directory, key_file, &request->key, error);

	if (err)
		return err;
	err = certificate_make(request, authority, &made, error);
	if (err)
		goto free_key;
	if (request->key)
		err = certificate_save_public(made.x509, directory, file, true,
		    error);
	else
		err = certificate_save(&made, directory, file, key_file,
		    options->renew, error);
	certificate_free(&made);
free_key:
	EVP_PKEY_free(request->key);
	return err;
}

/* ---- init ---- */

/* Makes the directory if need be; only its owner needs to look into it. */
static int
make_directory(const char *path, struct error *error)
{
	if (!mkdir(path, 0700) || errno == EEXIST)
		return 0;
	return error_set(error, -errno, "cannot make the directory %s: %s",
	    path, strerror(errno));
}

static int
load_authority(const char *directory, struct certificate *authority,
    struct error *error)
{
	int err = certificate_load(directory, CERTIFICATE_CA_FILE,
	    CERTIFICATE_CA_KEY_FILE, authority, error);

	if (err)
		error_hint(error, "the authority signs, so both its files are "
		    "needed here; to make a new one: qnbd tls init --dir %s "
		    "--host NAME", directory);
	return err;
}

/* There is one already, or half of one. */
static void
hint_at_authority(const char *directory, struct error *error)
{
	char path[PATH_MAX];
	int bytes = snprintf(path, sizeof(path), "%s/%s", directory,
	    CERTIFICATE_CA_FILE);

	if (bytes < (int)sizeof(path) && access(path, F_OK))
		error_hint(error, "it is a key without its certificate, as "
		    "an interrupted run leaves it; unless you have that "
		    "elsewhere: rm %s/%s, then run this again", directory,
		    CERTIFICATE_CA_KEY_FILE);
	else
		error_hint(error, "for a new certificate of the server by the "
		    "same authority: add --renew");
}

static int
make_authority(const char *directory, struct certificate *authority,
    struct error *error)
{
	const struct certificate_request request = {
		.role = CERTIFICATE_AUTHORITY,
		.name = AUTHORITY_NAME,
		.days = AUTHORITY_DAYS,
	};
	int err = certificate_make(&request, NULL, authority, error);

	if (!err)
		err = certificate_save(authority, directory,
		    CERTIFICATE_CA_FILE, CERTIFICATE_CA_KEY_FILE, false,
		    error);
	if (err == -EEXIST)
		hint_at_authority(directory, error);
	return err;
}

static int
make_server(const struct tls_options *options,
    const struct certificate *authority, struct error *error)
{
	struct certificate_request request = {
		.role = CERTIFICATE_SERVER,
		.name = options->hosts.list[0],
		.hosts = &options->hosts,
		.days = options->days,
	};

	/* Who checks looks at the hosts; the name is for people. */
	if (strlen(request.name) > CERTIFICATE_NAME_BYTES_MAX)
		request.name = "qnbd server";
	return make_and_save(options, &request, authority, options->directory,
	    CERTIFICATE_SERVER_FILE, CERTIFICATE_SERVER_KEY_FILE, error);
}

static int
init(const struct tls_options *options, struct error *error)
{
	const char *directory = options->directory;
	struct certificate authority = {0};
	int err = 0;

	for (unsigned i = 0; i < options->hosts.count && !err; i++)
		err = certificate_check_host(options->hosts.list[i], error);
	if (!err)
		err = make_directory(directory, error);
	if (!err && options->renew)
		err = load_authority(directory, &authority, error);
	else if (!err)
		err = make_authority(directory, &authority, error);
	if (!err)
		err = make_server(options, &authority, error);
	certificate_free(&authority);
	if (err)
		return err;
	if (options->renew) {
		printf("%s/%s is renewed%s; a server that runs takes it on "
		    "SIGHUP\n", directory, CERTIFICATE_SERVER_FILE,
		    options->new_key ? ", with a new key" : "");
		return 0;
	}
	printf("%s/%s and %s are made\n"
	    "  serve:        qnbd serve --tls %s IMAGE\n"
	    "  let one in:   qnbd tls client --dir %s NAME\n"
	    "  keep safe:    %s/%s signs for whoever has it; the server does "
	    "not need it\n", directory, CERTIFICATE_SERVER_FILE,
	    CERTIFICATE_SERVER_KEY_FILE, directory, directory, directory,
	    CERTIFICATE_CA_KEY_FILE);
	return 0;
}

/* ---- client ---- */

/* The name becomes that of a directory, too. */
static int
check_client_name(const char *name, struct error *error)
{
	int err = certificate_check_name(name, error);

	if (!err && (name[0] == '.' || strchr(name, '/')))
		err = error_set(error, -EINVAL, "a client's name has no / and "
		    "does not begin with a dot: its directory is called so");
	return err;
}

static int
make_client(const struct tls_options *options, const char *name,
    const struct certificate *authority, const char *path, struct error *error)
{
	struct certificate_request request = {
		.role = CERTIFICATE_CLIENT, .name = name,
		.days = options->days,
	};
	int err = make_directory(path, error);

	if (!err)
		err = make_and_save(options, &request, authority, path,
		    CERTIFICATE_CLIENT_FILE, CERTIFICATE_CLIENT_KEY_FILE,
		    error);
	if (err == -EEXIST)
		error_hint(error,
		    "for a new certificate of the same name: add --renew");
	if (!err)
		err = certificate_save_public(authority->x509, path,
		    CERTIFICATE_CA_FILE, true, error);
	return err;
}

static int
client(const struct tls_options *options, const char *name,
    struct error *error)
{
	struct certificate authority;
	char path[PATH_MAX];
	int err = check_client_name(name, error);

	if (!err && snprintf(path, sizeof(path), "%s/%s", options->directory,
	    name) >= (int)sizeof(path))
		err = error_set(error, -ENAMETOOLONG, "%s/%s is too long a "
		    "name", options->directory, name);
	if (!err)
		err = load_authority(options->directory, &authority, error);
	if (err)
		return err;
	err = make_client(options, name, &authority, path, error);
	certificate_free(&authority);
	if (!err)
		printf("%s is %s; give it to the client, whole, and nobody "
		    "else\n"
		    "  allow it:     qnbd serve --tls %s --allow 'CN=%s' "
		    "IMAGE\n"
		    "  the client:   nbdinfo 'nbds://SERVER/?tls-certificates="
		    "%s'\n", path, options->renew ? "renewed" : "made",
		    options->directory, name, path);
	return err;
}

/* ---- the command ---- */

static int
take_verb(const struct command *command, const char *word, enum verb *verbp)
{
	const char *nearest;

	for (int verb = 0; verb_names[verb]; verb++) {
		if (!strcmp(word, verb_names[verb])) {
			*verbp = (enum verb)verb;
			return 0;
		}
	}
	nearest = options_nearest(word, verb_names, sizeof(verb_names[0]));
	return options_complain(command, nearest ?
	    "unknown word %s; did you mean %s?" : "unknown word %s",
	    word, nearest);
}

/* Whether options and words go with the verb. */
static int
check_words(const struct command *command, enum verb verb,
    const struct tls_options *options, int words)
{
	if (!options->directory)
		return options_complain(command, "tls %s needs --dir DIR",
		    verb_names[verb]);
	if (verb == VERB_INIT && options->hosts.count == 0)
		return options_complain(command, "tls init needs --host NAME: "
		    "the name or address that clients connect to");
	if (verb != VERB_INIT && options->hosts.count > 0)
		return options_complain(command, "--host is for tls init");
	if (verb != VERB_SHOW && options->json)
		return options_complain(command, "--json is for tls show");
	if (verb == VERB_SHOW && (options->renew || options->days > 0))
		return options_complain(command, "%s is for tls init and tls "
		    "client", options->renew ? "--renew" : "--days");
	if (options->new_key && !options->renew)
		return options_complain(command, "--new-key is for --renew");
	if (words != (verb == VERB_CLIENT ? 2 : 1))
		return options_complain(command, verb == VERB_CLIENT ?
		    "tls client takes one NAME" :
		    "tls %s takes options only", verb_names[verb]);
	return 0;
}

static int
tls_run(const struct command *command, int argc, char **argv)
{
	struct tls_options options = {0};
	struct error error = {0};
	enum verb verb = VERB_SHOW;
	int first, result;

	result = options_parse(command, argc, argv, &options, &first);
	if (result)
		return result < 0 ? 0 : result;
	argc -= first;
	argv += first;
	if (argc == 0)
		return options_complain(command,
		    "tls needs init, client or show");
	result = take_verb(command, argv[0], &verb);
	if (!result)
		result = check_words(command, verb, &options, argc);
	if (result)
		return result;
	if (options.days == 0)
		options.days = LEAF_DAYS;
	if (verb == VERB_INIT)
		result = init(&options, &error);
	else if (verb == VERB_CLIENT)
		result = client(&options, argv[1], &error);
	else
		result = tls_show(options.directory, options.json, &error);
	return result < 0 ? error_print(&error) : result;
}

const struct command tls_command = {
	.name = "tls",
	.arguments = "init|client|show --dir DIR [OPTIONS] [NAME]",
	.summary = "make and show certificates for encrypted connections",
	.details =
	    "init    makes an authority, and the server's certificate and "
	    "key\n"
	    "client  makes a certificate and key for NAME, in DIR/NAME, to be "
	    "given to it\n"
	    "show    prints what there is in DIR, and what is wrong with it\n",
	.options = tls_specs,
	.run = tls_run,
};
