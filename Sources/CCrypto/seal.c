#include "ccrypto.h"
#include "gcm.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* As long as a multiple of 16: sodium_malloc places the end at the end of a page, and the
 * expanded AES key must be aligned. */
struct ccrypto_key {
    struct gcm_key_data aes; /* the expanded key, for AES */
    uint8_t bytes[CCRYPTO_KEY_BYTES];
    uint32_t cipher;
    uint32_t reserved[3];
};

_Static_assert(sizeof(struct ccrypto_key) % 16 == 0, "the expanded key would not be aligned");

int ccrypto_has_cipher(int cipher)
{
    if (sodium_init() < 0) {
        return 0;
    }
    switch (cipher) {
    case CCRYPTO_AES256_GCM:
        return gcm_is_available();
    case CCRYPTO_CHACHA20_POLY1305:
        return 1;
    default:
        return 0;
    }
}

int ccrypto_best_cipher(void)
{
    return ccrypto_has_cipher(CCRYPTO_AES256_GCM) ? CCRYPTO_AES256_GCM : CCRYPTO_CHACHA20_POLY1305;
}

/* sodium_malloc locks its memory and keeps it out of dumps, but says nothing when that
 * fails, and it does not know MADV_WIPEONFORK. */
static int protect(struct ccrypto_key *key)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)key & ~(page - 1);
    size_t length = (uintptr_t)key + sizeof *key - start;
    if (mlock((void *)start, length) < 0) {
        return -errno;
    }
    if (madvise((void *)start, length, MADV_DONTDUMP) < 0 || madvise((void *)start, length, MADV_WIPEONFORK) < 0) {
        return -errno;
    }
    return 0;
}

static int allocate(int cipher, struct ccrypto_key **out)
{
    *out = NULL;
    if (sodium_init() < 0) {
        return -EIO;
    }
    if (!ccrypto_has_cipher(cipher)) {
        return -EOPNOTSUPP;
    }
    struct ccrypto_key *key = sodium_malloc(sizeof *key);
    if (key == NULL) {
        return -ENOMEM;
    }
    int answer = protect(key);
    if (answer < 0) {
        sodium_free(key);
        return answer == -EPERM || answer == -EAGAIN ? -ENOMEM : answer;
    }
    memset(key, 0, sizeof *key);
    key->cipher = (uint32_t)cipher;
    *out = key;
    return 0;
}

static void expand(struct ccrypto_key *key)
{
    if (key->cipher == CCRYPTO_AES256_GCM) {
        gcm_expand(key->bytes, &key->aes);
    }
    sodium_mprotect_readonly(key);
}

int ccrypto_key_random(int cipher, struct ccrypto_key **out)
{
    int answer = allocate(cipher, out);
    if (answer == 0) {
        randombytes_buf((*out)->bytes, sizeof (*out)->bytes);
        expand(*out);
    }
    return answer;
}

/* A key's bytes: the digest of a new salt and a secret. Leaves nothing on the stack. */
static void derive(struct ccrypto_key *key, const void *secret, size_t length)
{
    uint8_t salt[32];
    crypto_generichash_state state;
    randombytes_buf(salt, sizeof salt);
    crypto_generichash_init(&state, NULL, 0, CCRYPTO_KEY_BYTES);
    crypto_generichash_update(&state, salt, sizeof salt);
    crypto_generichash_update(&state, secret, length);
    crypto_generichash_final(&state, key->bytes, CCRYPTO_KEY_BYTES);
    sodium_memzero(&state, sizeof state);
    sodium_memzero(salt, sizeof salt);
    expand(key);
}

int ccrypto_key_derived(int cipher, const void *secret, size_t length, struct ccrypto_key **out)
{
    int answer = allocate(cipher, out);
    if (answer == 0) {
        derive(*out, secret, length);
    }
    return answer;
}

int ccrypto_key_of_key(int cipher, const struct ccrypto_key *parent, struct ccrypto_key **out)
{
    int answer = allocate(cipher, out);
    if (answer == 0) {
        derive(*out, parent->bytes, sizeof parent->bytes);
    }
    return answer;
}

int ccrypto_key_exact(int cipher, const uint8_t bytes[CCRYPTO_KEY_BYTES], struct ccrypto_key **out)
{
    int answer = allocate(cipher, out);
    if (answer == 0) {
        memcpy((*out)->bytes, bytes, CCRYPTO_KEY_BYTES);
        expand(*out);
    }
    return answer;
}

void ccrypto_key_free(struct ccrypto_key *key)
{
    /* Makes it writable, wipes it, unlocks and unmaps it. */
    sodium_free(key);
}

void ccrypto_seal(const struct ccrypto_key *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES],
                  const void *data, size_t data_length, const void *from, size_t length, void *to,
                  uint8_t tag[CCRYPTO_TAG_BYTES])
{
    if (key->cipher == CCRYPTO_AES256_GCM) {
        gcm_seal(&key->aes, nonce, data, data_length, from, length, to, tag);
    } else {
        crypto_aead_chacha20poly1305_ietf_encrypt_detached(to, tag, NULL, from, length, data, data_length, NULL,
                                                           nonce, key->bytes);
    }
}

int ccrypto_open(const struct ccrypto_key *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES],
                 const void *data, size_t data_length, const void *from, size_t length,
                 const uint8_t tag[CCRYPTO_TAG_BYTES], void *to)
{
    if (key->cipher == CCRYPTO_AES256_GCM) {
        return gcm_open(&key->aes, nonce, data, data_length, from, length, tag, to);
    }
    int answer = crypto_aead_chacha20poly1305_ietf_decrypt_detached(to, NULL, from, length, tag, data, data_length,
                                                                    nonce, key->bytes);
    return answer == 0 ? 0 : -EBADMSG;
}
