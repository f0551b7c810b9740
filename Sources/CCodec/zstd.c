#include "ccodec.h"

/* The static archive has contexts in the caller's memory, and frames without a magic
 * number, which would be 4 bytes of every page. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

static ZSTD_compressionParameters parameters_of(int level, int length)
{
    return ZSTD_getCParams(level, (unsigned long long)length, 0);
}

size_t ccodec_zstd_compressor_size(int level, int length)
{
    return ZSTD_estimateCCtxSize_usingCParams(parameters_of(level, length));
}

void *ccodec_zstd_compressor(void *memory, size_t size, int level, int length)
{
    ZSTD_CCtx *context = ZSTD_initStaticCCtx(memory, size);
    if (context == NULL) {
        return NULL;
    }
    /* Each by itself: a level alone is translated anew for each page. */
    ZSTD_compressionParameters chosen = parameters_of(level, length);
    const struct {
        ZSTD_cParameter name;
        int value;
    } settings[] = {
        {ZSTD_c_format, ZSTD_f_zstd1_magicless},
        /* Every page is of one length: two bytes less than with it in the frame. */
        {ZSTD_c_contentSizeFlag, 0},
        {ZSTD_c_windowLog, (int)chosen.windowLog},
        {ZSTD_c_hashLog, (int)chosen.hashLog},
        {ZSTD_c_chainLog, (int)chosen.chainLog},
        {ZSTD_c_searchLog, (int)chosen.searchLog},
        {ZSTD_c_minMatch, (int)chosen.minMatch},
        {ZSTD_c_targetLength, (int)chosen.targetLength},
        {ZSTD_c_strategy, (int)chosen.strategy},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        if (ZSTD_isError(ZSTD_CCtx_setParameter(context, settings[i].name, settings[i].value))) {
            return NULL;
        }
    }
    return context;
}

int ccodec_zstd_compress(void *compressor, const void *page, int length, void *out, int room)
{
    size_t answer = ZSTD_compress2(compressor, out, (size_t)room, page, (size_t)length);
    return ZSTD_isError(answer) ? 0 : (int)answer;
}

size_t ccodec_zstd_decompressor_size(void)
{
    return ZSTD_estimateDCtxSize();
}

void *ccodec_zstd_decompressor(void *memory, size_t size)
{
    ZSTD_DCtx *context = ZSTD_initStaticDCtx(memory, size);
    if (context == NULL ||
        ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_format, ZSTD_f_zstd1_magicless))) {
        return NULL;
    }
    return context;
}

int ccodec_zstd_decompress(void *decompressor, const void *data, int data_length, void *page,
                           int length)
{
    size_t answer = ZSTD_decompressDCtx(decompressor, page, (size_t)length, data, (size_t)data_length);
    return answer == (size_t)length ? 0 : -1;
}
