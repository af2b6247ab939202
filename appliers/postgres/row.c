/* One row at a time: slow, sure, and able to say which row it was.
 *
 * This is the way out when a batch did not do what it should: either the rows go in by
 * themselves in the source's order (a unique value that wandered between rows), or the first
 * that does not is named. In the overwrite mode the row is made as the source has it: what
 * stands in its way is deleted, and columns that a row image left out are read from the source.
 * Such a read may see a later state; the changes still to come lead to the same end. */
#include <stdio.h>
#include <stdlib.h>

#include "appliers/postgres/clash.h"
#include "appliers/postgres/session.h"
#include "appliers/postgres/truncate.h"

enum {
    CLASHES_MAX = 16
}; /* Unique constraints that one row may run into, one after another. */

/* One row on its way. */
struct row {
    struct session *s;
    struct binding *binding;
    const struct change *change;
    const struct tuple *key; /* What finds the row. */
    struct tuple after;
    struct datum *datums; /* Of `after` where it had to be completed. */
    PGresult *fetched;    /* What they point into. */
    enum row_mode mode;
    struct row_result *result;
};

static void row_release(struct row *row)
{
    free(row->datums);
    PQclear(row->fetched);
}

/* ---- naming ---- */

static void name_row(struct row *row, const struct tuple *tuple)
{
    struct writer w = {0};
    for (uint16_t i = 0; i < tuple->count; i++) {
        const struct target_column *c = &row->binding->columns[i];
        if (!row->binding->by_key || !c->matches || tuple->datums[i].kind != DATUM_TEXT)
            continue;
        writer_printf(&w, "%s%.*s=%.*s", w.len == 0 ? "" : ",", BYTES_ARG(c->name),
                      BYTES_ARG(tuple->datums[i].value));
    }
    (void)snprintf(row->result->key, sizeof row->result->key, "%s",
                   w.len == 0 ? "(no key)" : writer_cstr(&w));
    writer_release(&w);
}

static bool conflict(struct row *row, const char *what, const struct tuple *tuple,
                     struct error *err)
{
    row->result->conflict = what;
    name_row(row, tuple);
    if (row->mode != ROW_STRICT)
        return true;
    error_clear(err);
    error_set(err, ERROR_CONFLICT, "table %s, row %s: %s", row->binding->shown,
              row->result->key, what);
    return error_hint(
        err, "Make the row on the target as the source had it before this change "
             "(teal tries again by itself), or set [apply] on-conflict to overwrite or "
             "skip.");
}

/* ---- running a statement ---- */

static bool run(struct row *row, struct statement *st, const struct tuple *before,
                const struct tuple *after, int64_t *rows, struct error *err)
{
    struct session *s = row->s;
    char name[32];
    uint32_t *types = calloc(st->param_count + 1u, sizeof *types);
    check(types != NULL);
    bool fresh = session_names_statement(s, st, name, sizeof name, types);
    cleanup_with(pg_result_drop) PGresult *prepared =
        fresh ? PQprepare(s->pg, name, st->sql, st->param_count, types) : NULL;
    free(types);
    if (fresh && PQresultStatus(prepared) != PGRES_COMMAND_OK)
        return pg_failed(s->pg, prepared, err);
    st->connection = s->connection;
    struct parameters p = session_values(s, st, before, after, 1);
    cleanup_with(pg_result_drop) PGresult *res =
        PQexecPrepared(s->pg, name, p.count, p.values, p.lengths, p.formats, 0);
    ExecStatusType status = PQresultStatus(res);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        *rows = strtoll(PQcmdTuples(res), NULL, 10);
        return true;
    }
    pg_failed(s->pg, res, err);
    const char *constraint = PQresultErrorField(res, PG_DIAG_CONSTRAINT_NAME);
    (void)snprintf(err->hint, sizeof err->hint, "%s", constraint == NULL ? "" : constraint);
    return false;
}

/* Runs it so that a failure leaves the transaction alive. */
static bool try_run(struct row *row, struct statement *st, const struct tuple *before,
                    const struct tuple *after, int64_t *rows, struct error *err)
{
    TRY(pg_execute(row->s->pg, "savepoint teal_row", err));
    if (run(row, st, before, after, rows, err))
        return pg_execute(row->s->pg, "release savepoint teal_row", err);
    struct error unheard = {0};
    if (!pg_execute(row->s->pg, "rollback to savepoint teal_row", &unheard))
        err->kind = ERROR_RETRY;
    return false;
}

static bool is_clash(const struct error *err)
{
    return strcmp(err->sqlstate, "23505") == 0 || strcmp(err->sqlstate, "23P01") == 0;
}

/* ---- completing a row from the source ---- */

static void put_fetch_sql(struct row *row, struct writer *sql, struct writer *texts,
                          size_t *offsets, int *count)
{
    const struct relation *rel = row->binding->relation;
    writer_text(sql, "select ");
    for (uint16_t i = 0; i < rel->column_count; i++) {
        writer_text(sql, i == 0 ? "" : ",");
        pg_quote_name(sql, rel->columns[i].name);
    }
    writer_text(sql, " from ");
    pg_quote_table(sql, rel->schema, rel->name);
    for (uint16_t i = 0; i < rel->column_count; i++) {
        if (!rel->columns[i].in_key || row->key->datums[i].kind != DATUM_TEXT)
            continue;
        writer_text(sql, *count == 0 ? " where " : " and ");
        pg_quote_name(sql, rel->columns[i].name);
        offsets[*count] = texts->len;
        writer_printf(sql, " = $%d", ++*count);
        writer_bytes(texts, row->key->datums[i].value);
        writer_u8(texts, '\0');
    }
}

/* Asks for the row as it is by the key it now has. */
static bool fetch(struct row *row, PGconn *source, struct error *err)
{
    enum { KEYS_MAX = 32 };
    struct writer sql = {0};
    struct writer texts = {0};
    size_t offsets[1600];
    const char *values[KEYS_MAX];
    int count = 0;
    put_fetch_sql(row, &sql, &texts, offsets, &count);
    for (int i = 0; i < count && i < KEYS_MAX; i++)
        values[i] = (const char *)texts.data + offsets[i];
    bool ok = count > 0 && count <= KEYS_MAX
                  ? pg_query(source, writer_cstr(&sql), count, values, &row->fetched, err)
                  : error_set(err, ERROR_CONFLICT,
                              "table %s: a row image is incomplete and the "
                              "table has no key to complete it by",
                              row->binding->shown);
    writer_release(&sql);
    writer_release(&texts);
    return ok;
}

static bool is_complete(const struct tuple *t)
{
    for (uint16_t i = 0; i < t->count; i++)
        if (t->datums[i].kind == DATUM_UNCHANGED)
            return false;
    return true;
}

/* Fills what the image left out. *exists is false if the source no longer has the row: then a
 * later change deletes it. */
static bool complete(struct row *row, bool *exists, struct error *err)
{
    *exists = true;
    if (is_complete(&row->after))
        return true;
    struct tuple now = row->after;
    for (uint16_t i = 0; i < now.count; i++)
        if (row->binding->relation->columns[i].in_key && now.datums[i].kind == DATUM_UNCHANGED)
            now = *row->key; /* The key did not change. */
    const struct tuple *asked = row->key;
    row->key = &now;
    PGconn *source;
    bool ok = session_source(row->s, &source, err) && fetch(row, source, err);
    row->key = asked;
    if (!ok)
        return false;
    *exists = PQntuples(row->fetched) == 1;
    if (!*exists)
        return true;
    row->datums = calloc(row->after.count, sizeof *row->datums);
    check(row->datums != NULL);
    for (uint16_t i = 0; i < row->after.count; i++) {
        row->datums[i] = row->after.datums[i];
        if (row->datums[i].kind != DATUM_UNCHANGED)
            continue;
        const char *value = pg_text(row->fetched, 0, i);
        row->datums[i].kind = value == NULL ? DATUM_NULL : DATUM_TEXT;
        row->datums[i].value =
            (struct bytes){(const uint8_t *)value, (size_t)PQgetlength(row->fetched, 0, i)};
    }
    row->after.datums = row->datums;
    return true;
}

/* ---- the three changes ---- */

/* Runs an insert or update; in the overwrite mode whatever clashes with it goes first. */
static bool run_making_way(struct row *row, struct statement *st, int64_t *rows,
                           const char *what, struct error *err)
{
    for (int clashes = 0;; clashes++) {
        if (row->mode == ROW_STRICT && run(row, st, row->key, &row->after, rows, err))
            return true;
        if (row->mode != ROW_STRICT && try_run(row, st, row->key, &row->after, rows, err))
            return true;
        if (!is_clash(err) || clashes == CLASHES_MAX)
            return false;
        char constraint[ERROR_TEXT_MAX];
        memcpy(constraint, err->hint, sizeof constraint);
        TRY(conflict(row, what, &row->after, err));
        error_clear(err);
        *rows = 0;
        if (row->mode == ROW_SKIP)
            return true;
        const struct tuple *stays = row->change->kind == CHANGE_UPDATE ? row->key : NULL;
        TRY(clash_make_way(row->s->pg, row->binding, constraint, stays, &row->after, err));
    }
}

static bool insert_row(struct row *row, struct error *err)
{
    int64_t rows;
    struct statement *st =
        statement_get(row->binding, STATEMENT_INSERT, DEMAND_NOTHING, false, NULL, NULL);
    return run_making_way(row, st, &rows, "insert exists", err);
}

static bool delete_row(struct row *row, int64_t *rows, struct error *err)
{
    struct statement *st =
        statement_get(row->binding, STATEMENT_DELETE, DEMAND_NOTHING, false, NULL, row->key);
    return run(row, st, row->key, NULL, rows, err);
}

static bool update_existing(struct row *row, int64_t *rows, struct error *err)
{
    struct binding *b = row->binding;
    uint8_t *set = calloc(b->relation->column_count + 1u, 1);
    check(set != NULL);
    enum statement_kind kind = statement_for_update(b, row->key, &row->after, set);
    struct statement *st = statement_get(b, kind, DEMAND_NOTHING, false, set, row->key);
    free(set);
    return run_making_way(row, st, rows, "update exists", err);
}

static bool update_row(struct row *row, struct error *err)
{
    int64_t rows;
    TRY(update_existing(row, &rows, err));
    if (rows > 1)
        return error_set(err, ERROR_CONFLICT, "table %s: %lld rows have one key",
                         row->binding->shown, (long long)rows);
    bool skipped = row->mode == ROW_SKIP && row->result->conflict != NULL;
    if (rows == 1 || skipped)
        return true;
    TRY(conflict(row, "update missing", row->key, err));
    if (row->mode == ROW_SKIP)
        return true;
    bool exists;
    TRY(complete(row, &exists, err));
    return !exists || insert_row(row, err);
}

static bool remove_row(struct row *row, struct error *err)
{
    int64_t rows;
    TRY(delete_row(row, &rows, err));
    return rows > 0 || conflict(row, "delete missing", row->key, err);
}

static bool execute(void *context, const char *sql, struct error *err)
{
    struct session *s = context;
    return pg_execute(s->pg, sql, err);
}

static bool truncate(struct session *s, const struct change *change, struct error *err)
{
    return session_truncate(s, change, &(struct truncate_sink){execute, s}, err);
}

static bool apply_one(struct row *row, struct error *err)
{
    switch (row->change->kind) {
    case CHANGE_INSERT: return insert_row(row, err);
    case CHANGE_UPDATE: return update_row(row, err);
    case CHANGE_DELETE: return remove_row(row, err);
    case CHANGE_TRUNCATE: return truncate(row->s, row->change, err);
    }
    check_failed(__FILE__, __LINE__, "change kind");
}

/* What the server refused is a conflict like another: of a table and a row, with a way out. The
 * hint held the constraint's name until now. */
static void name_refusal(struct row *row, struct error *err)
{
    bool deletes = row->change->kind == CHANGE_DELETE;
    name_row(row, deletes ? row->key : &row->after);
    (void)error_wrap(err, "table %s, row %s", row->binding->shown, row->result->key);
    (void)error_hint(err,
                     "Let the target's table take the row (its types, labels and constraints "
                     "as the source has them); teal tries again by itself.");
}

bool session_apply_row(struct session *s, const struct change *change, enum row_mode mode,
                       struct row_result *result, struct error *err)
{
    *result = (struct row_result){0};
    struct row row = {.s = s, .change = change, .mode = mode, .result = result};
    row.after = change->after;
    row.key = change->before.image != IMAGE_NONE ? &change->before : &change->after;
    TRY(session_binding(s, change->relation, &row.binding, err));
    if (row.binding->deferrable)
        TRY(pg_execute(s->pg, "set constraints all deferred", err));
    if (change->relation->identity == IDENTITY_NONE &&
        (change->kind == CHANGE_UPDATE || change->kind == CHANGE_DELETE))
        return error_set(err, ERROR_DATA, "table %s: a change without an identity",
                         row.binding->shown);
    bool ok = apply_one(&row, err);
    if (!ok && err->sqlstate[0] == '2' && change->kind != CHANGE_TRUNCATE)
        name_refusal(&row, err);
    row_release(&row);
    return ok;
}
