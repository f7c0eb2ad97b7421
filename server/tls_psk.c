/* SPDX-License-Identifier: MIT */
#include "server/tls_psk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/secret.h"
#include "server/tls_file.h"

/* Both point into the text: the key was decoded in place. */
struct psk {
	const char *user;
	const uint8_t *key;
	size_t key_bytes;
};

struct tls_psk_list {
	char *text;		/* of the file, from secret_get() */
	size_t text_bytes;
	struct psk *list;
	unsigned count;
};

/* ---- one line ---- */

static int
hex_digit(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

/* In place; how many bytes it makes, or -EINVAL. */
static int64_t
decode_hex(char *text)
{
	size_t digits = strlen(text);

	if (digits % 2)
		return -EINVAL;
	for (size_t i = 0; i < digits; i += 2) {
		int high = hex_digit(text[i]);
		int low = hex_digit(text[i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		text[i / 2] = (char)(high << 4 | low);
	}
	return (int64_t)(digits / 2);
}

/* NULL if it is no user's name. */
static const char *
decode_user(char *text)
{
	int64_t bytes;

	if (text[0] != '#')
		return text[0] ? text : NULL;
	bytes = decode_hex(text + 1);
	if (bytes <= 0 || memchr(text + 1, '\0', (size_t)bytes))
		return NULL;
	text[1 + bytes] = '\0';
	return text + 1;
}

/* What is wrong with the line, or NULL if it is in psk now. */
static const char *
parse_line(char *line, struct psk *psk)
{
	char *colon = strrchr(line, ':');
	int64_t key_bytes;

	if (!colon)
		return "it is not USER:HEXKEY";
	*colon = '\0';
	psk->user = decode_user(line);
	if (!psk->user)
		return "there is no user name before the colon";
	if (strlen(psk->user) > TLS_PSK_USER_BYTES_MAX)
		return "the user name has more than 128 bytes";
	key_bytes = decode_hex(colon + 1);
	if (key_bytes < 0)
		return "the key is not hexadecimal";
	if (key_bytes < TLS_PSK_KEY_BYTES_MIN)
		return "the key has less than 16 bytes (32 digits)";
	if (key_bytes > TLS_PSK_KEY_BYTES_MAX)
		return "the key has more than 256 bytes";
	psk->key = (const uint8_t *)colon + 1;
	psk->key_bytes = (size_t)key_bytes;
	return NULL;
}

/* ---- the file ---- */

static unsigned
count_lines(const char *text)
{
	unsigned count = 1;

	for (; *text; text++)
		count += *text == '\n';
	return count;
}

static int
parse_text(struct tls_psk_list *list, const char *path, struct error *error)
{
	char *next = list->text;
	unsigned number = 0;
	char *line;

	while ((line = strsep(&next, "\n"))) {
		struct psk *psk = &list->list[list->count];
		const char *wrong;
		size_t unused;

		number++;
		line[strcspn(line, "\r")] = '\0';
		if (!*line)
			continue;
		wrong = parse_line(line, psk);
		if (!wrong && tls_psk_find(list, psk->user, &unused))
			wrong = "this user is in a line above already";
		if (wrong)
			return error_set(error, -EINVAL, "%s, line %u: %s",
			    path, number, wrong);
		list->count++;
	}
	if (list->count == 0)
		return error_set(error, -EINVAL, "there is no key in %s",
		    path);
	return 0;
}

static int
load(struct tls_psk_list *list, const char *path, struct error *error)
{
	int err = tls_file_read(path, TLS_PSK_FILE_BYTES_MAX, &list->text,
	    &list->text_bytes, error);

	if (err)
		return err;
	if (strlen(list->text) + 1 != list->text_bytes)
		return error_set(error, -EINVAL, "there is a zero byte in %s",
		    path);
	list->list = calloc(count_lines(list->text), sizeof(*list->list));
	if (!list->list)
		return error_set(error, -ENOMEM, "out of memory");
	return parse_text(list, path, error);
}

int
tls_psk_load(const char *path, struct tls_psk_list **listp,
    struct error *error)
{
	struct tls_psk_list *list = calloc(1, sizeof(*list));
	int err;

	if (!list)
		return error_set(error, -ENOMEM, "out of memory");
	err = load(list, path, error);
	if (err) {
		tls_psk_free(list);
		return err;
	}
	*listp = list;
	return 0;
}

void
tls_psk_free(struct tls_psk_list *list)
{
	if (!list)
		return;
	secret_put(list->text, list->text_bytes);
	free(list->list);
	free(list);
}

const uint8_t *
tls_psk_find(const struct tls_psk_list *list, const char *user,
    size_t *key_bytesp)
{
	for (unsigned i = 0; i < list->count; i++)
		if (!strcmp(list->list[i].user, user)) {
			*key_bytesp = list->list[i].key_bytes;
			return list->list[i].key;
		}
	return NULL;
}
