/* SPDX-License-Identifier: MIT */
/*
 * Printing JSON whole or not at all.
 *
 * jansson leaves out of an object what it finds no memory for and tells only
 * who asks each time; here it is asked once, at the end.
 */
#ifndef SERVER_JSON_TEXT_H
#define SERVER_JSON_TEXT_H

#include <jansson.h>

/* Before the first value is made: what is left out from now on is noticed. */
void json_text_begin(void);

/*
 * Prints value, which it takes, and a newline to standard output; -1 if
 * anything was left out, which it says on standard error.
 */
int json_text_print(json_t *value);

#endif
