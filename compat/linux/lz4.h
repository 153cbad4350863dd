/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's LZ4 calls over liblz4.  They differ in one thing: the kernel
 * makes the caller bring the work memory, the library has that under another
 * name.  Decompression is called the same in both.
 */
#ifndef COMPAT_LINUX_LZ4_H
#define COMPAT_LINUX_LZ4_H

#include <lz4.h>

#define LZ4_MEM_COMPRESS	 sizeof(LZ4_stream_t)

#define LZ4_ACCELERATION_DEFAULT 1

#define LZ4_compress_fast(src, dst, len, room, acceleration, wrkmem) \
	LZ4_compress_fast_extState((wrkmem), (src), (dst), (len), (room), (acceleration))
#define LZ4_compress_default(src, dst, len, room, wrkmem) \
	LZ4_compress_fast(src, dst, len, room, LZ4_ACCELERATION_DEFAULT, wrkmem)

#endif
