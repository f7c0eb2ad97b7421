/* SPDX-License-Identifier: MIT */
#include "server/size.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char units[] = "KMGTPE";

/* The power of 1024 that text names ("", "B", "k", "M", "GiB"), or -1. */
static int
unit_power(const char *text)
{
	const char *unit;

	while (*text == ' ')
		text++;
	if (*text == '\0' || !strcasecmp(text, "b"))
		return 0;
	unit = strchr(units, toupper((unsigned char)*text));
	if (!unit)
		return -1;
	text++;
	if (*text && strcasecmp(text, "ib") && strcasecmp(text, "b"))
		return -1;
	return (int)(unit - units) + 1;
}

/* The digits behind a decimal point, as a part of scale. */
static uint64_t
parse_fraction(const char **text, uint64_t scale)
{
	long double part = 0;
	long double weight = 0.1L;

	for (; isdigit((unsigned char)**text); (*text)++) {
		part += weight * (**text - '0');
		weight /= 10;
	}
	return (uint64_t)(part * (long double)scale + 0.5L);
}

int
size_parse(const char *text, int64_t *bytesp)
{
	const char *fraction = NULL;
	uint64_t whole, scale, bytes;
	char *end;
	const char *unit;
	int power;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	whole = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	unit = end;
	if (*unit == '.') {
		fraction = unit + 1;
		unit += 1 + strspn(fraction, "0123456789");
	}
	power = unit_power(unit);
	if (power < 0)
		return -EINVAL;
	scale = UINT64_C(1) << 10 * power;
	if (__builtin_mul_overflow(whole, scale, &bytes))
		return -ERANGE;
	if (fraction && __builtin_add_overflow(bytes,
	    parse_fraction(&fraction, scale), &bytes))
		return -ERANGE;
	if (bytes > INT64_MAX)
		return -ERANGE;
	*bytesp = (int64_t)bytes;
	return 0;
}

const char *
size_print(char text[SIZE_TEXT_BYTES], uint64_t bytes)
{
	double value = (double)bytes;
	unsigned power = 0;

	/* From 999.5 on, three digits would read as 1,000 of the unit. */
	while (value >= 999.5 && power < strlen(units)) {
		value /= 1024;
		power++;
	}
	if (power == 0)
		snprintf(text, SIZE_TEXT_BYTES, "%u B", (unsigned)bytes);
	else
		snprintf(text, SIZE_TEXT_BYTES, "%.3g %ciB", value,
		    units[power - 1]);
	return text;
}

void
size_print_row(FILE *out, const char *what, uint64_t bytes)
{
	char text[SIZE_TEXT_BYTES];

	fprintf(out, "%-16s %s (%" PRIu64 " bytes)\n", what,
	    size_print(text, bytes), bytes);
}
