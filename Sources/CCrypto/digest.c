#include "ccrypto.h"

#include <sodium.h>

int ccrypto_digest_key(uint8_t key[32])
{
    /* 1 says that somebody readied it before. */
    if (sodium_init() < 0) {
        return -1;
    }
    crypto_onetimeauth_keygen(key);
    return 0;
}

void ccrypto_digest(const uint8_t key[32], uint64_t number, const void *data, int length, uint8_t digest[16])
{
    crypto_onetimeauth_state state;
    crypto_onetimeauth_init(&state, key);
    crypto_onetimeauth_update(&state, (const unsigned char *)&number, sizeof number);
    crypto_onetimeauth_update(&state, data, (unsigned long long)length);
    crypto_onetimeauth_final(&state, digest);
}
