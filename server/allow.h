/* SPDX-License-Identifier: MIT */
/*
 * Which clients may use which export (--allow).
 *
 *	[EXPORT:]CN=NAME	the common name in the client's certificate
 *	[EXPORT:]DNS=NAME	one of its alternative names
 *	[EXPORT:]USER=NAME	the user of its pre-shared key
 *
 * A rule without an export is for all.  An export that rules are for is open
 * to clients that one of them fits; one that no rule is for, to all clients.
 */
#ifndef SERVER_ALLOW_H
#define SERVER_ALLOW_H

#include <stdbool.h>
#include <stddef.h>
#include "server/options.h"
#include "server/tls_session.h"

struct allow_rule {
	const char *export_name;	/* not ended by a zero */
	size_t export_bytes;
	bool for_all;			/* exports */
	enum tls_name kind;
	const char *value;
};

struct allow_list {
	struct allow_rule list[OPTION_TEXTS_MAX];
	unsigned count;
};

/* The rule points into text; false: it is none. */
bool allow_parse(const char *text, struct allow_rule *rule);

/* Whether rule is for the export of that name alone. */
bool allow_is_for(const struct allow_rule *rule, const char *export_name);

/* Whether a client may use it; session NULL: one without TLS. */
bool allow_permits(const struct allow_list *rules, const char *export_name,
    const struct tls_session *session);

#endif
