#include "engine/postgres/survey.h"

#include <stdlib.h>

/* ---- the connection ---- */

enum { CONNECT_SECONDS = 10 };

static const char who_sql[] =
    "select quote_ident(current_user), quote_ident(current_database()), "
    "(select rolsuper from pg_roles where rolname = current_user)";

bool survey_open(struct survey *s, const struct endpoint *endpoint, struct error *err)
{
    if (!pg_connect(endpoint->conninfo, PG_QUERY, s->options->name, CONNECT_SECONDS, &s->pg,
                    err))
        return error_wrap(err, "%s (%s)", s->side, endpoint->shown);
    s->version = PQserverVersion(s->pg);
    /* A check must not wait behind somebody's lock: the question then fails and says so. */
    TRY(pg_execute(s->pg, "set lock_timeout = '5s'", err));
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(s->pg, who_sql, 0, NULL, &res, err));
    s->role = findings_text(s->findings, "%s", PQgetvalue(res, 0, 0));
    s->database = findings_text(s->findings, "%s", PQgetvalue(res, 0, 1));
    s->superuser = pg_bool(res, 0, 2);
    return true;
}

void survey_close(struct survey *s) { pg_close(&s->pg); }

bool survey_ask(struct survey *s, const char *sql, const char *const *values, PGresult **out,
                struct error *err)
{
    int count = 0;
    while (values != NULL && values[count] != NULL)
        count++;
    *out = NULL;
    if (pg_query(s->pg, sql, count, values, out, err))
        return true;
    if (PQstatus(s->pg) == CONNECTION_BAD)
        return error_wrap(err, "%s", s->side);
    finding_add(s->findings, SEVERITY_ERROR, "check.incomplete", s->side,
                "A question was not answered, so that nothing is known about it: %s",
                err->text);
    error_clear(err);
    return true;
}

/* ---- checks ---- */

/* What libpq took for the name of the machine: a folder is a Unix socket. */
static bool is_local(const char *host)
{
    return host == NULL || host[0] == '\0' || host[0] == '/' || host[0] == '@' ||
           strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "::1") == 0;
}

static void check_encryption(struct survey *s)
{
    if (is_local(PQhost(s->pg)))
        return;
    if (!PQsslInUse(s->pg)) {
        finding_add(s->findings, SEVERITY_WARNING, "connection.not_encrypted", s->side,
                    "Rows and perhaps the password travel to %s unencrypted.", PQhost(s->pg));
        finding_fix(s->findings, "[%s] uri: add sslmode=verify-full", s->side);
        return;
    }
    PQconninfoOption *all = PQconninfo(s->pg);
    for (PQconninfoOption *o = all; o != NULL && o->keyword != NULL; o++) {
        if (strcmp(o->keyword, "sslmode") != 0 || o->val == NULL ||
            strncmp(o->val, "verify-", strlen("verify-")) == 0)
            continue;
        finding_add(s->findings, SEVERITY_WARNING, "connection.server_not_verified", s->side,
                    "The connection to %s is encrypted, but sslmode=%s does not prove who "
                    "answers%s.",
                    PQhost(s->pg), o->val,
                    strcmp(o->val, "require") == 0 ? "" : " and may fall back to plain text");
        finding_fix(s->findings, "[%s] uri: sslmode=verify-full (with sslrootcert)", s->side);
    }
    PQconninfoFree(all);
}

static const char state_sql[] =
    "select pg_is_in_recovery(), "
    "(select setting from pg_settings where name = 'max_connections')::bigint - "
    "case when $1 then 0 else "
    "(select sum(setting::bigint) from pg_settings where name in "
    "('superuser_reserved_connections', 'reserved_connections')) end - "
    "(select count(*) from pg_stat_get_activity(null) a where a.datid is not null), "
    "case when r.rolconnlimit < 0 or r.rolsuper then null else r.rolconnlimit - "
    "(select count(*) from pg_stat_activity where usename = current_user) end, "
    "case when d.datconnlimit < 0 or r.rolsuper then null else d.datconnlimit - "
    "(select count(*) from pg_stat_activity where datname = current_database()) end "
    "from pg_roles r, pg_database d "
    "where r.rolname = current_user and d.datname = current_database()";

struct limit {
    int column;
    const char *what;
    const char *fix;
};

static void check_limits(struct survey *s, const PGresult *res, uint64_t wanted)
{
    const struct limit limits[] = {
        {1, "the server",
         "lower [copy] jobs or [apply] lanes, or: ALTER SYSTEM SET max_connections = …; "
         "(restart)"},
        {2, "the role",
         findings_text(s->findings, "ALTER ROLE %s CONNECTION LIMIT -1;", s->role)},
        {3, "the database",
         findings_text(s->findings, "ALTER DATABASE %s CONNECTION LIMIT -1;", s->database)},
    };
    for (size_t i = 0; i < array_count(limits); i++) {
        if (PQgetisnull(res, 0, limits[i].column))
            continue;
        long long left = strtoll(PQgetvalue(res, 0, limits[i].column), NULL, 10);
        if (left >= (long long)wanted)
            continue;
        finding_add(s->findings, SEVERITY_ERROR, "server.connections", s->side,
                    "teal needs %llu connections, but %s has room for %lld more.",
                    (unsigned long long)wanted, limits[i].what, left < 0 ? 0 : left);
        finding_fix(s->findings, "%s", limits[i].fix);
    }
}

static const char role_settings_sql[] =
    "select string_agg(distinct split_part(x, '=', 1), ', ' order by split_part(x, '=', 1)) "
    "from pg_db_role_setting s, unnest(s.setconfig) x "
    "where s.setrole in (0, (select oid from pg_roles where rolname = current_user)) "
    "and s.setdatabase in (0, (select oid from pg_database where datname = "
    "current_database())) "
    "and x ~ '^(statement_timeout|lock_timeout|idle_in_transaction_session_timeout|"
    "idle_session_timeout|transaction_timeout|default_transaction_read_only|"
    "default_transaction_isolation|datestyle|intervalstyle|timezone|bytea_output|"
    "extra_float_digits|search_path)=' having count(*) > 0";

static bool check_role_settings(struct survey *s, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, role_settings_sql, NULL, &res, err));
    if (PQntuples(res) == 1)
        finding_add(s->findings, SEVERITY_INFO, "role.settings", s->side,
                    "Role or database set %s; teal's own connections pin these to what it "
                    "needs, so that they do not matter to it.",
                    PQgetvalue(res, 0, 0));
    return true;
}

bool survey_common(struct survey *s, uint64_t wanted, struct error *err)
{
    check_encryption(s);
    const char *values[] = {s->superuser ? "t" : "f", NULL};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, state_sql, values, &res, err));
    if (PQntuples(res) == 1) {
        if (pg_bool(res, 0, 0)) {
            finding_add(s->findings, SEVERITY_ERROR, "server.in_recovery", s->side,
                        "The server is a standby: teal writes to both sides.");
            finding_fix(s->findings,
                        "[%s] uri: name the primary (several hosts and "
                        "target_session_attrs=read-write follow a failover)",
                        s->side);
        }
        check_limits(s, res, wanted);
    }
    return check_role_settings(s, err);
}

bool survey_replica_role(struct survey *s, enum severity severity, const char *why,
                         struct error *err)
{
    if (pg_execute(s->pg, "set session_replication_role = replica", err))
        return pg_execute(s->pg, "reset session_replication_role", err);
    if (PQstatus(s->pg) == CONNECTION_BAD)
        return error_wrap(err, "%s", s->side);
    error_clear(err);
    finding_add(s->findings, severity, "role.session_replication_role", s->side,
                "Role %s may not set session_replication_role, which keeps triggers and "
                "foreign keys from acting a second time%s.",
                s->role, why);
    if (s->version >= 150000)
        finding_fix(s->findings, "GRANT SET ON PARAMETER session_replication_role TO %s;",
                    s->role);
    else
        finding_fix(s->findings,
                    "ALTER ROLE %s SUPERUSER; (PostgreSQL 15 and newer can grant "
                    "the parameter alone)",
                    s->role);
    return true;
}
