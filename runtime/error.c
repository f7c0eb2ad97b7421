/* SPDX-License-Identifier: MIT */
#include "runtime/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* The exit code a script can act on: 75 try again, 77 ask for permission. */
static int
exit_code_of(int negative_errno)
{
	switch (-negative_errno) {
	case EADDRINUSE:
	case EAGAIN:
	case EBUSY:
	case ETXTBSY:
		return 75;
	case EACCES:
	case EPERM:
		return 77;
	default:
		return 1;
	}
}

int
error_set(struct error *error, int negative_errno, const char *format, ...)
{
	va_list arguments;

	error->exit_code = exit_code_of(negative_errno);
	error->hint[0] = '\0';
	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	return negative_errno;
}

void
error_hint(struct error *error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error->hint, sizeof(error->hint), format, arguments);
	va_end(arguments);
}
