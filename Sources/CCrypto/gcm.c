#include "gcm.h"

#include <errno.h>
#include <sodium.h>

#if defined(__x86_64__)
#include <pthread.h>

/* The functions for this CPU. The library keeps them in a manager, of which nothing else is used. */
static struct {
    aes_gcm_pre_t expand;
    aes_gcm_enc_dec_t seal;
    aes_gcm_enc_dec_t open;
} functions;

static void choose(void)
{
    const uint64_t needed = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ;
    IMB_MGR *manager = alloc_mb_mgr(0);
    if (manager == NULL) {
        return;
    }
    init_mb_mgr_auto(manager, NULL);
    if (imb_get_errno(manager) == 0 && (manager->features & needed) == needed) {
        functions.expand = manager->gcm256_pre;
        functions.seal = manager->gcm256_enc;
        functions.open = manager->gcm256_dec;
    }
    free_mb_mgr(manager);
}

int gcm_is_available(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return functions.seal != NULL;
}

void gcm_expand(const uint8_t bytes[CCRYPTO_KEY_BYTES], struct gcm_key_data *key)
{
    functions.expand(bytes, key);
}

/* Wipes what tells of the key in the state of one message. */
static void run(aes_gcm_enc_dec_t function, const struct gcm_key_data *key, const uint8_t *nonce, const void *data,
                size_t data_length, const void *from, size_t length, void *to, uint8_t *tag)
{
    struct gcm_context_data state;
    function(key, &state, to, from, length, nonce, data, data_length, tag, CCRYPTO_TAG_BYTES);
    sodium_memzero(&state, sizeof state);
}

void gcm_seal(const struct gcm_key_data *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES], const void *data,
              size_t data_length, const void *from, size_t length, void *to, uint8_t tag[CCRYPTO_TAG_BYTES])
{
    run(functions.seal, key, nonce, data, data_length, from, length, to, tag);
}

int gcm_open(const struct gcm_key_data *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES], const void *data,
             size_t data_length, const void *from, size_t length, const uint8_t tag[CCRYPTO_TAG_BYTES], void *to)
{
    uint8_t found[CCRYPTO_TAG_BYTES];
    run(functions.open, key, nonce, data, data_length, from, length, to, found);
    if (sodium_memcmp(found, tag, sizeof found) == 0) {
        return 0;
    }
    sodium_memzero(to, length);
    return -EBADMSG;
}

#else

int gcm_is_available(void)
{
    return crypto_aead_aes256gcm_is_available();
}

void gcm_expand(const uint8_t bytes[CCRYPTO_KEY_BYTES], struct gcm_key_data *key)
{
    crypto_aead_aes256gcm_beforenm(&key->state, bytes);
}

void gcm_seal(const struct gcm_key_data *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES], const void *data,
              size_t data_length, const void *from, size_t length, void *to, uint8_t tag[CCRYPTO_TAG_BYTES])
{
    crypto_aead_aes256gcm_encrypt_detached_afternm(to, tag, NULL, from, length, data, data_length, NULL, nonce,
                                                   &key->state);
}

int gcm_open(const struct gcm_key_data *key, const uint8_t nonce[CCRYPTO_NONCE_BYTES], const void *data,
             size_t data_length, const void *from, size_t length, const uint8_t tag[CCRYPTO_TAG_BYTES], void *to)
{
    int answer = crypto_aead_aes256gcm_decrypt_detached_afternm(to, NULL, from, length, tag, data, data_length, nonce,
                                                                &key->state);
    return answer == 0 ? 0 : -EBADMSG;
}

#endif
