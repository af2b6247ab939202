/* The target's own word on how far it is.
 *
 * The row moves in the same transaction as the rows it speaks of. The move names the seq it
 * starts from, so that of several transactions sent ahead none can commit if the one before it
 * did not; and the epoch, so that none can commit once another engine has claimed the row. A
 * move that finds nothing divides by zero, because an UPDATE of no rows is no error to a
 * server. */
#include "checkpoint/postgres.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

const char checkpoint_move_sql[] =
    "with moved as (update teal.checkpoint set seq = $5, pos = $6, commit_time_us = $7 "
    "where migration = $1 and feed = $2 and epoch = $3 and seq = $4 returning 1) "
    "select 1 / count(*) from moved";

static const char table_sql[] =
    "create schema if not exists teal;"
    "create table if not exists teal.checkpoint ("
    "  migration text not null, feed text not null, identity text not null,"
    "  epoch bigint not null, seq bigint not null, pos text not null,"
    "  commit_time_us bigint not null, primary key (migration, feed)) with (fillfactor = 20)";

static const char read_sql[] =
    "select epoch, seq, pos, commit_time_us, identity from teal.checkpoint "
    "where migration = $1 and feed = $2";

static const char claim_sql[] =
    "insert into teal.checkpoint as c (migration, feed, identity, epoch, seq, pos, "
    "commit_time_us) values ($1, $2, $3, 1, 0, $4, 0) "
    "on conflict (migration, feed) do update set epoch = c.epoch + 1 where c.identity = $3 "
    "returning epoch, seq, pos, commit_time_us, identity";

bool checkpoint_prepare(PGconn *pg, struct error *err)
{
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(pg, "select to_regclass('teal.checkpoint') is not null", 0, NULL, &res, err));
    if (pg_bool(res, 0, 0))
        return true;
    if (pg_execute(pg, table_sql, err))
        return true;
    if (err->kind == ERROR_CONFIG)
        error_hint(err, "GRANT CREATE ON DATABASE %s TO %s;", PQdb(pg), PQuser(pg));
    return error_wrap(err, "make the schema teal on the target");
}

static bool read_row(const PGresult *res, struct checkpoint *out, struct error *err)
{
    const char *pos = PQgetvalue(res, 0, 2);
    if (strlen(pos) >= POSITION_MAX)
        return error_set(err, ERROR_DATA, "teal.checkpoint holds a position that is too long");
    out->epoch = pg_u64(res, 0, 0);
    out->seq = pg_u64(res, 0, 1);
    out->pos = position_of((struct bytes){(const uint8_t *)pos, strlen(pos)});
    out->commit_time_us = (int64_t)pg_u64(res, 0, 3);
    return true;
}

static bool wrong_stream(const struct checkpoint_key *key, const char *found, struct error *err)
{
    error_set(err, ERROR_LOST,
              "the checkpoint of migration %s on the target belongs to another "
              "stream (%s) than the source's (%s)",
              key->migration, found, key->identity);
    return error_hint(err,
                      "The source's slot was made anew, or one side was exchanged. What the "
                      "target holds cannot be continued: empty it, drop its schema teal, start "
                      "again.");
}

bool checkpoint_read(PGconn *pg, const struct checkpoint_key *key, struct checkpoint *out,
                     bool *found, struct error *err)
{
    const char *values[] = {key->migration, key->feed};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    *found = false;
    if (!pg_query(pg, read_sql, 2, values, &res, err)) {
        if (strcmp(err->sqlstate, "42P01") != 0 && strcmp(err->sqlstate, "3F000") != 0)
            return error_wrap(err, "read the checkpoint");
        error_clear(err);
        return true;
    }
    if (PQntuples(res) == 0)
        return true;
    *found = true;
    TRY(read_row(res, out, err));
    if (key->identity != NULL && strcmp(PQgetvalue(res, 0, 4), key->identity) != 0)
        return wrong_stream(key, PQgetvalue(res, 0, 4), err);
    return true;
}

bool checkpoint_claim(PGconn *pg, const struct checkpoint_key *key,
                      const struct position *start, struct checkpoint *out, struct error *err)
{
    const char *values[] = {key->migration, key->feed, key->identity, start->text};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    if (!pg_query(pg, claim_sql, 4, values, &res, err))
        return error_wrap(err, "claim the checkpoint");
    if (PQntuples(res) == 1)
        return read_row(res, out, err);
    bool found;
    TRY(checkpoint_read(pg, key, out, &found, err)); /* Fails: it is another stream's. */
    return error_set(err, ERROR_RETRY, "the checkpoint changed while it was claimed");
}
