/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's zstd calls over libzstd: contexts that live in memory the
 * caller brings, so that compressing allocates nothing.
 */
#ifndef COMPAT_LINUX_ZSTD_H
#define COMPAT_LINUX_ZSTD_H

/* Contexts in the caller's memory belong to the part of the API that asks for this. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

typedef ZSTD_compressionParameters zstd_compression_parameters;
typedef ZSTD_CCtx zstd_cctx;
typedef ZSTD_DCtx zstd_dctx;

/* The level is all the library wants to hear again; cParams sizes the workspace. */
typedef struct {
	ZSTD_compressionParameters cParams;
	int level;
} zstd_parameters;

static inline zstd_parameters zstd_get_params(int level, unsigned long long src_size)
{
	zstd_parameters p = { ZSTD_getCParams(level, src_size, 0), level };

	return p;
}

static inline unsigned int zstd_is_error(size_t code)
{
	return ZSTD_isError(code);
}

static inline size_t zstd_cctx_workspace_bound(const zstd_compression_parameters *parameters)
{
	return ZSTD_estimateCCtxSize_usingCParams(*parameters);
}

static inline zstd_cctx *zstd_init_cctx(void *workspace, size_t size)
{
	return ZSTD_initStaticCCtx(workspace, size);
}

static inline size_t zstd_compress_cctx(zstd_cctx *cctx, void *dst, size_t room, const void *src,
					size_t len, const zstd_parameters *parameters)
{
	return ZSTD_compressCCtx(cctx, dst, room, src, len, parameters->level);
}

static inline size_t zstd_dctx_workspace_bound(void)
{
	return ZSTD_estimateDCtxSize();
}

static inline zstd_dctx *zstd_init_dctx(void *workspace, size_t size)
{
	return ZSTD_initStaticDCtx(workspace, size);
}

static inline size_t zstd_decompress_dctx(zstd_dctx *dctx, void *dst, size_t room, const void *src,
					  size_t len)
{
	return ZSTD_decompressDCtx(dctx, dst, room, src, len);
}

#endif
