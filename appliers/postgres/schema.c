/* Opening: what blue has, its tables, roles and dumps, as one snapshot shows it. */
#include "appliers/postgres/schema.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "appliers/postgres/dump_program.h"
#include "appliers/postgres/schema_inner.h"
#include "engine/base/log.h"

enum { CONNECT_SECONDS = 30 };

static struct bytes view(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

static const char *keep(struct arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(arena_array(arena, char, size), text, size);
}

static const char *quoted(struct arena *arena, const char *schema, const char *name)
{
    cleanup_with(writer_release) struct writer w = {0};
    pg_quote_table(&w, view(schema), view(name));
    return keep(arena, writer_cstr(&w));
}

/* ---- blue's tables ---- */

static const char tables_sql[] =
    "select n.nspname, c.relname, pn.nspname, p.relname "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "left join pg_inherits i on i.inhrelid = c.oid and c.relispartition "
    "left join pg_class p on p.oid = i.inhparent "
    "left join pg_namespace pn on pn.oid = p.relnamespace "
    "where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and "
    "n.nspname not in ('information_schema', 'teal') and not exists (select from pg_depend d "
    "where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') "
    "order by n.nspname, c.relname";

static void take_table(struct schema *s, struct schema_table *t, const PGresult *res, int row)
{
    const char *parent_schema = pg_text(res, row, 2);
    t->schema = keep(&s->arena, PQgetvalue(res, row, 0));
    t->name = keep(&s->arena, PQgetvalue(res, row, 1));
    t->wanted = options_includes(s->options, t->schema, t->name);
    t->partition = t->wanted && parent_schema != NULL &&
                   options_includes(s->options, parent_schema, PQgetvalue(res, row, 3));
    const struct table_options *map = options_table(s->options, view(t->schema), view(t->name));
    const char *to_schema = map == NULL ? t->schema : map->to_schema;
    const char *to_name = map == NULL ? t->name : map->to_table;
    bool same = strcmp(to_schema, t->schema) == 0 && strcmp(to_name, t->name) == 0;
    t->made = t->wanted && same;
    t->pattern = quoted(&s->arena, t->schema, t->name);
    t->green = same ? t->pattern : quoted(&s->arena, to_schema, to_name);
    s->leaves_out = s->leaves_out || !t->made;
}

static bool list_tables(struct schema *s, PGconn *blue, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(blue, tables_sql, 0, NULL, &res, err));
    size_t count = (size_t)PQntuples(res);
    s->tables = count == 0 ? NULL : arena_array(&s->arena, struct schema_table, count);
    s->table_count = count;
    for (size_t i = 0; i < count; i++)
        take_table(s, &s->tables[i], res, (int)i);
    return true;
}

/* Grants and policies, from the list the server itself keeps of what depends on a role. Owners
 * are taken from the dump, which knows what is dumped. Our own role on blue needs no match. */
static const char roles_sql[] =
    "select distinct r.rolname from pg_shdepend d join pg_roles r on r.oid = d.refobjid "
    "where d.refclassid = 'pg_authid'::regclass and d.deptype in ('a', 'r') and "
    "d.dbid = (select oid from pg_database where datname = current_database()) and "
    "d.classid not in ('pg_publication'::regclass, 'pg_largeobject'::regclass) and "
    "r.rolname <> current_user and r.rolname !~ '^pg_' and "
    "not (d.classid = 'pg_namespace'::regclass and exists (select from pg_namespace n "
    "where n.oid = d.objid and n.nspname = 'teal')) and "
    "not (d.classid = any ('{pg_class,pg_policy}'::regclass[]) and exists (select from "
    "pg_class c join pg_namespace n on n.oid = c.relnamespace where "
    "c.oid = case when d.classid = 'pg_policy'::regclass then "
    "(select polrelid from pg_policy where oid = d.objid) else d.objid end and "
    "(n.nspname = 'teal' or n.nspname ~ '^pg_temp_' or "
    "'\"' || replace(n.nspname, '\"', '\"\"') || '\".\"' || replace(c.relname, '\"', '\"\"') "
    "|| '\"' "
    "= any ($1::text[])))) order by 1";

/* An element of an array's literal. */
static void put_element(struct writer *w, const char *text)
{
    writer_u8(w, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            writer_u8(w, '\\');
        writer_u8(w, (uint8_t)*text);
    }
    writer_u8(w, '"');
}

static bool list_roles(struct schema *s, PGconn *blue, struct error *err)
{
    cleanup_with(writer_release) struct writer left_out = {0};
    writer_u8(&left_out, '{');
    for (size_t i = 0; i < s->table_count; i++) {
        if (s->tables[i].made)
            continue;
        writer_text(&left_out, left_out.len > 1 ? "," : "");
        put_element(&left_out, s->tables[i].pattern);
    }
    writer_u8(&left_out, '}');
    const char *values[] = {writer_cstr(&left_out)};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(blue, roles_sql, 1, values, &res, err));
    s->role_count = (size_t)PQntuples(res);
    s->roles = s->role_count == 0 ? NULL : arena_array(&s->arena, const char *, s->role_count);
    for (size_t i = 0; i < s->role_count; i++)
        s->roles[i] = keep(&s->arena, PQgetvalue(res, (int)i, 0));
    return true;
}

/* ---- the dumps ---- */

static bool find_program(const struct schema *s, PGconn *blue, struct dump_program *program,
                         struct error *err)
{
    int major = PQserverVersion(blue) / 10000;
    dump_program_find(s->options->pg_dump, major, program);
    if (program->major >= major)
        return true;
    if (program->major == 0)
        (void)error_set(err, ERROR_CONFIG, "no pg_dump was found%s%s",
                        s->options->pg_dump == NULL ? "" : " at ",
                        s->options->pg_dump == NULL ? "" : s->options->pg_dump);
    else
        (void)error_set(err, ERROR_CONFIG,
                        "%s is of version %d and cannot read blue, which is %d", program->path,
                        program->major, major);
    return error_hint(
        err, "install postgresql-client-%d, or name a pg_dump in [schema] pg-dump", major);
}

/* Tablespaces are kept only if green has all that blue uses. */
static bool lacks_tablespace(PGconn *blue, PGconn *green, bool *lacks, struct error *err)
{
    static const char sql[] = "select spcname from pg_tablespace where spcname !~ '^pg_'";
    cleanup_with(pg_result_drop) PGresult *on_blue = NULL;
    cleanup_with(pg_result_drop) PGresult *on_green = NULL;
    TRY(pg_query(blue, sql, 0, NULL, &on_blue, err));
    TRY(pg_query(green, sql, 0, NULL, &on_green, err));
    *lacks = false;
    for (int b = 0; b < PQntuples(on_blue); b++) {
        bool found = false;
        for (int g = 0; g < PQntuples(on_green) && !found; g++)
            found = strcmp(PQgetvalue(on_blue, b, 0), PQgetvalue(on_green, g, 0)) == 0;
        *lacks = *lacks || !found;
    }
    return true;
}

static const char **exclusions(struct schema *s, size_t *count)
{
    const char **list =
        s->table_count == 0 ? NULL : arena_array(&s->arena, const char *, s->table_count);
    for (size_t i = 0; i < s->table_count; i++)
        if (!s->tables[i].made)
            list[(*count)++] = s->tables[i].pattern;
    return list;
}

struct section {
    const char *name;
    const struct dump_request *request;
    const _Atomic bool *stop;
    struct writer script;
    bool ok;
    struct error failure;
};

static void *run_section(void *argument)
{
    struct section *d = argument;
    d->ok = dump_run(d->request, d->name, d->stop, &d->script, &d->failure);
    return NULL;
}

/* Side by side, as pg_dump mostly waits for blue. */
static bool run_both(struct schema *s, const struct dump_request *request,
                     const _Atomic bool *stop, struct error *err)
{
    struct section pre = {.name = "pre-data", .request = request, .stop = stop};
    struct section post = {.name = "post-data", .request = request, .stop = stop};
    pthread_t thread;
    check(pthread_create(&thread, NULL, run_section, &post) == 0);
    (void)run_section(&pre);
    check(pthread_join(thread, NULL) == 0);
    *err = pre.ok ? post.failure : pre.failure;
    bool ok = pre.ok && post.ok &&
              dump_split(writer_view(&pre.script), &s->arena, &s->pre, err) &&
              dump_split(writer_view(&post.script), &s->arena, &s->post, err);
    writer_release(&pre.script);
    writer_release(&post.script);
    return ok;
}

static bool run_dumps(struct schema *s, PGconn *blue, bool no_tablespaces,
                      const _Atomic bool *stop, struct error *err)
{
    char application[64];
    struct dump_program program;
    TRY(find_program(s, blue, &program, err));
    (void)snprintf(application, sizeof application, "teal %s schema", s->options->name);
    cleanup_with(pg_result_drop) PGresult *snapshot = NULL;
    TRY(pg_query(blue, "select pg_export_snapshot()", 0, NULL, &snapshot, err));
    bool ascii = strcmp(PQparameterStatus(blue, "server_encoding"), "SQL_ASCII") == 0;
    struct dump_request request = {.program = program.path,
                                   .conninfo = s->options->blue.conninfo,
                                   .application_name = application,
                                   .encoding = ascii ? "SQL_ASCII" : "UTF8",
                                   .snapshot = PQgetvalue(snapshot, 0, 0),
                                   .no_tablespaces = no_tablespaces};
    request.exclude = exclusions(s, &request.exclude_count);
    return run_both(s, &request, stop, err);
}

static bool read_blue(struct schema *s, const _Atomic bool *stop, struct error *err)
{
    cleanup_with(pg_close) PGconn *blue = NULL;
    cleanup_with(pg_close) PGconn *green = NULL;
    const struct options *o = s->options;
    bool no_tablespaces;
    TRY(pg_connect(o->blue.conninfo, PG_QUERY, o->name, CONNECT_SECONDS, &blue, err));
    TRY(pg_connect(o->green.conninfo, PG_QUERY, o->name, CONNECT_SECONDS, &green, err));
    TRY(lacks_tablespace(blue, green, &no_tablespaces, err));
    if (no_tablespaces)
        log_event("schema.no_tablespaces", LOG_WARN, "reason=%s",
                  "\"green lacks some of blue's tablespaces: all goes to the default one\"");
    TRY(pg_execute(blue, "begin isolation level repeatable read, read only", err));
    TRY(list_tables(s, blue, err));
    TRY(list_roles(s, blue, err));
    return run_dumps(s, blue, no_tablespaces, stop, err);
}

bool schema_open(const struct options *o, const _Atomic bool *stop, struct schema **out,
                 struct error *err)
{
    struct schema *s = calloc(1, sizeof *s);
    check(s != NULL);
    s->options = o;
    if (!read_blue(s, stop, err)) {
        schema_free(s);
        return error_wrap(err, "read blue's schema");
    }
    s->post_done = arena_array(&s->arena, bool, s->post.count + 1);
    *out = s;
    return true;
}

void schema_free(struct schema *s)
{
    if (s == NULL)
        return;
    arena_clear(&s->arena);
    free(s);
}
