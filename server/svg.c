/* SPDX-License-Identifier: MIT */
#include "server/svg.h"

#include <inttypes.h>
#include <stdbool.h>
#include "server/size.h"

/* In units of the picture, which are pixels where nobody scales it. */
#define CELL 14u
#define PART 2u			/* the finest division of a cell */
#define PARTS (CELL / PART)
#define COLUMNS 64u
#define LEFT 96u		/* room for the offsets of the rows */
#define MARGIN 24u
#define WIDTH (LEFT + COLUMNS * CELL + MARGIN)
#define HEAD 84u		/* title and subtitle */
#define CHART_HEAD 52u		/* heading, and what a cell is */
#define CHART_FOOT 26u
#define LEGEND_LINE 22u
#define LEGEND_COLUMNS 2u
#define LEGEND_WIDTH (COLUMNS * CELL / LEGEND_COLUMNS)
#define ROWS_ALL_LABELLED 16u	/* of more, every fourth has its offset */

/* ---- text ---- */

/* The bytes of the character at text, if it is UTF-8 that XML may have. */
static unsigned
character_bytes(const unsigned char *text)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned bytes = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
	uint32_t character = text[0] & (0x7fu >> bytes);

	if (text[0] < 0x80)
		return text[0] >= ' ' && text[0] < 0x7f;
	if (text[0] < 0xc0 || text[0] >= 0xf8)
		return 0;
	for (unsigned i = 1; i < bytes; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		character = character << 6 | (text[i] & 0x3f);
	}
	if (character < least[bytes] || character < 0xa0 ||
	    (character >= 0xd800 && character < 0xe000) ||
	    (character & 0xfffe) == 0xfffe || character > 0x10ffff)
		return 0;
	return bytes;
}

static void
print_escaped(FILE *out, const char *string)
{
	const unsigned char *text = (const unsigned char *)string;

	while (*text) {
		unsigned bytes = character_bytes(text);

		if (bytes == 0)
			fprintf(out, "\\x%02x", *text);
		else if (*text == '&')
			fputs("&amp;", out);
		else if (*text == '<')
			fputs("&lt;", out);
		else if (*text == '>')
			fputs("&gt;", out);
		else
			fwrite(text, 1, bytes, out);
		text += bytes > 0 ? bytes : 1;
	}
}

static void
print_text(FILE *out, const char *class, unsigned x, unsigned y,
    const char *text)
{
	fprintf(out, "<text class=\"%s\" x=\"%u\" y=\"%u\">", class, x, y);
	print_escaped(out, text);
	fputs("</text>\n", out);
}

/* ---- cells ---- */

static unsigned
count_rows(const struct cells *cells)
{
	return (cells->count + COLUMNS - 1) / COLUMNS;
}

/* The kind that has the most parts, or bytes, where parts are equal. */
static unsigned
find_largest(const struct cells *cells, unsigned cell,
    const unsigned parts[CELLS_KINDS_MAX])
{
	unsigned largest = 0;

	for (unsigned kind = 1; kind < cells->kinds; kind++)
		if (parts[kind] > parts[largest] ||
		    (parts[kind] == parts[largest] &&
		    cells_bytes(cells, cell, kind) >
		    cells_bytes(cells, cell, largest)))
			largest = kind;
	return largest;
}

/*
 * Divides the PARTS of a cell: whatever is in it gets one at least, so that
 * the only bad cluster among thousands shows, and the largest pays for that.
 */
static void
divide_cell(const struct cells *cells, unsigned cell,
    unsigned parts[CELLS_KINDS_MAX])
{
	uint64_t part_bytes = cells->cell_bytes / PARTS + 1, bytes = 0;
	unsigned sum = 0;

	for (unsigned kind = 0; kind < cells->kinds; kind++) {
		uint64_t of_kind = cells_bytes(cells, cell, kind);

		parts[kind] = (unsigned)(of_kind / part_bytes);
		if (of_kind > 0 && parts[kind] == 0)
			parts[kind] = 1;
		sum += parts[kind];
		bytes += of_kind;
	}
	for (; sum > PARTS; sum--)
		parts[find_largest(cells, cell, parts)]--;
	/* The last cell may be there in part. */
	if (bytes >= cells->cell_bytes)
		parts[find_largest(cells, cell, parts)] += PARTS - sum;
}

/* A rectangle that grows as long as what comes next touches it. */
struct run {
	FILE *out;
	unsigned x, y, width;
};

static void
end_run(struct run *run)
{
	if (run->width > 0)
		fprintf(run->out, "M%u %uh%uv%uh-%uz", run->x, run->y,
		    run->width, CELL, run->width);
	run->width = 0;
}

static void
add_to_run(struct run *run, unsigned x, unsigned y, unsigned width)
{
	if (run->width > 0 && run->y == y && run->x + run->width == x) {
		run->width += width;
		return;
	}
	end_run(run);
	run->x = x;
	run->y = y;
	run->width = width;
}

static void
draw_kind(FILE *out, const struct svg_chart *chart, unsigned number,
    unsigned kind, unsigned top)
{
	const struct cells *cells = chart->cells;
	struct run run = { .out = out };

	if (cells->sums[kind] == 0)
		return;
	fprintf(out, "<path class=\"c%uk%u\" d=\"", number, kind);
	for (unsigned cell = 0; cell < cells->count; cell++) {
		unsigned parts[CELLS_KINDS_MAX];
		unsigned x = LEFT + cell % COLUMNS * CELL;

		divide_cell(cells, cell, parts);
		for (unsigned before = 0; before < kind; before++)
			x += parts[before] * PART;
		if (parts[kind] > 0)
			add_to_run(&run, x, top + cell / COLUMNS * CELL,
			    parts[kind] * PART);
	}
	end_run(&run);
	fputs("\"><title>", out);
	print_escaped(out, chart->kinds[kind].label);
	fprintf(out, ": %" PRIu64 " bytes</title></path>\n",
	    cells->sums[kind]);
}

/* The lines between cells, in the colour of the page. */
static void
draw_lines(FILE *out, const struct cells *cells, unsigned top)
{
	unsigned rows = count_rows(cells);

	fputs("<path class=\"lines\" d=\"", out);
	for (unsigned row = 0; row <= rows; row++)
		fprintf(out, "M%u %uh%u", LEFT, top + row * CELL,
		    COLUMNS * CELL);
	for (unsigned column = 0; column <= COLUMNS; column++)
		fprintf(out, "M%u %uv%u", LEFT + column * CELL, top,
		    rows * CELL);
	fputs("\"/>\n", out);
}

static void
draw_offsets(FILE *out, const struct cells *cells, unsigned top)
{
	unsigned rows = count_rows(cells);

	for (unsigned row = 0; row < rows; row++) {
		char text[SIZE_TEXT_BYTES];

		if (rows > ROWS_ALL_LABELLED && row % 4 != 0)
			continue;
		size_print(text, row * COLUMNS * cells->cell_bytes);
		print_text(out, "offset", LEFT - 8, top + row * CELL + 11,
		    text);
	}
}

/* ---- charts ---- */

static unsigned
count_entries(const struct cells *cells)
{
	unsigned entries = 0;

	for (unsigned kind = 0; kind < cells->kinds; kind++)
		entries += cells->sums[kind] > 0;
	return entries;
}

static unsigned
legend_height(const struct cells *cells)
{
	return (count_entries(cells) + LEGEND_COLUMNS - 1) / LEGEND_COLUMNS *
	    LEGEND_LINE;
}

static unsigned
chart_height(const struct svg_chart *chart)
{
	return CHART_HEAD + count_rows(chart->cells) * CELL + 16 +
	    legend_height(chart->cells) + CHART_FOOT;
}

/* "1.5 GiB, 12.5 %" */
static void
print_amount(FILE *out, unsigned x, unsigned y, uint64_t bytes,
    uint64_t total_bytes)
{
	double percent = (double)bytes * 100 / (double)total_bytes;
	char size[SIZE_TEXT_BYTES], amount[SIZE_TEXT_BYTES + 16];

	size_print(size, bytes);
	if (percent < 0.05)
		snprintf(amount, sizeof(amount), "%s, under 0.1 %%", size);
	else
		snprintf(amount, sizeof(amount), "%s, %.1f %%", size,
		    percent);
	print_text(out, "amount", x, y, amount);
}

static void
draw_legend(FILE *out, const struct svg_chart *chart, unsigned number,
    unsigned top)
{
	const struct cells *cells = chart->cells;
	unsigned entry = 0;

	for (unsigned kind = 0; kind < cells->kinds; kind++) {
		unsigned x = LEFT + entry % LEGEND_COLUMNS * LEGEND_WIDTH;
		unsigned y = top + entry / LEGEND_COLUMNS * LEGEND_LINE;

		if (cells->sums[kind] == 0)
			continue;
		fprintf(out, "<path class=\"c%uk%u\" d=\"M%u %uh%uv%uh-%uz\"/>"
		    "\n", number, kind, x, y, CELL, CELL, CELL);
		print_text(out, "label", x + CELL + 8, y + 12,
		    chart->kinds[kind].label);
		print_amount(out, x + LEGEND_WIDTH - 24, y + 12,
		    cells->sums[kind], cells->total_bytes);
		entry++;
	}
}

static void
draw_chart(FILE *out, const struct svg_chart *chart, unsigned number,
    unsigned top)
{
	const struct cells *cells = chart->cells;
	char cell[SIZE_TEXT_BYTES], row[SIZE_TEXT_BYTES], scale[128];

	print_text(out, "heading", LEFT, top + 16, chart->heading);
	print_text(out, "remark", LEFT + COLUMNS * CELL, top + 16,
	    chart->remark);
	snprintf(scale, sizeof(scale), "one cell: %s, one row: %s",
	    size_print(cell, cells->cell_bytes),
	    size_print(row, cells->cell_bytes * COLUMNS));
	print_text(out, "small", LEFT, top + 38,
	    cells->count > 0 ? scale : "there is nothing in it");
	top += CHART_HEAD;
	for (unsigned kind = 0; kind < cells->kinds; kind++)
		draw_kind(out, chart, number, kind, top);
	draw_lines(out, cells, top);
	draw_offsets(out, cells, top);
	top += count_rows(cells) * CELL + 16;
	draw_legend(out, chart, number, top);
}

/* ---- the picture ---- */

static void
print_colours(FILE *out, const struct svg_chart *charts, unsigned count,
    bool dark)
{
	for (unsigned i = 0; i < count; i++) {
		for (unsigned k = 0; k < charts[i].cells->kinds; k++) {
			const struct svg_kind *kind = &charts[i].kinds[k];

			if (charts[i].cells->sums[k] == 0 ||
			    (dark && !kind->dark_colour))
				continue;
			fprintf(out, ".c%uk%u{fill:%s}\n", i, k,
			    dark ? kind->dark_colour : kind->colour);
		}
	}
}

static void
print_style(FILE *out, const struct svg_chart *charts, unsigned count)
{
	fputs("<style>\n"
	    "text{font:13px system-ui,sans-serif;fill:#1f2328}\n"
	    ".title{font-size:22px;font-weight:600}\n"
	    ".heading{font-size:16px;font-weight:600}\n"
	    ".remark,.amount,.offset{text-anchor:end}\n"
	    ".remark,.small,.amount,.offset{fill:#59636e}\n"
	    ".offset{font-size:11px}\n"
	    ".page{fill:#ffffff}\n"
	    ".lines{fill:none;stroke:#ffffff;stroke-width:1}\n", out);
	print_colours(out, charts, count, false);
	fputs("@media (prefers-color-scheme:dark){\n"
	    "text{fill:#e6edf3}\n"
	    ".remark,.small,.amount,.offset{fill:#9198a1}\n"
	    ".page{fill:#0d1117}\n"
	    ".lines{stroke:#0d1117}\n", out);
	print_colours(out, charts, count, true);
	fputs("}\n</style>\n", out);
}

void
svg_draw(FILE *out, const char *title, const char *subtitle,
    const struct svg_chart *charts, unsigned count)
{
	unsigned height = HEAD;

	for (unsigned i = 0; i < count; i++)
		height += chart_height(&charts[i]);
	fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" "
	    "width=\"%u\" height=\"%u\" viewBox=\"0 0 %u %u\">\n<title>",
	    WIDTH, height, WIDTH, height);
	print_escaped(out, title);
	fputs("</title>\n", out);
	print_style(out, charts, count);
	fputs("<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n", out);
	print_text(out, "title", LEFT, 38, title);
	print_text(out, "small", LEFT, 60, subtitle);
	height = HEAD;
	for (unsigned i = 0; i < count; i++) {
		draw_chart(out, &charts[i], i, height);
		height += chart_height(&charts[i]);
	}
	fputs("</svg>\n", out);
}
