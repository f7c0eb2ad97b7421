/* SPDX-License-Identifier: MIT */
#include "server/allow.h"

#include <string.h>

static const struct {
	const char *prefix;
	enum tls_name kind;
} kinds[] = {
	{ "CN=", TLS_NAME_CN },
	{ "DNS=", TLS_NAME_DNS },
	{ "USER=", TLS_NAME_USER },
};

static bool
parse_name(const char *text, struct allow_rule *rule)
{
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		size_t bytes = strlen(kinds[i].prefix);

		if (strncmp(text, kinds[i].prefix, bytes) || !text[bytes])
			continue;
		rule->kind = kinds[i].kind;
		rule->value = text + bytes;
		return true;
	}
	return false;
}

bool
allow_parse(const char *text, struct allow_rule *rule)
{
	*rule = (struct allow_rule){.for_all = true};
	if (parse_name(text, rule))
		return true;
	/* The name of an export may have a colon, too. */
	for (const char *colon = strchr(text, ':'); colon;
	    colon = strchr(colon + 1, ':')) {
		if (!parse_name(colon + 1, rule))
			continue;
		rule->for_all = false;
		rule->export_name = text;
		rule->export_bytes = (size_t)(colon - text);
		return true;
	}
	return false;
}

bool
allow_is_for(const struct allow_rule *rule, const char *export_name)
{
	return !rule->for_all && rule->export_bytes == strlen(export_name) &&
	    !memcmp(rule->export_name, export_name, rule->export_bytes);
}

bool
allow_permits(const struct allow_list *rules, const char *export_name,
    const struct tls_session *session)
{
	bool restricted = false;

	for (unsigned i = 0; i < rules->count; i++) {
		const struct allow_rule *rule = &rules->list[i];

		if (!rule->for_all && !allow_is_for(rule, export_name))
			continue;
		if (session &&
		    tls_session_has_name(session, rule->kind, rule->value))
			return true;
		restricted = true;
	}
	return !restricted;
}
