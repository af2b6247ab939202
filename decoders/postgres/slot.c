#include "decoders/postgres/slot.h"

#include <stdio.h>

bool slot_lost_hint(const char *slot, struct error *err)
{
    return error_hint(err,
                      "The changes since then can no longer be had. Start over: teal finish, "
                      "empty the target's tables, teal run. (slot %s)",
                      slot);
}

bool slot_reaches_back(PGconn *pg, const char *slot, uint64_t from, struct error *err)
{
    char sql[256];
    (void)snprintf(sql, sizeof sql,
                   "select confirmed_flush_lsn, pg_current_wal_flush_lsn() from "
                   "pg_replication_slots where slot_name = '%s'",
                   slot);
    /* Walsenders take only the simple protocol. */
    cleanup_with(pg_result_drop) PGresult *res = PQexec(pg, sql);
    if (PQresultStatus(res) != PGRES_TUPLES_OK)
        return pg_failed(pg, res, err);
    char shown[20];
    pg_lsn_text(from, shown);
    if (PQntuples(res) == 0) {
        error_set(err, ERROR_LOST,
                  "replication slot %s is gone from the source; the last position held is %s",
                  slot, shown);
        return slot_lost_hint(slot, err);
    }
    uint64_t confirmed = 0;
    uint64_t end = 0;
    if ((!PQgetisnull(res, 0, 0) && !pg_lsn_parse(PQgetvalue(res, 0, 0), &confirmed)) ||
        !pg_lsn_parse(PQgetvalue(res, 0, 1), &end))
        return error_set(err, ERROR_DATA, "slot %s: its position cannot be read", slot);
    if (confirmed > from) {
        error_set(err, ERROR_LOST,
                  "slot %s was confirmed up to %s, but only what lies before %s is held here",
                  slot, PQgetvalue(res, 0, 0), shown);
        return slot_lost_hint(slot, err);
    }
    if (end < from) {
        error_set(err, ERROR_LOST,
                  "the source's log ends at %s, before %s, which was already received from it: "
                  "it was restored or failed over, and has lost transactions",
                  PQgetvalue(res, 0, 1), shown);
        return slot_lost_hint(slot, err);
    }
    return true;
}

bool slot_is_free(PGconn *pg, const char *slot, struct error *err)
{
    const char *values[] = {slot};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(pg,
                 "select active_pid from pg_replication_slots where slot_name = $1 and active",
                 1, values, &res, err));
    return PQntuples(res) == 0 ||
           error_set(
               err, ERROR_FENCED,
               "another engine receives from replication slot %s (the source's process %s)",
               slot, PQgetvalue(res, 0, 0));
}
