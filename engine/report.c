/* What the engine says of itself, put together from its parts. */
#include <stdio.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/engine_inner.h"

enum { PROBE_FRESH_US = 3000000, REASONS_MAX = 48 };

/* The age of the oldest commit that is not on the target, on the source's clock. Without a
 * fresh word of the source it is not known. */
static int64_t lag_us(const struct shared *s, int64_t now)
{
    if (s->latest.mono_us == 0 || now - s->latest.mono_us > PROBE_FRESH_US)
        return STATUS_UNKNOWN;
    if (s->probe_count == 0)
        return 0;
    int64_t source_now = s->latest.server_us + (now - s->latest.mono_us);
    int64_t since = s->reached.mono_us != 0 ? s->reached.server_us : 0;
    if (s->oldest_us != 0 && s->oldest_us > since)
        since = s->oldest_us;
    if (since == 0)
        return STATUS_UNKNOWN;
    return source_now > since ? source_now - since : 0;
}

static void add_reason(struct status *out, const char **list, const char *text)
{
    if (out->ready.reason_count < REASONS_MAX)
        list[out->ready.reason_count++] =
            status_string(out, (struct bytes){(const uint8_t *)text, strlen(text)});
}

static void fill_ready(const struct engine *e, struct status *out)
{
    const struct shared *s = &e->shared;
    const char **list = arena_array(&out->arena, const char *, REASONS_MAX);
    char text[256];
    out->ready.reasons = list;
    if (out->error.kind != ERROR_NONE)
        add_reason(out, list, out->error.text);
    if (out->phase != PHASE_FOLLOWING) {
        (void)snprintf(text, sizeof text, "the phase is %s", phase_name(out->phase));
        add_reason(out, list, text);
    } else if (out->lag.us == STATUS_UNKNOWN) {
        add_reason(out, list, "the lag is not known");
    } else if (out->lag.us > e->o->cutover_max_lag_us) {
        (void)snprintf(text, sizeof text, "the lag is above [cutover] max-lag");
        add_reason(out, list, text);
    }
    if (out->phase == PHASE_FOLLOWING && !s->mirrored)
        add_reason(out, list, "sequences have not been mirrored yet");
    if (s->is_held)
        add_reason(out, list, "applying is on hold");
    for (size_t i = 0; i < s->reasons.count; i++)
        add_reason(out, list, s->reasons.list[i]);
    out->ready.cutover = out->ready.reason_count == 0;
}

/* A table of the copy gets its counts; one that the copy does not know is added. */
static void fill_counts(const struct engine *e, struct status *out)
{
    size_t total = out->table_count + e->shared.counts.count;
    struct status_table *tables = arena_array(&out->arena, struct status_table, total + 1);
    if (out->table_count > 0)
        memcpy(tables, out->tables, out->table_count * sizeof *tables);
    size_t at = 0;
    for (const struct table_count *t; (t = map_next(&e->shared.counts, &at)) != NULL;) {
        size_t i = 0;
        while (i < out->table_count && strcmp(tables[i].name, t->name) != 0)
            i++;
        if (i == out->table_count) {
            tables[i] = (struct status_table){.rows_copied = STATUS_UNKNOWN,
                                              .rows_total = STATUS_UNKNOWN,
                                              .phase = PHASE_FOLLOWING};
            tables[i].name =
                status_string(out, (struct bytes){(const uint8_t *)t->name, strlen(t->name)});
            out->table_count++;
        }
        tables[i].changes = (int64_t)t->changes;
        tables[i].conflicts = (int64_t)t->conflicts;
    }
    out->tables = tables;
}

static void fill_spool(const struct engine *e, struct status *out, struct spool_stats *stats)
{
    spool_stats(e->spool, stats);
    out->spool.memory_bytes = (int64_t)stats->memory_bytes;
    out->spool.disk_bytes = (int64_t)stats->disk_bytes;
    out->spool.disk_max_bytes = (int64_t)e->o->disk_max;
    out->position.received = stats->appended.last_pos;
    out->position.durable = stats->durable.last_pos;
}

/* At its bound. If all whole transactions were applied it will stay there: one alone is larger.
 */
static bool spool_is_full(const struct engine *e, const struct receiver_state *receiver,
                          const struct spool_stats *stats, struct error *err)
{
    if (!receiver->full)
        return false;
    bool stuck = stats->appended.last_seq == e->shared.applied_seq;
    (void)error_set(err, stuck ? ERROR_DISK : ERROR_RETRY,
                    stuck ? "a transaction is larger than the spool may become"
                          : "the spool is at its bound: receiving waits for the target");
    (void)error_hint(err,
                     "Raise [spool] disk-max (memory-max with ack = target) and start teal "
                     "again.");
    return true;
}

static void fill_error(struct engine *e, const struct receiver_state *receiver,
                       const struct spool_stats *stats, struct status *out)
{
    struct error err = {0};
    if (e->shared.halt.kind != ERROR_NONE)
        out->error = e->shared.halt;
    else if (e->shared.reach.kind != ERROR_NONE)
        out->error = e->shared.reach;
    else if (receiver->error.kind != ERROR_NONE)
        out->error = receiver->error;
    else if (!spool_healthy(e->spool, &err) || spool_is_full(e, receiver, stats, &err))
        out->error = err;
    bool halted = e->shared.halt.kind != ERROR_NONE || out->error.kind == ERROR_DISK;
    out->phase = halted ? PHASE_HALTED : e->shared.phase;
}

/* Nothing is known yet but why it takes so long. */
static bool fill_beginning(struct engine *e, struct status *out)
{
    pthread_mutex_lock(&e->lock);
    bool begun = e->shared.has_begun;
    if (!begun) {
        out->error = e->shared.reach;
        out->phase = PHASE_NEW;
        fill_ready(e, out);
    }
    pthread_mutex_unlock(&e->lock);
    return !begun;
}

void engine_snapshot(struct engine *e, struct status *out)
{
    out->migration = e->o->name;
    if (fill_beginning(e, out))
        return;
    struct receiver_state receiver;
    struct spool_stats stats;
    receiver_state(e->receiver, &receiver);
    fill_spool(e, out, &stats);
    e->copier->ops->progress(e->copier, out);
    pthread_mutex_lock(&e->lock);
    const struct shared *s = &e->shared;
    fill_error(e, &receiver, &stats, out);
    out->lag.us = lag_us(s, clock_mono_us());
    bool fresh = out->lag.us != STATUS_UNKNOWN;
    out->lag.bytes = fresh ? (int64_t)s->bytes_behind : STATUS_UNKNOWN;
    out->lag.transactions = out->lag.us == 0 ? 0
                            : fresh ? (int64_t)(stats.appended.last_seq - s->applied_seq)
                                    : STATUS_UNKNOWN;
    out->position.source = s->latest.pos;
    out->position.applied = s->applied;
    out->position.confirmed = receiver.confirmed;
    out->apply.transactions = (int64_t)s->transactions;
    out->apply.changes = (int64_t)s->changes;
    out->apply.conflicts = (int64_t)s->conflicts;
    out->apply.stray_writes = 0;
    fill_counts(e, out);
    fill_ready(e, out);
    pthread_mutex_unlock(&e->lock);
}
