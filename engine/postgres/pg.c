#include "engine/postgres/pg.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/clock.h"

/* What changes the look of values or may cut a statement short. Given at start-up, where it
 * wins over what ALTER ROLE and ALTER DATABASE say, and before the first statement runs. */
static const char startup_options[] =
    "-c datestyle=ISO,YMD -c intervalstyle=postgres -c extra_float_digits=3 -c timezone=UTC "
    "-c bytea_output=hex -c lc_monetary=C -c xmloption=content -c search_path=pg_catalog "
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 "
    "-c default_transaction_read_only=off -c default_transaction_deferrable=off "
    "-c default_transaction_isolation=read\\ committed -c standard_conforming_strings=on "
    "-c row_security=off -c wal_sender_timeout=60s -c lc_messages=C";

/* PostgreSQL 10 and 11 know wal_sender_timeout only in the configuration file; lc_messages
 * needs privileges: both are tried and, when refused, left out. */
static const char *const optional_settings[] = {
    "set idle_session_timeout = 0",
    "set transaction_timeout = 0",
    "set jit = off",
};

static const char *const apply_settings[] = {
    "set synchronous_commit = off",
    "set check_function_bodies = off",
    "set max_parallel_workers_per_gather = 0",
    "set plan_cache_mode = force_generic_plan",
    "set enable_hashjoin = off",
    "set enable_mergejoin = off",
    "set enable_seqscan = off",
};

/* What is noted of the copy, a claim, a barrier: a crash of the server must not take it back.
 */
static const char *const other_settings[] = {
    "set synchronous_commit = on",
    "set check_function_bodies = off",
};

void pg_result_drop(PGresult **res)
{
    PQclear(*res);
    *res = NULL;
}

void pg_close(PGconn **pg)
{
    PQfinish(*pg);
    *pg = NULL;
}

/* ---- errors ---- */

struct sqlstate_kind {
    const char *prefix;
    enum error_kind kind;
};

/* The first prefix that matches decides. */
static const struct sqlstate_kind kinds[] = {
    {"08", ERROR_RETRY},      {"40", ERROR_RETRY},     {"53", ERROR_RETRY},
    {"55006", ERROR_RETRY},   {"55P03", ERROR_RETRY},  {"57", ERROR_RETRY},
    {"25006", ERROR_RETRY},   {"58", ERROR_RETRY},     {"22", ERROR_CONFLICT},
    {"23", ERROR_CONFLICT},   {"42501", ERROR_CONFIG}, {"42", ERROR_SCHEMA},
    {"0A000", ERROR_SCHEMA},  {"26000", ERROR_SCHEMA}, {"28", ERROR_CONNECT},
    {"3D000", ERROR_CONNECT}, {"XX", ERROR_RETRY},
};

static enum error_kind kind_of_state(const char *sqlstate)
{
    for (size_t i = 0; i < array_count(kinds); i++)
        if (strncmp(sqlstate, kinds[i].prefix, strlen(kinds[i].prefix)) == 0)
            return kinds[i].kind;
    return ERROR_CONFIG;
}

static void copy_line(char *out, size_t size, const char *text)
{
    size_t len = strcspn(text, "\n");
    (void)snprintf(out, size, "%.*s", (int)len, text);
}

/* Class 22 quotes the value that was refused, which is a row's: from the first quote to the
 * last it is left out. */
static void copy_message(char *out, size_t size, const char *message, const char *sqlstate)
{
    (void)snprintf(out, size, "%s", message == NULL ? "error" : message);
    char *from = strncmp(sqlstate, "22", 2) == 0 ? strchr(out, '"') : NULL;
    if (from == NULL)
        return;
    const char *rest = strrchr(out, '"') + 1;
    size_t len = strlen(rest);
    memmove(from, rest, len + 1);
    while (len == 0 && from > out && strchr(": ", from[-1]) != NULL)
        *--from = '\0';
}

bool pg_failed(PGconn *pg, const PGresult *res, struct error *err)
{
    const char *sqlstate = res == NULL ? NULL : PQresultErrorField(res, PG_DIAG_SQLSTATE);
    if (sqlstate == NULL) {
        char line[ERROR_TEXT_MAX];
        copy_line(line, sizeof line, PQerrorMessage(pg));
        return error_set(err, ERROR_RETRY, "%s",
                         line[0] == '\0' ? "the connection was lost" : line);
    }
    char message[ERROR_TEXT_MAX];
    copy_message(message, sizeof message, PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY),
                 sqlstate);
    const char *detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
    bool detail_holds_values = sqlstate[0] == '2';
    (void)error_set(err, kind_of_state(sqlstate), "%s%s%s (SQLSTATE %s)", message,
                    detail == NULL || detail_holds_values ? "" : ": ",
                    detail == NULL || detail_holds_values ? "" : detail, sqlstate);
    (void)snprintf(err->sqlstate, sizeof err->sqlstate, "%s", sqlstate);
    const char *schema = PQresultErrorField(res, PG_DIAG_SCHEMA_NAME);
    if (strcmp(sqlstate, "23505") == 0 && schema != NULL && strcmp(schema, "pg_catalog") == 0)
        err->kind = ERROR_RETRY; /* Somebody made the same object at the same moment. */
    if (strcmp(sqlstate, "42501") == 0 && PQuser(pg) != NULL)
        (void)error_hint(err,
                         "Grant it to role %s; for a table: GRANT SELECT, INSERT, UPDATE, "
                         "DELETE, TRUNCATE ON <table> TO %s;",
                         PQuser(pg), PQuser(pg));
    return false;
}

/* ---- connecting ---- */

/* libpq keeps the SQLSTATE of a refused login to itself, but prints it when asked to be
 * verbose: "FATAL:  28P01: password authentication failed…". */
static void find_sqlstate(const char *message, char *sqlstate)
{
    const char *at = strstr(message, "FATAL:  ");
    sqlstate[0] = '\0';
    if (at == NULL)
        return;
    at += strlen("FATAL:  ");
    if (strspn(at, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && at[5] == ':') {
        memcpy(sqlstate, at, 5);
        sqlstate[5] = '\0';
    }
}

/* Failures that libpq finds by itself and that no waiting mends. */
static bool is_lasting(const char *message)
{
    static const char *const lasting[] = {
        "server does not support SSL",
        "certificate",
        "no password supplied",
        "could not translate host name",
        "invalid connection option",
        "invalid URI",
        "GSSAPI encryption required",
        "root.crt",
        "invalid sslmode",
    };
    for (size_t i = 0; i < array_count(lasting); i++)
        if (strstr(message, lasting[i]) != NULL)
            return true;
    return false;
}

static bool connect_failed(PGconn *pg, struct error *err)
{
    char sqlstate[6];
    char line[ERROR_TEXT_MAX];
    const char *message = PQerrorMessage(pg);
    find_sqlstate(message, sqlstate);
    copy_line(line, sizeof line, message);
    enum error_kind kind = sqlstate[0] != '\0'   ? kind_of_state(sqlstate)
                           : is_lasting(message) ? ERROR_CONNECT
                                                 : ERROR_RETRY;
    bool denied = strcmp(sqlstate, "42501") == 0;
    if (!denied && (kind == ERROR_CONFIG || kind == ERROR_SCHEMA))
        kind = ERROR_CONNECT;
    (void)error_set(err, kind, "cannot connect: %s", line);
    memcpy(err->sqlstate, sqlstate, sizeof sqlstate);
    if (denied && strstr(line, "permission denied for database") != NULL)
        return error_hint(err, "GRANT CONNECT ON DATABASE %s TO %s;", PQdb(pg), PQuser(pg));
    if (denied)
        return error_hint(err, "ALTER ROLE %s REPLICATION;", PQuser(pg));
    return false;
}

static bool wait_connected(PGconn *pg, int timeout_s, struct error *err)
{
    int64_t deadline = clock_mono_us() + (int64_t)timeout_s * 1000000;
    PostgresPollingStatusType want = PGRES_POLLING_WRITING;
    while (want == PGRES_POLLING_READING || want == PGRES_POLLING_WRITING) {
        int64_t left_ms = (deadline - clock_mono_us()) / 1000;
        if (left_ms <= 0)
            return error_set(err, ERROR_RETRY, "cannot connect: no answer from %s within %d s",
                             PQhost(pg) == NULL ? "the server" : PQhost(pg), timeout_s);
        struct pollfd p = {.fd = PQsocket(pg),
                           .events = want == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        (void)poll(&p, 1, left_ms > 1000 ? 1000 : (int)left_ms);
        if (p.revents != 0)
            want = PQconnectPoll(pg);
    }
    if (want != PGRES_POLLING_OK)
        return connect_failed(pg, err);
    return true;
}

/* A setting that older servers do not know is skipped. */
static bool settle(PGconn *pg, const char *const *settings, size_t count, bool optional,
                   struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        cleanup_with(pg_result_drop) PGresult *res = PQexec(pg, settings[i]);
        if (PQresultStatus(res) == PGRES_COMMAND_OK)
            continue;
        const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
        bool unknown = state != NULL && strcmp(state, "42704") == 0;
        if (!unknown && !optional)
            return pg_failed(pg, res, err) || error_wrap(err, "%s", settings[i]);
    }
    return true;
}

static bool become_replica(PGconn *pg, struct error *err)
{
    if (pg_execute(pg, "set session_replication_role = replica", err))
        return true;
    if (strcmp(err->sqlstate, "42501") == 0)
        (void)error_hint(
            err,
            "teal applies changes with triggers and foreign keys off. On green, as "
            "a superuser: GRANT SET ON PARAMETER session_replication_role TO %s "
            "(PostgreSQL 15 and newer; before that the role must be a superuser)",
            PQuser(pg));
    return error_wrap(err, "set session_replication_role");
}

static bool settle_use(PGconn *pg, enum pg_use use, struct error *err)
{
    if (strcmp(PQparameterStatus(pg, "server_encoding"), "SQL_ASCII") == 0)
        TRY(pg_execute(pg, "set client_encoding = 'SQL_ASCII'", err));
    TRY(settle(pg, optional_settings, array_count(optional_settings), true, err));
    if (use == PG_APPLY) {
        TRY(settle(pg, apply_settings, array_count(apply_settings), false, err));
        return become_replica(pg, err);
    }
    return settle(pg, other_settings, use == PG_COPY ? 2 : 1, false, err);
}

/* Notices are for people at a terminal. */
static void drop_notice(void *context, const PGresult *res)
{
    (void)context;
    (void)res;
}

static PGconn *start(const char *conninfo, enum pg_use use, const char *name,
                     const char *options)
{
    char application[64];
    (void)snprintf(application, sizeof application, "teal %s", name);
    const char *keys[] = {"dbname",           "application_name",
                          "client_encoding",  "options",
                          "keepalives_idle",  "keepalives_interval",
                          "keepalives_count", "tcp_user_timeout",
                          "replication",      NULL};
    const char *values[] = {conninfo, application, "UTF8",
                            options,  "10",        "5",
                            "3",      "30000",     use == PG_REPLICATION ? "database" : NULL,
                            NULL};
    PGconn *pg = PQconnectStartParams(keys, values, 1);
    check(pg != NULL);
    (void)PQsetErrorVerbosity(pg, PQERRORS_VERBOSE);
    (void)PQsetNoticeReceiver(pg, drop_notice, NULL);
    return pg;
}

/* Settings that some servers refuse at start-up stand last in startup_options, so that cutting
 * the text there leaves the rest. */
static bool refused_setting(const struct error *err)
{
    return strstr(err->text, "wal_sender_timeout") != NULL ||
           strstr(err->text, "lc_messages") != NULL;
}

bool pg_connect(const char *conninfo, enum pg_use use, const char *name, int timeout_s,
                PGconn **out, struct error *err)
{
    char options[sizeof startup_options];
    memcpy(options, startup_options, sizeof options);
    static const char *const cuts[] = {NULL, " -c lc_messages", " -c wal_sender_timeout"};
    for (size_t attempt = 0; attempt < array_count(cuts); attempt++) {
        if (cuts[attempt] != NULL)
            *strstr(options, cuts[attempt]) = '\0';
        cleanup_with(pg_close) PGconn *pg = start(conninfo, use, name, options);
        if (PQstatus(pg) == CONNECTION_BAD ? connect_failed(pg, err)
                                           : wait_connected(pg, timeout_s, err)) {
            (void)PQsetErrorVerbosity(pg, PQERRORS_DEFAULT);
            TRY(settle_use(pg, use, err));
            *out = pg;
            pg = NULL;
            return true;
        }
        if (!refused_setting(err) || attempt + 1 == array_count(cuts))
            return false;
        error_clear(err);
    }
    return error_set(err, ERROR_RETRY, "cannot connect");
}

/* ---- asking ---- */

bool pg_query(PGconn *pg, const char *sql, int count, const char *const *values, PGresult **out,
              struct error *err)
{
    PGresult *res = PQexecParams(pg, sql, count, NULL, values, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(res);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        (void)pg_failed(pg, res, err);
        PQclear(res);
        return false;
    }
    if (out != NULL)
        *out = res;
    else
        PQclear(res);
    return true;
}

bool pg_execute(PGconn *pg, const char *sql, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = PQexec(pg, sql);
    ExecStatusType status = PQresultStatus(res);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY)
        return pg_failed(pg, res, err);
    return true;
}

uint64_t pg_u64(const PGresult *res, int row, int column)
{
    return strtoull(PQgetvalue(res, row, column), NULL, 10);
}

bool pg_bool(const PGresult *res, int row, int column)
{
    return PQgetvalue(res, row, column)[0] == 't';
}

/* ---- quoting ---- */

static void put_doubled(struct writer *w, struct bytes text, uint8_t mark)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == mark)
            writer_u8(w, mark);
        writer_u8(w, text.data[i]);
    }
}

void pg_quote_name(struct writer *w, struct bytes name)
{
    writer_u8(w, '"');
    put_doubled(w, name, '"');
    writer_u8(w, '"');
}

void pg_quote_table(struct writer *w, struct bytes schema, struct bytes name)
{
    pg_quote_name(w, schema);
    writer_u8(w, '.');
    pg_quote_name(w, name);
}

void pg_quote_literal(struct writer *w, struct bytes text)
{
    bool escaped = text.len > 0 && memchr(text.data, '\\', text.len) != NULL;
    writer_text(w, escaped ? " E'" : "'");
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '\'' || text.data[i] == '\\')
            writer_u8(w, text.data[i]);
        writer_u8(w, text.data[i]);
    }
    writer_u8(w, '\'');
}

/* ---- positions ---- */

bool pg_lsn_parse(const char *text, uint64_t *lsn)
{
    char *end;
    unsigned long long high = strtoull(text, &end, 16);
    if (end == text || *end != '/' || high > UINT32_MAX)
        return false;
    const char *low_text = end + 1;
    unsigned long long low = strtoull(low_text, &end, 16);
    if (end == low_text || *end != '\0' || low > UINT32_MAX)
        return false;
    *lsn = (uint64_t)high << 32 | low;
    return true;
}

void pg_lsn_text(uint64_t lsn, char *out)
{
    (void)snprintf(out, 20, "%X/%X", (unsigned)(lsn >> 32), (unsigned)lsn);
}
