/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A tier in a file or on a block device: which one, and whether it may be used.
 *
 * What is somebody's data is never overwritten.  A path is taken when it does
 * not exist yet (then a nameless file is made on that filesystem), when the
 * file or device holds only zeros as far as samples show, or when the first
 * page says that its contents may go: it was made by mkswap, or by a vswap
 * that was killed.  One process at a time may have it; a file that belongs to
 * another user, or that others may write to, is refused.
 *
 * What a tier leaves behind: a nameless file is gone with its last descriptor.
 * A regular file gets its old size back and, where the filesystem can do it
 * without writing, reads as zeros again.  A block device keeps what was last
 * written to it, as any swap partition does.
 */
#ifndef TIER_FILE_H
#define TIER_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "../core/swap.h"

/* The least size of a tier, bytes. */
#define TIER_FILE_MIN (2ULL << 20)

struct tier_file;

/* For struct swap_tier_conf; priv is the struct tier_file. */
extern const struct swap_tier_ops tier_file_ops;

/*
 * Open @path, @size bytes of it (0: all there is).  A path that does not exist
 * needs a size, a file grows to it, a device must have it.  Returns the tier;
 * or NULL with one line in @err, "tier PATH: why (what to do)", nothing
 * changed.
 */
struct tier_file *tier_file_open(const char *path, u64 size, char *err, size_t errlen);

/*
 * A nameless file under $TMPDIR or else /var/tmp, made when the first page is
 * written.  A directory in memory (tmpfs) is taken only when there is no other.
 * @size 0: what is free there now, less a reserve for others.  Returns the
 * tier; or NULL with one line in @err.
 */
struct tier_file *tier_file_temp(u64 size, char *err, size_t errlen);

/*
 * Give back the room it takes, but for the head of what was there before, piece by
 * piece: a filesystem that tells the device of each block it frees is a millisecond about
 * each MiB, and who reads from it waits meanwhile.  Each piece is kept to some milliseconds,
 * with as much rest after it.  Before tier_file_close(), where others use the disk; what
 * cannot be given back is left to that.  No call may be under way or come after.
 */
void tier_file_shrink(struct tier_file *t);
/* Gives the file back.  No call may be under way; NULL is allowed. */
void tier_file_close(struct tier_file *t);

/* How many pages it holds: swap_tier_conf.nr_slots. */
u64 tier_file_slots(const struct tier_file *t);
/* The path, or the directory of a temporary file; lives as long as the tier. */
const char *tier_file_name(const struct tier_file *t);
/* Is it really memory (tmpfs)?  The user must be told. */
bool tier_file_in_memory(const struct tier_file *t);
/* Is it a file that users other than its owner may read?  The same. */
bool tier_file_readable(const struct tier_file *t);
/* Is it one that nobody else can open, so that nobody cares when it is gone? */
bool tier_file_nameless(const struct tier_file *t);
/*
 * How it works right now, for people: "file, direct, io_uring".  A temporary
 * file that was not needed yet says so.  Always ends @buf with a NUL.
 */
void tier_file_describe(struct tier_file *t, char *buf, size_t len);

#endif
