#include "appliers/postgres/pipeline.h"

#include <poll.h>
#include <stdlib.h>

#include "engine/base/clock.h"

enum {
    IN_FLIGHT_MAX = 8 << 20, /* Bytes. libpq and the server each hold a part of it. */
    FLUSH_EVERY = 256 << 10, /* Bytes between requests to answer. */
    SILENCE_MAX_S = 3600,    /* A statement may wait this long for a lock before we give up. */
};

static bool fail(struct pipeline *p, struct error *err)
{
    check(p->failure.kind != ERROR_NONE);
    if (err->kind == ERROR_NONE)
        *err = p->failure;
    return false;
}

static bool fail_connection(struct pipeline *p, struct error *err)
{
    if (p->failure.kind == ERROR_NONE)
        pg_failed(p->pg, NULL, &p->failure);
    return fail(p, err);
}

bool pipeline_start(struct pipeline *p, PGconn *pg, uint64_t committed, struct error *err)
{
    p->pg = pg;
    p->head = p->count = 0;
    p->bytes = p->unflushed = 0;
    p->committed = committed;
    error_clear(&p->failure);
    if (PQsetnonblocking(pg, 1) != 0 || PQenterPipelineMode(pg) != 1)
        return fail_connection(p, err);
    return true;
}

void pipeline_release(struct pipeline *p)
{
    free(p->expected);
    *p = (struct pipeline){0};
}

/* ---- what is expected ---- */

static void expect(struct pipeline *p, const struct expectation *e)
{
    if (p->count == p->size) {
        size_t size = p->size == 0 ? 256 : p->size * 2;
        struct expectation *ring = calloc(size, sizeof *ring);
        check(ring != NULL);
        for (size_t i = 0; i < p->count; i++)
            ring[i] = p->expected[(p->head + i) % p->size];
        free(p->expected);
        p->expected = ring;
        p->size = size;
        p->head = 0;
    }
    p->expected[(p->head + p->count++) % p->size] = *e;
    p->bytes += e->bytes;
    p->unflushed += e->bytes;
}

static void met(struct pipeline *p)
{
    check(p->count > 0);
    p->bytes -= p->expected[p->head].bytes;
    p->head = (p->head + 1) % p->size;
    p->count--;
}

static void wrong_count(struct pipeline *p, const struct expectation *e, const char *tuples)
{
    error_set(&p->failure, ERROR_CONFLICT, "%s: %s rows instead of %lld were touched", e->what,
              tuples[0] == '\0' ? "0" : tuples, (long long)e->rows);
}

/* One result against what was expected of it. */
static void judge(struct pipeline *p, PGresult *res)
{
    struct expectation *e = &p->expected[p->head];
    ExecStatusType status = PQresultStatus(res);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        const char *tuples = PQcmdTuples(res);
        if (e->rows != ROWS_ANY && strtoll(tuples, NULL, 10) != e->rows)
            wrong_count(p, e, tuples);
        else if (e->commit != 0 && strcmp(PQcmdStatus(res), "COMMIT") == 0)
            p->committed = e->commit;
        else if (e->commit != 0)
            error_set(&p->failure, ERROR_CONFLICT, "the target rolled the transaction back");
        return;
    }
    if (status == PGRES_PIPELINE_ABORTED) {
        error_set(&p->failure, ERROR_RETRY, "an earlier statement failed");
        return;
    }
    pg_failed(p->pg, res, &p->failure);
    if (e->is_move && strcmp(p->failure.sqlstate, "22012") == 0) {
        error_clear(&p->failure);
        error_set(&p->failure, ERROR_RETRY, "the checkpoint is not where we left it");
    } else if (e->what != NULL) {
        error_wrap(&p->failure, "%s", e->what);
    }
}

/* Takes in all results that have arrived. A statement's results end with a NULL; a sync's do
 * not. A server that hangs up says so instead of an answer: libpq then ends even a sync with a
 * NULL, before it has seen the connection close. False: the connection is gone. */
static bool take_results(struct pipeline *p)
{
    while (p->count > 0 && !PQisBusy(p->pg)) {
        cleanup_with(pg_result_drop) PGresult *res = PQgetResult(p->pg);
        bool is_sync = p->expected[p->head].is_sync;
        if (res == NULL) {
            if (is_sync || PQstatus(p->pg) == CONNECTION_BAD)
                return false;
            met(p);
        } else if (PQresultStatus(res) == PGRES_PIPELINE_SYNC) {
            if (!is_sync)
                return false;
            met(p);
        } else if (p->failure.kind == ERROR_NONE) {
            judge(p, res);
        }
    }
    return true;
}

/* ---- moving bytes ---- */

/* Moves bytes both ways until something has moved or `wait_ms` is over. False: the connection
 * is gone. */
static bool move(struct pipeline *p, int wait_ms)
{
    int unsent = PQflush(p->pg);
    if (unsent < 0)
        return false;
    struct pollfd poller = {.fd = PQsocket(p->pg),
                            .events = (short)(POLLIN | (unsent > 0 ? POLLOUT : 0))};
    if (poll(&poller, 1, wait_ms) > 0 && poller.revents != 0 && PQconsumeInput(p->pg) == 0)
        return false;
    return take_results(p) && PQstatus(p->pg) != CONNECTION_BAD;
}

static bool ask_to_answer(struct pipeline *p)
{
    p->unflushed = 0;
    return PQsendFlushRequest(p->pg) == 1;
}

/* Called after each statement: keeps the bytes in flight bounded. */
static bool pace(struct pipeline *p, struct error *err)
{
    if (p->unflushed >= FLUSH_EVERY) {
        if (!ask_to_answer(p) || !move(p, 0))
            return fail_connection(p, err);
    }
    while (p->bytes > IN_FLIGHT_MAX && p->failure.kind == ERROR_NONE)
        if ((p->unflushed > 0 && !ask_to_answer(p)) || !move(p, 1000))
            return fail_connection(p, err);
    return p->failure.kind == ERROR_NONE || fail(p, err);
}

bool pipeline_prepare(struct pipeline *p, const char *name, const char *sql, int count,
                      const uint32_t *types, struct error *err)
{
    if (p->failure.kind != ERROR_NONE)
        return fail(p, err);
    if (PQsendPrepare(p->pg, name, sql, count, types) != 1)
        return fail_connection(p, err);
    expect(p, &(struct expectation){
                  .rows = ROWS_ANY, .what = NULL, .bytes = (uint32_t)strlen(sql)});
    return pace(p, err);
}

bool pipeline_send(struct pipeline *p, const char *name, const struct parameters *parameters,
                   const struct expectation *expected, struct error *err)
{
    if (p->failure.kind != ERROR_NONE)
        return fail(p, err);
    if (PQsendQueryPrepared(p->pg, name, parameters->count, parameters->values,
                            parameters->lengths, parameters->formats, 0) != 1)
        return fail_connection(p, err);
    expect(p, expected);
    return pace(p, err);
}

bool pipeline_sync(struct pipeline *p, struct error *err)
{
    if (p->failure.kind != ERROR_NONE)
        return fail(p, err);
    if (PQpipelineSync(p->pg) != 1)
        return fail_connection(p, err);
    p->unflushed = 0;
    expect(p, &(struct expectation){.rows = ROWS_ANY, .is_sync = true});
    if (!move(p, 0))
        return fail_connection(p, err);
    return p->failure.kind == ERROR_NONE || fail(p, err);
}

bool pipeline_collect(struct pipeline *p, int wait_ms, struct error *err)
{
    int64_t deadline = clock_mono_us() + (int64_t)SILENCE_MAX_S * 1000000;
    size_t before = p->count;
    do {
        int step = wait_ms < 0 ? 1000 : p->count == 0 ? 0 : wait_ms;
        if (p->unflushed > 0 && wait_ms != 0 && !ask_to_answer(p))
            return fail_connection(p, err);
        if (!move(p, step))
            return fail_connection(p, err);
        if (p->failure.kind != ERROR_NONE)
            return fail(p, err);
        if (p->count != before) {
            before = p->count;
            deadline = clock_mono_us() + (int64_t)SILENCE_MAX_S * 1000000;
        }
    } while (wait_ms < 0 && p->count > 0 && clock_mono_us() < deadline);
    if (wait_ms < 0 && p->count > 0) {
        error_set(&p->failure, ERROR_RETRY, "the target has not answered for an hour");
        return fail(p, err);
    }
    return true;
}

bool pipeline_finish(struct pipeline *p, struct error *err)
{
    if (p->count > 0 && p->failure.kind == ERROR_NONE) {
        TRY(pipeline_sync(p, err));
        TRY(pipeline_collect(p, -1, err));
    }
    if (p->failure.kind != ERROR_NONE)
        return fail(p, err);
    /* The last sync's answer is followed by a NULL that nothing waits for. */
    while (PQgetResult(p->pg) != NULL)
        continue;
    if (PQexitPipelineMode(p->pg) != 1 || PQsetnonblocking(p->pg, 0) != 0)
        return fail_connection(p, err);
    return true;
}

bool pipeline_abandon(struct pipeline *p)
{
    if (p->failure.kind == ERROR_NONE)
        error_set(&p->failure, ERROR_RETRY, "abandoned");
    if (PQstatus(p->pg) == CONNECTION_BAD || PQpipelineStatus(p->pg) == PQ_PIPELINE_OFF)
        return PQstatus(p->pg) != CONNECTION_BAD;
    if (PQpipelineSync(p->pg) != 1)
        return false;
    expect(p, &(struct expectation){.rows = ROWS_ANY, .is_sync = true});
    int64_t deadline = clock_mono_us() + (int64_t)SILENCE_MAX_S * 1000000;
    while (p->count > 0 && clock_mono_us() < deadline)
        if (!move(p, 1000))
            return false;
    while (p->count == 0 && PQgetResult(p->pg) != NULL)
        continue;
    return p->count == 0 && PQexitPipelineMode(p->pg) == 1 && PQsetnonblocking(p->pg, 0) == 0;
}
