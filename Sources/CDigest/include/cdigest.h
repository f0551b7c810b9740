/*
 * A keyed digest of one page. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CDIGEST_H
#define CDIGEST_H

#include <stdint.h>

/* Readies the library and makes a random key. 0, or -1 when there is no randomness. */
int cdigest_make_key(uint8_t key[32]);
/* Poly1305 of `length` bytes. */
void cdigest(const uint8_t key[32], const void *data, int length, uint8_t digest[16]);

#endif
