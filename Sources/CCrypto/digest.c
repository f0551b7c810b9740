#include "ccrypto.h"

#include <sodium.h>
#include <string.h>

/* NHPoly1305 as Adiantum has it (Crowley and Biggers, 2018): NH makes 32 bytes of each 1024, and
 * Poly1305 a digest of those. NH is four sums of products of neighbouring words, each word added to
 * one of the key first; the sums differ in where in the key they begin. */
enum {
    PART_WORDS = CCRYPTO_DIGEST_PART / 4,
    SUMS = 4,
    /* Words of the key between the beginnings of two sums. */
    STRIDE = 4,
    STEP_WORDS = 8,
};

_Static_assert(sizeof(((struct ccrypto_digest_key *)0)->words) / 4 == PART_WORDS + (SUMS - 1) * STRIDE,
               "the last sum would not find its key");

/* Where the CPU has no such registers, the compiler makes two of each. */
typedef uint32_t words __attribute__((vector_size(4 * STEP_WORDS), aligned(4)));
typedef uint64_t pairs __attribute__((vector_size(4 * STEP_WORDS)));

static inline __attribute__((always_inline)) void sum(const uint32_t *key, const uint32_t *part, uint64_t *to)
{
    pairs sums[SUMS] = {0};
    for (int i = 0; i < PART_WORDS; i += STEP_WORDS) {
        words data = *(const words *)(part + i);
#pragma GCC unroll 4
        for (int s = 0; s < SUMS; s++) {
            pairs keyed = (pairs)(data + *(const words *)(key + i + s * STRIDE));
            sums[s] += (keyed & 0xffffffffu) * (keyed >> 32);
        }
    }
    for (int s = 0; s < SUMS; s++) {
        to[s] = sums[s][0] + sums[s][1] + sums[s][2] + sums[s][3];
    }
}

static void sum_parts(const uint32_t *key, const uint32_t *data, int parts, uint64_t *to)
{
    for (int i = 0; i < parts; i++) {
        sum(key, data + i * PART_WORDS, to + i * SUMS);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void sum_parts_avx2(const uint32_t *key, const uint32_t *data, int parts,
                                                           uint64_t *to)
{
    for (int i = 0; i < parts; i++) {
        sum(key, data + i * PART_WORDS, to + i * SUMS);
    }
}
#endif

int ccrypto_digest_key(struct ccrypto_digest_key *key)
{
    /* 1 says that somebody readied it before. */
    if (sodium_init() < 0) {
        return -1;
    }
    randombytes_buf(key, sizeof *key);
    return 0;
}

void ccrypto_digest(const struct ccrypto_digest_key *key, uint64_t number, const void *data, uint8_t digest[16])
{
    enum { PARTS = CCRYPTO_DIGEST_DATA / CCRYPTO_DIGEST_PART };
    uint64_t digested[1 + PARTS * SUMS];
    digested[0] = number;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        sum_parts_avx2(key->words, data, PARTS, digested + 1);
    } else {
        sum_parts(key->words, data, PARTS, digested + 1);
    }
#else
    sum_parts(key->words, data, PARTS, digested + 1);
#endif
    crypto_onetimeauth(digest, (const unsigned char *)digested, sizeof digested, key->poly);
}
