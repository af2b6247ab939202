/* What logical replication leaves out, asked for every few seconds.
 *
 * Sequences. Green's must never hand out a value that blue has handed out. Each round reads
 * where both stand and sets on green what differs: green's state is read anew because others
 * move it too (TRUNCATE … RESTART IDENTITY comes in the stream, behind the value it made
 * stale). The value is blue's own word, never the largest key of a table. A sequence of green
 * that is ahead of blue's stays where it is, for rows may hold those values, unless it has
 * handed out none, or blue's has gone back since it was last looked at: `seen` remembers that,
 * by green's sequence, so that one which is dropped and made again on blue counts as gone back.
 *
 * Tables. One that the configuration takes in and no publication names is not followed; one
 * without an identity loses updates and deletes. Both are reasons against a cutover.
 *
 * Locks are given up before a server's deadlock detector would choose a victim: the applier or
 * an application must not be it. */
#include "appliers/postgres/mirror.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "appliers/postgres/sequences.h"
#include "engine/base/log.h"
#include "engine/base/map.h"

enum { CONNECT_TIMEOUT_S = 10, ATTEMPTS = 3, REASON_MAX = 512 };

/* How many of each kind of reason are named; then one line for the rest of the kind. */
enum { NAMED_SEQUENCES = 7, NAMED_TABLES = 16, NAMED_CHANGED = 6, REST_LINES = 3 };
static_assert(NAMED_SEQUENCES + NAMED_TABLES + NAMED_CHANGED + REST_LINES <=
                  array_count(((struct mirror_reasons *)NULL)->list),
              "all reasons fit");

struct pg_mirror {
    struct mirror base;
    const struct options *options;
    PGconn *blue;
    PGconn *green;
    struct arena arena;
    struct map seen;    /* Where blue's stood: struct seen by oid of green's sequence. */
    struct map changed; /* Tables without identity: struct counter by oid on blue. */
};

struct seen {
    int64_t last;
    bool called;
};

struct counter {
    const char *shown;
    uint64_t count; /* Of updates and deletes when first looked at. */
    bool grew;
};

static struct pg_mirror *mirror_of(struct mirror *m)
{
    return container_of(m, struct pg_mirror, base);
}

static struct bytes text(const char *t)
{
    return (struct bytes){(const uint8_t *)t, strlen(t)};
}

static const char *keep(struct arena *a, const char *t)
{
    return (const char *)arena_copy(a, (struct bytes){(const uint8_t *)t, strlen(t) + 1}).data;
}

/* ---- reasons ---- */

struct reason_kind {
    struct mirror_reasons *to;
    size_t room;
    size_t rest;
};

static void add_reason(struct reason_kind *kind, const char *fmt, ...) printf_like(2, 3);

static void add_reason(struct reason_kind *kind, const char *fmt, ...)
{
    if (kind->room == 0) {
        kind->rest++;
        return;
    }
    char line[REASON_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    kind->room--;
    kind->to->list[kind->to->count++] = keep(&kind->to->arena, line);
}

static void add_rest(struct reason_kind *kind, const char *what)
{
    if (kind->rest == 0)
        return;
    kind->room = 1;
    add_reason(kind, "and %zu more %s", kind->rest, what);
}

/* ---- connections ---- */

static bool open_side(struct pg_mirror *m, const struct endpoint *side, PGconn **pg,
                      struct error *err)
{
    if (*pg != NULL && PQstatus(*pg) == CONNECTION_OK)
        return true;
    pg_close(pg);
    TRY(pg_connect(side->conninfo, PG_QUERY, m->options->name, CONNECT_TIMEOUT_S, pg, err));
    if (pg_execute(*pg, "set lock_timeout = '500ms'; set statement_timeout = '30s'", err))
        return true;
    pg_close(pg);
    return false;
}

/* ---- one sequence ---- */

struct pair {
    struct sequence *blue;
    struct sequence *green;
};

/* Blue's and green's lists and what of them belongs together. */
struct round {
    struct sequences blue;
    struct sequences green;
    struct arena arena;
    size_t count;
    struct pair *pairs;
    size_t set_count;
    struct pair *set;
};

static void round_release(struct round *r)
{
    sequences_release(&r->blue);
    sequences_release(&r->green);
    arena_clear(&r->arena);
}

static const struct table_options *owner_options(const struct options *o,
                                                 const struct sequence *s)
{
    if (s->owner_table == NULL)
        return NULL;
    return options_table(o, text(s->owner_schema), text(s->owner_table));
}

/* Green's name of the column; NULL if the operator leaves it out. */
static const char *mapped_column(const struct table_options *t, const char *column)
{
    for (size_t i = 0; i < t->column_count; i++)
        if (strcmp(t->columns[i].from, column) == 0)
            return t->columns[i].to;
    return t->column_count == 0 ? column : NULL;
}

static bool is_wanted(const struct options *o, const struct sequence *s)
{
    if (s->owner_table == NULL)
        return true;
    if (!options_includes(o, s->owner_schema, s->owner_table))
        return false;
    const struct table_options *t = owner_options(o, s);
    return t == NULL || mapped_column(t, s->owner_column) != NULL;
}

/* Of a mapped table the one that belongs to the column there; else the one of the same name.
 * Servers that were not made from one schema may name the sequence of a column differently. */
static struct sequence *find_green(const struct options *o, const struct round *r,
                                   const struct sequence *s)
{
    struct sequence *named = sequences_find(&r->green, s->schema, s->name);
    if (s->owner_table == NULL)
        return named;
    const struct table_options *t = owner_options(o, s);
    if (t == NULL && named != NULL)
        return named;
    struct sequence *owned =
        t == NULL
            ? sequences_find_owned(&r->green, s->owner_schema, s->owner_table, s->owner_column)
            : sequences_find_owned(&r->green, t->to_schema, t->to_table,
                                   mapped_column(t, s->owner_column));
    if (t == NULL && owned != NULL &&
        sequences_find(&r->blue, owned->schema, owned->name) != NULL)
        return NULL;
    bool is_free = named != NULL && named->owner_table == NULL;
    return owned == NULL && is_free ? named : owned;
}

/* Less than 0 if the first state comes before the second, in the direction `increment`. */
static int compare_states(int64_t increment, int64_t last, bool called,
                          const struct seen *other)
{
    if (last == other->last)
        return (int)called - (int)other->called;
    return (last < other->last) == (increment > 0) ? -1 : 1;
}

static bool has_to_be_set(const struct pg_mirror *m, const struct pair *p)
{
    const struct sequence *b = p->blue;
    struct seen green = {p->green->last, p->green->called};
    int order = compare_states(b->increment, b->last, b->called, &green);
    if (order >= 0 || b->cycles || !green.called)
        return order != 0;
    const struct seen *seen = map_get(&m->seen, p->green->oid);
    return seen != NULL && compare_states(b->increment, b->last, b->called, seen) < 0;
}

static void remember(struct pg_mirror *m, const struct pair *p)
{
    struct seen *seen = map_get(&m->seen, p->green->oid);
    if (seen == NULL) {
        seen = arena_new(&m->arena, struct seen);
        map_put(&m->seen, p->green->oid, seen);
    }
    *seen = (struct seen){p->blue->last, p->blue->called};
}

/* ---- all sequences ---- */

static bool may_not_read(PGconn *pg, const char *side, const struct sequence *s,
                         struct error *err)
{
    cleanup_with(writer_release) struct writer schema = {0};
    cleanup_with(writer_release) struct writer role = {0};
    bool is_blue = strcmp(side, "source") == 0;
    pg_quote_name(&schema, text(s->schema));
    pg_quote_name(&role, text(PQuser(pg)));
    (void)error_set(err, ERROR_CONFIG, "role %s may not %s sequence %s.%s on the %s",
                    PQuser(pg), is_blue ? "read" : "read and set", s->schema, s->name, side);
    return error_hint(err,
                      "On the %s: GRANT USAGE ON SCHEMA %s TO %s; "
                      "GRANT %s ON ALL SEQUENCES IN SCHEMA %s TO %s;",
                      side, writer_cstr(&schema), writer_cstr(&role),
                      is_blue ? "SELECT" : "SELECT, UPDATE", writer_cstr(&schema),
                      writer_cstr(&role));
}

static bool pair_up(struct pg_mirror *m, struct round *r, struct reason_kind *reasons,
                    struct error *err)
{
    const struct options *o = m->options;
    r->pairs = arena_array(&r->arena, struct pair, r->blue.count + 1);
    for (size_t i = 0; i < r->blue.count; i++) {
        struct sequence *s = &r->blue.list[i];
        if (!is_wanted(o, s))
            continue;
        struct pair p = {s, find_green(o, r, s)};
        if (p.green == NULL) {
            /* One that no table owns and [tables] leaves out is nobody's loss. */
            if (s->owner_table != NULL || options_includes(o, s->schema, s->name))
                add_reason(reasons, "sequence %s.%s is not on the target", s->schema, s->name);
            continue;
        }
        if (!s->may_read)
            return may_not_read(m->blue, "source", s, err);
        if (!p.green->may_read || !p.green->may_set)
            return may_not_read(m->green, "target", p.green, err);
        r->pairs[r->count++] = p;
    }
    return true;
}

static bool read_pairs(struct pg_mirror *m, struct round *r, struct error *err)
{
    struct sequence **list = arena_array(&r->arena, struct sequence *, r->count + 1);
    for (size_t i = 0; i < r->count; i++)
        list[i] = r->pairs[i].green;
    if (!sequences_read(m->green, list, r->count, err))
        return error_wrap(err, "read the sequences of the target");
    for (size_t i = 0; i < r->count; i++)
        list[i] = r->pairs[i].blue;
    if (!sequences_read(m->blue, list, r->count, err))
        return error_wrap(err, "read the sequences of the source");
    return true;
}

static void choose(struct pg_mirror *m, struct round *r, struct reason_kind *reasons)
{
    r->set = arena_array(&r->arena, struct pair, r->count + 1);
    for (size_t i = 0; i < r->count; i++) {
        const struct sequence *b = r->pairs[i].blue;
        const struct sequence *g = r->pairs[i].green;
        if (!has_to_be_set(m, &r->pairs[i]))
            continue;
        if (b->last < g->min || b->last > g->max)
            add_reason(reasons,
                       "sequence %s.%s is at %" PRId64
                       " on the source, which the target's cannot take (%" PRId64 " to %" PRId64
                       ")",
                       b->schema, b->name, b->last, g->min, g->max);
        else
            r->set[r->set_count++] = r->pairs[i];
    }
}

static bool set_green(struct pg_mirror *m, const struct round *r, struct error *err)
{
    static const char set_sql[] =
        "select count(setval(s.oid::regclass, s.last, s.called)) "
        "from unnest($1::oid[], $2::bigint[], $3::bool[]) s(oid, last, called)";
    cleanup_with(writer_release) struct writer oids = {0};
    cleanup_with(writer_release) struct writer lasts = {0};
    cleanup_with(writer_release) struct writer calleds = {0};
    if (r->set_count == 0)
        return true;
    for (size_t i = 0; i < r->set_count; i++) {
        const struct pair *p = &r->set[i];
        const char *before = i == 0 ? "{" : ",";
        writer_printf(&oids, "%s%u", before, p->green->oid);
        writer_printf(&lasts, "%s%" PRId64, before, p->blue->last);
        writer_printf(&calleds, "%s%s", before, p->blue->called ? "t" : "f");
    }
    writer_text(&oids, "}");
    writer_text(&lasts, "}");
    writer_text(&calleds, "}");
    const char *values[] = {writer_cstr(&oids), writer_cstr(&lasts), writer_cstr(&calleds)};
    if (!pg_query(m->green, set_sql, 3, values, NULL, err))
        return error_wrap(err, "set the sequences of the target");
    log_event("mirror.sequences_set", LOG_DEBUG, "count=%zu", r->set_count);
    return true;
}

static bool run_round(struct pg_mirror *m, struct round *r, struct reason_kind *reasons,
                      struct error *err)
{
    if (!sequences_list(m->blue, &r->blue, err))
        return error_wrap(err, "list the sequences of the source");
    if (!sequences_list(m->green, &r->green, err))
        return error_wrap(err, "list the sequences of the target");
    TRY(pair_up(m, r, reasons, err));
    TRY(read_pairs(m, r, err));
    choose(m, r, reasons);
    TRY(set_green(m, r, err));
    for (size_t i = 0; i < r->count; i++)
        remember(m, &r->pairs[i]);
    return true;
}

/* A sequence may be dropped between the questions: then they are asked again. */
static bool mirror_sequences(struct pg_mirror *m, struct mirror_reasons *reasons,
                             struct error *err)
{
    for (int attempt = 1;; attempt++) {
        struct reason_kind kind = {.to = reasons, .room = NAMED_SEQUENCES};
        struct round r = {0};
        bool ok = run_round(m, &r, &kind, err);
        round_release(&r);
        if (ok) {
            add_rest(&kind, "sequences");
            return true;
        }
        if (!sequences_vanished(err))
            return false;
        err->kind = ERROR_RETRY;
        if (attempt == ATTEMPTS)
            return false;
        error_clear(err);
        arena_clear(&reasons->arena);
        reasons->count = 0;
    }
}

/* ---- tables ---- */

/* Tables with rows of their own that no publication of ours names, neither themselves nor
 * through a table they are part of; and those it names that have no identity. */
static const char tables_sql[] =
    "with recursive followed(oid) as ("
    "select c.oid from pg_publication_tables p join pg_namespace n on n.nspname = p.schemaname "
    "join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename "
    "where p.pubname in ('teal_' || $1, 'teal_' || $1 || '_inserts') "
    "union select i.inhrelid from followed f join pg_inherits i on i.inhparent = f.oid "
    "join pg_class c on c.oid = i.inhrelid and c.relispartition) "
    "select c.oid, n.nspname, c.relname, f.oid is not null, "
    "pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid) "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "left join followed f on f.oid = c.oid "
    "where c.relkind = 'r' and c.relpersistence = 'p' "
    "and (f.oid is null or c.relreplident = 'n') "
    "and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'teal') "
    "and not exists (select 1 from pg_depend d where d.classid = 'pg_class'::regclass "
    "  and d.objid = c.oid and d.deptype = 'e') order by 2, 3";

static void count_changes(struct pg_mirror *m, const PGresult *res, int row)
{
    uint64_t oid = pg_u64(res, row, 0);
    uint64_t now = pg_u64(res, row, 4);
    struct counter *c = map_get(&m->changed, oid);
    if (c == NULL) {
        char shown[REASON_MAX];
        (void)snprintf(shown, sizeof shown, "%s.%s", PQgetvalue(res, row, 1),
                       PQgetvalue(res, row, 2));
        c = arena_new(&m->arena, struct counter);
        *c = (struct counter){.shown = keep(&m->arena, shown), .count = now};
        map_put(&m->changed, oid, c);
    }
    c->grew = c->grew || now > c->count;
    if (now < c->count) /* The statistics were reset. */
        c->count = now;
}

static bool look_at_tables(struct pg_mirror *m, struct mirror_reasons *reasons,
                           struct error *err)
{
    struct reason_kind unfollowed = {.to = reasons, .room = NAMED_TABLES};
    struct reason_kind changed = {.to = reasons, .room = NAMED_CHANGED};
    const char *values[] = {m->options->name};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!pg_query(m->blue, tables_sql, 1, values, &res, err))
        return error_wrap(err, "look for tables that are not followed");
    for (int i = 0; i < PQntuples(res); i++) {
        const char *schema = PQgetvalue(res, i, 1);
        const char *name = PQgetvalue(res, i, 2);
        if (pg_bool(res, i, 3))
            count_changes(m, res, i);
        else if (options_includes(m->options, schema, name))
            add_reason(&unfollowed,
                       "table %s.%s appeared on the source after the start and is not followed",
                       schema, name);
    }
    add_rest(&unfollowed, "tables that are not followed");

    /* Also of a table that has got an identity since: what it lost stays lost. */
    size_t at = 0;
    for (struct counter *c = map_next(&m->changed, &at); c != NULL;
         c = map_next(&m->changed, &at))
        if (c->grew)
            add_reason(&changed,
                       "table %s had updates or deletes on the source that were not followed: "
                       "its replica identity was NOTHING",
                       c->shown);
    add_rest(&changed, "tables with updates or deletes that were not followed");
    return true;
}

/* ---- the interface ---- */

static bool pg_mirror_sync(struct mirror *base, struct mirror_reasons *reasons,
                           struct error *err)
{
    struct pg_mirror *m = mirror_of(base);
    if (!open_side(m, &m->options->blue, &m->blue, err))
        return error_wrap(err, "mirror: the source");
    if (!open_side(m, &m->options->green, &m->green, err))
        return error_wrap(err, "mirror: the target");
    TRY(mirror_sequences(m, reasons, err));
    return look_at_tables(m, reasons, err);
}

static void pg_mirror_free(struct mirror *base)
{
    struct pg_mirror *m = mirror_of(base);
    pg_close(&m->blue);
    pg_close(&m->green);
    map_release(&m->seen);
    map_release(&m->changed);
    arena_clear(&m->arena);
    free(m);
}

static const struct mirror_ops pg_mirror_ops = {.sync = pg_mirror_sync, .free = pg_mirror_free};

struct mirror *pg_mirror_new(const struct options *o)
{
    struct pg_mirror *m = calloc(1, sizeof *m);
    check(m != NULL);
    m->base.ops = &pg_mirror_ops;
    m->options = o;
    return &m->base;
}
