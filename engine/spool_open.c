/* How a spool begins and ends: what is there is judged before anything of it is touched. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/spool_inner.h"

enum {
    SEGMENT_BYTES = 32 << 20,
    BLOCK_MAX = 256 << 10,
    BLOCK_MIN = 4 << 10,
    IDENTITY_MAX = 32 << 10,
    NAME_ROOM = 64, /* For a segment's name behind the folder's. */
};

static bool options_check(const struct spool_options *o, struct error *err)
{
    if (strlen(o->path) + NAME_ROOM > PATH_MAX)
        return error_set(err, ERROR_CONFIG, "path is too long: %s", o->path);
    if (strlen(o->identity) > IDENTITY_MAX)
        return error_set(err, ERROR_CONFIG, "the identity of the spool is too long");
    return true;
}

static struct spool *spool_new(const struct spool_options *o)
{
    struct spool *s = calloc(1, sizeof *s);
    check(s != NULL);
    s->folder.path = strdup(o->path);
    s->folder.identity = strdup(o->identity);
    check(s->folder.path != NULL && s->folder.identity != NULL);
    s->memory_max = o->memory_max;
    s->disk_max = o->disk_max;
    s->segment_bytes = o->segment_bytes == 0 ? SEGMENT_BYTES : o->segment_bytes;
    s->durable = o->durable;
    uint64_t part = o->memory_max / 4;
    s->block_bytes = part > BLOCK_MAX ? BLOCK_MAX : part < BLOCK_MIN ? BLOCK_MIN : part;
    s->next_number = 1;
    s->appended_extent.first_seq = s->durable_extent.first_seq = 1;
    s->in.fd = s->out.fd = -1;
    pthread_condattr_t attr;
    check(pthread_mutex_init(&s->lock, NULL) == 0);
    check(pthread_condattr_init(&attr) == 0);
    check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    check(pthread_cond_init(&s->appended, &attr) == 0);
    check(pthread_cond_init(&s->work, &attr) == 0);
    (void)pthread_condattr_destroy(&attr);
    return s;
}

static void blocks_drop(struct spool *s)
{
    if (s->reading != NULL && s->reading->settled) {
        free(s->reading->data);
        free(s->reading);
    }
    while (s->head != NULL) {
        struct spool_block *b = s->head;
        s->head = b->next;
        free(b->data);
        free(b);
    }
    if (s->spare != NULL) {
        free(s->spare->data);
        free(s->spare);
    }
}

static void spool_drop(struct spool **spool)
{
    struct spool *s = *spool;
    if (s == NULL)
        return;
    blocks_drop(s);
    segment_close(&s->in);
    segment_close(&s->out);
    writer_release(&s->packed);
    (void)pthread_cond_destroy(&s->work);
    (void)pthread_cond_destroy(&s->appended);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->entries);
    free((void *)(uintptr_t)s->folder.path);
    free((void *)(uintptr_t)s->folder.identity);
    free(s);
}

static bool out_of_order(const struct segment *g, const char *what, struct error *err)
{
    error_set(err, ERROR_LOST, "spool segment %s %s", g->path, what);
    return error_hint(err, "A file of the folder was removed or replaced. Put it back, or "
                           "empty the folder and start again: teal says whether the source "
                           "still reaches back far enough.");
}

/* The header of one segment that is there, against the one before. Leaves it open in s->out. */
static bool load_segment(struct spool *s, uint64_t number, struct error *err)
{
    segment_close(&s->out);
    TRY(segment_open(&s->folder, number, true, &s->out, err));
    if (s->entry_count > 0) {
        const struct spool_entry *last = &s->entries[s->entry_count - 1];
        if (number != last->number + 1)
            return out_of_order(&s->out, "does not follow the one before: one is missing", err);
        if (s->out.seq_before < last->seq_before)
            return out_of_order(&s->out, "begins before the one before it", err);
    }
    struct spool_entry *entry =
        spool_entry_add(s, number, s->out.seq_before, &s->out.pos_before);
    off_t len = lseek(s->out.fd, 0, SEEK_END);
    if (len < 0)
        return error_set(err, ERROR_DISK, "length of %s: %s", s->out.path, strerror(errno));
    entry->bytes = (uint64_t)len;
    s->disk_bytes += entry->bytes;
    return true;
}

/* Ends the last segment, in s->out, at its last good block. */
static bool load_tail(struct spool *s, struct error *err)
{
    struct segment_tail tail;
    TRY(segment_scan(&s->out, &tail, err));
    if (tail.torn > 0) {
        TRY(segment_cut(&s->out, tail.end, err));
        log_event("spool.tail_cut", LOG_WARN, "file=%s offset_bytes=%llu cut_bytes=%llu",
                  s->out.path, (unsigned long long)tail.end, (unsigned long long)tail.torn);
        s->entries[s->entry_count - 1].bytes -= tail.torn;
        s->disk_bytes -= tail.torn;
    }
    s->out_len = tail.end;
    s->made = s->out.number;
    s->appended_extent = (struct spool_extent){.first_seq = s->entries[0].seq_before + 1,
                                               .last_seq = tail.last_seq,
                                               .last_pos = tail.last_pos};
    s->durable_extent = s->appended_extent;
    s->reader_seq = s->entries[0].seq_before;
    s->cursor = (struct spool_place){s->entries[0].number, 0};
    s->target = (struct spool_place){s->out.number, s->out_len};
    s->behind = true;
    s->ready = true;
    return true;
}

static void numbers_free(uint64_t **numbers) { free(*numbers); }

static bool load(struct spool *s, struct error *err)
{
    cleanup_with(numbers_free) uint64_t *numbers = NULL;
    size_t count = 0;
    TRY(file_make_folder(s->folder.path, err));
    TRY(segment_list(s->folder.path, &numbers, &count, err));
    for (size_t i = 0; i < count; i++)
        TRY(load_segment(s, numbers[i], err));
    return count == 0 || load_tail(s, err);
}

bool spool_open(const struct spool_options *options, struct spool **out, struct error *err)
{
    TRY(options_check(options, err));
    cleanup_with(spool_drop) struct spool *s = spool_new(options);
    if (s->durable) {
        TRY(load(s, err));
        int failed = pthread_create(&s->thread, NULL, spool_flusher, s);
        if (failed != 0)
            return error_set(err, ERROR_SYSTEM, "start the spool's thread: %s",
                             strerror(failed));
        s->started = true;
    }
    *out = s;
    s = NULL;
    return true;
}

static bool restart_files(struct spool *s, uint64_t seq, const struct position *pos,
                          struct error *err)
{
    while (s->entry_count > 0) {
        char path[PATH_MAX];
        segment_path(path, s->folder.path, s->entries[0].number);
        if (unlink(path) != 0 && errno != ENOENT)
            return error_set(err, ERROR_DISK, "delete %s: %s", path, strerror(errno));
        /* One by one, so that a crash leaves no gap. */
        TRY(file_sync_folder(s->folder.path, err));
        s->entry_count--;
        memmove(s->entries, s->entries + 1, s->entry_count * sizeof *s->entries);
    }
    segment_close(&s->out);
    s->out.number = s->next_number;
    s->out.seq_before = seq;
    s->out.pos_before = *pos;
    return segment_create(&s->folder, &s->out, err);
}

/* With the lock held, though nobody else is there yet. */
static bool restart(struct spool *s, uint64_t seq, const struct position *pos,
                    struct error *err)
{
    check(s->head == NULL && s->reading == NULL);
    s->ready = false;
    if (s->durable)
        TRY(restart_files(s, seq, pos, err));
    s->entry_count = 0;
    struct spool_entry *entry = spool_entry_add(s, s->next_number, seq, pos);
    s->appended_extent =
        (struct spool_extent){.first_seq = seq + 1, .last_seq = seq, .last_pos = *pos};
    s->durable_extent = s->appended_extent;
    s->reader_seq = seq;
    s->behind = false;
    s->made = entry->number;
    s->out_len = s->disk_bytes = entry->bytes = s->durable ? s->out.header_len : 0;
    s->ready = true;
    return true;
}

bool spool_restart(struct spool *s, uint64_t seq, const struct position *pos, struct error *err)
{
    pthread_mutex_lock(&s->lock);
    bool done = restart(s, seq, pos, err);
    pthread_mutex_unlock(&s->lock);
    return done;
}

void spool_close(struct spool *s)
{
    if (s == NULL)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        (void)pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->lock);
        check(pthread_join(s->thread, NULL) == 0);
    }
    spool_drop(&s);
}
