/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a core dump lacks.
 *
 * The kernel waits for no page when it writes one, so pages that are swapped out are
 * zeros there.  Which those were is known until the windows of the client go; whether
 * there is a dump says the status that the program's parent gets, later.  So each end
 * of the program's process is taken down, and told when there was a dump.
 */
#ifndef PAGER_COREDUMP_H
#define PAGER_COREDUMP_H

#include <stdint.h>

#include "drop.h"

struct client;
struct job;

#define LACKING_RANGES 16

struct lacking {
	uint64_t id;	 /* of the client; 0: none */
	uint64_t pages;	 /* of it that are not in its memory */
	uint64_t end;	 /* of the last of them */
	unsigned int nr; /* rows of them, of which the first are told */
	struct range range[LACKING_RANGES];
};

/* @c has ended: what it lacked, for its job, if it is the job's program.  No lock held. */
void coredump_note(struct client *c);
/*
 * The program of @job left a core dump: say what that lacks, if anything.  It may lack
 * CHUNK_PAGES more, which were between the program and us when it ended.
 */
void coredump_say(struct job *job);

#endif
