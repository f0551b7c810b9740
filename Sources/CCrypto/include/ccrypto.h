/*
 * Digests and authenticated encryption, by libsodium, and AES by Intel's Multi-Buffer Crypto. Every function that can fail returns 0
 * or a negated errno. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CCRYPTO_H
#define CCRYPTO_H

#include <stddef.h>
#include <stdint.h>

/* ---- digest.c: a keyed digest of one page ---- */

enum {
    CCRYPTO_DIGEST_DATA = 4096,
    CCRYPTO_DIGEST_PART = 1024,
};

struct ccrypto_digest_key {
    uint32_t words[CCRYPTO_DIGEST_PART / 4 + 12];
    uint8_t poly[32];
};

/* Readies the library and makes a random key. 0, or -1 when there is no randomness. */
int ccrypto_digest_key(struct ccrypto_digest_key *key);
/* NHPoly1305 of `number` and `CCRYPTO_DIGEST_DATA` bytes, which begin at a multiple of 4. */
void ccrypto_digest(const struct ccrypto_digest_key *key, uint64_t number, const void *data, uint8_t digest[16]);

/* ---- seal.c: authenticated encryption under a key that never leaves this process ---- */

enum ccrypto_cipher {
    CCRYPTO_AES256_GCM = 1,       /* only where the CPU has instructions for it */
    CCRYPTO_CHACHA20_POLY1305 = 2 /* anywhere; with nonces of 96 bits */
};

#define CCRYPTO_TAG_BYTES 16
#define CCRYPTO_NONCE_BYTES 12
#define CCRYPTO_KEY_BYTES 32

/*
 * A key, in memory of its own: locked, left out of core dumps, empty in a child after fork,
 * between guard pages, read-only once it is made, and wiped before it is given back.
 * Sealing and opening may go on in any number of threads.
 */
struct ccrypto_key;

/* The cipher that is fastest on this CPU. */
int ccrypto_best_cipher(void);
/* Whether this CPU can do it. */
int ccrypto_has_cipher(int cipher);
/* A random key. -ENOMEM: there is no memory, or none may be locked. -EIO: no randomness. */
int ccrypto_key_random(int cipher, struct ccrypto_key **out);
/* A key made of a secret of any length and a new random salt, so a new one each time. */
int ccrypto_key_derived(int cipher, const void *secret, size_t length, struct ccrypto_key **out);
/* The same, made of another key instead of a secret. */
int ccrypto_key_of_key(int cipher, const struct ccrypto_key *parent, struct ccrypto_key **out);
/* That very key. */
int ccrypto_key_exact(int cipher, const uint8_t bytes[CCRYPTO_KEY_BYTES], struct ccrypto_key **out);
/* Wipes it. */
void ccrypto_key_free(struct ccrypto_key *key);

/* Encrypts `length` bytes to `to`, which may be `from`, and authenticates them and `data`. */
void ccrypto_seal(const struct ccrypto_key *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES],
                  const void *data, size_t data_length, const void *from, size_t length, void *to,
                  uint8_t tag[CCRYPTO_TAG_BYTES]);
/* The reverse. -EBADMSG: any of it is not what was sealed; `to` then holds nothing of it. */
int ccrypto_open(const struct ccrypto_key *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES],
                 const void *data, size_t data_length, const void *from, size_t length,
                 const uint8_t tag[CCRYPTO_TAG_BYTES], void *to);

#endif
