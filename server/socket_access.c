/* SPDX-License-Identifier: MIT */
#include "server/socket_access.h"

#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

bool
socket_mode_parse(const char *text, mode_t *modep)
{
	char *end;
	unsigned long mode = strtoul(text, &end, 8);

	if (text[0] < '0' || text[0] > '7' || *end || mode > 0777)
		return false;
	*modep = (mode_t)mode;
	return true;
}

/* A number, where there is nobody of that name. */
static bool
parse_number(const char *text, unsigned *numberp)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	/* The highest stands for "nobody said". */
	if (text[0] < '0' || text[0] > '9' || *end || number >= UINT_MAX)
		return false;
	*numberp = (unsigned)number;
	return true;
}

static bool
parse_user(const char *text, uid_t *uidp)
{
	const struct passwd *entry = getpwnam(text);

	if (!entry)
		return parse_number(text, uidp);
	*uidp = entry->pw_uid;
	return true;
}

static bool
parse_group(const char *text, gid_t *gidp)
{
	const struct group *entry = getgrnam(text);

	if (!entry)
		return parse_number(text, gidp);
	*gidp = entry->gr_gid;
	return true;
}

bool
socket_owner_parse(const char *text, struct listener_access *access)
{
	size_t bytes = strcspn(text, ":");
	char user[LOGIN_NAME_MAX];

	if (bytes >= sizeof(user) || strlen(text) == (text[bytes] == ':'))
		return false;
	memcpy(user, text, bytes);
	user[bytes] = '\0';
	if (user[0] && !parse_user(user, &access->uid))
		return false;
	return !text[bytes] || parse_group(text + bytes + 1, &access->gid);
}
