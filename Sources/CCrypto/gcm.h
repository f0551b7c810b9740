/*
 * AES-256-GCM. On x86-64 by Intel's Multi-Buffer Crypto library, which has it for each generation of
 * CPUs: twice as quick as libsodium's, and five times where the CPU has vectors of AES (VAES).
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CCRYPTO_GCM_H
#define CCRYPTO_GCM_H

#include "ccrypto.h"

#if defined(__x86_64__)
#include <intel-ipsec-mb.h>
#else
#include <sodium.h>
struct gcm_key_data {
    crypto_aead_aes256gcm_state state;
};
#endif

/* Whether the CPU has the instructions: in plain code AES is slow, and its tables tell the key to
 * whoever shares the cache. Any thread; before all that follows. */
int gcm_is_available(void);
void gcm_expand(const uint8_t bytes[CCRYPTO_KEY_BYTES], struct gcm_key_data *key);
/* `to` may be `from`. */
void gcm_seal(const struct gcm_key_data *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES], const void *data,
              size_t data_length, const void *from, size_t length, void *to, uint8_t tag[CCRYPTO_TAG_BYTES]);
/* -EBADMSG: it is not what was sealed; `to` is wiped. */
int gcm_open(const struct gcm_key_data *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES], const void *data,
             size_t data_length, const void *from, size_t length, const uint8_t tag[CCRYPTO_TAG_BYTES], void *to);

#endif
