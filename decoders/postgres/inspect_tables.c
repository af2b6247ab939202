/* Blue's tables, one by one: whether their changes can be followed, read and published.
 *
 * A partition counts as taken in if its root is: publishing the root publishes it. Tables that
 * belong to an extension are the extension's to make. */
#include "decoders/postgres/inspect_tables.h"

#include <fnmatch.h>
#include <stdlib.h>

enum {
    T_SCHEMA,
    T_NAME,
    T_SHOWN,
    T_KIND,
    T_PERSISTENCE,
    T_IDENTITY,
    T_ROOT_SCHEMA,
    T_ROOT_NAME,
    T_HAS_KEY,
    T_HAS_INDEX,
    T_CANDIDATE,
    T_MAY_SELECT,
    T_MAY_USE_SCHEMA,
    T_OWNER,
    T_OWNS,
    T_ROW_SECURITY,
    T_INSERTED,
    T_CHANGED,
    T_ROWS,
    T_BYTES,
    T_INDEX_BYTES,
    T_STORED,
    T_VIRTUAL,
    T_ALWAYS,
    T_SCHEMA_SHOWN,
    T_OID,
    T_REFERENCES,
    T_TRIGGERS,
    T_OWNER_IS_SUPERUSER,
};

/* The first %s: columns of an index that make its key; the second: attgenerated. A key of an
 * index that is checked late cannot identify rows. */
static const char tables_sql[] =
    "with recursive up(oid, root) as (select oid, oid from pg_class where relkind in "
    "('r','p','f','m') and not relispartition union all select i.inhrelid, up.root from up "
    "join pg_inherits i on i.inhparent = up.oid join pg_class p on p.oid = i.inhrelid and "
    "p.relispartition) "
    "select n.nspname, c.relname, format('%%I.%%I', n.nspname, c.relname), c.relkind, "
    "c.relpersistence, c.relreplident, rn.nspname, r.relname, "
    "coalesce(x.has_key, false), coalesce(x.has_index, false), x.candidate, "
    "has_table_privilege(c.oid, 'SELECT'), has_schema_privilege(n.oid, 'USAGE'), "
    "quote_ident(pg_get_userbyid(c.relowner)), pg_has_role(c.relowner, 'USAGE'), "
    "row_security_active(c.oid), coalesce(st.n_tup_ins, 0), "
    "coalesce(st.n_tup_upd, 0) + coalesce(st.n_tup_del, 0), "
    "case when c.reltuples > 0 then c.reltuples::bigint else coalesce(st.n_live_tup, 0) end, "
    "coalesce(pg_table_size(c.oid), 0), coalesce(pg_indexes_size(c.oid), 0), "
    "y.stored, y.virtual, y.always, quote_ident(n.nspname), c.oid, y.refs, "
    "(select string_agg(quote_ident(g.tgname), ', ') from pg_trigger g where g.tgrelid = c.oid "
    "and not g.tgisinternal and g.tgenabled in ('A', 'R')), "
    "(select w.rolsuper from pg_roles w where w.oid = c.relowner) "
    "from up join pg_class c on c.oid = up.oid join pg_namespace n on n.oid = c.relnamespace "
    "join pg_class r on r.oid = up.root join pg_namespace rn on rn.oid = r.relnamespace "
    "left join pg_stat_user_tables st on st.relid = c.oid "
    "left join lateral (select bool_or(k.indisprimary and k.indimmediate) has_key, "
    "bool_or(k.indisreplident and k.indimmediate) has_index, "
    "min(quote_ident(kc.relname)) filter (where k.indimmediate and k.indpred is null and "
    "k.indexprs is null and not exists (select 1 from unnest((k.indkey::int2[])[0:%s - 1]) u "
    "join pg_attribute ka on ka.attrelid = c.oid and ka.attnum = u where not ka.attnotnull)) "
    "candidate from pg_index k join pg_class kc on kc.oid = k.indexrelid "
    "where k.indrelid = c.oid and k.indisunique and k.indisvalid) x on true "
    "left join lateral (select count(*) filter (where %s = 's') as stored, "
    "count(*) filter (where %s = 'v') as virtual, "
    "count(*) filter (where a.attidentity = 'a') as always, "
    "string_agg(quote_ident(a.attname), ', ') filter (where a.atttypid in (24, 2202, 2203, "
    "2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191)) refs "
    "from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) y "
    "on true "
    "where c.relpersistence <> 't' and n.nspname not in ('information_schema', 'teal') "
    "and n.nspname !~ '^pg_' and not exists (select 1 from pg_depend e where e.classid = "
    "'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e') order by 1, 2";

/* What is counted over all tables. */
struct totals {
    uint64_t stored;
    uint64_t always;
    uint64_t full_with_key;
    bool *include_met; /* Per pattern. */
    bool *exclude_met;
    bool *full_met;
    bool *section_met;
};

struct row {
    const PGresult *res;
    int at;
};

static const char *text(const struct row *r, int column)
{
    return PQgetvalue(r->res, r->at, column);
}
static char letter(const struct row *r, int column) { return text(r, column)[0]; }
static uint64_t count(const struct row *r, int column) { return pg_u64(r->res, r->at, column); }
static bool is(const struct row *r, int column) { return pg_bool(r->res, r->at, column); }

/* ---- what the configuration names ---- */

/* As options_includes() matches. */
static bool matches(const char *pattern, const char *name)
{
    return fnmatch(pattern, name, 0) == 0;
}

static bool sets_full(const struct options *o, const char *name)
{
    for (size_t i = 0; i < o->set_identity_full_count; i++)
        if (strcmp(o->set_identity_full[i], name) == 0)
            return true;
    return false;
}

static const char *plain_name(struct survey *s, const struct row *r)
{
    return findings_text(s->findings, "%s.%s", text(r, T_SCHEMA), text(r, T_NAME));
}

static void mark_named(struct survey *s, const struct row *r, struct totals *t)
{
    const struct options *o = s->options;
    const char *name = plain_name(s, r);
    for (size_t i = 0; i < o->include_count; i++)
        t->include_met[i] = t->include_met[i] || matches(o->include[i], name);
    for (size_t i = 0; i < o->exclude_count; i++)
        t->exclude_met[i] = t->exclude_met[i] || matches(o->exclude[i], name);
    for (size_t i = 0; i < o->set_identity_full_count; i++)
        t->full_met[i] = t->full_met[i] || strcmp(o->set_identity_full[i], name) == 0;
    for (size_t i = 0; i < o->table_count; i++)
        t->section_met[i] =
            t->section_met[i] || (strcmp(o->tables[i].schema, text(r, T_SCHEMA)) == 0 &&
                                  strcmp(o->tables[i].table, text(r, T_NAME)) == 0);
}

static void check_named(struct survey *s, const struct totals *t)
{
    const struct options *o = s->options;
    struct findings *f = s->findings;
    for (size_t i = 0; i < o->include_count; i++)
        if (!t->include_met[i])
            finding_add(f, SEVERITY_ERROR, "tables.include_matches_nothing", o->include[i],
                        "[tables] include names no table of blue's.");
    for (size_t i = 0; i < o->exclude_count; i++)
        if (!t->exclude_met[i])
            finding_add(f, SEVERITY_WARNING, "tables.exclude_matches_nothing", o->exclude[i],
                        "[tables] exclude names no table of blue's.");
    for (size_t i = 0; i < o->set_identity_full_count; i++)
        if (!t->full_met[i])
            finding_add(f, SEVERITY_ERROR, "tables.not_found", o->set_identity_full[i],
                        "[tables] set-identity-full names a table that blue does not have.");
    for (size_t i = 0; i < o->table_count; i++)
        if (!t->section_met[i])
            finding_add(f, SEVERITY_ERROR, "tables.not_found", o->tables[i].name,
                        "A section [table …] names a table that blue does not have.");
}

/* ---- one table ---- */

static bool can_follow(const struct row *r)
{
    switch (letter(r, T_IDENTITY)) {
    case 'd': return is(r, T_HAS_KEY);
    case 'i': return is(r, T_HAS_INDEX);
    case 'f': return true;
    default: return false;
    }
}

static void lacks_identity(struct survey *s, const struct row *r)
{
    struct findings *f = s->findings;
    const char *shown = text(r, T_SHOWN);
    char identity = letter(r, T_IDENTITY);
    const char *why = identity == 'n'   ? "its replica identity is NOTHING"
                      : identity == 'i' ? "the index of its replica identity is gone or invalid"
                                        : "it has no primary key that is checked at once";
    /* The owner said NOTHING, and counters that saw inserts saw nothing else. */
    bool only_inserts = identity == 'n' && count(r, T_CHANGED) == 0 && count(r, T_INSERTED) > 0;
    if (only_inserts) {
        finding_add(
            f, SEVERITY_WARNING, "table.insert_only", shown,
            "Its replica identity is NOTHING. So far it has only had inserts, which can "
            "be followed; once it is published, blue refuses every UPDATE and DELETE "
            "of it.");
    } else {
        finding_add(
            f, SEVERITY_ERROR, "table.no_identity", shown,
            "Updates and deletes cannot be followed, and blue would refuse them once the "
            "table is published: %s. Choose an index, FULL (works always, slow for "
            "large tables; [tables] set-identity-full = %s lets teal set it), or [tables] "
            "exclude.",
            why, plain_name(s, r));
    }
    if (identity != 'd' && is(r, T_HAS_KEY))
        finding_fix(f, "ALTER TABLE %s REPLICA IDENTITY DEFAULT;", shown);
    else if (!PQgetisnull(r->res, r->at, T_CANDIDATE))
        finding_fix(f, "ALTER TABLE %s REPLICA IDENTITY USING INDEX %s;", shown,
                    text(r, T_CANDIDATE));
    else
        finding_fix(f, "ALTER TABLE %s REPLICA IDENTITY FULL;", shown);
}

/* From 18 on blue refuses updates of a FULL identity with columns that are not published. */
static void check_generated(struct survey *s, const struct row *r)
{
    bool stored = count(r, T_STORED) > 0;
    bool virtual = count(r, T_VIRTUAL) > 0;
    if (s->version < 180000 || (!stored && !virtual))
        return;
    finding_add(s->findings, virtual ? SEVERITY_ERROR : SEVERITY_WARNING,
                "table.full_with_generated", text(r, T_SHOWN),
                "Its replica identity is FULL and it has %s generated columns: PostgreSQL 18 "
                "refuses its updates while such a column is not published.",
                virtual ? "virtual" : "stored");
    if (!PQgetisnull(r->res, r->at, T_CANDIDATE))
        finding_fix(s->findings, "ALTER TABLE %s REPLICA IDENTITY USING INDEX %s;",
                    text(r, T_SHOWN), text(r, T_CANDIDATE));
}

static void check_identity(struct survey *s, const struct row *r, struct totals *t)
{
    bool will_be_full = sets_full(s->options, plain_name(s, r));
    bool has_key = is(r, T_HAS_KEY) || !PQgetisnull(r->res, r->at, T_CANDIDATE);
    if (will_be_full && letter(r, T_IDENTITY) != 'f') {
        finding_add(s->findings, SEVERITY_INFO, "table.identity_full", text(r, T_SHOWN),
                    "teal will set REPLICA IDENTITY FULL, as [tables] set-identity-full says.");
        check_generated(s, r);
    } else if (!can_follow(r)) {
        lacks_identity(s, r);
    } else if (letter(r, T_IDENTITY) == 'f') {
        check_generated(s, r);
        t->full_with_key += has_key;
        if (!has_key)
            finding_add(s->findings, SEVERITY_WARNING, "table.identity_full_without_key",
                        text(r, T_SHOWN),
                        "It has no key: every update and delete is found by comparing whole "
                        "rows, which is slow if the table is large. Rows that are equal are "
                        "told apart by their number.");
    }
}

static void check_rights(struct survey *s, const struct row *r)
{
    struct findings *f = s->findings;
    const char *shown = text(r, T_SHOWN);
    if (!is(r, T_MAY_SELECT)) {
        finding_add(f, SEVERITY_ERROR, "table.not_readable", shown, "Role %s may not read it.",
                    s->role);
        finding_fix(f, "GRANT SELECT ON TABLE %s TO %s;", shown, s->role);
    }
    if (is(r, T_ROW_SECURITY)) {
        finding_add(f, SEVERITY_ERROR, "table.row_security", shown,
                    "Row security hides rows of it from role %s.", s->role);
        finding_fix(f, "ALTER ROLE %s BYPASSRLS;", s->role);
    }
}

/* What tables that store rows share; a partitioned table stores none. */
static void check_stored(struct survey *s, const struct row *r, struct totals *t)
{
    struct findings *f = s->findings;
    const char *shown = text(r, T_SHOWN);
    if (letter(r, T_PERSISTENCE) == 'u') {
        finding_add(f, SEVERITY_ERROR, "table.unlogged", shown,
                    "It is UNLOGGED: its changes are not in the log and cannot be followed. "
                    "Make it LOGGED (which rewrites it), or [tables] exclude.");
        finding_fix(f, "ALTER TABLE %s SET LOGGED;", shown);
        return;
    }
    check_identity(s, r, t);
    if (!PQgetisnull(r->res, r->at, T_REFERENCES))
        finding_add(f, SEVERITY_WARNING, "table.catalogue_references", shown,
                    "Column %s holds names of objects (regclass and the like): green refuses a "
                    "row whose object it does not have.",
                    text(r, T_REFERENCES));
    if (!PQgetisnull(r->res, r->at, T_TRIGGERS) && s->options->schema_mode == SCHEMA_COPY)
        finding_add(f, SEVERITY_WARNING, "table.trigger_always", shown,
                    "Trigger %s is enabled ALWAYS or REPLICA: copied to green it also fires "
                    "for the rows that teal applies, a second time.",
                    text(r, T_TRIGGERS));
}

static void note_kind(struct survey *s, const struct row *r)
{
    bool foreign = letter(r, T_KIND) == 'f';
    finding_add(
        s->findings, SEVERITY_INFO, foreign ? "table.foreign" : "table.matview",
        text(r, T_SHOWN), "%s",
        foreign ? "A foreign table: its rows are elsewhere and are not copied."
                : "A materialized view: green computes its own once the rows are there; what "
                  "changes later shows when it is refreshed.");
    if (!foreign)
        finding_fix(s->findings, "REFRESH MATERIALIZED VIEW %s;", text(r, T_SHOWN));
}

static bool takes(struct survey *s, const struct row *r)
{
    return options_includes(s->options, text(r, T_SCHEMA), text(r, T_NAME)) ||
           options_includes(s->options, text(r, T_ROOT_SCHEMA), text(r, T_ROOT_NAME));
}

/* The patterns take in a partitioned table, but not this partition: it would not be copied. */
static void partition_left_out(struct survey *s, const struct row *r)
{
    const struct options *o = s->options;
    bool excluded = false;
    for (size_t i = 0; i < o->exclude_count; i++)
        excluded = excluded || matches(o->exclude[i], plain_name(s, r));
    finding_add(
        s->findings, excluded ? SEVERITY_WARNING : SEVERITY_ERROR, "table.partition_left_out",
        text(r, T_SHOWN),
        "[tables] takes in the partitioned table %s.%s, but not this partition of it: its "
        "rows would be missing on green.",
        text(r, T_ROOT_SCHEMA), text(r, T_ROOT_NAME));
    if (!excluded)
        finding_fix(s->findings, "[tables] include: add %s", plain_name(s, r));
}

static void check_table(struct survey *s, const struct row *r, struct sizes *sizes,
                        struct totals *t)
{
    char kind = letter(r, T_KIND);
    if (kind == 'f' || kind == 'm') {
        note_kind(s, r);
        return;
    }
    check_rights(s, r);
    t->stored += count(r, T_STORED) + count(r, T_VIRTUAL);
    t->always += count(r, T_ALWAYS);
    if (kind == 'p')
        return;
    check_stored(s, r, t);
    if (!options_includes(s->options, text(r, T_SCHEMA), text(r, T_NAME))) {
        partition_left_out(s, r);
        return;
    }
    sizes->tables++;
    sizes->rows_estimate += (int64_t)count(r, T_ROWS);
    sizes->bytes += (int64_t)count(r, T_BYTES);
    sizes->index_bytes += (int64_t)count(r, T_INDEX_BYTES);
}

/* ---- all tables ---- */

/* Adding a table to a publication takes its owner, whom a role can join. */
static void check_owner(struct survey *s, const PGresult *res, int at)
{
    const struct row r = {res, at};
    if (is(&r, T_OWNS))
        return;
    int same = 0;
    for (int i = 0; i < PQntuples(res); i++) {
        const struct row other = {res, i};
        bool counts = strchr("rp", letter(&other, T_KIND)) != NULL && takes(s, &other) &&
                      strcmp(text(&other, T_OWNER), text(&r, T_OWNER)) == 0;
        if (counts && i < at)
            return; /* Said already. */
        same += counts;
    }
    finding_add(s->findings, SEVERITY_ERROR, "role.not_owner", text(&r, T_OWNER),
                "Only its owner can publish a table: %d of the tables (%s first) belong to %s, "
                "of which role %s is not a member.",
                same, text(&r, T_SHOWN), text(&r, T_OWNER), s->role);
    if (is(&r, T_OWNER_IS_SUPERUSER)) /* Nobody should be told to grant that. */
        finding_fix(s->findings,
                    "ALTER TABLE … OWNER TO a role that is no superuser; GRANT it TO %s;",
                    s->role);
    else
        finding_fix(s->findings, "GRANT %s TO %s;", text(&r, T_OWNER), s->role);
}

static void check_schema_right(struct survey *s, const PGresult *res, int at)
{
    const struct row r = {res, at};
    if (is(&r, T_MAY_USE_SCHEMA))
        return;
    for (int i = 0; i < at; i++) {
        const struct row other = {res, i};
        if (strcmp(text(&other, T_SCHEMA), text(&r, T_SCHEMA)) == 0 && takes(s, &other))
            return;
    }
    finding_add(s->findings, SEVERITY_ERROR, "schema.not_usable", text(&r, T_SCHEMA_SHOWN),
                "Role %s may not look into the schema.", s->role);
    finding_fix(s->findings, "GRANT USAGE ON SCHEMA %s TO %s;", text(&r, T_SCHEMA_SHOWN),
                s->role);
}

static void note_totals(struct survey *s, const struct sizes *sizes, const struct totals *t)
{
    struct findings *f = s->findings;
    if (sizes->tables == 0)
        finding_add(f, SEVERITY_ERROR, "tables.none", s->side,
                    "There is no table to migrate in database %s.", s->database);
    if (t->stored > 0)
        finding_add(f, SEVERITY_INFO, "columns.generated", s->side,
                    "%llu generated columns: green computes them itself, and must compute "
                    "alike.",
                    (unsigned long long)t->stored);
    if (t->always > 0)
        finding_add(f, SEVERITY_INFO, "columns.identity_always", s->side,
                    "%llu columns GENERATED ALWAYS AS IDENTITY: teal inserts blue's values.",
                    (unsigned long long)t->always);
    if (t->full_with_key > 0)
        finding_add(
            f, SEVERITY_INFO, "tables.identity_full", s->side,
            "%llu tables with a key have REPLICA IDENTITY FULL: blue logs whole old rows "
            "where the key would do.",
            (unsigned long long)t->full_with_key);
}

static bool list_tables(struct survey *s, PGresult **out, struct error *err)
{
    const char *generated = s->version >= 120000 ? "a.attgenerated" : "''";
    const char *sql = findings_text(s->findings, tables_sql,
                                    s->version >= 110000 ? "k.indnkeyatts" : "k.indnatts",
                                    generated, generated);
    return survey_ask(s, sql, NULL, out, err);
}

/* ---- what belongs to tables ---- */

static bool check_section(struct survey *s, const struct table_options *t, struct error *err)
{
    static const char columns_sql[] =
        "select 1 from pg_attribute a join pg_class c on c.oid = a.attrelid "
        "join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2 "
        "and a.attname = $3 and a.attnum > 0 and not a.attisdropped";
    for (size_t i = 0; i < t->column_count; i++) {
        const char *values[] = {t->schema, t->table, t->columns[i].from, NULL};
        cleanup_with(pg_result_drop) PGresult *res = NULL;
        TRY(survey_ask(s, columns_sql, values, &res, err));
        if (PQntuples(res) == 0)
            finding_add(s->findings, SEVERITY_ERROR, "table.column_not_found", t->name,
                        "Its section names column %s, which blue does not have.",
                        t->columns[i].from);
    }
    return true;
}

static bool check_sections(struct survey *s, struct error *err)
{
    for (size_t i = 0; i < s->options->table_count; i++)
        TRY(check_section(s, &s->options->tables[i], err));
    return true;
}

static bool check_sequences(struct survey *s, struct error *err)
{
    static const char sequences_sql[] =
        "select n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), "
        "has_sequence_privilege(c.oid, 'SELECT'), on_.nspname, o.relname from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace left join pg_depend d on d.objid = "
        "c.oid "
        "and d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and "
        "d.deptype in ('a', 'i') left join pg_class o on o.oid = d.refobjid "
        "left join pg_namespace on_ on on_.oid = o.relnamespace "
        "where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and "
        "n.nspname not in ('information_schema', 'teal') order by 1, 2";
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, sequences_sql, NULL, &res, err));
    int total = 0;
    for (int i = 0; i < PQntuples(res); i++) {
        const struct row r = {res, i};
        bool taken =
            options_includes(s->options, text(&r, 0), text(&r, 1)) ||
            (!PQgetisnull(res, i, 5) && options_includes(s->options, text(&r, 4), text(&r, 5)));
        total += taken;
        if (!taken || is(&r, 3))
            continue;
        finding_add(s->findings, SEVERITY_ERROR, "sequence.not_readable", text(&r, 2),
                    "Role %s may not read it, so that its value cannot be carried over.",
                    s->role);
        finding_fix(s->findings, "GRANT SELECT ON SEQUENCE %s TO %s;", text(&r, 2), s->role);
    }
    if (total > 0)
        finding_add(s->findings, SEVERITY_INFO, "sequences", s->side,
                    "%d sequences: green's follow blue's every few seconds.", total);
    return true;
}

/* A child whose parent stays behind: green could not prove the key. */
static bool check_references(struct survey *s, struct error *err)
{
    static const char foreign_sql[] =
        "select cn.nspname, c.relname, pn.nspname, p.relname, format('%I.%I', cn.nspname, "
        "c.relname), format('%I.%I', pn.nspname, p.relname), quote_ident(k.conname) "
        "from pg_constraint k join pg_class c on c.oid = k.conrelid "
        "join pg_namespace cn on cn.oid = c.relnamespace join pg_class p on p.oid = "
        "k.confrelid "
        "join pg_namespace pn on pn.oid = p.relnamespace "
        "where k.contype = 'f' and not p.relispartition order by 1, 2, 7";
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, foreign_sql, NULL, &res, err));
    for (int i = 0; i < PQntuples(res); i++) {
        const struct row r = {res, i};
        if (!options_includes(s->options, text(&r, 0), text(&r, 1)) ||
            options_includes(s->options, text(&r, 2), text(&r, 3)))
            continue;
        finding_add(s->findings, SEVERITY_WARNING, "table.parent_left_out", text(&r, 4),
                    "Its foreign key %s points at %s, which is not migrated: green lacks the "
                    "rows that it refers to.",
                    text(&r, 6), text(&r, 5));
        finding_fix(s->findings, "[tables] include = %s.%s", text(&r, 2), text(&r, 3));
    }
    return true;
}

static bool check_large_objects(struct survey *s, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, "select count(*) from pg_largeobject_metadata", NULL, &res, err));
    if (PQntuples(res) == 1 && pg_u64(res, 0, 0) > 0) {
        finding_add(s->findings, SEVERITY_WARNING, "large_objects", s->side,
                    "%s large objects: PostgreSQL does not replicate them and teal does not "
                    "copy them.",
                    PQgetvalue(res, 0, 0));
        finding_fix(s->findings,
                    "pg_dump --large-objects -Fc … | pg_restore … while nobody writes them");
    }
    return true;
}

static bool all_tables(struct survey *s, struct sizes *sizes, struct totals *t,
                       struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(list_tables(s, &res, err));
    if (res == NULL)
        return true;
    sizes->tables = sizes->rows_estimate = sizes->bytes = sizes->index_bytes = 0;
    for (int i = 0; i < PQntuples(res); i++) {
        const struct row r = {res, i};
        mark_named(s, &r, t);
        if (!takes(s, &r))
            continue;
        check_table(s, &r, sizes, t);
        check_schema_right(s, res, i);
        if (strchr("rp", letter(&r, T_KIND)) != NULL)
            check_owner(s, res, i);
    }
    check_named(s, t);
    note_totals(s, sizes, t);
    return true;
}

bool inspect_tables(struct survey *s, struct sizes *sizes, struct error *err)
{
    struct arena *a = &s->findings->arena;
    struct totals t = {
        .include_met = arena_array(a, bool, s->options->include_count + 1),
        .exclude_met = arena_array(a, bool, s->options->exclude_count + 1),
        .full_met = arena_array(a, bool, s->options->set_identity_full_count + 1),
        .section_met = arena_array(a, bool, s->options->table_count + 1),
    };
    TRY(all_tables(s, sizes, &t, err));
    TRY(check_sections(s, err));
    TRY(check_sequences(s, err));
    TRY(check_references(s, err));
    return check_large_objects(s, err);
}
