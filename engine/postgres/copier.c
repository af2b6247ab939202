/* Schema, rows, keys, the rest: in this order, each stage noted on the target when it is done.
 *
 * Rows are copied in rounds. A round holds one snapshot of the source and plans from it what is
 * left; workers take parts, largest tables first, each part in a transaction of its own on both
 * sides. A round ends when all is done, when something fails, or when its snapshot has become
 * too old: then nothing of the work that was committed is repeated, and the next round goes on.
 *
 * What of the stream is in which rows follows from the snapshots of a table's first and last
 * part: both are in the ledger, and the judge reads them there. */
#include "engine/postgres/copier.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "appliers/postgres/ledger.h"
#include "appliers/postgres/schema.h"
#include "checkpoint/postgres.h"
#include "engine/base/clock.h"
#include "engine/base/crash.h"
#include "engine/base/log.h"
#include "engine/postgres/copy_judge.h"
#include "engine/postgres/copy_rows.h"

enum { CONNECT_TIMEOUT_S = 10, JOBS_MAX = 64, SCHEMA_FRESH_US = 10000000 };

struct pg_copier {
    struct copier base;
    const struct options *options;
    struct stream_identity identity;
    uint64_t epoch;
    PGconn *green;         /* The engine thread's: ledger and schema. */
    struct schema *schema; /* Blue's as of schema_us; NULL: not read yet. */
    int64_t schema_us;
    struct snapshot snapshot;
    atomic_bool stop; /* Everything. */
    atomic_bool halt; /* This round. */
    atomic_bool aged; /* The round's snapshot: only what cannot go on with another is copied. */
    enum ledger_stage stage;
    int64_t tables_found; /* What an earlier run copied; 0: not all. */
    int64_t rows_found;

    pthread_mutex_t lock; /* Of what follows. */
    struct copy_plan plan;
    bool has_plan;
    size_t next_table; /* Where workers look for parts. */
    struct error failure;
    atomic_bool rewritten;
    int64_t began_us;
    uint64_t rows_before; /* Done when this run began to copy. */

    struct copy_judge judge;
};

static struct pg_copier *copier_of(struct copier *c)
{
    return container_of(c, struct pg_copier, base);
}

/* ---- opening ---- */

/* Triggers and foreign keys that green has already do not act on what is copied. */
static bool connect_writer(const struct pg_copier *c, PGconn **out, struct error *err)
{
    TRY(pg_connect(c->options->green.conninfo, PG_COPY, c->options->name, CONNECT_TIMEOUT_S,
                   out, err));
    return pg_execute(*out, "set session_replication_role = replica", err);
}

static bool connect_green(struct pg_copier *c, struct error *err)
{
    if (c->green != NULL && PQstatus(c->green) == CONNECTION_OK &&
        PQtransactionStatus(c->green) == PQTRANS_IDLE)
        return true;
    pg_close(&c->green);
    return connect_writer(c, &c->green, err);
}

static bool read_stage(struct pg_copier *c, struct error *err)
{
    struct ledger ledger;
    bool ok = ledger_read(c->green, c->options->name, &ledger, err);
    c->stage = ledger.stage;
    ledger_release(&ledger);
    return ok;
}

/* So that a run which has nothing to copy still knows how much was. */
static bool count_copied(struct pg_copier *c, struct error *err)
{
    struct ledger ledger;
    if (c->stage < LEDGER_KEYS)
        return true;
    bool ok = ledger_read(c->green, c->options->name, &ledger, err);
    c->tables_found = (int64_t)ledger.table_count;
    c->rows_found = (int64_t)ledger_rows(&ledger);
    ledger_release(&ledger);
    return ok;
}

static bool read_epoch(struct pg_copier *c, struct error *err)
{
    struct checkpoint_key key = {
        .migration = c->options->name, .feed = "forward", .identity = c->identity.text};
    struct checkpoint found;
    bool exists;
    TRY(checkpoint_read(c->green, &key, &found, &exists, err));
    c->epoch = found.epoch;
    return exists || error_set(err, ERROR_LOST, "the checkpoint of migration %s is gone",
                               c->options->name);
}

static bool pg_copier_open(struct copier *base, const char *snapshot, enum copy_stage *stage,
                           struct error *err)
{
    struct pg_copier *c = copier_of(base);
    TRY(connect_green(c, err));
    TRY(ledger_prepare(c->green, err));
    TRY(read_stage(c, err));
    TRY(count_copied(c, err));
    TRY(read_epoch(c, err));
    *stage = c->stage == LEDGER_DONE     ? COPY_DONE
             : c->stage == LEDGER_WINDOW ? COPY_FINISH
                                         : COPY_ROWS;
    if (snapshot[0] == '\0' || *stage != COPY_ROWS || c->snapshot.keeper != NULL)
        return true;
    return snapshot_take(&c->snapshot, c->options->blue.conninfo, c->options->name, snapshot,
                         err);
}

static bool set_stage(struct pg_copier *c, enum ledger_stage stage, const char *window_end,
                      struct error *err)
{
    TRY(ledger_set_stage(c->green, c->options->name, stage, window_end, err));
    c->stage = stage;
    return true;
}

/* ---- workers ---- */

struct worker {
    pthread_t thread;
    struct pg_copier *copier;
    PGconn *blue;
    PGconn *green;
};

static bool snapshot_is_old(const struct pg_copier *c)
{
    return clock_mono_us() - c->snapshot.taken_us > c->options->copy_snapshot_max_us;
}

/* It would have to begin anew in the next round, and might never end. */
static bool needs_this_snapshot(const struct copy_table *t)
{
    return t->at_one_moment && t->next_part > 0;
}

/* The next part nobody has taken: from the largest table that has one. */
static struct copy_part *take_part(struct pg_copier *c, struct copy_table **table)
{
    struct copy_part *part = NULL;
    pthread_mutex_lock(&c->lock);
    while (part == NULL && !atomic_load(&c->halt) && c->next_table < c->plan.table_count) {
        struct copy_table *t = &c->plan.tables[c->next_table];
        bool wanted = !atomic_load(&c->aged) || needs_this_snapshot(t);
        while (wanted && part == NULL && t->next_part < t->part_count) {
            struct copy_part *p = &t->parts[t->next_part++];
            if (!p->done)
                part = p;
        }
        if (part == NULL)
            c->next_table++;
        *table = t;
    }
    pthread_mutex_unlock(&c->lock);
    return part;
}

static void fail_round(struct pg_copier *c, const struct error *err)
{
    pthread_mutex_lock(&c->lock);
    if (c->failure.kind == ERROR_NONE)
        c->failure = *err;
    pthread_mutex_unlock(&c->lock);
    atomic_store(&c->halt, true);
}

/* The last part of a table: it is complete but for duplicates. */
static bool end_table(struct worker *w, struct copy_table *t, struct error *err)
{
    struct pg_copier *c = w->copier;
    if (t->mixed && !t->through_staging)
        TRY(copy_remove_duplicates(w->blue, w->green, t, err));
    TRY(ledger_end_table(w->green, c->options->name, t->source->oid, err));
    t->done = true;
    log_event("copy.table_done", LOG_INFO, "table=%s rows=%llu bytes=%llu", t->source->shown,
              (unsigned long long)atomic_load(&t->rows_done),
              (unsigned long long)atomic_load(&t->bytes_done));
    return true;
}

static bool work_part(struct worker *w, struct copy_table *t, struct copy_part *part,
                      struct error *err)
{
    struct pg_copier *c = w->copier;
    struct copy_job job = {.migration = c->options->name,
                           .epoch = c->epoch,
                           .snapshot = &c->snapshot,
                           .blue = w->blue,
                           .green = w->green,
                           .table = t,
                           .part = part,
                           .stop = &c->halt};
    bool rewritten = false;
    atomic_store(&t->running, true);
    TRY(copy_rows(&job, &rewritten, err));
    if (rewritten) {
        log_event("copy.table_rewritten", LOG_WARN, "table=%s", t->source->shown);
        c->rewritten = true; /* The next round's; the others go on. */
        return true;
    }
    return atomic_fetch_sub(&t->parts_left, 1) > 1 || end_table(w, t, err);
}

static bool work(struct worker *w, struct error *err)
{
    struct pg_copier *c = w->copier;
    struct copy_table *table = NULL;
    TRY(pg_connect(c->options->blue.conninfo, PG_COPY, c->options->name, CONNECT_TIMEOUT_S,
                   &w->blue, err));
    TRY(connect_writer(c, &w->green, err));
    for (struct copy_part *part; (part = take_part(c, &table)) != NULL;) {
        TRY(work_part(w, table, part, err));
        if (snapshot_is_old(c))
            atomic_store(&c->aged, true);
    }
    return true;
}

static void *worker_main(void *context)
{
    struct worker *w = context;
    struct error err = {0};
    if (!work(w, &err))
        fail_round(w->copier, &err);
    pg_close(&w->blue);
    pg_close(&w->green);
    return NULL;
}

/* ---- rounds ---- */

static bool make_plan(struct pg_copier *c, struct error *err)
{
    struct copy_planner planner = {
        .options = c->options, .snapshot = &c->snapshot, .green = c->green};
    struct copy_plan plan;
    pthread_mutex_lock(&c->lock);
    if (c->has_plan)
        copy_plan_release(&c->plan);
    c->has_plan = false;
    pthread_mutex_unlock(&c->lock);
    TRY(copy_plan_make(&planner, &plan, err));
    pthread_mutex_lock(&c->lock);
    c->plan = plan;
    c->has_plan = true;
    c->next_table = 0;
    c->rows_before = 0;
    for (size_t i = 0; i < plan.table_count; i++)
        c->rows_before += atomic_load(&plan.tables[i].rows_done);
    c->began_us = clock_mono_us();
    error_clear(&c->failure);
    c->rewritten = false;
    pthread_mutex_unlock(&c->lock);
    atomic_store(&c->aged, false);
    atomic_store(&c->halt, atomic_load(&c->stop));
    crash_point("copy.after_plan");
    return true;
}

/* Tables whose parts were all copied before, but that were not ended. */
static bool end_left_over(struct pg_copier *c, struct error *err)
{
    struct worker w = {.copier = c, .blue = c->snapshot.keeper, .green = c->green};
    for (size_t i = 0; i < c->plan.table_count; i++) {
        struct copy_table *t = &c->plan.tables[i];
        if (!t->done && atomic_load(&t->parts_left) == 0)
            TRY(end_table(&w, t, err));
    }
    return true;
}

static bool is_complete(const struct pg_copier *c)
{
    for (size_t i = 0; i < c->plan.table_count; i++)
        if (!c->plan.tables[i].done)
            return false;
    return true;
}

static bool run_workers(struct pg_copier *c, struct error *err)
{
    struct worker workers[JOBS_MAX] = {0};
    size_t jobs = c->options->copy_jobs < JOBS_MAX ? (size_t)c->options->copy_jobs : JOBS_MAX;
    for (size_t i = 0; i < jobs; i++) {
        workers[i].copier = c;
        check(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) == 0);
    }
    for (size_t i = 0; i < jobs; i++)
        (void)pthread_join(workers[i].thread, NULL);
    if (c->failure.kind == ERROR_NONE)
        return true;
    *err = c->failure;
    return false;
}

static bool copy_round(struct pg_copier *c, bool *done, struct error *err)
{
    bool usable = c->snapshot.keeper != NULL && PQstatus(c->snapshot.keeper) == CONNECTION_OK &&
                  PQtransactionStatus(c->snapshot.keeper) == PQTRANS_INTRANS &&
                  !snapshot_is_old(c) && !c->rewritten;
    TRY(connect_green(c, err));
    if (!usable)
        TRY(snapshot_take(&c->snapshot, c->options->blue.conninfo, c->options->name, NULL,
                          err));
    TRY(make_plan(c, err));
    TRY(end_left_over(c, err));
    bool ok = is_complete(c) || run_workers(c, err);
    *done = ok && is_complete(c);
    return ok;
}

static bool copy_rows_of_all(struct pg_copier *c, struct error *err)
{
    bool done = false;
    while (!done) {
        if (atomic_load(&c->stop))
            return error_set(err, ERROR_RETRY, "told to stop");
        if (!copy_round(c, &done, err)) {
            pg_close(&c->green);
            return false;
        }
    }
    snapshot_drop(&c->snapshot);
    return true;
}

/* ---- the stages ---- */

/* Read again for each stage, as rows may take days, but not twice within seconds. */
static bool read_schema(struct pg_copier *c, struct error *err)
{
    int64_t now = clock_mono_us();
    if (c->schema != NULL && now - c->schema_us < SCHEMA_FRESH_US)
        return true;
    schema_free(c->schema);
    c->schema = NULL;
    c->schema_us = now;
    return schema_open(c->options, &c->stop, &c->schema, err);
}

static bool make_schema(struct pg_copier *c, struct error *err)
{
    if (c->options->schema_mode == SCHEMA_EXISTING)
        return set_stage(c, LEDGER_ROWS, "", err);
    TRY(read_schema(c, err));
    TRY(schema_apply_pre(c->schema, c->green, &c->stop, err));
    crash_point("copy.after_schema");
    return set_stage(c, LEDGER_ROWS, "", err);
}

static void close_all(PGconn **connections, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pg_close(&connections[i]);
}

static bool connect_jobs(struct pg_copier *c, PGconn **connections, size_t jobs,
                         struct error *err)
{
    for (size_t i = 0; i < jobs; i++) {
        if (pg_connect(c->options->green.conninfo, PG_QUERY, c->options->name,
                       CONNECT_TIMEOUT_S, &connections[i], err))
            continue;
        close_all(connections, i);
        return false;
    }
    return true;
}

static bool make_keys(struct pg_copier *c, struct error *err)
{
    PGconn *connections[JOBS_MAX] = {0};
    if (c->options->schema_mode == SCHEMA_EXISTING)
        return true;
    size_t jobs = c->options->copy_jobs < JOBS_MAX ? (size_t)c->options->copy_jobs : JOBS_MAX;
    TRY(connect_jobs(c, connections, jobs, err));
    bool ok =
        read_schema(c, err) && schema_apply_keys(c->schema, connections, jobs, &c->stop, err);
    close_all(connections, jobs);
    return ok;
}

/* Changes that the last snapshot saw end before this position. */
static bool end_of_window(struct pg_copier *c, struct error *err)
{
    cleanup_with(pg_close) PGconn *blue = NULL;
    TRY(pg_connect(c->options->blue.conninfo, PG_QUERY, c->options->name, CONNECT_TIMEOUT_S,
                   &blue, err));
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(blue, "select pg_current_wal_flush_lsn()", 0, NULL, &res, err));
    return set_stage(c, LEDGER_WINDOW, PQgetvalue(res, 0, 0), err);
}

static bool pg_copier_copy(struct copier *base, struct error *err)
{
    struct pg_copier *c = copier_of(base);
    TRY(connect_green(c, err));
    TRY(read_stage(c, err));
    if (c->stage == LEDGER_SCHEMA)
        TRY(make_schema(c, err));
    if (c->stage == LEDGER_ROWS) {
        TRY(copy_rows_of_all(c, err));
        TRY(set_stage(c, LEDGER_KEYS, "", err));
    }
    if (c->stage == LEDGER_KEYS) {
        TRY(make_keys(c, err));
        TRY(connect_green(c, err));
        TRY(end_of_window(c, err));
    }
    return true;
}

static bool analyze(struct pg_copier *c, PGconn *green, struct error *err)
{
    struct ledger ledger;
    struct writer sql = {0};
    bool ok = ledger_read(green, c->options->name, &ledger, err);
    for (size_t i = 0; ok && i < ledger.table_count && !atomic_load(&c->stop); i++) {
        writer_clear(&sql);
        writer_printf(&sql, "analyze %s", ledger.tables[i].target);
        ok = pg_execute(green, writer_cstr(&sql), err);
        if (!ok && err->kind == ERROR_SCHEMA) { /* Dropped since it was copied. */
            error_clear(err);
            ok = true;
        }
    }
    writer_release(&sql);
    ledger_release(&ledger);
    return ok;
}

static bool pg_copier_finish(struct copier *base, struct error *err)
{
    struct pg_copier *c = copier_of(base);
    cleanup_with(pg_close) PGconn *blue = NULL;
    cleanup_with(pg_close) PGconn *green = NULL;
    TRY(pg_connect(c->options->blue.conninfo, PG_QUERY, c->options->name, CONNECT_TIMEOUT_S,
                   &blue, err));
    TRY(pg_connect(c->options->green.conninfo, PG_QUERY, c->options->name, CONNECT_TIMEOUT_S,
                   &green, err));
    if (c->options->schema_mode != SCHEMA_EXISTING)
        TRY(read_schema(c, err) && schema_apply_finish(c->schema, green, &c->stop, err));
    TRY(schema_refresh_views(blue, green, &c->stop, err));
    TRY(analyze(c, green, err));
    crash_point("copy.before_ready");
    TRY(connect_green(c, err));
    return set_stage(c, LEDGER_DONE, "", err);
}

static bool pg_copier_judge(struct copier *base, struct judge **judge,
                            struct position *window_end, struct error *err)
{
    struct pg_copier *c = copier_of(base);
    struct ledger ledger;
    TRY(connect_green(c, err));
    bool ok = ledger_read(c->green, c->options->name, &ledger, err) &&
              copy_judge_load(&c->judge, &ledger, err);
    if (ok) {
        *window_end = position_of(
            (struct bytes){(const uint8_t *)ledger.window_end, strlen(ledger.window_end)});
        *judge = &c->judge.base;
    }
    ledger_release(&ledger);
    return ok;
}

/* ---- progress ---- */

static void fill_table(const struct copy_table *t, struct status *out, struct status_table *row)
{
    int64_t rows = (int64_t)atomic_load(&t->rows_done);
    const char *name = t->source->shown;
    *row = (struct status_table){
        .name = status_string(out, (struct bytes){(const uint8_t *)name, strlen(name)}),
        .phase = t->done                    ? PHASE_FOLLOWING
                 : atomic_load(&t->running) ? PHASE_COPYING
                                            : PHASE_NEW,
        .rows_copied = rows,
        .rows_total = t->done                  ? rows
                      : t->source->rows < 0    ? STATUS_UNKNOWN
                      : t->source->rows > rows ? t->source->rows
                                               : rows,
    };
    out->copy.tables++;
    out->copy.tables_done += t->done;
    out->copy.rows_done += rows;
    out->copy.rows += row->rows_total == STATUS_UNKNOWN ? rows : row->rows_total;
    int64_t bytes = (int64_t)atomic_load(&t->bytes_done);
    out->copy.bytes_done += bytes;
    out->copy.bytes_total +=
        t->done || (int64_t)t->source->bytes < bytes ? bytes : (int64_t)t->source->bytes;
}

/* From what this run has seen: rows per second since its round began. */
static void estimate(const struct pg_copier *c, struct status *out)
{
    int64_t us = clock_mono_us() - c->began_us;
    int64_t rows = out->copy.rows_done - (int64_t)c->rows_before;
    int64_t left = out->copy.rows - out->copy.rows_done;
    if (left <= 0 && out->copy.tables_done == out->copy.tables)
        out->copy.eta_seconds = 0;
    if (us < 1000000 || rows <= 0)
        return;
    out->copy.rows_per_second = rows * 1000000 / us;
    if (out->copy.rows_per_second > 0)
        out->copy.eta_seconds = left / out->copy.rows_per_second;
}

static void pg_copier_progress(struct copier *base, struct status *out)
{
    struct pg_copier *c = copier_of(base);
    pthread_mutex_lock(&c->lock);
    if (c->has_plan) {
        out->copy.tables = out->copy.tables_done = out->copy.rows = 0;
        out->copy.rows_done = out->copy.bytes_done = out->copy.bytes_total = 0;
        struct status_table *rows =
            arena_array(&out->arena, struct status_table, c->plan.table_count + 1);
        for (size_t i = 0; i < c->plan.table_count; i++)
            fill_table(&c->plan.tables[i], out, &rows[i]);
        out->tables = rows;
        out->table_count = c->plan.table_count;
        estimate(c, out);
    } else if (c->tables_found > 0) {
        out->copy.tables = out->copy.tables_done = c->tables_found;
        out->copy.rows = out->copy.rows_done = c->rows_found;
        out->copy.eta_seconds = 0;
    }
    pthread_mutex_unlock(&c->lock);
}

static void pg_copier_cancel(struct copier *base)
{
    struct pg_copier *c = copier_of(base);
    atomic_store(&c->stop, true);
    atomic_store(&c->halt, true);
}

static void pg_copier_free(struct copier *base)
{
    struct pg_copier *c = copier_of(base);
    pg_close(&c->green);
    schema_free(c->schema);
    snapshot_drop(&c->snapshot);
    if (c->has_plan)
        copy_plan_release(&c->plan);
    copy_judge_release(&c->judge);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

static const struct copier_ops pg_copier_ops = {
    .name = "postgres",
    .open = pg_copier_open,
    .copy = pg_copier_copy,
    .judge = pg_copier_judge,
    .finish = pg_copier_finish,
    .progress = pg_copier_progress,
    .cancel = pg_copier_cancel,
    .free = pg_copier_free,
};

struct copier *pg_copier_new(const struct options *options,
                             const struct stream_identity *identity)
{
    struct pg_copier *c = calloc(1, sizeof *c);
    check(c != NULL);
    c->base.ops = &pg_copier_ops;
    c->options = options;
    c->identity = *identity;
    check(pthread_mutex_init(&c->lock, NULL) == 0);
    return &c->base;
}
