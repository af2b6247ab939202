#include "engine/postgres/copy_rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crash.h"
#include "engine/base/log.h"

static bool begin_copy(PGconn *pg, const char *sql, ExecStatusType wanted, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = PQexec(pg, sql);
    return PQresultStatus(res) == wanted || pg_failed(pg, res, err);
}

static bool begin_reading(const struct copy_job *job, struct error *err)
{
    struct writer sql = {0};
    const struct copy_table *t = job->table;
    if (job->part->range[0] == '\0')
        writer_printf(&sql, "copy %s to stdout", t->whole);
    else
        writer_printf(&sql, "copy (%s where %s) to stdout", t->reads, job->part->range);
    writer_text(&sql, t->binary ? " (format binary)" : "");
    bool ok = snapshot_begin(job->snapshot, job->blue, err) &&
              begin_copy(job->blue, writer_cstr(&sql), PGRES_COPY_OUT, err);
    writer_release(&sql);
    return ok || error_wrap(err, "read %s", t->source->shown);
}

/* The epoch's row is locked until the rows are there: an engine that takes over waits for them.
 */
static bool guard_epoch(const struct copy_job *job, struct error *err)
{
    char epoch[24];
    (void)snprintf(epoch, sizeof epoch, "%" PRIu64, job->epoch);
    const char *values[] = {job->migration, epoch};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(job->green,
                 "select 1 from teal.checkpoint where migration = $1 and feed = 'forward' and "
                 "epoch = $2 "
                 "for key share",
                 2, values, &res, err));
    return PQntuples(res) == 1 ||
           error_set(err, ERROR_FENCED, "another engine has taken migration %s over",
                     job->migration);
}

static bool begin_writing(const struct copy_job *job, struct error *err)
{
    const struct copy_table *t = job->table;
    struct writer sql = {0};
    TRY(pg_execute(job->green, "begin", err));
    TRY(guard_epoch(job, err));
    if (t->through_staging) {
        writer_printf(
            &sql,
            "create temporary table teal_staging (like %s including defaults) on commit drop;",
            t->binding->table);
        bool made = pg_execute(job->green, writer_cstr(&sql), err);
        writer_clear(&sql);
        if (!made) {
            writer_release(&sql);
            return false;
        }
    }
    writer_printf(&sql, "copy %s %s from stdin%s",
                  t->through_staging ? "pg_temp.teal_staging" : t->binding->table, t->writes,
                  t->binary ? " (format binary)" : "");
    bool ok = begin_copy(job->green, writer_cstr(&sql), PGRES_COPY_IN, err);
    writer_release(&sql);
    return ok || error_wrap(err, "write %s", t->binding->shown);
}

/* The target ended the COPY by itself: its result says why. */
static bool refused(const struct copy_job *job, struct error *err)
{
    (void)PQputCopyEnd(job->green, NULL);
    cleanup_with(pg_result_drop) PGresult *res = PQgetResult(job->green);
    if (PQresultStatus(res) == PGRES_COMMAND_OK)
        return error_set(err, ERROR_RETRY, "the target ended the copy of %s",
                         job->table->binding->shown);
    pg_failed(job->green, res, err);
    return error_wrap(err, "write %s", job->table->binding->shown);
}

/* One message is one row, about: the binary form adds a head and an end. The exact count comes
 * with the end of the COPY. */
static bool pass_rows(const struct copy_job *job, uint64_t *counted, struct error *err)
{
    enum { COUNT_EVERY = 256 };
    uint64_t messages = 0;
    uint64_t bytes = 0;
    while (true) {
        char *buffer = NULL;
        int len = PQgetCopyData(job->blue, &buffer, 0);
        if (len == -1)
            break;
        if (len < 0) {
            pg_failed(job->blue, NULL, err);
            return error_wrap(err, "read %s", job->table->source->shown);
        }
        bool sent = PQputCopyData(job->green, buffer, len) == 1;
        PQfreemem(buffer);
        if (!sent)
            return refused(job, err);
        bytes += (uint64_t)len;
        if (++messages % COUNT_EVERY != 0)
            continue;
        *counted += COUNT_EVERY;
        atomic_fetch_add(&job->table->rows_done, COUNT_EVERY);
        atomic_fetch_add(&job->table->bytes_done, bytes);
        bytes = 0;
        if (atomic_load(job->stop))
            return error_set(err, ERROR_RETRY, "told to stop");
    }
    atomic_fetch_add(&job->table->bytes_done, bytes);
    return true;
}

/* Both ends say how many rows it was, and must agree. */
static bool end_copies(const struct copy_job *job, uint64_t *rows, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *read = PQgetResult(job->blue);
    if (PQresultStatus(read) != PGRES_COMMAND_OK)
        return pg_failed(job->blue, read, err) ||
               error_wrap(err, "read %s", job->table->source->shown);
    if (PQputCopyEnd(job->green, NULL) != 1)
        return pg_failed(job->green, NULL, err);
    cleanup_with(pg_result_drop) PGresult *written = PQgetResult(job->green);
    if (PQresultStatus(written) != PGRES_COMMAND_OK)
        return pg_failed(job->green, written, err) ||
               error_wrap(err, "write %s", job->table->binding->shown);
    while (PQgetResult(job->blue) != NULL || PQgetResult(job->green) != NULL)
        continue;
    *rows = strtoull(PQcmdTuples(written), NULL, 10);
    if (strcmp(PQcmdTuples(read), PQcmdTuples(written)) == 0)
        return true;
    return error_set(err, ERROR_RETRY, "table %s: %s rows were read, %s written",
                     job->table->source->shown, PQcmdTuples(read), PQcmdTuples(written));
}

/* Still under the lock that reading took: the file is what was read from. */
static bool check_file(const struct copy_job *job, bool *rewritten, struct error *err)
{
    char oid[16];
    (void)snprintf(oid, sizeof oid, "%u", job->table->source->oid);
    const char *values[] = {oid};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(job->blue, "select pg_relation_filenode($1::oid)", 1, values, &res, err));
    *rewritten = pg_u64(res, 0, 0) != job->table->file;
    return pg_execute(job->blue, "commit", err);
}

static bool take_staging(const struct copy_job *job, struct error *err)
{
    const struct copy_table *t = job->table;
    if (!t->through_staging)
        return true;
    struct writer sql = {0};
    int len = (int)strlen(t->writes) - 2; /* Without its parentheses. */
    writer_printf(&sql,
                  "insert into %s %s overriding system value select %.*s from "
                  "pg_temp.teal_staging on conflict do nothing",
                  t->binding->table, t->writes, len, t->writes + 1);
    bool ok = pg_execute(job->green, writer_cstr(&sql), err);
    writer_release(&sql);
    return ok || error_wrap(err, "write %s", t->binding->shown);
}

bool copy_rows(const struct copy_job *job, bool *rewritten, struct error *err)
{
    uint64_t rows = 0;
    uint64_t counted = 0;
    struct copy_table *t = job->table;
    TRY(begin_reading(job, err));
    TRY(begin_writing(job, err));
    TRY(pass_rows(job, &counted, err));
    TRY(end_copies(job, &rows, err));
    atomic_fetch_add(&t->rows_done, rows - counted);
    TRY(check_file(job, rewritten, err));
    if (*rewritten)
        return pg_execute(job->green, "rollback", err);
    TRY(take_staging(job, err));
    TRY(ledger_end_chunk(job->green, job->migration, t->source->oid, job->part->number, rows,
                         err));
    crash_point("copy.before_chunk_commit");
    TRY(pg_execute(job->green, "commit", err));
    crash_point("copy.after_chunk_commit");
    job->part->rows = rows;
    job->part->done = true;
    return true;
}

/* ---- duplicates ---- */

static void put_dedup(struct writer *sql, const struct copy_table *t, const PGresult *res,
                      int row)
{
    const char *keys = PQgetvalue(res, row, 0);
    const char *condition = PQgetvalue(res, row, 1);
    writer_clear(sql);
    writer_printf(
        sql,
        "delete from %s%s where ctid in (select ctid from (select ctid, row_number() over "
        "(partition by %s order by ctid) as n from %s%s where (%s) and (%s)) d where n > 1)",
        t->binding->only ? "only " : "", t->binding->table, keys,
        t->binding->only ? "only " : "", t->binding->table, condition, PQgetvalue(res, row, 2));
}

/* For each unique index: its key expressions, its condition, and that none is null. */
static const char unique_sql[] =
    "select string_agg(e, ', ' order by k), coalesce(min(pred), 'true'), "
    "string_agg('(' || e || ') is not null', ' and ' order by k) from ("
    "select i.indexrelid, k, pg_get_indexdef(i.indexrelid, k, true) as e, "
    "pg_get_expr(i.indpred, i.indrelid, true) as pred from pg_index i, "
    "generate_series(1, i.indnkeyatts) k where i.indrelid = $1::oid and i.indisunique and "
    "i.indisvalid) u "
    "group by indexrelid";

bool copy_remove_duplicates(PGconn *blue, PGconn *green, const struct copy_table *t,
                            struct error *err)
{
    char oid[16];
    (void)snprintf(oid, sizeof oid, "%u", t->source->oid);
    const char *values[] = {oid};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(blue, unique_sql, 1, values, &res, err));
    struct writer sql = {0};
    bool ok = true;
    for (int row = 0; ok && row < PQntuples(res); row++) {
        cleanup_with(pg_result_drop) PGresult *gone = NULL;
        put_dedup(&sql, t, res, row);
        ok = pg_query(green, writer_cstr(&sql), 0, NULL, &gone, err);
        if (ok && strcmp(PQcmdTuples(gone), "0") != 0)
            log_event("copy.duplicates_removed", LOG_INFO, "table=%s rows=%s", t->source->shown,
                      PQcmdTuples(gone));
    }
    writer_release(&sql);
    return ok || error_wrap(err, "remove rows of %s that were copied twice", t->source->shown);
}
