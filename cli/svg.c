// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Memory in rows of cells, low addresses first, each row with the address it
 * begins at.  The colour says where a cell's pages are, how strong it is how
 * warm they are.  Cells of one kind that are neighbours in a row are one
 * rectangle.
 */
#include "svg.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>

#include "../pager/size.h"
#include "space.h"

#define ROW_CELLS  128
#define CELL_WIDTH 6
#define ROW_HEIGHT 9
#define LEFT	   130 /* of the cells: addresses */
#define MARGIN	   20
#define WIDTH	   (LEFT + ROW_CELLS * CELL_WIDTH + MARGIN)
#define HEAD	   64 /* title and legend begin */
#define LINE	   18
#define HEAT_MOST  15
#define MAX_PLACES 64
#define FIRST_TIER 6 /* places before are the same in every space */

/* By number of the place; tiers take turns with the rest. */
static const char *const colour[] = {
	"#f4f4f4", "#d7301f", "#fdae61", "#969696", "#31a354", "#000000",
	"#2171b5", "#6a51a3", "#17a2b8", "#8c6d31", "#c51b8a", "#084594",
};
#define NR_COLOURS (sizeof(colour) / sizeof(colour[0]))

struct drawing {
	FILE *f;
	uint64_t cell_bytes;
	uint64_t cells[MAX_PLACES]; /* of each place */
	size_t nr_places;
	unsigned int column; /* of the next cell */
	unsigned int y;	     /* of its row */
	bool bad;
};

static const char *colour_of(size_t place)
{
	if (place < NR_COLOURS)
		return colour[place];
	return colour[FIRST_TIER + (place - FIRST_TIER) % (NR_COLOURS - FIRST_TIER)];
}

static void put_text(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '&')
			fputs("&amp;", f);
		else if (*text == '<')
			fputs("&lt;", f);
		else if ((unsigned char)*text < ' ')
			fputc('?', f);
		else
			fputc(*text, f);
	}
}

/* The list @name of @obj; NULL, and the answer is bad. */
static struct json_object *list_of(struct drawing *d, struct json_object *obj, const char *name)
{
	struct json_object *list;

	if (json_object_object_get_ex(obj, name, &list) &&
	    json_object_is_type(list, json_type_array))
		return list;
	d->bad = true;
	return NULL;
}

static uint64_t number_at(struct json_object *list, size_t i)
{
	return json_object_get_uint64(json_object_array_get_idx(list, i));
}

static size_t length(struct json_object *list)
{
	return list ? json_object_array_length(list) : 0;
}

/* The height of @nr cells that begin at column 0. */
static unsigned int rows(uint64_t nr)
{
	return (nr + ROW_CELLS - 1) / ROW_CELLS;
}

/* Count cells and check what there is; returns the rows they take. */
static unsigned int measure(struct drawing *d, struct json_object *ranges)
{
	unsigned int sum = 0;
	size_t i, j;

	for (i = 0; i < length(ranges); i++) {
		struct json_object *runs = list_of(d, json_object_array_get_idx(ranges, i), "runs");
		uint64_t cells = 0;

		for (j = 0; j < length(runs); j++) {
			struct json_object *run = json_object_array_get_idx(runs, j);

			if (!json_object_is_type(run, json_type_array) || length(run) != 3 ||
			    number_at(run, 0) >= d->nr_places || number_at(run, 2) > 1 << 24) {
				d->bad = true;
				return 0;
			}
			d->cells[number_at(run, 0)] += number_at(run, 2);
			cells += number_at(run, 2);
		}
		sum += rows(cells);
	}
	return sum;
}

static void put_cells(struct drawing *d, size_t place, unsigned int heat, uint64_t nr)
{
	while (nr) {
		unsigned int n = ROW_CELLS - d->column;

		if (n > nr)
			n = nr;
		/* What was never touched is the ground. */
		if (place)
			fprintf(d->f,
				"<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\" "
				"fill-opacity=\"%.2f\"/>\n",
				LEFT + d->column * CELL_WIDTH, d->y, n * CELL_WIDTH, ROW_HEIGHT - 1,
				colour_of(place),
				0.4 + 0.6 * (heat < HEAT_MOST ? heat : HEAT_MOST) / HEAT_MOST);
		nr -= n;
		d->column += n;
		if (d->column == ROW_CELLS) {
			d->column = 0;
			d->y += ROW_HEIGHT;
		}
	}
}

static void put_range(struct drawing *d, struct json_object *range)
{
	struct json_object *runs = list_of(d, range, "runs");
	uint64_t start = snapshot_number(range, NULL, "start"), cells = 0, row;
	unsigned int top = d->y;
	size_t i;

	for (i = 0; i < length(runs); i++)
		cells += number_at(json_object_array_get_idx(runs, i), 2);
	for (row = 0; row < rows(cells); row++) {
		uint64_t n = cells - row * ROW_CELLS;

		fprintf(d->f, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"%s\"/>\n",
			LEFT, top + (unsigned int)row * ROW_HEIGHT,
			(unsigned int)(n < ROW_CELLS ? n : ROW_CELLS) * CELL_WIDTH, ROW_HEIGHT - 1,
			colour[0]);
		if (row % 2 == 0)
			fprintf(d->f, "<text x=\"%u\" y=\"%u\" class=\"a\">%" PRIx64 "</text>\n",
				LEFT - 8, top + (unsigned int)row * ROW_HEIGHT + ROW_HEIGHT - 1,
				start + row * ROW_CELLS * d->cell_bytes);
	}
	d->column = 0;
	for (i = 0; i < length(runs); i++) {
		struct json_object *run = json_object_array_get_idx(runs, i);

		put_cells(d, number_at(run, 0), number_at(run, 1), number_at(run, 2));
	}
	d->y = top + rows(cells) * ROW_HEIGHT;
}

static void put_legend(struct drawing *d, struct json_object *places, unsigned int y)
{
	char size[SIZE_TEXT];
	const char *name;
	size_t i;

	for (i = 0; i < d->nr_places; i++) {
		name = json_object_get_string(json_object_array_get_idx(places, i));
		if (!d->cells[i] && i)
			continue;
		fprintf(d->f,
			"<rect x=\"%u\" y=\"%u\" width=\"24\" height=\"12\" fill=\"%s\"/>\n"
			"<text x=\"%u\" y=\"%u\">",
			MARGIN, y - 10, colour_of(i), MARGIN + 32, y);
		put_text(d->f, i ? name : "untouched");
		fprintf(d->f, ": %s</text>\n", size_format(size, d->cells[i] * d->cell_bytes));
		y += LINE;
	}
	fprintf(d->f,
		"<defs><linearGradient id=\"h\"><stop stop-color=\"%s\" stop-opacity=\"0.4\"/>"
		"<stop offset=\"1\" stop-color=\"%s\"/></linearGradient></defs>\n"
		"<rect x=\"%u\" y=\"%u\" width=\"120\" height=\"12\" fill=\"url(#h)\"/>\n"
		"<text x=\"%u\" y=\"%u\">cold to hot</text>\n",
		colour[1], colour[1], MARGIN, y - 10, MARGIN + 128, y);
}

int svg_map(FILE *f, struct json_object *map, const char *title)
{
	struct drawing d = { .f = f, .cell_bytes = snapshot_number(map, NULL, "cell_bytes") };
	struct json_object *clients = list_of(&d, map, "clients");
	struct json_object *places = list_of(&d, map, "places");
	unsigned int height = HEAD, legend = 1, nr_rows = 0;
	char size[SIZE_TEXT];
	size_t i, j;

	d.nr_places = length(places);
	if (d.bad || !d.cell_bytes || d.nr_places < FIRST_TIER || d.nr_places > MAX_PLACES)
		return -EINVAL;
	for (i = 0; i < d.nr_places; i++)
		if (!json_object_is_type(json_object_array_get_idx(places, i), json_type_string))
			return -EINVAL;
	for (i = 0; i < length(clients) && !d.bad; i++)
		nr_rows +=
			measure(&d, list_of(&d, json_object_array_get_idx(clients, i), "ranges"));
	if (d.bad)
		return -EINVAL;
	for (i = 0; i < d.nr_places; i++)
		legend += d.cells[i] || !i;
	height += legend * LINE + length(clients) * 2 * LINE + nr_rows * ROW_HEIGHT + MARGIN;

	fprintf(f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
		"viewBox=\"0 0 %u %u\">\n"
		"<style>text{font:13px sans-serif;fill:#222}.a{font:9px monospace;text-anchor:end;"
		"fill:#666}.t{font-size:17px;font-weight:bold}</style>\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
		"<text x=\"%u\" y=\"30\" class=\"t\">",
		WIDTH, height, WIDTH, height, MARGIN);
	put_text(f, title);
	fprintf(f, "</text>\n<text x=\"%u\" y=\"48\">a cell is %s</text>\n", MARGIN,
		size_format(size, d.cell_bytes));
	put_legend(&d, places, HEAD + LINE / 2);
	d.y = HEAD + legend * LINE;
	for (i = 0; i < length(clients); i++) {
		struct json_object *client = json_object_array_get_idx(clients, i);
		struct json_object *ranges = list_of(&d, client, "ranges");

		fprintf(f, "<text x=\"%u\" y=\"%u\">process %" PRIu64 "%s</text>\n", MARGIN,
			d.y + LINE, snapshot_number(client, NULL, "pid"),
			length(ranges) ? "" : ": nothing is managed yet");
		d.y += 2 * LINE - LINE / 2;
		for (j = 0; j < length(ranges); j++)
			put_range(&d, json_object_array_get_idx(ranges, j));
		d.y += LINE / 2;
	}
	fputs("</svg>\n", f);
	return 0;
}
