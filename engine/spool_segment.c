#include "engine/spool_segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"

enum {
    FORMAT = 1,
    MAGIC_LEN = 8,
    HEADER_MIN = MAGIC_LEN + 4 + 4 + 8 + 8 + 8 + 2 + 4 + 8,
    HEADER_MAX = 64 << 10,
    HASH_LEN = 8,
    BLOCK_HASHED = 32, /* What of a block's header the hash covers. */
    BLOCK_HEADER = BLOCK_HASHED + HASH_LEN,
    BLOCK_MAGIC_LEN = 4,
    LZ4_RATIO_MAX = 256, /* It cannot pack better than 255 to 1. */
    WINDOW = 1 << 20,
    NAME_DIGITS = 20,
};

static const char magic[MAGIC_LEN + 1] = "TEALSPL1";
static const char block_magic[BLOCK_MAGIC_LEN + 1] = "TSBK";
static const char name_suffix[] = ".spool";
static const char damage_hint[] =
    "The disk or something else changed this file. Keep a copy of the folder; then empty it "
    "and "
    "start again: teal says whether the source still reaches back far enough.";

/* ---- frames ---- */

static void put_be(uint8_t *at, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
}

void segment_put_frame(uint8_t *at, const struct frame *frame)
{
    at[0] = (uint8_t)frame->kind;
    put_be(at + 1, frame->body.len, 4);
    at += 5;
    if (segment_is_boundary(frame->kind)) {
        put_be(at, frame->pos.len, 2);
        if (frame->pos.len > 0)
            memcpy(at + 2, frame->pos.data, frame->pos.len);
        at += 2 + frame->pos.len;
    }
    if (frame->body.len > 0)
        memcpy(at, frame->body.data, frame->body.len);
}

bool segment_take_frame(struct reader *r, struct frame *frame)
{
    uint8_t kind = reader_u8(r);
    size_t len = reader_u32be(r);
    if (r->failed || kind > FRAME_PREFACE)
        return false;
    frame->kind = (enum frame_kind)kind;
    frame->pos = (struct bytes){0};
    if (segment_is_boundary(frame->kind))
        frame->pos = reader_take(r, reader_u16be(r));
    frame->body = reader_take(r, len);
    return !r->failed && frame->pos.len < POSITION_MAX;
}

static bool frames_whole(struct bytes content, uint32_t count)
{
    struct reader r = reader_of(content);
    struct frame frame;
    for (uint32_t i = 0; i < count; i++)
        if (!segment_take_frame(&r, &frame))
            return false;
    return reader_done(&r);
}

/* ---- names ---- */

void segment_path(char path[PATH_MAX], const char *folder, uint64_t number)
{
    int len = snprintf(path, PATH_MAX, "%s/%020llu%s", folder, (unsigned long long)number,
                       name_suffix);
    check(len > 0 && len < PATH_MAX); /* spool_open() has refused longer folders. */
}

static bool name_parse(const char *name, uint64_t *number)
{
    if (strspn(name, "0123456789") != NAME_DIGITS ||
        strcmp(name + NAME_DIGITS, name_suffix) != 0)
        return false;
    errno = 0;
    *number = strtoull(name, NULL, 10);
    return errno == 0 && *number > 0 && *number < UINT64_MAX;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void folder_close(DIR **folder)
{
    if (*folder != NULL)
        (void)closedir(*folder);
}

bool segment_list(const char *folder, uint64_t **numbers, size_t *count, struct error *err)
{
    cleanup_with(folder_close) DIR *names = opendir(folder);
    if (names == NULL)
        return error_set(err, ERROR_DISK, "open spool folder %s: %s", folder, strerror(errno));
    struct writer found = {0};
    errno = 0;
    for (const struct dirent *entry = readdir(names); entry != NULL; entry = readdir(names)) {
        uint64_t number = 0;
        if (name_parse(entry->d_name, &number))
            writer_put(&found, &number, sizeof number);
        errno = 0;
    }
    if (errno != 0) {
        int reason = errno;
        writer_release(&found);
        return error_set(err, ERROR_DISK, "list %s: %s", folder, strerror(reason));
    }
    *count = found.len / sizeof **numbers;
    *numbers = (uint64_t *)(void *)found.data;
    if (*count > 0)
        qsort(*numbers, *count, sizeof **numbers, by_number);
    return true;
}

/* ---- bytes of the file ---- */

/* As many bytes of `len` as the file has there. */
static bool read_at(const struct segment *g, uint64_t offset, size_t len, struct writer *out,
                    struct error *err)
{
    writer_clear(out);
    uint8_t *room = writer_room(out, len);
    while (out->len < len) {
        ssize_t got = pread(g->fd, room + out->len, len - out->len, (off_t)(offset + out->len));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, ERROR_DISK, "read %s at byte %llu: %s", g->path,
                             (unsigned long long)offset, strerror(errno));
        if (got == 0)
            break;
        out->len += (size_t)got;
    }
    return true;
}

static bool file_len(const struct segment *g, uint64_t *len, struct error *err)
{
    struct stat st;
    if (fstat(g->fd, &st) != 0)
        return error_set(err, ERROR_DISK, "stat %s: %s", g->path, strerror(errno));
    *len = (uint64_t)st.st_size;
    return true;
}

/* ---- the segment's header ---- */

static bool bad_header(const struct segment *g, const char *what, struct error *err)
{
    error_set(err, ERROR_LOST, "spool segment %s is damaged: %s", g->path, what);
    return error_hint(err, "%s", damage_hint);
}

static bool header_check(struct segment *g, struct bytes raw, const char *identity,
                         struct error *err)
{
    struct bytes hashed = {raw.data, raw.len - HASH_LEN};
    struct reader hash = reader_of((struct bytes){raw.data + hashed.len, HASH_LEN});
    if (XXH3_64bits(hashed.data, hashed.len) != reader_u64be(&hash))
        return bad_header(g, "the header's hash does not fit", err);
    struct reader r = reader_of(hashed);
    (void)reader_take(&r, MAGIC_LEN + 4 + 4);
    uint64_t number = reader_u64be(&r);
    g->seq_before = reader_u64be(&r);
    (void)reader_u64be(&r);
    struct bytes pos = reader_take(&r, reader_u16be(&r));
    struct bytes name = reader_take(&r, reader_u32be(&r));
    if (!reader_done(&r) || pos.len >= POSITION_MAX)
        return bad_header(g, "the header does not add up", err);
    if (!bytes_equal(name, (struct bytes){(const uint8_t *)identity, strlen(identity)})) {
        error_set(err, ERROR_LOST, "spool segment %s belongs to another stream: %.*s, not %s",
                  g->path, name.len > 256 ? 256 : (int)name.len, (const char *)name.data,
                  identity);
        return error_hint(err, "Give this migration a spool folder of its own, or empty this "
                               "one if the other migration is over.");
    }
    if (number != g->number)
        return bad_header(g, "it was not made under this name", err);
    g->pos_before = position_of(pos);
    g->header_len = raw.len;
    return true;
}

bool segment_load(struct segment *g, const char *identity, struct error *err)
{
    cleanup_with(writer_release) struct writer raw = {0};
    TRY(read_at(g, 0, HEADER_MIN, &raw, err));
    struct reader r = reader_of(writer_view(&raw));
    struct bytes found = reader_take(&r, MAGIC_LEN);
    uint32_t format = reader_u32be(&r);
    uint32_t len = reader_u32be(&r);
    if (r.failed || memcmp(found.data, magic, MAGIC_LEN) != 0)
        return bad_header(g, "it does not begin as one", err);
    if (format != FORMAT) {
        error_set(err, ERROR_LOST, "spool segment %s has format %u; this teal knows %d",
                  g->path, (unsigned)format, FORMAT);
        return error_hint(err, "Run the teal that wrote it.");
    }
    if (len < HEADER_MIN || len > HEADER_MAX)
        return bad_header(g, "the header's length cannot be", err);
    TRY(read_at(g, 0, len, &raw, err));
    if (raw.len < len)
        return bad_header(g, "it ends within the header", err);
    return header_check(g, writer_view(&raw), identity, err);
}

bool segment_open(const struct segment_folder *f, uint64_t number, bool writable,
                  struct segment *g, struct error *err)
{
    g->number = number;
    segment_path(g->path, f->path, number);
    g->fd = open(g->path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (g->fd < 0)
        return error_set(err, errno == ENOENT ? ERROR_LOST : ERROR_DISK, "open %s: %s", g->path,
                         strerror(errno));
    if (segment_load(g, f->identity, err))
        return true;
    segment_close(g);
    return false;
}

void segment_close(struct segment *g)
{
    file_close(&g->fd);
    g->fd = -1;
}

bool segment_create(const struct segment_folder *f, struct segment *g, struct error *err)
{
    cleanup_with(writer_release) struct writer raw = {0};
    size_t identity_len = strlen(f->identity);
    size_t len = HEADER_MIN + g->pos_before.len + identity_len;
    check(len <= HEADER_MAX);
    writer_put(&raw, magic, MAGIC_LEN);
    writer_u32be(&raw, FORMAT);
    writer_u32be(&raw, (uint32_t)len);
    writer_u64be(&raw, g->number);
    writer_u64be(&raw, g->seq_before);
    writer_u64be(&raw, (uint64_t)clock_wall_us());
    writer_u16be(&raw, g->pos_before.len);
    writer_bytes(&raw, position_bytes(&g->pos_before));
    writer_u32be(&raw, (uint32_t)identity_len);
    writer_put(&raw, f->identity, identity_len);
    writer_u64be(&raw, XXH3_64bits(raw.data, raw.len));
    check(raw.len == len);
    segment_path(g->path, f->path, g->number);
    TRY(file_replace(g->path, writer_view(&raw), err));
    return segment_open(f, g->number, true, g, err);
}

/* ---- blocks ---- */

static uint64_t block_hash(const uint8_t *header, uint64_t number, uint64_t offset,
                           struct bytes stored)
{
    uint8_t covered[BLOCK_HASHED + 16];
    memcpy(covered, header, BLOCK_HASHED);
    put_be(covered + BLOCK_HASHED, number, 8);
    put_be(covered + BLOCK_HASHED + 8, offset, 8);
    return XXH3_64bits_withSeed(stored.data, stored.len, XXH3_64bits(covered, sizeof covered));
}

void segment_pack(uint64_t number, struct bytes content, struct segment_block *b,
                  struct writer *out)
{
    check(content.len > 0 && content.len <= SEGMENT_CONTENT_MAX);
    writer_clear(out);
    uint8_t *body = writer_room(out, BLOCK_HEADER + content.len) + BLOCK_HEADER;
    int packed = LZ4_compress_default((const char *)content.data, (char *)body,
                                      (int)content.len, (int)content.len - 1);
    if (packed <= 0)
        memcpy(body, content.data, content.len);
    b->content_len = (uint32_t)content.len;
    b->stored_len = packed > 0 ? (uint32_t)packed : b->content_len;
    b->end = b->offset + BLOCK_HEADER + b->stored_len;
    writer_put(out, block_magic, BLOCK_MAGIC_LEN);
    writer_u32be(out, b->content_len);
    writer_u32be(out, b->stored_len);
    writer_u32be(out, b->frames);
    writer_u64be(out, b->seq_before);
    writer_u64be(out, b->synced);
    writer_u64be(out,
                 block_hash(out->data, number, b->offset, (struct bytes){body, b->stored_len}));
    out->len += b->stored_len;
}

/* Whether the header could be one, before anything in it is used. `room`: bytes of the file
 * behind the block's offset. */
static bool header_plausible(struct bytes raw, uint64_t room, struct segment_block *b)
{
    struct reader r = reader_of(raw);
    struct bytes found = reader_take(&r, BLOCK_MAGIC_LEN);
    b->content_len = reader_u32be(&r);
    b->stored_len = reader_u32be(&r);
    b->frames = reader_u32be(&r);
    b->seq_before = reader_u64be(&r);
    b->synced = reader_u64be(&r);
    b->end = b->offset + BLOCK_HEADER + b->stored_len;
    return !r.failed && raw.len == BLOCK_HEADER &&
           memcmp(found.data, block_magic, BLOCK_MAGIC_LEN) == 0 && b->stored_len > 0 &&
           b->stored_len <= b->content_len && b->content_len <= SEGMENT_CONTENT_MAX &&
           b->content_len / LZ4_RATIO_MAX <= b->stored_len && b->synced <= b->offset &&
           room >= BLOCK_HEADER && b->stored_len <= room - BLOCK_HEADER;
}

static bool unpack(const struct segment_block *b, struct bytes stored, struct writer *content)
{
    writer_clear(content);
    if (b->stored_len == b->content_len) {
        writer_bytes(content, stored);
    } else {
        int len = LZ4_decompress_safe((const char *)stored.data,
                                      (char *)writer_room(content, b->content_len),
                                      (int)stored.len, (int)b->content_len);
        if (len < 0 || (uint32_t)len != b->content_len)
            return false;
        content->len = b->content_len;
    }
    return frames_whole(writer_view(content), b->frames);
}

bool segment_read(const struct segment *g, struct segment_block *b, struct writer *content,
                  enum segment_verdict *verdict, struct error *err)
{
    cleanup_with(writer_release) struct writer raw = {0};
    uint64_t len = 0;
    TRY(file_len(g, &len, err));
    *verdict = SEGMENT_END;
    if (b->offset == len)
        return true;
    *verdict = SEGMENT_BAD;
    if (b->offset > len)
        return true;
    TRY(read_at(g, b->offset, BLOCK_HEADER, &raw, err));
    if (!header_plausible(writer_view(&raw), len - b->offset, b))
        return true;
    size_t whole = BLOCK_HEADER + b->stored_len;
    TRY(read_at(g, b->offset, whole, &raw, err));
    if (raw.len < whole)
        return true;
    struct reader hash = reader_of((struct bytes){raw.data + BLOCK_HASHED, HASH_LEN});
    struct bytes stored = {raw.data + BLOCK_HEADER, b->stored_len};
    if (block_hash(raw.data, g->number, b->offset, stored) != reader_u64be(&hash))
        return true;
    if (unpack(b, stored, content))
        *verdict = SEGMENT_GOOD;
    return true;
}

/* ---- judging a file ---- */

static bool damaged(const struct segment *g, uint64_t offset, const char *what,
                    struct error *err)
{
    error_set(err, ERROR_LOST, "spool segment %s is damaged at byte %llu: %s", g->path,
              (unsigned long long)offset, what);
    return error_hint(err, "%s", damage_hint);
}

/* Whether the block at `offset` proves that what is bad at `bad` had been durable. */
static bool is_proof(const struct segment *g, uint64_t offset, uint64_t bad, bool *proof,
                     struct error *err)
{
    cleanup_with(writer_release) struct writer content = {0};
    struct segment_block b = {.offset = offset};
    enum segment_verdict verdict = SEGMENT_BAD;
    TRY(segment_read(g, &b, &content, &verdict, err));
    *proof = verdict == SEGMENT_GOOD && b.synced > bad;
    return true;
}

/* Looks for a proof at every offset in `window`, which begins at `at`. */
static bool find_proof_in(const struct segment *g, struct bytes window, uint64_t at,
                          uint64_t bad, bool *proof, struct error *err)
{
    const uint8_t *end = window.data + window.len;
    const uint8_t *from = window.data;
    for (; !*proof; from++) {
        from = memmem(from, (size_t)(end - from), block_magic, BLOCK_MAGIC_LEN);
        if (from == NULL)
            break;
        TRY(is_proof(g, at + (uint64_t)(from - window.data), bad, proof, err));
    }
    return true;
}

static bool find_proof(const struct segment *g, uint64_t bad, bool *proof, struct error *err)
{
    cleanup_with(writer_release) struct writer window = {0};
    uint64_t at = bad + 1;
    *proof = false;
    do {
        TRY(read_at(g, at, WINDOW, &window, err));
        TRY(find_proof_in(g, writer_view(&window), at, bad, proof, err));
        at += WINDOW - (BLOCK_MAGIC_LEN - 1);
    } while (!*proof && window.len == WINDOW);
    return true;
}

static bool judge_tail(const struct segment *g, struct segment_tail *tail, struct error *err)
{
    bool proof = false;
    uint64_t len = 0;
    TRY(find_proof(g, tail->end, &proof, err));
    if (proof)
        return damaged(g, tail->end, "good blocks follow bytes that are none", err);
    TRY(file_len(g, &len, err));
    tail->torn = len - tail->end;
    return true;
}

static void tail_advance(struct segment_tail *tail, struct bytes content)
{
    struct reader r = reader_of(content);
    struct frame frame;
    struct bytes pos = {0};
    bool any = false;
    while (reader_left(&r) > 0 && segment_take_frame(&r, &frame)) {
        if (!segment_is_boundary(frame.kind))
            continue;
        tail->last_seq++;
        pos = frame.pos;
        any = true;
    }
    if (any)
        tail->last_pos = position_of(pos);
}

bool segment_scan(const struct segment *g, struct segment_tail *tail, struct error *err)
{
    cleanup_with(writer_release) struct writer content = {0};
    *tail = (struct segment_tail){
        .end = g->header_len, .last_seq = g->seq_before, .last_pos = g->pos_before};
    for (;;) {
        struct segment_block b = {.offset = tail->end};
        enum segment_verdict verdict = SEGMENT_BAD;
        TRY(segment_read(g, &b, &content, &verdict, err));
        if (verdict == SEGMENT_END)
            return true;
        if (verdict == SEGMENT_BAD)
            return judge_tail(g, tail, err);
        if (b.seq_before != tail->last_seq)
            return damaged(g, b.offset, "the block does not continue the one before", err);
        tail_advance(tail, writer_view(&content));
        tail->end = b.end;
    }
}

bool segment_cut(const struct segment *g, uint64_t end, struct error *err)
{
    if (ftruncate(g->fd, (off_t)end) != 0 || fsync(g->fd) != 0)
        return error_set(err, ERROR_DISK, "cut %s at byte %llu: %s", g->path,
                         (unsigned long long)end, strerror(errno));
    return true;
}
