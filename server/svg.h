/* SPDX-License-Identifier: MIT */
/*
 * Pictures of cells, as SVG that stands alone: no script, no font, no link.
 *
 * A picture has a title and some charts below each other.  A chart shows its
 * cells in rows; each is divided among the kinds of its bytes, and a legend
 * below tells what the colours are and how many bytes each has.  All cells of
 * one kind are one path, so a picture has a few hundred KiB at most.
 *
 * Viewers that know of a dark mode get darker colours; others, a white page.
 */
#ifndef SERVER_SVG_H
#define SERVER_SVG_H

#include <stdio.h>
#include "server/cells.h"

#define SVG_LABEL_BYTES 96

struct svg_kind {
	char label[SVG_LABEL_BYTES];	/* any bytes: they are escaped */
	const char *colour;
	const char *dark_colour;	/* NULL: the same */
};

struct svg_chart {
	const char *heading;
	const char *remark;		/* beside it */
	const struct cells *cells;
	const struct svg_kind *kinds;	/* cells->kinds of them */
};

/* Draws the picture; whether out took it all, out tells. */
void svg_draw(FILE *out, const char *title, const char *subtitle,
    const struct svg_chart *charts, unsigned count);

#endif
