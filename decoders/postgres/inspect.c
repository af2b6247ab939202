/* Blue as a server: settings, slots, the role's rights, who holds it up. The tables are in
 * inspect_tables.c. */
#include "decoders/postgres/inspect.h"

#include <stdlib.h>
#include <unistd.h>

#include "decoders/postgres/inspect_tables.h"
#include "engine/base/clock.h"

/* ---- the server ---- */

static void check_version(struct survey *s)
{
    /* Releases whose decoding can fail with "invalid memory alloc request size". */
    static const int faulty[] = {130021, 140018, 150013, 160009, 170005};
    struct findings *f = s->findings;
    int minor = s->version % 10000;
    if (s->version < 100000)
        finding_add(f, SEVERITY_ERROR, "server.version", s->side,
                    "PostgreSQL 10 is the oldest that can stream its changes; this is %d.%d.",
                    s->version / 10000, s->version / 100 % 100);
    else if (s->version < 110000)
        finding_add(f, SEVERITY_WARNING, "server.version", s->side,
                    "PostgreSQL 10 does not send TRUNCATE: a table truncated during the "
                    "migration keeps its rows on green.");
    for (size_t i = 0; i < array_count(faulty); i++) {
        if (s->version != faulty[i])
            continue;
        finding_add(f, SEVERITY_WARNING, "server.faulty_release", s->side,
                    "PostgreSQL %d.%d has a fault in logical decoding that can stop it with "
                    "\"invalid memory alloc request size\".",
                    survey_major(s), minor);
        finding_fix(f, "upgrade blue to %d.%d or newer", survey_major(s), minor + 1);
    }
}

static const char settings_sql[] =
    "select current_setting('wal_level'), "
    "current_setting('max_replication_slots')::bigint - "
    "(select count(*) from pg_replication_slots where slot_name <> $1), "
    "current_setting('max_wal_senders')::bigint - (select count(*) from pg_stat_replication "
    "where application_name <> $2), "
    "current_setting('max_slot_wal_keep_size', true), "
    "(select setting::bigint from pg_settings where name = 'idle_replication_slot_timeout'), "
    "(select setting::bigint from pg_settings where name = 'logical_decoding_work_mem'), "
    "(select setting::bigint from pg_settings where name = 'wal_sender_timeout'), "
    "current_setting('server_encoding'), "
    "current_setting('max_replication_slots'), current_setting('max_wal_senders')";

static void check_log(struct survey *s, const PGresult *res)
{
    struct findings *f = s->findings;
    if (strcmp(PQgetvalue(res, 0, 0), "logical") != 0) {
        finding_add(f, SEVERITY_ERROR, "server.wal_level", s->side,
                    "wal_level is %s: blue's log does not hold what replication needs.",
                    PQgetvalue(res, 0, 0));
        finding_fix(f, "ALTER SYSTEM SET wal_level = 'logical'; (restart)");
    }
    if (strtoll(PQgetvalue(res, 0, 1), NULL, 10) < 1) {
        finding_add(f, SEVERITY_ERROR, "server.replication_slots", s->side,
                    "All %s replication slots are taken; teal needs one.",
                    PQgetvalue(res, 0, 8));
        finding_fix(f, "ALTER SYSTEM SET max_replication_slots = %llu; (restart)",
                    (unsigned long long)pg_u64(res, 0, 8) + 4);
    }
    if (strtoll(PQgetvalue(res, 0, 2), NULL, 10) < 1) {
        finding_add(f, SEVERITY_ERROR, "server.wal_senders", s->side,
                    "All %s WAL senders are busy; teal needs one.", PQgetvalue(res, 0, 9));
        finding_fix(f, "ALTER SYSTEM SET max_wal_senders = %llu; (restart)",
                    (unsigned long long)pg_u64(res, 0, 9) + 4);
    }
}

static void check_retention(struct survey *s, const PGresult *res)
{
    struct findings *f = s->findings;
    const char *keep = pg_text(res, 0, 3);
    if (keep == NULL || strcmp(keep, "-1") == 0) {
        finding_add(f, SEVERITY_WARNING, "server.slot_wal_unlimited", s->side,
                    "Nothing limits the log that a slot may hold back: should teal be stopped "
                    "for long, or its spool be full, only you keep blue's disk from filling.");
        if (keep != NULL)
            finding_fix(f, "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT "
                           "pg_reload_conf(); (well below the free space of pg_wal)");
    } else {
        finding_add(f, SEVERITY_INFO, "server.slot_wal_limit", s->side,
                    "A slot may hold back at most %s of log (max_slot_wal_keep_size): blue's "
                    "disk is safe, but a teal stopped for longer than that must start again.",
                    keep);
    }
    if (!PQgetisnull(res, 0, 4) && pg_u64(res, 0, 4) > 0) {
        finding_add(f, SEVERITY_WARNING, "server.slot_idle_timeout", s->side,
                    "idle_replication_slot_timeout is %s s: blue drops the slot of a teal that "
                    "is stopped for longer, and the migration must start again.",
                    PQgetvalue(res, 0, 4));
        finding_fix(f, "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT "
                       "pg_reload_conf();");
    }
}

enum { DECODING_KIB_LOW = 65536, SENDER_TIMEOUT_MS_LOW = 10000 };

static void check_decoding(struct survey *s, const PGresult *res)
{
    struct findings *f = s->findings;
    if (!PQgetisnull(res, 0, 5) && pg_u64(res, 0, 5) < DECODING_KIB_LOW)
        finding_add(f, SEVERITY_INFO, "server.decoding_memory", s->side,
                    "logical_decoding_work_mem is %s kB: larger transactions are written to "
                    "blue's disk, or streamed before they commit, while they are decoded.",
                    PQgetvalue(res, 0, 5));
    /* From 12 on teal sets its own for its connection. */
    uint64_t timeout_ms = pg_u64(res, 0, 6);
    if (s->version < 120000 && timeout_ms > 0 && timeout_ms < SENDER_TIMEOUT_MS_LOW) {
        finding_add(f, SEVERITY_WARNING, "server.wal_sender_timeout", s->side,
                    "wal_sender_timeout is %llu ms: a short delay in the network ends the "
                    "stream.",
                    (unsigned long long)timeout_ms);
        finding_fix(f, "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();");
    }
    if (strcmp(PQgetvalue(res, 0, 7), "SQL_ASCII") == 0)
        finding_add(f, SEVERITY_WARNING, "server.sql_ascii", s->side,
                    "Blue's encoding is SQL_ASCII: its texts are bytes of unknown encoding, "
                    "which only a green of SQL_ASCII is certain to take.");
}

static bool check_settings(struct survey *s, struct error *err)
{
    const char *values[] = {findings_text(s->findings, "teal_%s", s->options->name),
                            findings_text(s->findings, "teal %s", s->options->name), NULL};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, settings_sql, values, &res, err));
    if (PQntuples(res) != 1)
        return true;
    check_log(s, res);
    check_retention(s, res);
    check_decoding(s, res);
    return true;
}

/* ---- the role ---- */

static const char role_sql[] =
    "select r.rolreplication or r.rolsuper or exists (select 1 from pg_roles m where m.rolname "
    "= 'rds_replication' and pg_has_role(m.oid, 'member')), "
    "has_database_privilege(current_database(), 'CREATE'), "
    "r.rolsuper or pg_has_role('pg_read_all_stats', 'member') "
    "from pg_roles r where r.rolname = current_user";

/* What the rights say is one thing; whether a pooler or pg_hba.conf stands between, another. */
static bool try_replication(struct survey *s, struct error *err)
{
    cleanup_with(pg_close) PGconn *walsender = NULL;
    if (pg_connect(s->options->blue.conninfo, PG_REPLICATION, s->options->name, 10, &walsender,
                   err)) {
        cleanup_with(pg_result_drop) PGresult *res = PQexec(walsender, "IDENTIFY_SYSTEM");
        if (PQresultStatus(res) == PGRES_TUPLES_OK)
            return true;
        (void)pg_failed(walsender, res, err);
    }
    finding_add(s->findings, SEVERITY_ERROR, "server.replication_connection", s->side,
                "An ordinary connection works, one for replication does not: %s", err->text);
    finding_fix(s->findings,
                "let [blue] uri name the server itself, not a pooler, and let "
                "pg_hba.conf take %s in",
                s->role);
    error_clear(err);
    return true;
}

static bool check_role(struct survey *s, struct error *err)
{
    struct findings *f = s->findings;
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, role_sql, NULL, &res, err));
    if (PQntuples(res) != 1)
        return true;
    if (!pg_bool(res, 0, 0)) {
        finding_add(f, SEVERITY_ERROR, "role.replication", s->side,
                    "Role %s may not replicate.", s->role);
        finding_fix(f, "ALTER ROLE %s REPLICATION;", s->role);
    }
    if (!pg_bool(res, 0, 1)) {
        finding_add(f, SEVERITY_ERROR, "role.create", s->side,
                    "Role %s may not create the schema teal and the publication in database "
                    "%s.",
                    s->role, s->database);
        finding_fix(f, "GRANT CREATE ON DATABASE %s TO %s;", s->database, s->role);
    }
    if (!pg_bool(res, 0, 2)) {
        finding_add(f, SEVERITY_INFO, "role.read_all_stats", s->side,
                    "Role %s does not see other roles' transactions: this check cannot tell "
                    "whether one of them will delay the start.",
                    s->role);
        finding_fix(f, "GRANT pg_read_all_stats TO %s;", s->role);
    }
    TRY(survey_replica_role(s, SEVERITY_WARNING,
                            ", when changes come back to blue after the cutover", err));
    return pg_bool(res, 0, 0) ? try_replication(s, err) : true;
}

/* ---- names that are taken ---- */

/* Ours if the schema teal has a row for this migration. */
static bool is_known(struct survey *s, const char *name, bool *known, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *there = NULL;
    *known = false;
    TRY(survey_ask(s, "select 1 where to_regclass('teal.migration') is not null", NULL, &there,
                   err));
    if (PQntuples(there) == 0)
        return true;
    const char *values[] = {name, NULL};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, "select 1 from teal.migration where name = $1", values, &res, err));
    *known = PQntuples(res) > 0;
    return true;
}

static bool check_names(struct survey *s, struct error *err)
{
    static const char taken_sql[] =
        "select 'slot', database is distinct from current_database() or "
        "plugin is distinct from 'pgoutput', format('SELECT pg_drop_replication_slot(%L);', "
        "slot_name) from pg_replication_slots where slot_name = $1 union all "
        "select 'publication', false, format('DROP PUBLICATION %I;', pubname) "
        "from pg_publication where pubname = $1";
    struct findings *f = s->findings;
    const char *name = findings_text(f, "teal_%s", s->options->name);
    const char *values[] = {name, NULL};
    bool known;
    TRY(is_known(s, s->options->name, &known, err));
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, taken_sql, values, &res, err));
    for (int i = 0; i < PQntuples(res); i++) {
        if (known && !pg_bool(res, i, 1))
            continue;
        finding_add(f, SEVERITY_ERROR, "name.taken", name,
                    "Blue has a %s of this name that does not belong to this migration.",
                    PQgetvalue(res, i, 0));
        finding_fix(f, "%s or choose another [migration] name", PQgetvalue(res, i, 2));
    }
    return true;
}

/* ---- who holds up the start ---- */

static bool check_transactions(struct survey *s, struct error *err)
{
    static const char long_sql[] =
        "select pid, coalesce(usename, '?'), coalesce(nullif(application_name, ''), '?'), "
        "extract(epoch from clock_timestamp() - xact_start)::bigint from pg_stat_activity "
        "where xact_start < clock_timestamp() - interval '1 minute' and pid <> "
        "pg_backend_pid() and backend_type = 'client backend' order by xact_start";
    static const char prepared_sql[] =
        "select gid, database, extract(epoch from clock_timestamp() - prepared)::bigint, "
        "format('ROLLBACK PREPARED %L;', gid) from pg_prepared_xacts order by prepared";
    struct findings *f = s->findings;
    cleanup_with(pg_result_drop) PGresult *open = NULL;
    TRY(survey_ask(s, long_sql, NULL, &open, err));
    for (int i = 0; i < PQntuples(open); i++) {
        finding_add(f, SEVERITY_WARNING, "transaction.long", s->side,
                    "A transaction of %s (%s, pid %s) is open for %s s: the slot, and so the "
                    "copy, cannot start before those that write have ended.",
                    PQgetvalue(open, i, 1), PQgetvalue(open, i, 2), PQgetvalue(open, i, 0),
                    PQgetvalue(open, i, 3));
        finding_fix(f, "SELECT pg_terminate_backend(%s);", PQgetvalue(open, i, 0));
    }
    cleanup_with(pg_result_drop) PGresult *prepared = NULL;
    TRY(survey_ask(s, prepared_sql, NULL, &prepared, err));
    for (int i = 0; i < PQntuples(prepared); i++) {
        finding_add(f, SEVERITY_WARNING, "transaction.prepared", PQgetvalue(prepared, i, 0),
                    "A prepared transaction (database %s) is %s s old: the slot, and so the "
                    "copy, cannot start before it has ended, and the cutover waits for it.",
                    PQgetvalue(prepared, i, 1), PQgetvalue(prepared, i, 2));
        finding_fix(f, "COMMIT PREPARED or %s", PQgetvalue(prepared, i, 3));
    }
    return true;
}

/* ---- how much it writes ---- */

enum { SAMPLE_US = 1000000 };

static bool log_place(struct survey *s, uint64_t *lsn, int64_t *at_us, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(survey_ask(s, "select pg_current_wal_insert_lsn() where not pg_is_in_recovery()", NULL,
                   &res, err));
    *at_us = clock_mono_us();
    if (PQntuples(res) != 1 || !pg_lsn_parse(PQgetvalue(res, 0, 0), lsn))
        *lsn = 0;
    return true;
}

static bool sample_log(struct survey *s, struct sizes *sizes, struct error *err)
{
    uint64_t first;
    uint64_t second;
    int64_t from_us;
    int64_t to_us;
    TRY(log_place(s, &first, &from_us, err));
    if (first == 0)
        return true;
    (void)usleep(SAMPLE_US);
    TRY(log_place(s, &second, &to_us, err));
    if (second >= first && to_us > from_us)
        sizes->wal_bytes_per_second =
            (int64_t)((double)(second - first) * 1e6 / (double)(to_us - from_us));
    return true;
}

static void note_ddl(struct survey *s)
{
    static const char *const texts[] = {
        [DDL_HALT] = "A change of a table's shape on blue halts replication until green has it "
                     "too ([ddl] policy = halt).",
        [DDL_FORWARD] =
            "Changes of tables' shapes are carried over where teal can ([ddl] policy "
            "= forward).",
        [DDL_IGNORE] = "Columns that green lacks are left out without a halt: their values are "
                       "lost on green ([ddl] policy = ignore).",
    };
    finding_add(s->findings,
                s->options->ddl_policy == DDL_IGNORE ? SEVERITY_WARNING : SEVERITY_INFO,
                "ddl.policy", s->side, "%s", texts[s->options->ddl_policy]);
}

static bool inspect(struct survey *s, struct sizes *sizes, struct error *err)
{
    /* The copy's readers, the walsender, the origin, its snapshot and a spare. */
    TRY(survey_open(s, &s->options->blue, err));
    TRY(survey_common(s, s->options->copy_jobs + 4, err));
    check_version(s);
    if (s->version < 100000)
        return true;
    TRY(check_settings(s, err));
    TRY(check_role(s, err));
    TRY(check_names(s, err));
    TRY(check_transactions(s, err));
    note_ddl(s);
    TRY(inspect_tables(s, sizes, err));
    return sample_log(s, sizes, err);
}

bool pg_inspect_source(const struct options *o, struct findings *f, struct sizes *s,
                       struct error *err)
{
    struct survey survey = {.options = o, .findings = f, .side = "blue"};
    bool ok = inspect(&survey, s, err);
    survey_close(&survey);
    return ok;
}
