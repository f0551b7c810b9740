/*
 * LZ4 and zstd, one 4 KiB page at a time, in working memory that the caller owns: nothing
 * here allocates. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CCODEC_H
#define CCODEC_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of working memory that ccodec_lz4_compress wants, 8-byte aligned and zeroed once. */
int ccodec_lz4_state_size(void);
/* The compressed length, or 0 when it would not fit into `room`. */
int ccodec_lz4_compress(void *state, const void *page, int length, void *out, int room);
/* 0, or -1 when the data are not what compress made of a page of `length` bytes. */
int ccodec_lz4_decompress(const void *data, int data_length, void *page, int length);

#define CCODEC_ZSTD_LEVEL_MIN 1
#define CCODEC_ZSTD_LEVEL_MAX 19
#define CCODEC_ZSTD_LEVEL_DEFAULT 3

/* Bytes of working memory of a compressor for pages of `length` bytes. */
size_t ccodec_zstd_compressor_size(int level, int length);
/* Makes a compressor in 8-byte aligned memory of that size, valid for as long as that
 * memory is; one thread at a time. NULL when the memory is not enough. */
void *ccodec_zstd_compressor(void *memory, size_t size, int level, int length);
/* The compressed length, or 0 when it would not fit into `room`. */
int ccodec_zstd_compress(void *compressor, const void *page, int length, void *out, int room);

/* The same for decompression, which no level concerns. */
size_t ccodec_zstd_decompressor_size(void);
void *ccodec_zstd_decompressor(void *memory, size_t size);
/* 0, or -1 when the data are not what compress made of a page of `length` bytes. */
int ccodec_zstd_decompress(void *decompressor, const void *data, int data_length, void *page,
                           int length);

#endif
