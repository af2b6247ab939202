/* Groups as a few large statements, sent ahead of their results.
 *
 * A group is one transaction of the target: begin, the checkpoint's move (which is also its
 * marker, and refuses a group whose predecessor did not commit), the batches, commit, and a
 * sync that lets the next group start afresh. Several groups are under way at once; results are
 * taken in as they come. What goes wrong is reported once, by whichever call meets it first. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "appliers/postgres/truncate.h"
#include "engine/base/crash.h"

enum { CONNECT_TIMEOUT_S = 10 };

static struct session *session_of(struct applier *a)
{
    return container_of(a, struct session, base);
}

/* ---- opening ---- */

static const char *const fixed_statements[][2] = {
    {"teal_begin", "begin"},
    {"teal_commit", "commit"},
    {"teal_durable", "set local synchronous_commit = on"},
    {"teal_defer", "set constraints all deferred"},
    {"teal_move", checkpoint_move_sql},
};

static void disconnect(struct session *s)
{
    s->in_pipeline = false;
    pg_close(&s->pg);
    pg_close(&s->side);
}

static bool prepare_fixed(struct session *s, struct error *err)
{
    for (size_t i = 0; i < array_count(fixed_statements); i++) {
        cleanup_with(pg_result_drop) PGresult *res =
            PQprepare(s->pg, fixed_statements[i][0], fixed_statements[i][1], 0, NULL);
        if (PQresultStatus(res) != PGRES_COMMAND_OK)
            return pg_failed(s->pg, res, err);
    }
    return true;
}

/* On the side connection: a claim that green forgot would look like another engine's. */
static bool read_claim(struct session *s, bool claim, struct checkpoint *found,
                       struct error *err)
{
    if (claim) {
        TRY(checkpoint_prepare(s->side, err));
        TRY(checkpoint_claim(s->side, &s->key, &s->options.start, found, err));
        s->epoch = found->epoch;
        return true;
    }
    bool exists;
    TRY(checkpoint_read(s->side, &s->key, found, &exists, err));
    if (!exists)
        return error_set(err, ERROR_LOST,
                         "the checkpoint of migration %s is gone from the target",
                         s->key.migration);
    if (found->epoch != s->epoch)
        return error_set(err, ERROR_FENCED,
                         "another engine has taken migration %s over (epoch "
                         "%" PRIu64 ", ours is %" PRIu64 ")",
                         s->key.migration, found->epoch, s->epoch);
    return true;
}

static bool session_open(struct applier *a, bool claim, struct checkpoint *found,
                         struct error *err)
{
    struct session *s = session_of(a);
    disconnect(s);
    TRY(pg_connect(s->options.target, PG_APPLY, s->key.migration, CONNECT_TIMEOUT_S, &s->pg,
                   err));
    TRY(pg_connect(s->options.target, PG_QUERY, s->key.migration, CONNECT_TIMEOUT_S, &s->side,
                   err));
    s->connection++;
    s->marked = s->mark_lsn = 0;
    TRY(read_claim(s, claim, found, err));
    s->durable = found->seq < s->durable ? found->seq : s->durable;
    s->pipeline.committed = found->seq;
    return prepare_fixed(s, err);
}

static void session_close(struct applier *a)
{
    struct session *s = session_of(a);
    disconnect(s);
    pg_close(&s->other);
}

static void session_forget_shapes(struct applier *a)
{
    struct session *s = session_of(a);
    size_t at = 0;
    for (struct binding *b; (b = map_next(&s->bindings, &at)) != NULL;)
        binding_free(b);
    map_clear(&s->bindings);
    s->defers = false;
}

static void session_free(struct applier *a)
{
    struct session *s = session_of(a);
    session_close(a);
    session_forget_shapes(a);
    map_release(&s->bindings);
    pipeline_release(&s->pipeline);
    writer_release(&s->values);
    free(s->offsets);
    free(s->pointers);
    free(s->lengths);
    free(s->formats);
    free(s);
}

/* ---- transactions ---- */

static bool send_fixed(struct session *s, const char *name, struct error *err)
{
    struct expectation e = {.rows = ROWS_ANY, .what = name};
    return pipeline_send(&s->pipeline, name, &(struct parameters){0}, &e, err);
}

static bool send_move(struct session *s, uint64_t from_seq, const struct checkpoint *to,
                      struct error *err)
{
    char epoch[24];
    char from[24];
    char seq[24];
    char time[24];
    (void)snprintf(epoch, sizeof epoch, "%" PRIu64, s->epoch);
    (void)snprintf(from, sizeof from, "%" PRIu64, from_seq);
    (void)snprintf(seq, sizeof seq, "%" PRIu64, to->seq);
    (void)snprintf(time, sizeof time, "%" PRId64, to->commit_time_us);
    const char *values[] = {s->key.migration, s->key.feed, epoch, from, seq,
                            to->pos.text,     time};
    struct expectation e = {
        .rows = 1, .what = "teal.checkpoint", .is_move = true, .bytes = 128};
    struct parameters p = {.count = (int)array_count(values), .values = values};
    return pipeline_send(&s->pipeline, "teal_move", &p, &e, err);
}

static bool session_begin(struct applier *a, uint64_t from_seq, const struct checkpoint *to,
                          bool durable, struct error *err)
{
    struct session *s = session_of(a);
    if (s->pg == NULL)
        return error_set(err, ERROR_RETRY, "not connected to the target");
    if (!s->in_pipeline)
        TRY(pipeline_start(&s->pipeline, s->pg, s->pipeline.committed, err));
    s->in_pipeline = true;
    TRY(send_fixed(s, "teal_begin", err));
    TRY(send_move(s, from_seq, to, err));
    if (s->defers)
        TRY(send_fixed(s, "teal_defer", err));
    return !durable || send_fixed(s, "teal_durable", err);
}

static bool session_commit(struct applier *a, uint64_t seq, struct error *err)
{
    struct session *s = session_of(a);
    if (!s->in_pipeline) { /* Rows were applied one by one. */
        TRY(pipeline_start(&s->pipeline, s->pg, s->pipeline.committed, err));
        s->in_pipeline = true;
    }
    crash_point("applier.before_commit");
    struct expectation e = {.rows = ROWS_ANY, .commit = seq, .what = "commit"};
    TRY(pipeline_send(&s->pipeline, "teal_commit", &(struct parameters){0}, &e, err));
    TRY(pipeline_sync(&s->pipeline, err));
    crash_point("applier.after_commit_sent");
    return true;
}

static bool session_collect(struct applier *a, int wait_ms, uint64_t *committed,
                            struct error *err)
{
    struct session *s = session_of(a);
    *committed = s->pipeline.committed;
    if (!s->in_pipeline)
        return true;
    uint64_t before = s->pipeline.committed;
    bool ok = pipeline_collect(&s->pipeline, wait_ms, err);
    *committed = s->pipeline.committed;
    if (s->pipeline.committed != before)
        crash_point("applier.after_commit_before_report");
    return ok;
}

/* What was sent behind the statement that failed was skipped, and that may be the preparing of
 * others: none is taken for prepared any more. */
static void session_rollback(struct applier *a)
{
    struct session *s = session_of(a);
    bool piped = s->in_pipeline;
    bool ok = s->pg != NULL && (!piped || pipeline_abandon(&s->pipeline));
    s->in_pipeline = false;
    struct error unheard = {0};
    ok = ok && pg_execute(s->pg, "rollback", &unheard);
    if (ok && piped) {
        s->connection++;
        ok = pg_execute(s->pg, "deallocate all", &unheard) && prepare_fixed(s, &unheard);
    }
    if (!ok)
        disconnect(s);
}

/* Two questions to green: where its log ends, and how far it is on disk. What was committed
 * when the first was answered is durable once the second reaches that answer. */
static bool session_flushed(struct applier *a, uint64_t committed, uint64_t *durable,
                            struct error *err)
{
    struct session *s = session_of(a);
    *durable = s->durable;
    if (s->side == NULL)
        return error_set(err, ERROR_RETRY, "not connected to the target");
    if (PQconsumeInput(s->side) == 0) /* It has hung up: noticed even when there is no work. */
        return pg_failed(s->side, NULL, err);
    if (s->durable >= committed)
        return true;
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(s->side, "select pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn()", 0,
                 NULL, &res, err));
    uint64_t flushed = 0;
    uint64_t inserted = 0;
    if (!pg_lsn_parse(PQgetvalue(res, 0, 0), &flushed) ||
        !pg_lsn_parse(PQgetvalue(res, 0, 1), &inserted))
        return error_set(err, ERROR_DATA, "the target's log positions cannot be read");
    if (s->mark_lsn != 0 && flushed >= s->mark_lsn)
        s->durable = s->marked;
    if (s->mark_lsn == 0 || flushed >= s->mark_lsn) {
        s->marked = committed;
        s->mark_lsn = inserted;
    }
    if (flushed >= inserted)
        s->durable = committed;
    *durable = s->durable;
    return true;
}

/* ---- batches ---- */

static bool send_statement(struct session *s, struct binding *b, struct statement *st,
                           const struct parameters *p, int64_t rows, struct error *err)
{
    char name[32];
    uint32_t *types = calloc(st->param_count + 1u, sizeof *types);
    check(types != NULL);
    bool ok = true;
    if (session_names_statement(s, st, name, sizeof name, types)) {
        ok = pipeline_prepare(&s->pipeline, name, st->sql, st->param_count, types, err);
        st->connection = ok ? s->connection : 0;
    }
    free(types);
    struct expectation e = {
        .rows = rows, .what = b->shown, .bytes = (uint32_t)(s->values.len + 64)};
    return ok && pipeline_send(&s->pipeline, name, p, &e, err);
}

static bool send_insert(struct session *s, struct binding *b, const struct batch *batch,
                        struct error *err)
{
    struct statement *st =
        statement_get(b, STATEMENT_INSERT, DEMAND_NOTHING, batch->count > 1, NULL, NULL);
    uint32_t step = st->param_count == 0 ? 1 : batch->count; /* A table without columns. */
    for (uint32_t i = 0; i < batch->count; i += step) {
        struct parameters p = session_values(s, st, NULL, &batch->after[i], step);
        TRY(send_statement(s, b, st, &p, step, err));
    }
    return true;
}

static bool send_delete(struct session *s, struct binding *b, const struct batch *batch,
                        struct error *err)
{
    bool many = batch->count > 1 && b->by_key;
    enum statement_demand demand = batch->kind == BATCH_ABSENT ? DEMAND_NONE : DEMAND_EACH;
    uint32_t step = many ? batch->count : 1;
    for (uint32_t i = 0; i < batch->count; i += step) {
        struct statement *st =
            statement_get(b, STATEMENT_DELETE, demand, many, NULL, &batch->before[i]);
        struct parameters p = session_values(s, st, &batch->before[i], NULL, step);
        TRY(send_statement(s, b, st, &p, 1, err)); /* The count, judged. */
    }
    return true;
}

static bool send_update(struct session *s, struct binding *b, const struct batch *batch,
                        struct error *err)
{
    uint8_t *set = calloc(b->relation->column_count + 1u, 1);
    check(set != NULL);
    bool many = batch->count > 1 && b->by_key && b->relation->identity == IDENTITY_KEY;
    uint32_t step = many ? batch->count : 1;
    bool ok = true;
    for (uint32_t i = 0; ok && i < batch->count; i += step) {
        const struct tuple *before = &batch->before[i];
        const struct tuple *after = &batch->after[i];
        enum statement_kind kind = statement_for_update(b, before, after, set);
        struct statement *st = statement_get(b, kind, DEMAND_EACH, many, set, before);
        struct parameters p = session_values(s, st, before, after, step);
        ok = send_statement(s, b, st, &p, 1, err);
    }
    free(set);
    return ok;
}

static bool send_once(void *context, const char *sql, struct error *err)
{
    struct session *s = context;
    struct expectation e = {.rows = ROWS_ANY, .what = "truncate", .bytes = 64};
    return pipeline_prepare(&s->pipeline, "", sql, 0, NULL, err) &&
           pipeline_send(&s->pipeline, "", &(struct parameters){0}, &e, err);
}

static bool send_truncate(struct session *s, const struct change *change, struct error *err)
{
    return session_truncate(s, change, &(struct truncate_sink){send_once, s}, err);
}

static bool session_apply(struct applier *a, const struct batch *batch, struct error *err)
{
    struct session *s = session_of(a);
    struct binding *b;
    bool deferred = s->defers;
    TRY(session_binding(s, batch->relation, &b, err));
    if (s->defers && !deferred)
        TRY(send_fixed(s, "teal_defer", err));
    switch (batch->kind) {
    case BATCH_INSERT: return send_insert(s, b, batch, err);
    case BATCH_UPDATE: return send_update(s, b, batch, err);
    case BATCH_DELETE: return send_delete(s, b, batch, err);
    case BATCH_ABSENT: return send_delete(s, b, batch, err);
    case BATCH_TRUNCATE: return send_truncate(s, batch->truncate, err);
    }
    check_failed(__FILE__, __LINE__, "batch kind");
}

static bool session_row(struct applier *a, const struct change *change, enum row_mode mode,
                        struct row_result *result, struct error *err)
{
    struct session *s = session_of(a);
    if (s->in_pipeline) {
        TRY(pipeline_finish(&s->pipeline, err));
        s->in_pipeline = false;
    }
    return session_apply_row(s, change, mode, result, err);
}

static const struct applier_ops session_ops = {
    .name = "postgres",
    .open = session_open,
    .begin = session_begin,
    .apply = session_apply,
    .commit = session_commit,
    .collect = session_collect,
    .flushed = session_flushed,
    .apply_row = session_row,
    .rollback = session_rollback,
    .forget_shapes = session_forget_shapes,
    .close = session_close,
    .free = session_free,
};

struct applier *pg_applier_new(const struct pg_applier_options *options)
{
    struct session *s = calloc(1, sizeof *s);
    check(s != NULL);
    s->base.ops = &session_ops;
    s->options = *options;
    s->key = (struct checkpoint_key){.migration = options->options->name,
                                     .feed = options->feed,
                                     .identity = options->identity};
    return &s->base;
}
