/* Green as a server, compared with blue where blue's schema is to be copied to it. The tables
 * are in inspect_tables.c. */
#include "appliers/postgres/inspect.h"

#include <stdlib.h>

#include "appliers/postgres/dump_program.h"
#include "appliers/postgres/inspect_tables.h"

/* The two sides; blue.pg is NULL if blue is no PostgreSQL. */
struct both {
    struct survey blue;
    struct survey green;
    bool resumes;
};

/* How bad it is when something is missing that copying the schema needs. */
static enum severity if_copied(const struct both *b)
{
    return b->green.options->schema_mode == SCHEMA_COPY ? SEVERITY_ERROR : SEVERITY_WARNING;
}

/* ---- green alone ---- */

static const char settings_sql[] =
    "select current_setting('wal_level'), "
    "has_database_privilege(current_database(), 'CREATE'), "
    "r.rolreplication or r.rolsuper, current_setting('max_replication_slots')::bigint - "
    "(select count(*) from pg_replication_slots where slot_name !~ '^teal_') "
    "from pg_roles r where r.rolname = current_user";

/* The reverse feed is armed before the cutover, not at the start: these can wait. */
static void note_way_back(struct survey *s, const PGresult *res)
{
    struct findings *f = s->findings;
    if (strcmp(PQgetvalue(res, 0, 0), "logical") != 0) {
        finding_add(f, SEVERITY_INFO, "server.wal_level", s->side,
                    "wal_level is %s: the way back after the cutover needs logical on green "
                    "too, and changing it takes a restart.",
                    PQgetvalue(res, 0, 0));
        finding_fix(f, "ALTER SYSTEM SET wal_level = 'logical'; (restart)");
    }
    if (!pg_bool(res, 0, 2)) {
        finding_add(f, SEVERITY_INFO, "role.replication", s->side,
                    "Role %s may not replicate: the way back needs it.", s->role);
        finding_fix(f, "ALTER ROLE %s REPLICATION;", s->role);
    }
    if (strtoll(PQgetvalue(res, 0, 3), NULL, 10) < 1) {
        finding_add(f, SEVERITY_INFO, "server.replication_slots", s->side,
                    "All replication slots are taken; the way back needs one.");
        finding_fix(f, "ALTER SYSTEM SET max_replication_slots = 10; (restart)");
    }
}

static bool check_settings(struct survey *s, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, settings_sql, NULL, &res, err));
    if (PQntuples(res) == 1) {
        if (!pg_bool(res, 0, 1)) {
            finding_add(s->findings, SEVERITY_ERROR, "role.create", s->side,
                        "Role %s may not create schemas in database %s; teal keeps its "
                        "checkpoint in one.",
                        s->role, s->database);
            finding_fix(s->findings, "GRANT CREATE ON DATABASE %s TO %s;", s->database,
                        s->role);
        }
        note_way_back(s, res);
    }
    return survey_replica_role(s, SEVERITY_ERROR, " while rows are applied", err);
}

static bool check_event_triggers(struct both *b, struct error *err)
{
    struct survey *s = &b->green;
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s,
                   "select quote_ident(evtname), evtevent from pg_event_trigger "
                   "where evtenabled <> 'D' and evtname !~ '^teal_' order by 1",
                   NULL, &res, err));
    for (int i = 0; i < PQntuples(res); i++) {
        finding_add(s->findings, SEVERITY_WARNING, "event_trigger", PQgetvalue(res, i, 0),
                    "This event trigger of green fires (%s) when teal makes tables and indexes "
                    "there.",
                    PQgetvalue(res, i, 1));
        finding_fix(s->findings, "ALTER EVENT TRIGGER %s DISABLE;", PQgetvalue(res, i, 0));
    }
    return true;
}

static bool find_checkpoint(struct both *b, struct error *err)
{
    struct survey *s = &b->green;
    cleanup_with(pg_result_drop) PGresult *there = NULL;
    TRY(survey_ask(s, "select 1 where to_regclass('teal.checkpoint') is not null", NULL, &there,
                   err));
    if (PQntuples(there) == 0)
        return true;
    const char *values[] = {s->options->name, NULL};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, "select 1 from teal.checkpoint where migration = $1", values, &res, err));
    b->resumes = PQntuples(res) > 0;
    if (b->resumes)
        finding_add(s->findings, SEVERITY_INFO, "migration.resumes", s->options->name,
                    "Green holds a checkpoint of this migration: teal run goes on from it.");
    return true;
}

/* ---- green against blue ---- */

enum { DB_ENCODING, DB_COLLATE, DB_CTYPE, DB_PROVIDER, DB_VERSION, DB_LOCALE, DB_NAME, DB_ID };

static bool ask_database(struct survey *s, PGresult **out, struct error *err)
{
    const char *locale = s->version >= 170000   ? "d.datlocale"
                         : s->version >= 150000 ? "d.daticulocale"
                                                : "null";
    const char *sql = findings_text(
        s->findings,
        "select pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, %s, %s, %s, "
        "d.datname, case when has_function_privilege('pg_control_system()', 'execute') then "
        "(select system_identifier from pg_control_system()) end "
        "from pg_database d where d.datname = current_database()",
        s->version >= 150000 ? "d.datlocprovider" : "'c'",
        s->version >= 150000 ? "d.datcollversion" : "null", locale);
    return survey_ask(s, sql, NULL, out, err);
}

static void check_encoding(struct both *b, const char *blue, const char *green)
{
    struct findings *f = b->green.findings;
    if (strcmp(blue, green) == 0)
        return;
    bool takes_all = strcmp(green, "UTF8") == 0 && strcmp(blue, "SQL_ASCII") != 0;
    bool unsure = strcmp(blue, "SQL_ASCII") == 0 || strcmp(green, "SQL_ASCII") == 0;
    finding_add(f,
                takes_all ? SEVERITY_INFO
                : unsure  ? SEVERITY_WARNING
                          : SEVERITY_ERROR,
                "database.encoding", "green", "Blue's encoding is %s, green's is %s%s.", blue,
                green,
                takes_all ? ", which holds every character of it"
                : unsure  ? ": what is not plain ASCII may be refused or change its meaning"
                          : ", which cannot hold all of its characters");
    if (!takes_all)
        finding_fix(f, "CREATE DATABASE %s ENCODING '%s' TEMPLATE template0; (on green, anew)",
                    b->green.database, blue);
}

static bool differs(const PGresult *a, const PGresult *b, int column)
{
    return strcmp(PQgetvalue(a, 0, column), PQgetvalue(b, 0, column)) != 0;
}

static void check_collation(struct both *b, const PGresult *blue, const PGresult *green)
{
    struct findings *f = b->green.findings;
    if (differs(blue, green, DB_COLLATE) || differs(blue, green, DB_CTYPE) ||
        differs(blue, green, DB_PROVIDER) || differs(blue, green, DB_LOCALE)) {
        finding_add(
            f, SEVERITY_WARNING, "database.collation", "green",
            "Blue's locale is %s/%s%s%s (provider %s), green's %s/%s%s%s (provider %s): "
            "texts sort differently, and a range or unique index may mean something "
            "else.",
            PQgetvalue(blue, 0, DB_COLLATE), PQgetvalue(blue, 0, DB_CTYPE),
            PQgetisnull(blue, 0, DB_LOCALE) ? "" : "/", PQgetvalue(blue, 0, DB_LOCALE),
            PQgetvalue(blue, 0, DB_PROVIDER), PQgetvalue(green, 0, DB_COLLATE),
            PQgetvalue(green, 0, DB_CTYPE), PQgetisnull(green, 0, DB_LOCALE) ? "" : "/",
            PQgetvalue(green, 0, DB_LOCALE), PQgetvalue(green, 0, DB_PROVIDER));
        finding_fix(f,
                    "CREATE DATABASE %s LC_COLLATE '%s' LC_CTYPE '%s' TEMPLATE template0; "
                    "(on green, anew)",
                    b->green.database, PQgetvalue(blue, 0, DB_COLLATE),
                    PQgetvalue(blue, 0, DB_CTYPE));
    } else if (!PQgetisnull(blue, 0, DB_VERSION) && !PQgetisnull(green, 0, DB_VERSION) &&
               differs(blue, green, DB_VERSION)) {
        finding_add(f, SEVERITY_INFO, "database.collation_version", "green",
                    "The collation's version is %s on blue and %s on green: some texts may "
                    "sort differently. Green's indexes are built there and are right.",
                    PQgetvalue(blue, 0, DB_VERSION), PQgetvalue(green, 0, DB_VERSION));
    }
}

static bool check_database(struct both *b, struct error *err)
{
    struct findings *f = b->green.findings;
    cleanup_with(pg_result_drop) PGresult *blue = NULL;
    cleanup_with(pg_result_drop) PGresult *green = NULL;
    TRY(ask_database(&b->blue, &blue, err));
    TRY(ask_database(&b->green, &green, err));
    if (PQntuples(blue) != 1 || PQntuples(green) != 1)
        return true;
    check_encoding(b, PQgetvalue(blue, 0, DB_ENCODING), PQgetvalue(green, 0, DB_ENCODING));
    check_collation(b, blue, green);
    if (!PQgetisnull(blue, 0, DB_ID) && !differs(blue, green, DB_ID) &&
        !differs(blue, green, DB_NAME)) {
        finding_add(f, SEVERITY_ERROR, "database.same", "green",
                    "Blue and green are the same database, or copies of one cluster.");
        finding_fix(f, "[green] uri: name another database");
    }
    if (survey_major(&b->green) < survey_major(&b->blue))
        finding_add(f, SEVERITY_WARNING, "server.version", "green",
                    "Green is PostgreSQL %d, older than blue's %d: it may lack what blue's "
                    "schema uses.",
                    survey_major(&b->green), survey_major(&b->blue));
    return true;
}

static bool find_text(const PGresult *res, int column, const char *text)
{
    for (int i = 0; i < PQntuples(res); i++)
        if (strcmp(PQgetvalue(res, i, column), text) == 0)
            return true;
    return false;
}

static void check_extension(struct both *b, const PGresult *blue, int at, const PGresult *green)
{
    struct survey *s = &b->green;
    const char *name = PQgetvalue(blue, at, 0);
    const char *quoted = PQgetvalue(blue, at, 2);
    int found = 0;
    while (found < PQntuples(green) && strcmp(PQgetvalue(green, found, 0), name) != 0)
        found++;
    if (found == PQntuples(green)) {
        finding_add(s->findings, if_copied(b), "extension.missing", name,
                    "Blue uses this extension; green's server does not offer it.");
        finding_fix(s->findings, "install the extension's package for PostgreSQL %d on green",
                    survey_major(s));
        return;
    }
    if (PQgetisnull(green, found, 1)) {
        bool may = s->superuser || pg_bool(green, found, 2);
        if (may && s->options->schema_mode == SCHEMA_COPY)
            return; /* The copied schema makes it. */
        finding_add(
            s->findings, may ? SEVERITY_WARNING : if_copied(b), "extension.not_installed", name,
            "Blue uses this extension; green offers it, but does not have it yet%s.",
            may ? "" : findings_text(s->findings, ", and role %s may not create it", s->role));
        finding_fix(s->findings, "CREATE EXTENSION %s; (on green)", quoted);
    } else if (strcmp(PQgetvalue(green, found, 1), PQgetvalue(blue, at, 1)) != 0) {
        finding_add(s->findings, SEVERITY_INFO, "extension.version", name,
                    "Version %s on blue, %s on green.", PQgetvalue(blue, at, 1),
                    PQgetvalue(green, found, 1));
    }
}

static bool check_extensions(struct both *b, struct error *err)
{
    const char *trusted = b->green.version >= 130000
                              ? "coalesce((select v.trusted from "
                                "pg_available_extension_versions v where v.name = "
                                "a.name and v.version = a.default_version), false)"
                              : "false";
    const char *available =
        findings_text(b->green.findings,
                      "select a.name, a.installed_version, %s and "
                      "has_database_privilege(current_database(), 'CREATE') "
                      "from pg_available_extensions a",
                      trusted);
    cleanup_with(pg_result_drop) PGresult *blue = NULL;
    cleanup_with(pg_result_drop) PGresult *green = NULL;
    TRY(survey_ask(&b->blue,
                   "select extname, extversion, quote_ident(extname) from pg_extension "
                   "where extname <> 'plpgsql' order by 1",
                   NULL, &blue, err));
    TRY(survey_ask(&b->green, available, NULL, &green, err));
    if (green == NULL)
        return true;
    for (int i = 0; i < PQntuples(blue); i++)
        check_extension(b, blue, i, green);
    return true;
}

/* The copy makes blue's tables in schemas that green has already, public above all. */
static bool check_schemas(struct both *b, struct error *err)
{
    struct survey *s = &b->green;
    cleanup_with(pg_result_drop) PGresult *blue = NULL;
    cleanup_with(pg_result_drop) PGresult *green = NULL;
    if (b->resumes || s->options->schema_mode != SCHEMA_COPY)
        return true;
    TRY(survey_ask(&b->blue,
                   "select distinct n.nspname from pg_class c join pg_namespace n on n.oid = "
                   "c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'S') and n.nspname "
                   "!~ '^pg_' and n.nspname not in ('information_schema', 'teal')",
                   NULL, &blue, err));
    TRY(survey_ask(s,
                   "select nspname, quote_ident(nspname) from pg_namespace "
                   "where not has_schema_privilege(oid, 'CREATE') order by 1",
                   NULL, &green, err));
    for (int i = 0; i < PQntuples(green); i++) {
        if (!find_text(blue, 0, PQgetvalue(green, i, 0)))
            continue;
        finding_add(s->findings, SEVERITY_ERROR, "role.schema_create", PQgetvalue(green, i, 0),
                    "Role %s may not create tables in this schema of green.", s->role);
        finding_fix(s->findings, "GRANT CREATE, USAGE ON SCHEMA %s TO %s; (on green)",
                    PQgetvalue(green, i, 1), s->role);
    }
    return true;
}

/* Roles that own something in blue's database, or are granted something there. */
static const char roles_sql[] =
    "with here as (select relowner as owner, relacl as acl from pg_class c join pg_namespace n "
    "on n.oid = c.relnamespace where n.nspname !~ '^pg_' and n.nspname not in "
    "('information_schema', 'teal') union all "
    "select nspowner, nspacl from pg_namespace where nspname !~ '^pg_' and nspname not in "
    "('information_schema', 'teal') union all "
    "select proowner, proacl from pg_proc p join pg_namespace n on n.oid = p.pronamespace "
    "where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' union all "
    "select typowner, typacl from pg_type t join pg_namespace n on n.oid = t.typnamespace "
    "where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'teal')) "
    "select r.rolname, quote_ident(r.rolname), bool_or(x.owns), r.rolcanlogin, "
    "r.rolname = current_user from (select owner as who, true as owns from here union all "
    "select e.grantee, false from here, aclexplode(here.acl) e) x "
    "join pg_roles r on r.oid = x.who where r.rolname !~ '^pg_' "
    "group by 1, 2, 4, 5 order by 1";

static bool check_roles(struct both *b, struct error *err)
{
    struct survey *s = &b->green;
    cleanup_with(pg_result_drop) PGresult *blue = NULL;
    cleanup_with(pg_result_drop) PGresult *green = NULL;
    TRY(survey_ask(&b->blue, roles_sql, NULL, &blue, err));
    TRY(survey_ask(s, "select rolname, pg_has_role(oid, 'member') from pg_roles", NULL, &green,
                   err));
    if (green == NULL)
        return true;
    for (int i = 0; i < PQntuples(blue); i++) {
        const char *name = PQgetvalue(blue, i, 0);
        bool owns = pg_bool(blue, i, 2);
        if (find_text(green, 0, name))
            continue;
        /* Grants to the role that teal itself uses on blue mean nothing on green. */
        bool ours = pg_bool(blue, i, 4) && !owns;
        finding_add(s->findings, ours ? SEVERITY_INFO : if_copied(b), "role.missing", name,
                    "On blue this role %s; green does not have it.",
                    owns ? "owns objects" : "is granted rights on objects");
        finding_fix(s->findings, "CREATE ROLE %s%s; (on green)", PQgetvalue(blue, i, 1),
                    pg_bool(blue, i, 3) ? " LOGIN" : "");
    }
    for (int i = 0; i < PQntuples(blue); i++) {
        for (int g = 0; pg_bool(blue, i, 2) && g < PQntuples(green); g++) {
            if (strcmp(PQgetvalue(green, g, 0), PQgetvalue(blue, i, 0)) != 0 ||
                pg_bool(green, g, 1))
                continue;
            finding_add(s->findings, SEVERITY_WARNING, "role.not_member",
                        PQgetvalue(blue, i, 0),
                        "Role %s is not a member of this role, which owns objects on blue: on "
                        "green teal cannot give it the same.",
                        s->role);
            finding_fix(s->findings, "GRANT %s TO %s; (on green)", PQgetvalue(blue, i, 1),
                        s->role);
        }
    }
    return true;
}

static bool check_tablespaces(struct both *b, struct error *err)
{
    static const char used_sql[] =
        "select distinct t.spcname, quote_ident(t.spcname), pg_tablespace_location(t.oid) "
        "from pg_class c join pg_tablespace t on t.oid = c.reltablespace "
        "join pg_namespace n on n.oid = c.relnamespace where n.nspname !~ '^pg_' "
        "and t.spcname !~ '^pg_' order by 1";
    struct survey *s = &b->green;
    cleanup_with(pg_result_drop) PGresult *blue = NULL;
    cleanup_with(pg_result_drop) PGresult *green = NULL;
    TRY(survey_ask(&b->blue, used_sql, NULL, &blue, err));
    if (PQntuples(blue) == 0)
        return true;
    TRY(survey_ask(s, "select spcname from pg_tablespace", NULL, &green, err));
    for (int i = 0; i < PQntuples(blue); i++) {
        if (green == NULL || find_text(green, 0, PQgetvalue(blue, i, 0)))
            continue;
        finding_add(
            s->findings, if_copied(b), "tablespace.missing", PQgetvalue(blue, i, 0),
            "Tables or indexes of blue are in this tablespace; green does not have it.");
        finding_fix(s->findings, "CREATE TABLESPACE %s LOCATION '%s'; (on green)",
                    PQgetvalue(blue, i, 1), PQgetvalue(blue, i, 2));
    }
    return true;
}

/* ---- the program that copies the schema ---- */

static void check_dump_program(struct both *b)
{
    struct findings *f = b->green.findings;
    int blue = survey_major(&b->blue);
    int green = survey_major(&b->green);
    int newer = blue > green ? blue : green;
    if (b->green.options->schema_mode != SCHEMA_COPY)
        return;
    struct dump_program found;
    dump_program_find(b->green.options->pg_dump, newer, &found);
    if (found.major >= newer)
        return;
    if (found.major == 0)
        finding_add(f, SEVERITY_ERROR, "schema.pg_dump_missing", "pg_dump",
                    "pg_dump, which copies the schema, was not found%s%s.",
                    b->green.options->pg_dump == NULL ? "" : " where [schema] pg-dump says: ",
                    b->green.options->pg_dump == NULL ? "" : b->green.options->pg_dump);
    else
        finding_add(
            f, found.major < blue ? SEVERITY_ERROR : SEVERITY_WARNING,
            found.major < blue ? "schema.pg_dump_missing" : "schema.pg_dump_old", "pg_dump",
            "%s is of version %d; %s", found.path, found.major,
            found.major < blue
                ? findings_text(f, "blue is PostgreSQL %d, which it refuses to read.", blue)
                : findings_text(f,
                                "green is PostgreSQL %d, for which a newer one "
                                "writes better.",
                                green));
    finding_fix(f, "install postgresql-client-%d here, or name it in [schema] pg-dump", newer);
}

/* ---- all ---- */

static bool compare(struct both *b, struct error *err)
{
    TRY(survey_open(&b->blue, &b->blue.options->blue, err));
    TRY(check_database(b, err));
    TRY(check_extensions(b, err));
    TRY(check_schemas(b, err));
    TRY(check_roles(b, err));
    TRY(check_tablespaces(b, err));
    check_dump_program(b);
    return inspect_shapes(&b->blue, &b->green, b->resumes, err);
}

static bool inspect(struct both *b, struct error *err)
{
    const struct options *o = b->green.options;
    TRY(survey_open(&b->green, &o->green, err));
    TRY(survey_common(&b->green, o->copy_jobs + o->lanes + 4, err));
    TRY(check_settings(&b->green, err));
    TRY(check_event_triggers(b, err));
    TRY(find_checkpoint(b, err));
    return strcmp(o->blue.scheme, o->green.scheme) == 0 ? compare(b, err) : true;
}

bool pg_inspect_target(const struct options *o, struct findings *f, struct error *err)
{
    struct both b = {
        .blue = {.options = o, .findings = f, .side = "blue"},
        .green = {.options = o, .findings = f, .side = "green"},
    };
    bool ok = inspect(&b, err);
    survey_close(&b.blue);
    survey_close(&b.green);
    return ok;
}
