/* Arbitrary bytes as a segment's file: nothing crashes, and no frame comes out of a block whose
 * hash, computed here once more from the format's description, does not match. The first byte
 * chooses whether hashes are made to fit, so that what lies behind them is reached too. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/base/file.h"
#include "engine/base/writer.h"
#include "engine/spool_segment.h"

enum { BLOCK_HASHED = 32, BLOCK_HEADER = 40, FILE_MAX = 1 << 16 };

static const uint64_t number = 1;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void store_be(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (56 - 8 * i));
}

static uint64_t load_be(const uint8_t *at, size_t width)
{
    struct reader r = reader_of((struct bytes){at, width});
    return reader_be(&r, width);
}

static uint64_t block_hash(const uint8_t *block, uint64_t offset, size_t stored)
{
    uint8_t covered[BLOCK_HASHED + 16];
    memcpy(covered, block, BLOCK_HASHED);
    store_be(covered + BLOCK_HASHED, number);
    store_be(covered + BLOCK_HASHED + 8, offset);
    return XXH3_64bits_withSeed(block + BLOCK_HEADER, stored,
                                XXH3_64bits(covered, sizeof covered));
}

static void mend(uint8_t *file, size_t size)
{
    size_t at = size < 16 ? size : load_be(file + 12, 4);
    if (at > size || at < 24)
        return;
    store_be(file + at - 8, XXH3_64bits(file, at - 8));
    while (size - at >= BLOCK_HEADER) {
        size_t stored = load_be(file + at + 8, 4);
        if (stored > size - at - BLOCK_HEADER)
            return;
        store_be(file + at + BLOCK_HASHED, block_hash(file + at, at, stored));
        at += BLOCK_HEADER + stored;
    }
}

static void walk(struct segment *g, const uint8_t *file, size_t size)
{
    cleanup_with(writer_release) struct writer content = {0};
    struct error err = {0};
    enum segment_verdict verdict = SEGMENT_GOOD;
    for (uint64_t at = g->header_len; verdict == SEGMENT_GOOD;) {
        struct segment_block b = {.offset = at};
        check(segment_read(g, &b, &content, &verdict, &err));
        if (verdict != SEGMENT_GOOD)
            break;
        check(b.end <= size && b.end == at + BLOCK_HEADER + b.stored_len);
        check(load_be(file + at + BLOCK_HASHED, 8) == block_hash(file + at, at, b.stored_len));
        struct reader r = reader_of(writer_view(&content));
        struct frame frame;
        for (uint32_t i = 0; i < b.frames; i++)
            check(segment_take_frame(&r, &frame));
        check(reader_done(&r));
        at = b.end;
    }
    struct segment_tail tail;
    if (segment_scan(g, &tail, &err))
        check(tail.end <= size && tail.end + tail.torn == size);
}

/* A good file, to begin from. */
static void seed(struct writer *file)
{
    cleanup_with(writer_release) struct writer content = {0};
    cleanup_with(writer_release) struct writer stored = {0};
    static const struct frame frames[] = {
        {.kind = FRAME_DATA,
         .body = BYTES_INIT("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")},
        {.kind = FRAME_COMMIT, .pos = BYTES_INIT("0/1"), .body = BYTES_INIT("b")}};
    writer_text(file, "TEALSPL1");
    writer_u32be(file, 1);
    writer_u32be(file, 54 + 2);
    writer_u64be(file, number);
    writer_u64be(file, 0);
    writer_u64be(file, 0);
    writer_u16be(file, 0);
    writer_u32be(file, 2);
    writer_text(file, "id");
    writer_u64be(file, XXH3_64bits(file->data, file->len));
    for (uint64_t i = 0; i < 3; i++) {
        writer_clear(&content);
        for (size_t n = 0; n < array_count(frames); n++) {
            size_t len = segment_frame_size(&frames[n]);
            segment_put_frame(writer_room(&content, len), &frames[n]);
            content.len += len;
        }
        struct segment_block b = {
            .offset = file->len, .synced = file->len, .seq_before = i, .frames = 2};
        segment_pack(number, writer_view(&content), &b, &stored);
        writer_bytes(file, writer_view(&stored));
    }
}

/* Bytes 1 and 2 say where in the good file the rest of the input is laid over it; without them
 * the input is the whole file. */
static void compose(struct writer *file, const uint8_t *data, size_t size)
{
    if (size < 3 || (data[0] & 2) == 0) {
        if (size > 1)
            writer_put(file, data + 1, size - 1);
        return;
    }
    seed(file);
    size_t at = load_be(data + 1, 2) % file->len;
    while (file->len < at + size - 3)
        writer_u8(file, 0);
    memcpy(file->data + at, data + 3, size - 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > FILE_MAX)
        return 0;
    cleanup_with(writer_release) struct writer file = {0};
    compose(&file, data, size);
    if ((data[0] & 1) != 0 && file.len > 0)
        mend(file.data, file.len);
    struct error err = {0};
    struct segment g = {.fd = memfd_create("spool", MFD_CLOEXEC), .number = number};
    check(g.fd >= 0);
    check(file_write_all(g.fd, file.data, file.len, &err));
    if (segment_load(&g, "id", &err))
        walk(&g, file.data, file.len);
    segment_close(&g);
    return 0;
}
