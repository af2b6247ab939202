#include "engine/receiver.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "engine/backoff.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"

enum {
    READ_WAIT_MS = 100,
    CONFIRM_EVERY_US = 20000,
    FULL_WAIT_MS = 20,
    FRAMES_BETWEEN_CLOCKS = 64,
};

struct receiver {
    struct receiver_options options;
    pthread_t thread;
    atomic_bool stop;
    atomic_bool probe;
    pthread_mutex_t lock;
    struct receiver_state state; /* Under the lock. */
    struct backoff backoff;
    int64_t confirmed_at;
    bool was_full;
};

static void set_error(struct receiver *r, const struct error *err)
{
    pthread_mutex_lock(&r->lock);
    r->state.connected = false;
    r->state.error = *err;
    pthread_mutex_unlock(&r->lock);
}

static void set_connected(struct receiver *r)
{
    pthread_mutex_lock(&r->lock);
    r->state.connected = true;
    error_clear(&r->state.error);
    pthread_mutex_unlock(&r->lock);
}

/* Tells the source what it may forget: cheap, and often. */
static bool confirm(struct receiver *r, struct error *err)
{
    struct spool_stats stats;
    struct confirmation c = {0};
    spool_stats(r->options.spool, &stats);
    struct position target_durable;
    r->options.target(r->options.context, &c.applied, &target_durable);
    c.received = stats.appended.last_pos;
    c.durable = r->options.ack_target ? target_durable : stats.durable.last_pos;
    r->confirmed_at = clock_mono_us();
    TRY(r->options.source->ops->confirm(r->options.source, &c, err));
    pthread_mutex_lock(&r->lock);
    r->state.received = c.received;
    r->state.confirmed = c.durable;
    pthread_mutex_unlock(&r->lock);
    if (atomic_exchange(&r->probe, false))
        return r->options.source->ops->probe(r->options.source, err);
    return true;
}

static void note_full(struct receiver *r, bool full)
{
    if (full != r->was_full) {
        if (full)
            log_event("spool.full", LOG_WARN, "hint=\"receiving waits for the target\"");
        else
            log_event("spool.has_room", LOG_INFO, "%s", "");
        pthread_mutex_lock(&r->lock);
        r->state.full = full;
        pthread_mutex_unlock(&r->lock);
    }
    r->was_full = full;
}

/* Waits while the spool is at its bound. False with no error: told to stop. */
static bool append(struct receiver *r, struct frame *frame, struct error *err)
{
    bool full = true;
    while (!atomic_load(&r->stop)) {
        TRY(spool_append(r->options.spool, frame, &full, err));
        note_full(r, full);
        if (!full)
            return true;
        TRY(confirm(r, err));
        (void)poll(NULL, 0, FULL_WAIT_MS);
    }
    return false;
}

static bool append_preface(void *context, const struct frame *frame, struct error *err)
{
    struct frame copy = *frame;
    return append(context, &copy, err);
}

static bool take(struct receiver *r, struct frame *frame, struct error *err)
{
    bool boundary = frame->kind == FRAME_COMMIT || frame->kind == FRAME_PROGRESS;
    TRY(append(r, frame, err));
    if (!boundary || !spool_wants_segment(r->options.spool))
        return true;
    TRY(spool_begin_segment(r->options.spool, err));
    return r->options.source->ops->preface(r->options.source, append_preface, r, err);
}

static bool open_source(struct receiver *r, struct error *err)
{
    struct spool_extent extent;
    spool_extent(r->options.spool, &extent);
    TRY(spool_healthy(r->options.spool, err));
    TRY(r->options.source->ops->open(r->options.source, &extent.last_pos, err));
    struct frame reset = {.kind = FRAME_RESET};
    TRY(append(r, &reset, err));
    TRY(confirm(r, err));
    log_event("source.connected", LOG_INFO, "position=%s", extent.last_pos.text);
    set_connected(r);
    return true;
}

/* Until something fails or we are told to stop. */
static bool receive(struct receiver *r, struct error *err)
{
    struct source *s = r->options.source;
    for (unsigned frames = 0; !atomic_load(&r->stop);) {
        struct frame frame;
        bool got;
        TRY(s->ops->read(s, 0, &frame, &got, err));
        if (!got) {
            TRY(confirm(r, err));
            TRY(s->ops->read(s, atomic_load(&r->probe) ? 0 : READ_WAIT_MS, &frame, &got, err));
        }
        if (got)
            TRY(take(r, &frame, err));
        if (frames++ % FRAMES_BETWEEN_CLOCKS == 0 &&
            clock_mono_us() - r->confirmed_at > CONFIRM_EVERY_US)
            TRY(confirm(r, err));
    }
    return true;
}

static void *receiver_main(void *context)
{
    struct receiver *r = context;
    while (!atomic_load(&r->stop)) {
        struct error err = {0};
        if (!backoff_is_due(&r->backoff)) {
            (void)poll(NULL, 0, FULL_WAIT_MS);
            continue;
        }
        bool opened = open_source(r, &err);
        if (opened) {
            (void)backoff_worked(&r->backoff);
            (void)receive(r, &err);
        }
        r->options.source->ops->close(r->options.source);
        if (err.kind == ERROR_NONE)
            continue;
        set_error(r, &err);
        if (err.kind == ERROR_LOST) {
            log_error("source.lost", LOG_ERROR, &err);
            return NULL;
        }
        backoff_failed(&r->backoff, "source.disconnected", &err);
    }
    return NULL;
}

struct receiver *receiver_start(const struct receiver_options *options)
{
    struct receiver *r = calloc(1, sizeof *r);
    check(r != NULL);
    r->options = *options;
    check(pthread_mutex_init(&r->lock, NULL) == 0);
    check(pthread_create(&r->thread, NULL, receiver_main, r) == 0);
    return r;
}

void receiver_stop(struct receiver *r)
{
    if (r == NULL)
        return;
    atomic_store(&r->stop, true);
    (void)pthread_join(r->thread, NULL);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

void receiver_state(struct receiver *r, struct receiver_state *state)
{
    pthread_mutex_lock(&r->lock);
    *state = r->state;
    pthread_mutex_unlock(&r->lock);
}

void receiver_probe(struct receiver *r) { atomic_store(&r->probe, true); }
