/* A spilled block that is not what was packed is refused, and what was packed comes back. */
#include <stdlib.h>
#include <xxhash.h>

#include "engine/spill.h"

enum { CONTENT_MAX = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(struct bytes content)
{
    struct writer stored = {0};
    struct spill_block block = {0};
    spill_pack(content, &stored, &block);
    uint8_t *out = malloc(content.len);
    check(out != NULL);
    check(spill_unpack(writer_view(&stored), &block, out));
    check(memcmp(out, content.data, content.len) == 0);
    free(out);
    stored.data[0] ^= 1;
    out = malloc(content.len);
    check(out != NULL);
    check(!spill_unpack(writer_view(&stored), &block, out));
    free(out);
    writer_release(&stored);
}

/* Bytes of our choice under a hash that fits them: only the format is left to refuse them. */
static void any_bytes(struct bytes stored, uint64_t content_len)
{
    struct spill_block block = {
        .content_len = content_len,
        .stored_len = stored.len,
        .hash = XXH3_64bits(stored.data, stored.len),
    };
    uint8_t *out = malloc(content_len + 1);
    check(out != NULL);
    (void)spill_unpack(stored, &block, out);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader r = reader_of((struct bytes){data, size});
    uint64_t content_len = reader_u16be(&r) % CONTENT_MAX;
    if (r.failed || reader_left(&r) == 0)
        return 0;
    struct bytes rest = reader_take(&r, reader_left(&r));
    round_trip(rest);
    any_bytes(rest, content_len);
    return 0;
}
