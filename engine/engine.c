#include "engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/engine_inner.h"

/* How the budget is shared out: of memory_max each takes its part at most. */
enum {
    DISK_PARTS = 4,
    SPOOL_PART = 4,
    BUFFER_PART = 2,
    GROUP_PART = 64,
    GROUP_BYTES_MAX = 4 << 20
};

/* ---- what the threads share ---- */

void engine_end(struct engine *e, const struct error *why)
{
    pthread_mutex_lock(&e->lock);
    if (!e->shared.has_ended && why != NULL)
        e->shared.ended = *why;
    e->shared.has_ended = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    atomic_store(&e->stop, true);
}

void engine_set_phase(struct engine *e, enum phase phase)
{
    pthread_mutex_lock(&e->lock);
    bool changed = e->shared.phase != phase;
    e->shared.phase = phase;
    pthread_mutex_unlock(&e->lock);
    if (changed)
        log_event("engine.phase", LOG_INFO, "phase=%s", phase_name(phase));
}

void engine_set_halt(struct engine *e, const struct error *err)
{
    pthread_mutex_lock(&e->lock);
    bool was = e->shared.halt.kind != ERROR_NONE;
    bool is = err != NULL && err->kind != ERROR_NONE;
    bool news = is && strcmp(e->shared.halt.text, err->text) != 0;
    if (is)
        e->shared.halt = *err;
    else if (was)
        error_clear(&e->shared.halt);
    pthread_mutex_unlock(&e->lock);
    if (news)
        log_error("engine.halted", LOG_ERROR, err);
    if (was && !is)
        log_event("engine.resumed", LOG_INFO, "%s", "");
    if (is && e->options.exit_on_halt)
        engine_end(e, err);
}

void engine_set_reach(struct engine *e, const struct error *err)
{
    pthread_mutex_lock(&e->lock);
    if (err == NULL)
        error_clear(&e->shared.reach);
    else
        e->shared.reach = *err;
    pthread_mutex_unlock(&e->lock);
}

static void on_target(void *context, struct position *applied, struct position *durable)
{
    struct engine *e = context;
    pthread_mutex_lock(&e->lock);
    *applied = e->shared.applied;
    *durable = e->shared.durable;
    pthread_mutex_unlock(&e->lock);
}

/* ---- starting ---- */

static bool lock_state(struct engine *e, struct error *err)
{
    char path[PATH_MAX];
    TRY(file_make_folder(e->o->state, err));
    if (snprintf(path, sizeof path, "%s/lock", e->o->state) >= (int)sizeof path)
        return error_set(err, ERROR_CONFIG, "path is too long: %s", e->o->state);
    e->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (e->lock_fd < 0)
        return error_set(err, ERROR_DISK, "open %s: %s", path, strerror(errno));
    if (flock(e->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    error_set(err, ERROR_FENCED, "another engine is running migration %s here", e->o->name);
    return error_hint(err, "teal status shows it; stop it first, or give this one another "
                           "[migration] state");
}

/* An engine that has the stream may be one that has just died. */
static bool may_come(const struct error *err)
{
    return err->kind == ERROR_RETRY || err->kind == ERROR_FENCED;
}

/* Tries until it works, fails for good, or the time is over. */
static bool reach(struct engine *e, bool (*attempt)(struct engine *e, struct error *err),
                  const char *side, struct error *err)
{
    int64_t timeout = e->options.connect_timeout_us;
    int64_t deadline = clock_mono_us() + timeout;
    struct backoff backoff = {0};
    while (true) {
        if (attempt(e, err))
            return true;
        bool late = timeout >= 0 && clock_mono_us() >= deadline;
        if (!may_come(err) || late || atomic_load(&e->stop))
            return error_wrap(err, "%s", side);
        backoff_failed(&backoff, "engine.waiting", err);
        engine_set_reach(e, err);
        error_clear(err);
        while (!backoff_is_due(&backoff) && !atomic_load(&e->stop))
            (void)poll(NULL, 0, 20);
    }
}

static bool reach_blue(struct engine *e, struct error *err)
{
    return e->origin->ops->open(e->origin, err);
}

static bool reach_green(struct engine *e, struct error *err)
{
    struct checkpoint c;
    bool found;
    return e->driver->checkpoint(e->o, NULL, &c, &found, err);
}

/* Finds the stream of an earlier run or begins one. A target that holds a checkpoint although
 * the source knows nothing of it belonged to something else. */
static bool find_stream(struct engine *e, struct error *err)
{
    bool found;
    TRY(e->origin->ops->find(e->origin, &e->identity, &found, err));
    struct checkpoint c;
    bool has_checkpoint;
    TRY(e->driver->checkpoint(e->o, found ? &e->identity : NULL, &c, &has_checkpoint, err));
    if (found)
        return true;
    if (has_checkpoint) {
        error_set(
            err, ERROR_LOST,
            "the target holds a checkpoint of migration %s, but the source holds nothing of it",
            e->o->name);
        return error_hint(
            err,
            "If the target is to be filled anew: teal finish, empty its tables, teal run.");
    }
    log_event("engine.new_migration", LOG_INFO, "name=%s", e->o->name);
    return e->origin->ops->create(e->origin, &e->identity, e->snapshot, sizeof e->snapshot,
                                  err);
}

static void make_lane(struct engine *e)
{
    uint64_t group = e->o->memory_max / GROUP_PART;
    e->applier = e->driver->applier(e->o, &e->identity);
    e->decoder = e->driver->decoder();
    struct lane_options options = {
        .applier = e->applier,
        .on_conflict = e->o->on_conflict,
        .group_bytes_max = group < GROUP_BYTES_MAX ? group : GROUP_BYTES_MAX,
        .context = e,
        .applied = apply_on_applied,
        .conflict = apply_on_conflict,
        .counted = apply_on_counted,
    };
    e->lane = lane_new(&options);
}

static bool spool_lost(const struct engine *e, const struct spool_extent *extent,
                       struct error *err)
{
    error_set(err, ERROR_LOST,
              "the spool in %s begins at seq %" PRIu64 ", but the target is only at %" PRIu64
              " (%s): what lies between is gone",
              e->o->spool_path, extent->first_seq, e->shared.applied_seq,
              e->shared.applied.text);
    return error_hint(
        err, "If the spool was moved, set [spool] path to where it is. Else start over: "
             "teal finish, empty the target's tables, teal run.");
}

/* The spool must begin at or before the boundary behind the target's checkpoint, and is begun
 * anew if the target is past its end (or there is none). */
static bool fit_spool(struct engine *e, struct error *err)
{
    struct spool_extent extent;
    spool_extent(e->spool, &extent);
    if (extent.last_seq < e->shared.applied_seq || extent.last_pos.len == 0)
        return spool_restart(e->spool, e->shared.applied_seq, &e->shared.applied, err);
    if (extent.first_seq > e->shared.applied_seq + 1)
        return spool_lost(e, &extent, err);
    return true;
}

static bool open_spool(struct engine *e, struct error *err)
{
    uint64_t part = e->o->disk_max / DISK_PARTS;
    struct spool_options options = {
        .path = e->o->spool_path,
        .identity = e->identity.text,
        .memory_max = e->o->memory_max / SPOOL_PART,
        .disk_max = e->o->disk_max,
        .segment_bytes = e->o->segment_bytes < part ? e->o->segment_bytes : part,
        .durable = e->o->ack == ACK_SPOOL,
    };
    return spool_open(&options, &e->spool, err) && fit_spool(e, err);
}

/* Before anything is taken over: whether what is here, on the target and on the source fits
 * together. An engine that cannot go on must not fence off one that can. */
static bool look(struct engine *e, struct error *err)
{
    struct checkpoint c;
    bool found;
    TRY(e->driver->checkpoint(e->o, &e->identity, &c, &found, err));
    e->shared.applied = found ? c.pos : e->identity.start;
    e->shared.applied_seq = found ? c.seq : 0;
    if (e->spool == NULL)
        TRY(open_spool(e, err));
    struct spool_extent extent;
    spool_extent(e->spool, &extent);
    return e->origin->ops->open(e->origin, err) &&
           e->origin->ops->reaches_back(e->origin, &extent.last_pos, err);
}

static bool claim(struct engine *e, struct error *err)
{
    struct checkpoint found;
    TRY(lane_open(e->lane, &found, err));
    e->shared.applied = e->shared.durable = found.pos;
    e->shared.applied_seq = found.seq;
    e->durable_seq = found.seq;
    TRY(fit_spool(e, err)); /* The engine before us may have gone on since we looked. */
    log_event("engine.claimed", LOG_INFO, "epoch=%" PRIu64 " seq=%" PRIu64 " position=%s",
              found.epoch, found.seq, found.pos.text);
    return true;
}

static bool open_buffer(struct engine *e, struct error *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/spill", e->o->state) >= (int)sizeof path)
        return error_set(err, ERROR_CONFIG, "path is too long: %s", e->o->state);
    struct txn_buffer_options options = {.spill_path = path,
                                         .memory_max = e->o->memory_max / BUFFER_PART,
                                         .skip_until = e->shared.applied_seq};
    return txn_buffer_new(&options, &e->buffer, err);
}

static bool open_copier(struct engine *e, struct error *err)
{
    if (e->copier == NULL) /* It is tried again while green cannot be reached. */
        e->copier = e->driver->copier(e->o, &e->identity);
    return e->copier->ops->open(e->copier, e->snapshot, &e->stage, err);
}

static void start_others(struct engine *e)
{
    struct receiver_options options = {
        .source = e->source,
        .spool = e->spool,
        .ack_target = e->o->ack == ACK_TARGET,
        .context = e,
        .target = on_target,
    };
    e->receiver = receiver_start(&options);
    check(pthread_create(&e->watcher, NULL, watch_main, e) == 0);
    e->has_watcher = true;
    pthread_mutex_lock(&e->lock);
    e->shared.is_copied = e->stage == COPY_DONE;
    e->shared.has_begun = true;
    error_clear(&e->shared.reach);
    pthread_mutex_unlock(&e->lock);
}

bool engine_begin(struct engine *e, struct error *err)
{
    TRY(reach(e, reach_blue, "blue", err));
    TRY(reach(e, reach_green, "green", err));
    TRY(reach(e, find_stream, "blue", err));
    TRY(reach(e, look, "blue and green", err));
    make_lane(e);
    TRY(reach(e, claim, "green", err));
    TRY(open_buffer(e, err));
    TRY(reach(e, open_copier, "green", err));
    e->origin->ops->release_snapshot(e->origin);
    e->source = e->driver->source(e->o, &e->identity);
    e->mirror = e->driver->mirror(e->o);
    e->moved_at = clock_mono_us();
    start_others(e);
    return true;
}

/* Signals are for the thread that called us: none of ours takes them. */
static void start_thread(struct engine *e)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    check(pthread_create(&e->thread, NULL, apply_main, e) == 0);
    e->has_thread = true;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

bool engine_start(const struct engine_options *options, struct engine **out, struct error *err)
{
    struct engine *e = calloc(1, sizeof *e);
    check(e != NULL);
    e->options = *options;
    e->o = options->options;
    e->driver = options->driver;
    e->lock_fd = -1;
    pthread_condattr_t monotonic;
    check(pthread_condattr_init(&monotonic) == 0);
    check(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    check(pthread_cond_init(&e->changed, &monotonic) == 0);
    check(pthread_cond_init(&e->look, &monotonic) == 0);
    (void)pthread_condattr_destroy(&monotonic);
    check(pthread_mutex_init(&e->lock, NULL) == 0);
    check(pthread_mutex_init(&e->asker_lock, NULL) == 0);
    if (!lock_state(e, err)) {
        engine_free(e);
        return false;
    }
    e->origin = e->driver->origin(e->o);
    e->asker = e->driver->origin(e->o);
    start_thread(e);
    *out = e;
    return true;
}

/* ---- ending ---- */

void engine_ask_stop(struct engine *e)
{
    atomic_store(&e->stop, true);
    pthread_mutex_lock(&e->lock);
    if (e->shared.has_begun)
        e->copier->ops->cancel(e->copier);
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
    watch_look(e);
}

bool engine_wait(struct engine *e, struct error *err)
{
    pthread_mutex_lock(&e->lock);
    while (!e->shared.has_ended)
        pthread_cond_wait(&e->changed, &e->lock);
    struct error why = e->shared.ended;
    pthread_mutex_unlock(&e->lock);
    if (why.kind == ERROR_NONE)
        return true;
    *err = why;
    return false;
}

bool engine_has_begun(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    bool begun = e->shared.has_begun;
    pthread_mutex_unlock(&e->lock);
    return begun;
}

bool engine_has_ended(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    bool ended = e->shared.has_ended;
    pthread_mutex_unlock(&e->lock);
    return ended;
}

static void free_parts(struct engine *e)
{
    if (e->source != NULL)
        e->source->ops->free(e->source);
    if (e->lane != NULL)
        lane_free(e->lane);
    txn_buffer_free(e->buffer);
    if (e->decoder != NULL)
        e->decoder->ops->free(e->decoder);
    if (e->applier != NULL)
        e->applier->ops->free(e->applier);
    if (e->copier != NULL)
        e->copier->ops->free(e->copier);
    if (e->mirror != NULL)
        e->mirror->ops->free(e->mirror);
    if (e->origin != NULL)
        e->origin->ops->free(e->origin);
    if (e->asker != NULL)
        e->asker->ops->free(e->asker);
}

void engine_free(struct engine *e)
{
    if (e->has_thread) {
        engine_ask_stop(e);
        (void)pthread_join(e->thread, NULL);
    }
    if (e->has_watcher)
        (void)pthread_join(e->watcher, NULL);
    receiver_stop(e->receiver);
    if (e->spool != NULL)
        spool_close(e->spool);
    free_parts(e);
    arena_clear(&e->shared.arena);
    arena_clear(&e->shared.reasons.arena);
    map_release(&e->shared.counts);
    if (e->lock_fd >= 0)
        (void)close(e->lock_fd);
    (void)pthread_mutex_destroy(&e->lock);
    (void)pthread_mutex_destroy(&e->asker_lock);
    (void)pthread_cond_destroy(&e->changed);
    (void)pthread_cond_destroy(&e->look);
    free(e);
}

/* ---- commands ---- */

/* Waits for a change of `shared`, with the lock held. False: the time is over or we stop. */
static bool wait_change(struct engine *e, int64_t deadline)
{
    int64_t until = clock_mono_us() + 100000;
    until = until < deadline ? until : deadline;
    struct timespec at = {.tv_sec = until / 1000000, .tv_nsec = until % 1000000 * 1000};
    (void)pthread_cond_timedwait(&e->changed, &e->lock, &at);
    return clock_mono_us() < deadline && !atomic_load(&e->stop) && !e->shared.has_ended;
}

static const struct barrier_seen *find_barrier(const struct shared *s, uint64_t id)
{
    uint64_t count = s->barrier_count < BARRIERS_MAX ? s->barrier_count : BARRIERS_MAX;
    for (uint64_t i = 0; i < count; i++)
        if (s->barriers[i].id == id)
            return &s->barriers[i];
    return NULL;
}

bool engine_barrier(struct engine *e, int64_t timeout_us, struct position *pos,
                    struct error *err)
{
    int64_t deadline = clock_mono_us() + timeout_us;
    if (!engine_has_begun(e))
        return error_set(err, ERROR_RETRY, "the engine is still starting");
    pthread_mutex_lock(&e->asker_lock);
    uint64_t id = (uint64_t)clock_wall_us() << 4 | ((uint64_t)getpid() & 15);
    bool asked =
        e->asker->ops->open(e->asker, err) && e->asker->ops->barrier(e->asker, id, err);
    pthread_mutex_unlock(&e->asker_lock);
    if (!asked)
        return error_wrap(err, "commit a barrier");
    pthread_mutex_lock(&e->lock);
    const struct barrier_seen *seen;
    while ((seen = find_barrier(&e->shared, id)) == NULL && wait_change(e, deadline))
        continue;
    if (seen != NULL)
        *pos = seen->pos;
    pthread_mutex_unlock(&e->lock);
    return seen != NULL ||
           error_set(err, ERROR_RETRY, "the barrier was not applied within %" PRId64 " ms",
                     timeout_us / 1000);
}

enum { HOLD_TIMEOUT_US = 60000000 };

bool engine_hold(struct engine *e, struct error *err)
{
    int64_t deadline = clock_mono_us() + HOLD_TIMEOUT_US;
    if (!engine_has_begun(e))
        return error_set(err, ERROR_RETRY, "the engine is still starting");
    pthread_mutex_lock(&e->lock);
    e->shared.hold = true;
    while (!e->shared.is_held && wait_change(e, deadline))
        continue;
    bool held = e->shared.is_held;
    if (!held)
        e->shared.hold = false;
    pthread_mutex_unlock(&e->lock);
    return held || error_set(err, ERROR_RETRY, "applying did not come to rest");
}

bool engine_resume(struct engine *e, struct error *err)
{
    (void)err;
    pthread_mutex_lock(&e->lock);
    e->shared.hold = false;
    pthread_mutex_unlock(&e->lock);
    return true;
}
