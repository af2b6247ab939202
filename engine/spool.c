#include "engine/spool.h"

#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/spool_inner.h"

/* ---- blocks, with the lock held ---- */

void spool_block_free(struct spool *s, struct spool_block *b)
{
    if (s->spare == NULL && b->size == s->block_bytes) {
        s->spare = b;
        return;
    }
    free(b->data);
    free(b);
}

static struct spool_block *block_new(struct spool *s, size_t need)
{
    size_t size = need > s->block_bytes ? need : s->block_bytes;
    struct spool_block *b = s->spare;
    uint8_t *data = NULL;
    if (b != NULL && size == s->block_bytes) {
        s->spare = NULL;
        data = b->data;
    } else {
        b = malloc(sizeof *b);
        data = malloc(size);
        check(b != NULL && data != NULL);
    }
    *b = (struct spool_block){.segment = s->entries[s->entry_count - 1].number,
                              .seq_before = s->appended_extent.last_seq,
                              .last_seq = s->appended_extent.last_seq,
                              .size = size,
                              .data = data};
    return b;
}

static void list_append(struct spool *s, struct spool_block *b)
{
    if (s->tail != NULL)
        s->tail->next = b;
    else
        s->head = b;
    s->tail = b;
    s->open = b;
    if (s->unflushed == NULL)
        s->unflushed = b;
    if (s->unread == NULL)
        s->unread = b;
    s->listed_bytes += b->size;
}

static void list_remove_head(struct spool *s)
{
    struct spool_block *b = s->head;
    check(b != s->unflushed && b != s->unread && b != s->open);
    s->head = b->next;
    if (s->head == NULL)
        s->tail = NULL;
    b->next = NULL;
    s->listed_bytes -= b->size;
}

/* Takes off the list what is both settled and taken. */
static void list_trim(struct spool *s)
{
    while (s->head != NULL && s->head->settled && s->head->taken) {
        struct spool_block *b = s->head;
        list_remove_head(s);
        if (b->finished)
            spool_block_free(s, b);
        else
            s->held_bytes += b->size;
    }
}

/* Gives back what a block has too much: one that was sealed early may wait for long. */
static void shrink(struct spool *s, struct spool_block *b)
{
    size_t len = atomic_load_explicit(&b->len, memory_order_relaxed);
    if (b->taken || len > b->size / 2)
        return;
    uint8_t *data = realloc(b->data, len);
    check(data != NULL);
    s->listed_bytes -= b->size - len;
    b->data = data;
    b->size = len;
}

void spool_settle(struct spool *s, struct spool_block *b)
{
    check(b == s->unflushed && b->sealed);
    s->unflushed = b->next;
    b->settled = true;
    size_t len = atomic_load_explicit(&b->len, memory_order_relaxed);
    struct spool_entry *entry = spool_entry_of(s, b);
    s->pending_bytes -= len;
    entry->pending -= len;
    if (!s->durable)
        entry->bytes += len;
    shrink(s, b);
    list_trim(s);
}

void spool_seal(struct spool *s)
{
    struct spool_block *b = s->open;
    if (b == NULL)
        return;
    b->sealed = true;
    s->open = NULL;
    if (!s->durable)
        spool_settle(s, b);
    /* It may have read all of it, and this is what frees the block. */
    if (s->reader_waits)
        (void)pthread_cond_signal(&s->appended);
}

/* Drops from the front what the reader will find on disk, to fit `extra` bytes. */
static void make_room(struct spool *s, uint64_t extra)
{
    while (s->durable && s->head != NULL && s->head->settled &&
           s->listed_bytes + extra > s->memory_max) {
        struct spool_block *b = s->head;
        check(!b->taken && b == s->unread);
        if (!s->behind)
            s->cursor = (struct spool_place){b->segment, b->offset};
        s->behind = true;
        s->target = (struct spool_place){b->segment, b->end};
        s->unread = b->next;
        list_remove_head(s);
        spool_block_free(s, b);
    }
}

void spool_forget_oldest(struct spool *s)
{
    check(s->entry_count > 1);
    if (s->durable)
        s->disk_bytes -= s->entries[0].bytes;
    s->entry_count--;
    memmove(s->entries, s->entries + 1, s->entry_count * sizeof *s->entries);
    s->appended_extent.first_seq = s->entries[0].seq_before + 1;
    if (s->durable)
        s->durable_extent.first_seq = s->appended_extent.first_seq;
}

struct spool_entry *spool_entry_of(struct spool *s, const struct spool_block *b)
{
    struct spool_entry *entry = &s->entries[b->segment - s->entries[0].number];
    check(entry->number == b->segment);
    return entry;
}

struct spool_entry *spool_entry_add(struct spool *s, uint64_t number, uint64_t seq_before,
                                    const struct position *pos_before)
{
    s->entries = reallocarray(s->entries, s->entry_count + 1, sizeof *s->entries);
    check(s->entries != NULL);
    struct spool_entry *entry = &s->entries[s->entry_count++];
    *entry = (struct spool_entry){number, seq_before, *pos_before, 0, 0};
    s->next_number = number + 1;
    return entry;
}

/* ---- appending, with the lock held ---- */

/* Whether a frame of `need` bytes may be taken. What is held by the flusher or the reader alone
 * is on its way out, so an empty list always has room: no frame is too long for ever. */
static bool has_room(struct spool *s, size_t need)
{
    bool fits = s->open != NULL && need <= s->open->size - s->open->len;
    uint64_t extra = fits ? 0 : need > s->block_bytes ? need : s->block_bytes;
    make_room(s, extra);
    if (s->head != NULL && s->listed_bytes + extra > s->memory_max)
        return false;
    return !s->durable || s->disk_bytes + s->pending_bytes + need <= s->disk_max;
}

/* A reader that waits can do nothing with a piece of a transaction: the end wakes it, or a
 * block that is full. */
static void wake(struct spool *s, bool reader)
{
    if (s->reader_waits && reader)
        (void)pthread_cond_signal(&s->appended);
    if (s->flusher_waits && (spool_flush_due(s) || spool_release_due(s)))
        (void)pthread_cond_signal(&s->work);
}

static void put(struct spool *s, struct frame *frame, size_t need)
{
    struct spool_block *b = s->open;
    if (b == NULL || need > b->size - b->len) {
        spool_seal(s);
        b = block_new(s, need);
        list_append(s, b);
    }
    size_t len = atomic_load_explicit(&b->len, memory_order_relaxed);
    segment_put_frame(b->data + len, frame);
    if (segment_is_boundary(frame->kind)) {
        b->last_pos = position_of(frame->pos);
        b->last_seq = ++s->appended_extent.last_seq;
        s->appended_extent.last_pos = b->last_pos;
    }
    frame->seq = s->appended_extent.last_seq;
    b->frames++;
    s->pending_bytes += need;
    s->entries[s->entry_count - 1].pending += need;
    atomic_store_explicit(&b->len, len + need, memory_order_release);
}

static bool append(struct spool *s, struct frame *frame, bool *full, struct error *err)
{
    check(s->ready);
    if (s->failure.kind != ERROR_NONE) {
        *err = s->failure;
        return false;
    }
    size_t need = segment_frame_size(frame);
    *full = !has_room(s, need);
    if (*full)
        spool_seal(s); /* So that reader and flusher can be done with it. */
    else
        put(s, frame, need);
    wake(s, *full || segment_is_boundary(frame->kind));
    return true;
}

bool spool_append(struct spool *s, struct frame *frame, bool *full, struct error *err)
{
    check(frame->pos.len < POSITION_MAX);
    *full = false;
    if (frame->body.len > SEGMENT_CONTENT_MAX - POSITION_MAX - 16)
        return error_set(err, ERROR_DATA, "a message of %zu bytes is too long for the spool",
                         frame->body.len);
    pthread_mutex_lock(&s->lock);
    bool done = append(s, frame, full, err);
    pthread_mutex_unlock(&s->lock);
    return done;
}

bool spool_wants_segment(struct spool *s)
{
    pthread_mutex_lock(&s->lock);
    check(s->ready);
    const struct spool_entry *last = &s->entries[s->entry_count - 1];
    bool wants = last->bytes + last->pending > s->segment_bytes;
    pthread_mutex_unlock(&s->lock);
    return wants;
}

bool spool_begin_segment(struct spool *s, struct error *err)
{
    pthread_mutex_lock(&s->lock);
    check(s->ready);
    bool healthy = s->failure.kind == ERROR_NONE;
    const struct spool_entry *last = &s->entries[s->entry_count - 1];
    bool fresh =
        last->bytes + last->pending == 0; /* Has no file yet; another would be a gap. */
    if (healthy && !fresh) {
        spool_seal(s);
        (void)spool_entry_add(s, s->next_number, s->appended_extent.last_seq,
                              &s->appended_extent.last_pos);
        if (!s->durable)
            s->made = s->entries[s->entry_count - 1].number;
        wake(s, false);
    }
    if (!healthy)
        *err = s->failure;
    pthread_mutex_unlock(&s->lock);
    return healthy;
}

/* ---- reading ---- */

enum next { NEXT_FRAME, NEXT_ON_DISK, NEXT_NONE };

/* The reader has given all of `reading`. */
static void finish(struct spool *s)
{
    struct spool_block *b = s->reading;
    s->reading = NULL;
    b->finished = true;
    if (!b->settled)
        return;
    s->held_bytes -= b->size;
    spool_block_free(s, b);
}

static void take(struct spool *s)
{
    struct spool_block *b = s->unread;
    s->unread = b->next;
    b->taken = true;
    s->reading = b;
    s->at = s->limit = 0;
    list_trim(s);
}

/* What the reader is to do, without waiting. */
static enum next look(struct spool *s)
{
    for (;;) {
        if (s->reading != NULL) {
            s->limit = atomic_load_explicit(&s->reading->len, memory_order_acquire);
            if (s->at < s->limit)
                return NEXT_FRAME;
            if (!s->reading->sealed)
                return NEXT_NONE;
            finish(s);
        }
        if (s->behind)
            return NEXT_ON_DISK;
        if (s->unread == NULL)
            return NEXT_NONE;
        take(s);
    }
}

static enum next look_until(struct spool *s, const struct timespec *until)
{
    pthread_mutex_lock(&s->lock);
    enum next next = look(s);
    int waited = 0;
    while (until != NULL && next == NEXT_NONE && waited == 0) {
        s->reader_waits = true;
        waited = pthread_cond_timedwait(&s->appended, &s->lock, until);
        s->reader_waits = false;
        next = look(s);
    }
    pthread_mutex_unlock(&s->lock);
    return next;
}

static bool damaged(const struct segment *g, uint64_t offset, const char *what,
                    struct error *err)
{
    error_set(err, ERROR_DATA, "spool segment %s is damaged at byte %llu: %s", g->path,
              (unsigned long long)offset, what);
    return error_hint(err, "The disk or something else changed this file. Nothing of it was "
                           "applied from there on. Empty the spool folder and start again: "
                           "teal says whether the source still reaches back far enough.");
}

/* Opens the segment the cursor stands in. */
static bool turn_page(struct spool *s, struct spool_place *at, struct error *err)
{
    if (s->in.fd < 0 || s->in.number != at->segment) {
        segment_close(&s->in);
        TRY(segment_open(&s->folder, at->segment, false, &s->in, err));
    }
    if (at->offset != 0)
        return true;
    if (s->in.seq_before != s->reader_seq)
        return damaged(&s->in, 0, "it does not continue the segment before", err);
    at->offset = s->in.header_len;
    return true;
}

static struct spool_block *block_of_file(const struct segment *g, const struct segment_block *b,
                                         struct writer *content)
{
    struct spool_block *read = malloc(sizeof *read);
    check(read != NULL);
    *read = (struct spool_block){.segment = g->number,
                                 .seq_before = b->seq_before,
                                 .frames = b->frames,
                                 .sealed = true,
                                 .settled = true,
                                 .taken = true,
                                 .size = content->size,
                                 .data = content->data,
                                 .len = content->len};
    *content = (struct writer){0};
    return read;
}

/* The block at `at`, which moves behind it; *read stays NULL if there are no more. */
static bool read_block(struct spool *s, struct spool_place *at, struct spool_block **read,
                       struct error *err)
{
    cleanup_with(writer_release) struct writer content = {0};
    struct segment_block b = {.offset = at->offset};
    enum segment_verdict verdict = SEGMENT_BAD;
    TRY(segment_read(&s->in, &b, &content, &verdict, err));
    if (verdict == SEGMENT_END)
        return true;
    if (verdict == SEGMENT_BAD)
        return damaged(&s->in, at->offset, "the bytes are not those that were written", err);
    if (b.seq_before != s->reader_seq)
        return damaged(&s->in, at->offset, "the block does not continue the one before", err);
    *read = block_of_file(&s->in, &b, &content);
    at->offset = b.end;
    return true;
}

static bool read_on_disk(struct spool *s, struct error *err)
{
    pthread_mutex_lock(&s->lock);
    struct spool_place at = s->cursor;
    struct spool_place target = s->target;
    pthread_mutex_unlock(&s->lock);

    struct spool_block *read = NULL;
    TRY(turn_page(s, &at, err));
    if (at.segment != target.segment || at.offset != target.offset) {
        TRY(read_block(s, &at, &read, err));
        if (read == NULL && at.segment == target.segment)
            return damaged(&s->in, at.offset, "it is shorter than it was", err);
        if (read == NULL)
            at = (struct spool_place){at.segment + 1, 0};
    }

    pthread_mutex_lock(&s->lock);
    s->cursor = at;
    s->behind = at.segment != s->target.segment || at.offset != s->target.offset;
    if (read != NULL) {
        s->reading = read;
        s->held_bytes += read->size;
        s->at = s->limit = 0;
    }
    pthread_mutex_unlock(&s->lock);
    return true;
}

/* Gets frames between `at` and `limit`, or *got false. */
static bool advance(struct spool *s, int wait_ms, bool *got, struct error *err)
{
    int64_t end_us = clock_mono_us() + (int64_t)wait_ms * 1000;
    struct timespec until = {.tv_sec = end_us / 1000000, .tv_nsec = end_us % 1000000 * 1000};
    for (;;) {
        enum next next = look_until(s, wait_ms > 0 ? &until : NULL);
        *got = next == NEXT_FRAME;
        if (next != NEXT_ON_DISK)
            return true;
        TRY(read_on_disk(s, err));
    }
}

bool spool_read(struct spool *s, int wait_ms, struct frame *frame, uint64_t *segment, bool *got,
                struct error *err)
{
    if (s->reading != NULL && s->at == s->limit)
        s->limit = atomic_load_explicit(&s->reading->len, memory_order_acquire);
    *got = s->reading != NULL && s->at < s->limit;
    if (!*got)
        TRY(advance(s, wait_ms, got, err));
    if (!*got)
        return true;
    struct spool_block *b = s->reading;
    struct reader r = reader_of((struct bytes){b->data + s->at, s->limit - s->at});
    check(segment_take_frame(&r, frame)); /* Written by us, or walked by segment_read(). */
    s->at = s->limit - reader_left(&r);
    s->reader_seq += segment_is_boundary(frame->kind);
    frame->seq = s->reader_seq;
    *segment = b->segment;
    return true;
}

/* ---- the rest ---- */

void spool_release(struct spool *s, uint64_t seq, uint64_t segment)
{
    pthread_mutex_lock(&s->lock);
    if (seq > s->release_seq)
        s->release_seq = seq;
    if (segment > s->release_segment)
        s->release_segment = segment;
    while (!s->durable && spool_release_due(s))
        spool_forget_oldest(s);
    wake(s, false);
    pthread_mutex_unlock(&s->lock);
}

void spool_extent(struct spool *s, struct spool_extent *extent)
{
    pthread_mutex_lock(&s->lock);
    *extent = s->appended_extent;
    pthread_mutex_unlock(&s->lock);
}

void spool_stats(struct spool *s, struct spool_stats *stats)
{
    pthread_mutex_lock(&s->lock);
    *stats = (struct spool_stats){.memory_bytes = s->listed_bytes + s->held_bytes,
                                  .disk_bytes = s->disk_bytes,
                                  .appended = s->appended_extent,
                                  .durable = s->durable_extent};
    pthread_mutex_unlock(&s->lock);
}

bool spool_healthy(struct spool *s, struct error *err)
{
    pthread_mutex_lock(&s->lock);
    bool healthy = s->failure.kind == ERROR_NONE;
    if (!healthy)
        *err = s->failure;
    pthread_mutex_unlock(&s->lock);
    return healthy;
}
