/*
 * LZ4, one 4 KiB page at a time. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CCODEC_H
#define CCODEC_H

#include <stdint.h>

/* Bytes of working memory that ccodec_lz4_compress wants, 8-byte aligned and zeroed once. */
int ccodec_lz4_state_size(void);
/* The compressed length, or 0 when it would not fit into `room`. */
int ccodec_lz4_compress(void *state, const void *page, int length, void *out, int room);
/* 0, or -1 when the data are not what compress made of a page of `length` bytes. */
int ccodec_lz4_decompress(const void *data, int data_length, void *page, int length);

#endif
