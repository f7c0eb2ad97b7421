/* SPDX-License-Identifier: MIT */
#include "server/create_options.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "server/size.h"

const struct create_options create_options_default = {
	.version = 3,
	.cluster_bytes = CREATE_CLUSTER_BYTES_DEFAULT,
	.refcount_bits = CREATE_REFCOUNT_BITS_DEFAULT,
	.compression = COMPRESSION_DEFLATE,
	.preallocation = CREATE_OFF,
};

/* A value that is one of some words, and what each stands for. */
struct choice {
	const char *word;
	int value;
};

static const struct choice compat_choices[] = {
	{ "0.10", 2 }, { "v2", 2 }, { "1.1", 3 }, { "v3", 3 }, { NULL, 0 },
};
static const struct choice switch_choices[] = {
	{ "on", 1 }, { "off", 0 }, { NULL, 0 },
};
static const struct choice preallocation_choices[] = {
	{ "off", CREATE_OFF }, { "metadata", CREATE_METADATA },
	{ "falloc", CREATE_FALLOC }, { "full", CREATE_FULL }, { NULL, 0 },
};
static const struct choice compression_choices[] = {
	{ "zlib", COMPRESSION_DEFLATE }, { "zstd", COMPRESSION_ZSTD },
	{ NULL, 0 },
};

static int
set_choice(const struct command *command, const char *name,
    const char *value, const struct choice *choices, int *numberp)
{
	char words[64] = "";

	for (unsigned i = 0; choices[i].word; i++) {
		if (!strcmp(choices[i].word, value)) {
			*numberp = choices[i].value;
			return 0;
		}
		if (i > 0)
			strcat(words, ", ");
		strcat(words, choices[i].word);
	}
	return options_complain(command, "-o %s=%s: this is one of %s", name,
	    value, words);
}

static int
set_compat(const struct command *command, const char *value,
    struct create_options *options)
{
	int version;
	int code = set_choice(command, "compat", value, compat_choices,
	    &version);

	if (!code)
		options->version = (unsigned)version;
	return code;
}

static int
set_cluster_size(const struct command *command, const char *value,
    struct create_options *options)
{
	int64_t bytes;

	if (size_parse(value, &bytes))
		return options_complain(command,
		    "-o cluster_size=%s: this is a size", value);
	options->cluster_bytes = (uint64_t)bytes;
	return 0;
}

static int
set_refcount_bits(const struct command *command, const char *value,
    struct create_options *options)
{
	char *end;
	unsigned long bits = strtoul(value, &end, 10);

	if (!*value || *end || strspn(value, "0123456789") > 4)
		return options_complain(command,
		    "-o refcount_bits=%s: this is a number from 1 to 64",
		    value);
	options->refcount_bits = bits;
	return 0;
}

static int
set_lazy_refcounts(const struct command *command, const char *value,
    struct create_options *options)
{
	int on;
	int code = set_choice(command, "lazy_refcounts", value,
	    switch_choices, &on);

	if (!code)
		options->lazy_refcounts = on;
	return code;
}

static int
set_preallocation(const struct command *command, const char *value,
    struct create_options *options)
{
	int mode;
	int code = set_choice(command, "preallocation", value,
	    preallocation_choices, &mode);

	if (!code)
		options->preallocation = (enum create_preallocation)mode;
	return code;
}

static int
set_compression(const struct command *command, const char *value,
    struct create_options *options)
{
	int type;
	int code = set_choice(command, "compression_type", value,
	    compression_choices, &type);

	if (!code)
		options->compression = (enum compression)type;
	return code;
}

static int
set_encryption(const struct command *command, const char *value,
    struct create_options *options)
{
	int on;
	int code = set_choice(command, "encryption", value, switch_choices,
	    &on);

	if (!code)
		options->encrypted = on;
	return code;
}

static int
set_encrypt_format(const struct command *command, const char *value,
    struct create_options *options)
{
	if (!strcmp(value, "luks"))
		return options_complain(command, "-o encrypt.format=luks is "
		    "not supported; aes is");
	if (strcmp(value, "aes"))
		return options_complain(command,
		    "-o encrypt.format=%s: this takes aes", value);
	options->encrypted = true;
	return 0;
}

/* The value may be anything, even a key: it is not repeated. */
static int
set_key_secret(const struct command *command, const char *value,
    struct create_options *options)
{
	(void)value;
	(void)options;
	return options_complain(command, "-o encrypt.key-secret: to make an "
	    "image takes no key; to serve it does: --key-file FILE");
}

#define LUKS_ONLY "this is for LUKS, which is not supported; aes is"

/* Options that qemu-img has, and what is to be said of each. */
static const struct refusal {
	const char *name;
	bool may_be_off;	/* as it is here anyway */
	const char *reason;
} refusals[] = {
	{ "size", false, "the size stands behind FILE, without a name" },
	{ "backing_file", false, "say -b BASE -F FORMAT" },
	{ "backing_fmt", false, "say -b BASE -F FORMAT" },
	{ "extended_l2", true, "extended L2 entries are not supported" },
	{ "data_file", false, "external data files are not supported" },
	{ "data_file_raw", true, "external data files are not supported" },
	{ "encrypt.cipher-alg", false, LUKS_ONLY },
	{ "encrypt.cipher-mode", false, LUKS_ONLY },
	{ "encrypt.hash-alg", false, LUKS_ONLY },
	{ "encrypt.iter-time", false, LUKS_ONLY },
	{ "encrypt.ivgen-alg", false, LUKS_ONLY },
	{ "encrypt.ivgen-hash-alg", false, LUKS_ONLY },
	{ "nocow", true, "this is for the file system: chattr +C DIRECTORY" },
	{ "extent_size_hint", false, "this is for the file system: "
	  "xfs_io -c 'extsize SIZE' DIRECTORY" },
	{ NULL, false, NULL },
};

static int
refuse(const struct command *command, const char *name, const char *value)
{
	for (const struct refusal *refusal = refusals; refusal->name;
	    refusal++) {
		if (strcmp(refusal->name, name))
			continue;
		if (refusal->may_be_off && value && !strcmp(value, "off"))
			return 0;
		return options_complain(command, "-o %s: %s", name,
		    refusal->reason);
	}
	return -1;
}

static const struct setter {
	const char *name;
	int (*set)(const struct command *command, const char *value,
	    struct create_options *options);
} setters[] = {
	{ "compat", set_compat },
	{ "cluster_size", set_cluster_size },
	{ "refcount_bits", set_refcount_bits },
	{ "lazy_refcounts", set_lazy_refcounts },
	{ "preallocation", set_preallocation },
	{ "compression_type", set_compression },
	{ "encryption", set_encryption },
	{ "encrypt.format", set_encrypt_format },
	{ "encrypt.key-secret", set_key_secret },
	{ NULL, NULL },
};

static int
set_one(const struct command *command, char *word,
    struct create_options *options)
{
	char *value = strchr(word, '=');
	const char *nearest;
	int code;

	if (value)
		*value++ = '\0';
	for (const struct setter *setter = setters; setter->name; setter++) {
		if (strcmp(setter->name, word))
			continue;
		if (!value)
			return options_complain(command, "-o %s needs a value",
			    word);
		return setter->set(command, value, options);
	}
	code = refuse(command, word, value);
	if (code >= 0)
		return code;
	nearest = options_nearest(word, setters, sizeof(setters[0]));
	return options_complain(command, "unknown option -o %s%s%s%s", word,
	    nearest ? "; did you mean " : "", nearest ? nearest : "",
	    nearest ? "?" : "");
}

static int
set_some(const struct command *command, const char *text,
    struct create_options *options)
{
	char *copy = strdup(text);
	char *rest = copy, *word;
	int code = 0;

	if (!copy)
		return options_complain(command, "out of memory");
	while (!code && (word = strsep(&rest, ",")))
		code = set_one(command, word, options);
	free(copy);
	return code;
}

int
create_options_parse(const struct command *command,
    const struct option_texts *texts, struct create_options *options)
{
	int code = 0;

	for (unsigned i = 0; i < texts->count && !code; i++)
		code = set_some(command, texts->list[i], options);
	return code;
}
