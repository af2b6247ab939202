/* The spool's own thread: group commit, and the deletion of what was released.
 *
 * Nothing is confirmed before fdatasync() has said so. After a failure the pages of the file
 * cannot be trusted, whatever a second fdatasync() would say: the file is cut at the last
 * offset known to be durable and everything behind it is written again from memory. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/crash.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/spool_inner.h"

enum {
    RETRY_US = 1000000,
    GROUP_MAX = 16 << 20, /* Bytes of content between two syncs. */
    REST_MS = 5,          /* Between two syncs, */
    REST_MAX = 1 << 20,   /* unless more than this waits for the next. */
};

/* Blocks that become durable together: of one segment. */
struct group {
    struct spool_block *first;
    struct spool_block *last;
    struct spool_entry entry;
};

bool spool_flush_due(const struct spool *s)
{
    const struct spool_block *b = s->unflushed;
    if (b == NULL)
        return false;
    return b->sealed || b->last_seq != b->seq_before || s->stop;
}

bool spool_release_due(const struct spool *s)
{
    if (s->entry_count < 2)
        return false;
    const struct spool_entry *oldest = &s->entries[0];
    uint64_t unread = s->behind           ? s->cursor.segment
                      : s->unread != NULL ? s->unread->segment
                                          : UINT64_MAX;
    return oldest->number < s->release_segment && oldest->number < s->made &&
           oldest->number < unread && oldest[1].seq_before <= s->release_seq;
}

/* ---- writing ---- */

static bool write_block(struct spool *s, struct spool_block *b, uint64_t offset,
                        struct error *err)
{
    struct segment_block header = {.offset = offset,
                                   .synced = s->out_len,
                                   .seq_before = b->seq_before,
                                   .frames = b->frames};
    size_t len = atomic_load_explicit(&b->len, memory_order_relaxed);
    segment_pack(s->out.number, (struct bytes){b->data, len}, &header, &s->packed);
    b->offset = header.offset;
    b->end = header.end;
    if (!file_write_all(s->out.fd, s->packed.data, s->packed.len, err))
        return error_wrap(err, "%s", s->out.path);
    return true;
}

static bool turn_to_segment(struct spool *s, const struct spool_entry *entry, struct error *err)
{
    if (s->out.fd >= 0 && s->out.number == entry->number)
        return true;
    segment_close(&s->out);
    s->out.number = entry->number;
    s->out.seq_before = entry->seq_before;
    s->out.pos_before = entry->pos_before;
    TRY(segment_create(&s->folder, &s->out, err));
    crash_point("spool.after_segment_create");
    s->out_len = s->out.header_len;
    s->out_dirty = false;
    return true;
}

static bool write_group(struct spool *s, const struct group *g, struct error *err)
{
    TRY(turn_to_segment(s, &g->entry, err));
    if (s->out_dirty && ftruncate(s->out.fd, (off_t)s->out_len) != 0)
        return error_set(err, ERROR_DISK, "cut %s: %s", s->out.path, strerror(errno));
    if (lseek(s->out.fd, (off_t)s->out_len, SEEK_SET) < 0)
        return error_set(err, ERROR_DISK, "seek in %s: %s", s->out.path, strerror(errno));
    s->out_dirty = true;
    crash_point("spool.before_write");
    uint64_t offset = s->out_len;
    for (struct spool_block *b = g->first;; b = b->next) {
        TRY(write_block(s, b, offset, err));
        offset = b->end;
        if (b == g->last)
            break;
    }
    crash_point("spool.after_write_before_sync");
    if (fdatasync(s->out.fd) != 0)
        return error_set(err, ERROR_DISK, "sync %s: %s", s->out.path, strerror(errno));
    s->out_len = offset;
    s->out_dirty = false;
    crash_point("spool.after_sync_before_confirm");
    return true;
}

/* ---- with the lock held ---- */

static void take_group(struct spool *s, struct group *g)
{
    if (s->unflushed == s->open)
        spool_seal(s);
    g->first = g->last = s->unflushed;
    g->entry = *spool_entry_of(s, g->first);
    size_t bytes = g->first->len;
    for (struct spool_block *b = g->first->next;
         b != NULL && b->sealed && b->segment == g->entry.number; b = b->next) {
        bytes += b->len;
        if (bytes > GROUP_MAX)
            break;
        g->last = b;
    }
}

static void confirm_group(struct spool *s, const struct group *g)
{
    struct spool_entry *entry = spool_entry_of(s, g->first);
    s->disk_bytes += s->out_len - entry->bytes;
    entry->bytes = s->out_len;
    bool last = false;
    for (struct spool_block *b = g->first; !last;) {
        struct spool_block *next = b->next;
        last = b == g->last;
        if (b->last_seq != b->seq_before) {
            s->durable_extent.last_seq = b->last_seq;
            s->durable_extent.last_pos = b->last_pos;
        }
        spool_settle(s, b);
        b = next;
    }
}

static void fail(struct spool *s, struct error *err)
{
    error_hint(err, "Free space for the spool folder or mend its disk; writing is tried again "
                    "every second. Nothing is confirmed to the source meanwhile.");
    if (s->failure.kind == ERROR_NONE)
        log_error("spool.disk_failed", LOG_ERROR, err);
    s->failure = *err;
    s->retry_at_us = clock_mono_us() + RETRY_US;
}

static void flush(struct spool *s)
{
    struct group g;
    struct error err = {0};
    take_group(s, &g);
    pthread_mutex_unlock(&s->lock);
    bool done = write_group(s, &g, &err);
    pthread_mutex_lock(&s->lock);
    if (s->out.fd >= 0)
        s->made = s->out.number;
    if (!done) {
        fail(s, &err);
        return;
    }
    confirm_group(s, &g);
    if (s->failure.kind != ERROR_NONE)
        log_event("spool.disk_works_again", LOG_INFO, "durable_seq=%llu",
                  (unsigned long long)s->durable_extent.last_seq);
    error_clear(&s->failure);
}

static bool delete_segment(const struct spool *s, uint64_t number, struct error *err)
{
    char path[PATH_MAX];
    segment_path(path, s->folder.path, number);
    if (unlink(path) != 0 && errno != ENOENT)
        return error_set(err, ERROR_DISK, "delete %s: %s", path, strerror(errno));
    /* One by one, so that a crash leaves no gap. */
    return file_sync_folder(s->folder.path, err);
}

static void release(struct spool *s)
{
    uint64_t number = s->entries[0].number;
    struct error err = {0};
    pthread_mutex_unlock(&s->lock);
    crash_point("spool.before_release");
    bool done = delete_segment(s, number, &err);
    pthread_mutex_lock(&s->lock);
    if (done) {
        spool_forget_oldest(s);
        return;
    }
    log_error("spool.release_failed", LOG_WARN, &err);
    s->release_segment = 0; /* Tried again when more is released. */
}

static void wait_for_work(struct spool *s, bool retry)
{
    struct timespec until = {.tv_sec = s->retry_at_us / 1000000,
                             .tv_nsec = s->retry_at_us % 1000000 * 1000};
    s->flusher_waits = true;
    if (retry)
        (void)pthread_cond_timedwait(&s->work, &s->lock, &until);
    else
        (void)pthread_cond_wait(&s->work, &s->lock);
    s->flusher_waits = false;
}

/* One sync right after the other would take the disk from the databases and confirm nothing
 * sooner: the source hears of it less often than that. */
static void rest(struct spool *s)
{
    if (s->pending_bytes > REST_MAX)
        return;
    pthread_mutex_unlock(&s->lock);
    (void)poll(NULL, 0, REST_MS);
    pthread_mutex_lock(&s->lock);
}

void *spool_flusher(void *spool)
{
    struct spool *s = spool;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        bool stopping = s->stop;
        bool due = spool_flush_due(s);
        bool failed = s->failure.kind != ERROR_NONE;
        if (spool_release_due(s)) {
            release(s);
            continue;
        }
        if (due && (!failed || stopping || clock_mono_us() >= s->retry_at_us)) {
            flush(s);
            if (!stopping)
                rest(s);
        } else if (!stopping)
            wait_for_work(s, due);
        /* At the end a disk that refuses is asked once more, not for ever. */
        if (stopping && (!spool_flush_due(s) || s->failure.kind != ERROR_NONE))
            break;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
