#include "ccodec.h"

/* The static archive has LZ4_compress_fast_extState_fastReset, which spares
 * clearing a 16 KiB table for every 4 KiB page. */
#define LZ4_STATIC_LINKING_ONLY
#include <lz4.h>

int ccodec_lz4_state_size(void)
{
    return LZ4_sizeofState();
}

int ccodec_lz4_compress(void *state, const void *page, int length, void *out, int room)
{
    return LZ4_compress_fast_extState_fastReset(state, page, out, length, room, 1);
}

int ccodec_lz4_decompress(const void *data, int data_length, void *page, int length)
{
    return LZ4_decompress_safe(data, page, data_length, length) == length ? 0 : -1;
}
