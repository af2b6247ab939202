/* Keys: what makes rows findable, built side by side after the rows are there.
 *
 * First what is independent, then, one after the other, what concerns partitioned tables: their
 * own indexes hold nothing, and the indexes of their parts are attached to them. */
#include <stdio.h>
#include <stdlib.h>

#include "appliers/postgres/jobs.h"
#include "appliers/postgres/schema_inner.h"
#include "engine/base/clock.h"
#include "engine/base/crash.h"
#include "engine/base/log.h"

bool schema_is_key(const struct dump_entry *entry)
{
    static const char *const types[] = {"INDEX", "CONSTRAINT", "CHECK CONSTRAINT",
                                        "INDEX ATTACH", "STATISTICS"};
    for (size_t i = 0; i < array_count(types); i++)
        if (strcmp(entry->type, types[i]) == 0)
            return true;
    return false;
}

/* ---- order ---- */

struct parents {
    struct bytes *names; /* Partitioned tables, as the dump quotes them. */
    size_t count;
};

static int compare(const void *a, const void *b)
{
    const struct bytes *x = a;
    const struct bytes *y = b;
    size_t len = x->len < y->len ? x->len : y->len;
    int order = len == 0 ? 0 : memcmp(x->data, y->data, len);
    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* "CREATE TABLE public.t (" … "PARTITION BY". */
static void find_parents(const struct schema *s, struct arena *arena, struct parents *out)
{
    out->names = arena_array(arena, struct bytes, s->pre.count + 1);
    for (size_t i = 0; i < s->pre.count; i++) {
        const char *create = strstr(s->pre.entries[i].body, "CREATE ");
        const char *name = create == NULL ? NULL : strstr(create, "TABLE ");
        if (strcmp(s->pre.entries[i].type, "TABLE") != 0 || name == NULL ||
            strstr(name, "\nPARTITION BY ") == NULL)
            continue;
        name += strlen("TABLE ");
        const char *end = strstr(name, " (");
        if (end != NULL)
            out->names[out->count++] =
                (struct bytes){(const uint8_t *)name, (size_t)(end - name)};
    }
    if (out->count > 0)
        qsort(out->names, out->count, sizeof *out->names, compare);
}

/* Whether it may be made beside others; then *job is filled. */
static bool is_free(const struct dump_entry *e, const struct parents *parents, struct job *job)
{
    bool only;
    *job = (struct job){.what = e, .table = dump_entry_table(e, &only)};
    if (job->table.len == 0 || only)
        return false;
    job->alone = strcmp(e->type, "INDEX") != 0 || strstr(e->body, "\nALTER ") != NULL;
    return parents->count == 0 || bsearch(&job->table, parents->names, parents->count,
                                          sizeof *parents->names, compare) == NULL;
}

/* ---- making ---- */

struct making {
    struct schema *schema;
    const _Atomic bool *stop;
};

/* Attaching and statistics objects take no time. */
static void log_built(const struct dump_entry *e, int64_t begun)
{
    char name[512];
    char full[512];
    if (strcmp(e->type, "INDEX ATTACH") == 0 || strcmp(e->type, "STATISTICS") == 0)
        return;
    (void)snprintf(full, sizeof full, "%s.%s", e->schema, e->name);
    log_event("schema.index_built", LOG_INFO, "name=%s seconds=%.1f",
              log_quote(name, sizeof name, full), (double)(clock_mono_us() - begun) / 1e6);
}

static bool make_key(void *context, const struct job *job, PGconn *pg, struct error *err)
{
    const struct making *m = context;
    const struct dump_entry *e = job->what;
    int64_t begun = clock_mono_us();
    enum entry_outcome outcome = schema_entry(m->schema, e, true, pg, m->stop, err);
    if (outcome == ENTRY_FAILED)
        return false;
    if (outcome == ENTRY_EARLY)
        return true;
    m->schema->post_done[e - m->schema->post.entries] = true;
    if (outcome == ENTRY_MADE)
        log_built(e, begun);
    crash_point("schema.between_indexes");
    return true;
}

static bool make_keys(struct schema *s, PGconn *const *green, size_t jobs,
                      const _Atomic bool *stop, struct error *err)
{
    cleanup_with(arena_clear) struct arena arena = {0};
    struct making making = {s, stop};
    struct parents parents = {0};
    find_parents(s, &arena, &parents);
    struct job *free_jobs = arena_array(&arena, struct job, s->post.count + 1);
    struct job *serial = arena_array(&arena, struct job, s->post.count + 1);
    struct jobs beside = {.list = free_jobs, .run = make_key, .context = &making};
    size_t serial_count = 0;
    for (size_t i = 0; i < s->post.count; i++) {
        struct job job;
        if (s->post_done[i] || !schema_is_key(&s->post.entries[i]))
            continue;
        if (is_free(&s->post.entries[i], &parents, &job))
            free_jobs[beside.count++] = job;
        else
            serial[serial_count++] = job;
    }
    TRY(jobs_run(&beside, green, jobs, err));
    for (int attach = 0; attach < 2; attach++)
        for (size_t i = 0; i < serial_count; i++) {
            const struct dump_entry *e = serial[i].what;
            if ((strcmp(e->type, "INDEX ATTACH") == 0) == (attach == 1))
                TRY(make_key(&making, &serial[i], green[0], err));
        }
    return true;
}

/* ---- replica identities ---- */

static const char identities_sql[] =
    "select format('%I.%I', n.nspname, c.relname), c.relreplident, "
    "coalesce(quote_ident(k.relname), ''), n.nspname, c.relname "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "left join pg_index i on i.indrelid = c.oid and i.indisreplident "
    "left join pg_class k on k.oid = i.indexrelid and c.relreplident = 'i' "
    "where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and "
    "n.nspname not in ('information_schema', 'teal') order by n.nspname::text collate \"C\", "
    "c.relname::text collate \"C\"";

enum { I_SHOWN, I_KIND, I_INDEX, I_SCHEMA, I_TABLE };

static int order_of(const PGresult *a, int row_a, const PGresult *b, int row_b)
{
    int order = strcmp(PQgetvalue(a, row_a, I_SCHEMA), PQgetvalue(b, row_b, I_SCHEMA));
    return order != 0 ? order
                      : strcmp(PQgetvalue(a, row_a, I_TABLE), PQgetvalue(b, row_b, I_TABLE));
}

static bool set_identity(PGconn *green, const PGresult *blue, int row, struct error *err)
{
    const char *shown = PQgetvalue(blue, row, I_SHOWN);
    char kind = PQgetvalue(blue, row, I_KIND)[0];
    cleanup_with(writer_release) struct writer sql = {0};
    writer_printf(&sql, "alter table only %s replica identity %s%s", shown,
                  kind == 'f'   ? "full"
                  : kind == 'n' ? "nothing"
                  : kind == 'i' ? "using index "
                                : "default",
                  kind == 'i' ? PQgetvalue(blue, row, I_INDEX) : "");
    if (!pg_execute(green, writer_cstr(&sql), err))
        return error_wrap(err, "replica identity of %s", shown);
    char name[512];
    log_event("schema.identity_set", LOG_INFO, "table=%s", log_quote(name, sizeof name, shown));
    return true;
}

static bool is_made(const struct schema *s, const char *schema, const char *name)
{
    return options_includes(s->options, schema, name) &&
           options_table(s->options, (struct bytes){(const uint8_t *)schema, strlen(schema)},
                         (struct bytes){(const uint8_t *)name, strlen(name)}) == NULL;
}

/* A table that green had before, or whose index was made anew, may have another one. An index
 * that has gone on blue leaves no identity: nothing can be done alike. */
static bool compare_identities(const struct schema *s, PGconn *blue, PGconn *green,
                               struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *there = NULL;
    cleanup_with(pg_result_drop) PGresult *here = NULL;
    TRY(pg_query(blue, identities_sql, 0, NULL, &there, err));
    TRY(pg_query(green, identities_sql, 0, NULL, &here, err));
    int g = 0;
    for (int b = 0; b < PQntuples(there); b++) {
        while (g < PQntuples(here) && order_of(here, g, there, b) < 0)
            g++;
        if (g == PQntuples(here) || order_of(here, g, there, b) != 0 ||
            !is_made(s, PQgetvalue(there, b, I_SCHEMA), PQgetvalue(there, b, I_TABLE)))
            continue;
        const char *kind = PQgetvalue(there, b, I_KIND);
        const char *index = PQgetvalue(there, b, I_INDEX);
        bool same = strcmp(kind, PQgetvalue(here, g, I_KIND)) == 0 &&
                    strcmp(index, PQgetvalue(here, g, I_INDEX)) == 0;
        if (!same && (kind[0] != 'i' || index[0] != '\0'))
            TRY(set_identity(green, there, b, err));
    }
    return true;
}

/* ---- the stage ---- */

static const char build_settings[] =
    "select set_config('maintenance_work_mem', '256MB', false) from pg_settings "
    "where name = 'maintenance_work_mem' and setting::bigint < 262144";

bool schema_apply_keys(struct schema *s, PGconn *const *green, size_t jobs,
                       const _Atomic bool *stop, struct error *err)
{
    enum { CONNECT_SECONDS = 30 };
    for (size_t i = 0; i < jobs; i++) {
        TRY(schema_settle(&s->post, green[i], err));
        TRY(pg_execute(green[i], build_settings, err));
    }
    TRY(make_keys(s, green, jobs, stop, err));
    cleanup_with(pg_close) PGconn *blue = NULL;
    TRY(pg_connect(s->options->blue.conninfo, PG_QUERY, s->options->name, CONNECT_SECONDS,
                   &blue, err));
    return compare_identities(s, blue, green[0], err);
}
