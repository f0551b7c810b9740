#include "cdigest.h"

#include <sodium.h>

int cdigest_make_key(uint8_t key[32])
{
    /* 1 says that somebody readied it before. */
    if (sodium_init() < 0) {
        return -1;
    }
    crypto_onetimeauth_keygen(key);
    return 0;
}

void cdigest(const uint8_t key[32], const void *data, int length, uint8_t digest[16])
{
    crypto_onetimeauth(digest, data, (unsigned long long)length, key);
}
