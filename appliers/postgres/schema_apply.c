/* Executing entries.
 *
 * Each is one PQsendQuery of all its statements, so that it happens whole or not at all; hence
 * an object that is there is complete, and an entry that fails for that reason is done. */
#include <poll.h>
#include <stdio.h>

#include "appliers/postgres/schema_inner.h"
#include "engine/base/crash.h"
#include "engine/base/log.h"

enum { STEP_MS = 200 }; /* Between looks at `stop`. */

/* ---- one statement ---- */

static void cancel(PGconn *pg)
{
    char why[256];
    PGcancel *handle = PQgetCancel(pg);
    if (handle == NULL)
        return;
    (void)PQcancel(handle, why, sizeof why);
    PQfreeCancel(handle);
}

/* Until a result is there. False: the connection is lost. */
static bool wait_result(PGconn *pg, const _Atomic bool *stop, bool *told)
{
    while (PQisBusy(pg)) {
        if (stop != NULL && atomic_load(stop) && !*told) {
            cancel(pg);
            *told = true;
        }
        struct pollfd p = {.fd = PQsocket(pg), .events = POLLIN};
        if (poll(&p, 1, STEP_MS) > 0 && PQconsumeInput(pg) == 0)
            return false;
    }
    return true;
}

bool schema_run(PGconn *pg, const char *sql, const _Atomic bool *stop, struct error *err)
{
    bool told = false;
    bool ok = true;
    if (stop != NULL && atomic_load(stop))
        return error_set(err, ERROR_RETRY, "stopped");
    if (PQsendQuery(pg, sql) != 1)
        return pg_failed(pg, NULL, err);
    while (ok) {
        if (!wait_result(pg, stop, &told))
            return pg_failed(pg, NULL, err);
        cleanup_with(pg_result_drop) PGresult *res = PQgetResult(pg);
        if (res == NULL)
            return true;
        ExecStatusType status = PQresultStatus(res);
        ok = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ||
             status == PGRES_EMPTY_QUERY;
        if (!ok)
            (void)pg_failed(pg, res, err);
    }
    for (PGresult *rest = PQgetResult(pg); rest != NULL; rest = PQgetResult(pg))
        PQclear(rest);
    return false;
}

bool schema_settle(const struct dump *dump, PGconn *green, struct error *err)
{
    if (!pg_execute(green, dump->preamble, err))
        return error_wrap(err, "the dump's settings");
    return true;
}

/* ---- what a failure means ---- */

static bool one_of(const char *text, const char *const *list)
{
    for (; *list != NULL; list++)
        if (strcmp(text, *list) == 0)
            return true;
    return false;
}

static bool is_there(const struct dump_entry *e, const char *sqlstate)
{
    /* Table, object, schema, function, column. */
    static const char *const always[] = {"42P07", "42710", "42P06", "42723", "42701", NULL};
    /* A second primary key, a second identity, a partition already. The states have other
     * meanings, too, elsewhere. */
    static const char *const by_type[][2] = {
        {"CONSTRAINT", "42P16"}, {"SEQUENCE", "55000"}, {"TABLE ATTACH", "42809"}};
    for (size_t i = 0; i < array_count(by_type); i++)
        if (strcmp(e->type, by_type[i][0]) == 0 && strcmp(sqlstate, by_type[i][1]) == 0)
            return true;
    /* Text search objects leave it to the catalogue's own unique index. */
    bool unique = strcmp(sqlstate, "23505") == 0 && !schema_is_key(e);
    return unique || one_of(sqlstate, always);
}

/* Rights, comments and labels that green's role may not or cannot give. */
static bool may_lack(const struct dump_entry *e, const char *sqlstate)
{
    static const char *const types[] = {"ACL", "DEFAULT ACL", "COMMENT", "SECURITY LABEL",
                                        NULL};
    static const char *const states[] = {"42501", "42704", "22023", NULL};
    return one_of(e->type, types) && one_of(sqlstate, states);
}

/* It refers to a table that is not made here. */
static bool refers_away(const struct schema *s, const struct dump_entry *e,
                        const char *sqlstate)
{
    return s->leaves_out && strcmp(e->type, "TABLE") != 0 && strcmp(sqlstate, "42P01") == 0;
}

/* What it needs is made after the rows: pg_dump puts a view that needs a primary key there. */
static bool is_early(const char *sqlstate)
{
    static const char *const states[] = {"42P01", "42883", "42703", "42704", NULL};
    return one_of(sqlstate, states);
}

/* "TABLE public.orders", "EVENT TRIGGER guard". */
static void describe(const struct dump_entry *e, char *out, size_t size)
{
    bool within = strcmp(e->schema, "-") != 0;
    (void)snprintf(out, size, "%s %s%s%s", e->type, within ? e->schema : "", within ? "." : "",
                   e->name);
}

static void log_entry(const char *event, const struct dump_entry *e, const char *reason)
{
    char object[512];
    char name[512];
    char why[ERROR_TEXT_MAX];
    describe(e, name, sizeof name);
    log_event(event, LOG_WARN, "object=%s reason=%s", log_quote(object, sizeof object, name),
              log_quote(why, sizeof why, reason));
}

/* ---- owners ---- */

/* Where the entry's last statement begins if that gives the object to its owner, else NULL. */
static const char *owner_statement(const char *body)
{
    static const char mark[] = "\nALTER ";
    const char *last = NULL;
    for (const char *at = strstr(body, mark); at != NULL; at = strstr(at + 1, mark))
        last = at;
    if (last == NULL)
        return NULL;
    const char *line = last + 1;
    size_t len = strcspn(line, "\n");
    const char *owner = memmem(line, len, " OWNER TO ", strlen(" OWNER TO "));
    const char *rest = line + len;
    return owner == NULL || rest[strspn(rest, "\n")] != '\0' || line[len - 1] != ';' ? NULL
                                                                                     : last;
}

/* A role that is no member of an object's owner can still own it itself. */
static bool run_without_owner(const struct dump_entry *e, PGconn *pg, const _Atomic bool *stop,
                              struct error *err)
{
    const char *end = owner_statement(e->body);
    if (end == NULL)
        return false;
    cleanup_with(writer_release) struct writer sql = {0};
    writer_put(&sql, e->sql, (size_t)(end - e->sql));
    struct error second = {0};
    if (schema_run(pg, writer_cstr(&sql), stop, &second)) {
        log_entry("schema.owner_not_set", e, err->text);
        error_clear(err);
        return true;
    }
    return false;
}

/* ---- entries ---- */

/* What we ourselves have put into blue. */
static bool is_ours(const struct dump_entry *e)
{
    if (strcmp(e->type, "EVENT TRIGGER") != 0 && strcmp(e->type, "TRIGGER") != 0)
        return false;
    return strstr(e->body, " EXECUTE FUNCTION teal.") != NULL ||
           strstr(e->body, " EXECUTE PROCEDURE teal.") != NULL;
}

enum entry_outcome schema_entry(const struct schema *s, const struct dump_entry *entry,
                                bool may_wait, PGconn *pg, const _Atomic bool *stop,
                                struct error *err)
{
    if (is_ours(entry))
        return ENTRY_THERE;
    if (schema_run(pg, entry->sql, stop, err))
        return ENTRY_MADE;
    enum entry_outcome outcome = ENTRY_FAILED;
    if (is_there(entry, err->sqlstate))
        outcome = ENTRY_THERE;
    else if (may_wait && is_early(err->sqlstate))
        outcome = ENTRY_EARLY;
    else if (may_lack(entry, err->sqlstate) || refers_away(s, entry, err->sqlstate))
        outcome = ENTRY_SKIPPED;
    else if (strcmp(err->sqlstate, "42501") == 0 && run_without_owner(entry, pg, stop, err))
        return ENTRY_MADE;
    if (outcome == ENTRY_SKIPPED)
        log_entry("schema.skipped", entry, err->text);
    if (outcome != ENTRY_FAILED) {
        error_clear(err);
        return outcome;
    }
    if (strcmp(err->sqlstate, "42501") == 0)
        (void)error_hint(err,
                         "give green's role the right, or make the object on green by hand: "
                         "one that is there is left as it is");
    char name[512];
    describe(entry, name, sizeof name);
    (void)error_wrap(err, "%s", name);
    return ENTRY_FAILED;
}

bool schema_apply_pre(struct schema *s, PGconn *green, const _Atomic bool *stop,
                      struct error *err)
{
    TRY(schema_check_green(s, green, err));
    TRY(schema_settle(&s->pre, green, err));
    for (size_t i = 0; i < s->pre.count; i++)
        if (schema_entry(s, &s->pre.entries[i], false, green, stop, err) == ENTRY_FAILED)
            return false;
    crash_point("schema.after_pre_data");
    return true;
}

bool schema_apply_finish(struct schema *s, PGconn *green, const _Atomic bool *stop,
                         struct error *err)
{
    TRY(schema_settle(&s->post, green, err));
    /* Keys, too: those that had to wait, and all of an earlier run, which are there. */
    for (size_t i = 0; i < s->post.count; i++) {
        if (s->post_done[i])
            continue;
        if (schema_entry(s, &s->post.entries[i], false, green, stop, err) == ENTRY_FAILED)
            return false;
        s->post_done[i] = true;
    }
    return true;
}
