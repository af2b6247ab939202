/* The engine's own thread: copies, then reads the spool, makes transactions of it and hands
 * them to the lane.
 *
 * It holds little: it reads on only while the lane has room, so that what is not applied waits
 * in the spool. Whatever fails leaves the transactions where they are; the way back is to
 * connect again (the lane asks the target where it is) or to try again (a row, a shape, a
 * disk). */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/engine_inner.h"

enum {
    READ_MAX = 512,    /* Frames between two looks at the lane. */
    IDLE_WAIT_MS = 50, /* Without anything in flight: for the next frame. */
    BUSY_WAIT_MS = 2,  /* With something in flight: a frame may come, too. */
    FULL_WAIT_MS = 100,
    RETRY_EVERY_US = 2000000, /* What is halted. */
    DURABLE_EVERY_US = 200000,
    CHECKPOINT_EVERY_US = 10000000, /* Of an idle stream. */
    STOP_WAIT_US = 5000000,
};

/* ---- the lane's reports ---- */

void apply_on_applied(void *context, const struct txn *txn)
{
    struct engine *e = context;
    pthread_mutex_lock(&e->lock);
    if (txn->change_count > 0)
        e->shared.transactions++;
    if (txn->barrier != 0) {
        struct barrier_seen *b = &e->shared.barriers[e->shared.barrier_count++ % BARRIERS_MAX];
        *b = (struct barrier_seen){txn->barrier, txn->pos};
        pthread_cond_broadcast(&e->changed);
    }
    pthread_mutex_unlock(&e->lock);
}

static struct table_count *count_of(struct engine *e, const struct relation *rel)
{
    char name[256];
    uint64_t hash = UINT64_C(1469598103934665603);
    int len =
        snprintf(name, sizeof name, "%.*s.%.*s", BYTES_ARG(rel->schema), BYTES_ARG(rel->name));
    for (int i = 0; i < len && name[i] != '\0'; i++)
        hash = (hash ^ (uint8_t)name[i]) * UINT64_C(1099511628211);
    struct table_count *t = map_get(&e->shared.counts, hash);
    if (t != NULL)
        return t;
    t = arena_new(&e->shared.arena, struct table_count);
    t->name = (const char *)arena_copy(&e->shared.arena,
                                       (struct bytes){(const uint8_t *)name, strlen(name) + 1})
                  .data;
    map_put(&e->shared.counts, hash, t);
    return t;
}

void apply_on_counted(void *context, const struct relation *rel, uint64_t changes)
{
    struct engine *e = context;
    pthread_mutex_lock(&e->lock);
    count_of(e, rel)->changes += changes;
    e->shared.changes += changes;
    pthread_mutex_unlock(&e->lock);
}

void apply_on_conflict(void *context, const struct relation *rel,
                       const struct row_result *result)
{
    struct engine *e = context;
    char key[600];
    pthread_mutex_lock(&e->lock);
    count_of(e, rel)->conflicts++;
    e->shared.conflicts++;
    pthread_mutex_unlock(&e->lock);
    log_event("apply.conflict", LOG_WARN, "table=%.*s.%.*s kind=\"%s\" key=%s action=%s",
              BYTES_ARG(rel->schema), BYTES_ARG(rel->name), result->conflict,
              log_quote(key, sizeof key, result->key),
              e->o->on_conflict == ROW_SKIP ? "skipped" : "overwritten");
}

/* ---- telling the others ---- */

/* Remembers an applied place until the target says that it is durable. */
static void note_mark(struct engine *e)
{
    struct applied_mark *last = e->mark_count == 0 ? NULL : &e->marks[e->mark_count - 1];
    struct applied_mark now;
    lane_applied(e->lane, &now.seq, &now.pos);
    if (last != NULL && last->seq >= now.seq)
        return;
    uint64_t held = lane_oldest_segment(e->lane, e->segment);
    uint64_t open = txn_buffer_oldest_segment(e->buffer, e->segment);
    now.segment = held < open ? held : open;
    if (last != NULL && e->mark_count == array_count(e->marks))
        *last = now;
    else
        e->marks[e->mark_count++] = now;
}

static void share_durable(struct engine *e, uint64_t seq)
{
    size_t reached = 0;
    while (reached < e->mark_count && e->marks[reached].seq <= seq)
        reached++;
    if (reached == 0)
        return;
    struct position pos = e->marks[reached - 1].pos;
    e->durable_seq = e->marks[reached - 1].seq;
    e->durable_segment = e->marks[reached - 1].segment;
    e->mark_count -= reached;
    memmove(e->marks, e->marks + reached, e->mark_count * sizeof *e->marks);
    pthread_mutex_lock(&e->lock);
    e->shared.durable = pos;
    pthread_mutex_unlock(&e->lock);
}

/* True if something was. */
static bool share_applied(struct engine *e)
{
    uint64_t seq;
    struct position pos;
    lane_applied(e->lane, &seq, &pos);
    pthread_mutex_lock(&e->lock);
    e->shared.oldest_us = lane_oldest_us(e->lane);
    bool moved = seq != e->shared.applied_seq;
    if (moved) {
        e->shared.applied_seq = seq;
        e->shared.applied = pos;
        watch_settle(e);
        pthread_cond_broadcast(&e->changed);
    }
    pthread_mutex_unlock(&e->lock);
    return moved;
}

/* ---- reading ---- */

static void take_transactions(struct engine *e)
{
    for (struct txn *t; (t = txn_buffer_take(e->buffer)) != NULL;)
        lane_add(e->lane, t);
    uint64_t seq;
    struct position pos;
    if (txn_buffer_progress(e->buffer, &seq, &pos))
        lane_pass(e->lane, seq, &pos);
}

static bool read_frame(struct engine *e, int wait_ms, bool *got, struct error *err)
{
    struct frame frame;
    uint64_t segment;
    TRY(spool_read(e->spool, wait_ms, &frame, &segment, got, err));
    if (!*got)
        return true;
    if (segment != e->segment) {
        e->segment = segment;
        txn_buffer_at_segment(e->buffer, segment);
    }
    TRY(e->decoder->ops->decode(e->decoder, &frame, txn_buffer_sink(e->buffer), err));
    if (frame.kind == FRAME_COMMIT || frame.kind == FRAME_PROGRESS)
        take_transactions(e);
    return true;
}

/* *idle: there was nothing more to read. */
static bool read_some(struct engine *e, bool *idle, struct error *err)
{
    bool got = true;
    *idle = false;
    for (int i = 0; i < READ_MAX && lane_has_room(e->lane); i++) {
        bool may_wait = i == 0 && !lane_is_busy(e->lane);
        TRY(read_frame(e, may_wait ? IDLE_WAIT_MS : 0, &got, err));
        if (!got) {
            *idle = true;
            return true;
        }
    }
    return true;
}

/* What cannot be read stops for good: a later frame must not be applied without it. A full disk
 * under the spill is waited for; the change that met it is held in memory. */
static void reading_failed(struct engine *e, const struct error *err)
{
    engine_set_halt(e, err);
    if (err->kind == ERROR_DISK) {
        (void)poll(NULL, 0, 1000);
        return;
    }
    e->reader_failed = true;
}

/* ---- applying ---- */

/* Once, however often the change is tried again. */
static void count_halt(struct engine *e, const struct error *err)
{
    pthread_mutex_lock(&e->lock);
    bool news = strcmp(e->shared.halt.text, err->text) != 0;
    e->shared.conflicts += news && err->kind == ERROR_CONFLICT;
    pthread_mutex_unlock(&e->lock);
}

static void lane_failed(struct engine *e, const struct error *err)
{
    if (lane_state(e->lane) == LANE_HALTED) {
        e->retry_at = clock_mono_us() + RETRY_EVERY_US;
        count_halt(e, err);
        engine_set_halt(e, err);
        return;
    }
    if (err->kind == ERROR_FENCED || err->kind == ERROR_LOST || err->kind == ERROR_REWOUND) {
        bool told_to = err->kind == ERROR_REWOUND && atomic_load(&e->stop);
        engine_end(e, told_to ? NULL : err);
        return;
    }
    if (err->kind == ERROR_DATA) {
        e->reader_failed = true;
        engine_set_halt(e, err);
    }
    engine_set_reach(e, err);
    backoff_failed(&e->backoff, "target.disconnected", err);
}

static void open_lane(struct engine *e)
{
    struct checkpoint found;
    struct error err = {0};
    if (!backoff_is_due(&e->backoff)) {
        (void)poll(NULL, 0, 20);
        return;
    }
    if (!lane_open(e->lane, &found, &err)) {
        lane_failed(e, &err);
        return;
    }
    (void)backoff_worked(&e->backoff);
    engine_set_reach(e, NULL);
    log_event("target.connected", LOG_INFO, "seq=%" PRIu64 " position=%s", found.seq,
              found.pos.text);
}

static void retry_halted(struct engine *e)
{
    struct error err = {0};
    if (clock_mono_us() < e->retry_at) {
        (void)poll(NULL, 0, 50);
        return;
    }
    if (lane_retry(e->lane, &err))
        engine_set_halt(e, NULL);
    else
        lane_failed(e, &err);
}

/* What the target surely keeps may leave the spool. */
static void release_spool(struct engine *e)
{
    int64_t now = clock_mono_us();
    if (now - e->durable_asked_at < DURABLE_EVERY_US || lane_state(e->lane) != LANE_OPEN)
        return;
    e->durable_asked_at = now;
    note_mark(e);
    struct error err = {0};
    uint64_t durable;
    if (!lane_durable(e->lane, &durable, &err)) {
        lane_failed(e, &err);
        return;
    }
    share_durable(e, durable);
    spool_release(e->spool, e->durable_seq, e->durable_segment);
}

static void keep_checkpoint_moving(struct engine *e)
{
    int64_t now = clock_mono_us();
    if (lane_is_busy(e->lane) || now - e->moved_at < CHECKPOINT_EVERY_US)
        return;
    e->moved_at = now;
    struct error err = {0};
    if (!lane_move_checkpoint(e->lane, false, &err))
        lane_failed(e, &err);
}

static bool hold_wanted(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    bool hold = e->shared.hold;
    pthread_mutex_unlock(&e->lock);
    return hold;
}

/* Whether it is true by now that nothing is in flight and nothing will be. */
static void share_held(struct engine *e, bool held)
{
    pthread_mutex_lock(&e->lock);
    if (e->shared.is_held != held) {
        e->shared.is_held = held;
        pthread_cond_broadcast(&e->changed);
    }
    pthread_mutex_unlock(&e->lock);
}

/* One round: read, send, take in. */
static void work(struct engine *e, bool may_read)
{
    struct error err = {0};
    bool idle = true;
    bool reads = !e->reader_failed;
    if (may_read && reads && !read_some(e, &idle, &err)) {
        reads = false;
        reading_failed(e, &err);
        error_clear(&err);
    }
    int wait = !lane_has_room(e->lane) ? FULL_WAIT_MS : idle ? BUSY_WAIT_MS : 0;
    if (!lane_work(e->lane, idle, wait, &err))
        lane_failed(e, &err);
    bool moved = share_applied(e);
    if (moved && reads && lane_state(e->lane) != LANE_HALTED)
        engine_set_halt(e, NULL);
    keep_checkpoint_moving(e);
    release_spool(e);
}

/* ---- the copy ---- */

static bool applied_past_window(struct engine *e)
{
    struct position pos;
    uint64_t seq;
    lane_applied(e->lane, &seq, &pos);
    return e->origin->ops->reaches(&pos, &e->window_end);
}

/* A target that crashed later would come back inside the window, where its changes still need
 * the judge: so what was applied must also be durable. */
static bool window_is_over(struct engine *e)
{
    struct error err = {0};
    if (lane_is_busy(e->lane)) {
        work(e, false);
        return false;
    }
    if (e->origin->ops->reaches(&e->shared.durable, &e->window_end))
        return true;
    if (!lane_move_checkpoint(e->lane, true, &err))
        lane_failed(e, &err);
    e->durable_asked_at = 0;
    release_spool(e);
    (void)poll(NULL, 0, 10);
    return false;
}

static void copy_failed(struct engine *e, const struct error *err)
{
    if (err->kind == ERROR_FENCED || err->kind == ERROR_LOST) {
        engine_end(e, err);
        return;
    }
    if (err->kind == ERROR_RETRY || err->kind == ERROR_CONNECT) {
        engine_set_reach(e, err);
        backoff_failed(&e->backoff, "copy.interrupted", err);
        return;
    }
    engine_set_halt(e, err);
    e->backoff.next_at = clock_mono_us() + RETRY_EVERY_US;
}

/* Runs one step of the copy until it works or we are told to stop. */
static bool copy_step(struct engine *e, bool (*step)(struct copier *c, struct error *err))
{
    while (!atomic_load(&e->stop)) {
        struct error err = {0};
        if (!backoff_is_due(&e->backoff)) {
            (void)poll(NULL, 0, 50);
            continue;
        }
        if (step(e->copier, &err)) {
            (void)backoff_worked(&e->backoff);
            engine_set_halt(e, NULL);
            engine_set_reach(e, NULL);
            return true;
        }
        if (!atomic_load(&e->stop))
            copy_failed(e, &err);
    }
    return false;
}

static bool copy_rows(struct engine *e)
{
    if (e->stage != COPY_ROWS)
        return true;
    engine_set_phase(e, PHASE_COPYING);
    if (!copy_step(e, e->copier->ops->copy))
        return false;
    e->stage = COPY_FINISH;
    return true;
}

static bool begin_window(struct engine *e)
{
    struct judge *judge = NULL;
    while (!atomic_load(&e->stop)) {
        struct error err = {0};
        if (e->copier->ops->judge(e->copier, &judge, &e->window_end, &err)) {
            lane_set_judge(e->lane, judge);
            return true;
        }
        copy_failed(e, &err);
        (void)poll(NULL, 0, 500);
    }
    return false;
}

/* The target is now in a state that the source was in. */
static bool finish_copy(struct engine *e)
{
    lane_set_judge(e->lane, NULL);
    if (!copy_step(e, e->copier->ops->finish))
        return false;
    e->applier->ops->forget_shapes(e->applier);
    e->stage = COPY_DONE;
    pthread_mutex_lock(&e->lock);
    e->shared.is_copied = true;
    pthread_mutex_unlock(&e->lock);
    return true;
}

/* ---- the thread ---- */

static void follow_open(struct engine *e)
{
    bool hold = hold_wanted(e);
    bool held = hold && !lane_is_busy(e->lane);
    share_held(e, held);
    if (!held) {
        work(e, !hold);
        return;
    }
    (void)poll(NULL, 0, 10);
    release_spool(e);
}

/* Until told to stop, or, while the copy is not finished, until the end of its window. */
static void follow(struct engine *e)
{
    while (!atomic_load(&e->stop)) {
        switch (lane_state(e->lane)) {
        case LANE_CLOSED: open_lane(e); break;
        case LANE_HALTED: retry_halted(e); break;
        case LANE_OPEN:
            if (e->stage != COPY_FINISH || !applied_past_window(e))
                follow_open(e);
            else if (window_is_over(e))
                return;
            break;
        }
    }
}

/* Lets what was sent be answered, so that stopping loses no work. */
static void drain(struct engine *e)
{
    int64_t deadline = clock_mono_us() + STOP_WAIT_US;
    struct error err = {0};
    while (lane_state(e->lane) == LANE_OPEN && lane_is_busy(e->lane) &&
           clock_mono_us() < deadline)
        if (!lane_work(e->lane, true, BUSY_WAIT_MS, &err))
            return;
    if (lane_move_checkpoint(e->lane, false, &err))
        (void)share_applied(e);
}

void *apply_main(void *context)
{
    struct engine *e = context;
    struct error err = {0};
    if (!engine_begin(e, &err)) {
        engine_end(e, atomic_load(&e->stop) ? NULL : &err);
        return NULL;
    }
    bool going = copy_rows(e);
    if (going && e->stage == COPY_FINISH) {
        going = begin_window(e);
        engine_set_phase(e, PHASE_CATCHING_UP);
        watch_look(e);
        if (going)
            follow(e); /* Up to the end of the window. */
        engine_set_phase(e, PHASE_COPYING);
        going = going && !atomic_load(&e->stop) && finish_copy(e);
    }
    if (going) {
        engine_set_phase(e, PHASE_CATCHING_UP);
        watch_look(e);
        follow(e);
    }
    drain(e);
    engine_end(e, NULL);
    return NULL;
}
