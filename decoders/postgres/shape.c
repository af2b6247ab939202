#include "decoders/postgres/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { C_SCHEMA, C_TABLE, C_IDENTITY, C_NAME, C_TYPE, C_TYPMOD, C_KEY };

static const char columns_sql[] =
    "select n.nspname, c.relname, c.relreplident, a.attname, a.atttypid, a.atttypmod, "
    "coalesce(a.attnum = any (k.indkey::int2[]), false) "
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped %s "
    "left join pg_index k on k.indrelid = c.oid and k.indisvalid and "
    "(c.relreplident = 'd' and k.indisprimary or c.relreplident = 'i' and k.indisreplident) "
    "where c.oid = $1::oid order by a.attnum";

static struct bytes keep(struct arena *a, const char *text)
{
    return arena_copy(a, (struct bytes){(const uint8_t *)text, strlen(text)});
}

bool shape_read(PGconn *pg, uint32_t oid, struct arena *a, struct relation *out,
                struct error *err)
{
    char sql[sizeof columns_sql + 64];
    char id[16];
    (void)snprintf(sql, sizeof sql, columns_sql,
                   PQserverVersion(pg) >= 120000 ? "and a.attgenerated = ''" : "");
    (void)snprintf(id, sizeof id, "%u", oid);
    const char *values[] = {id};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(pg, sql, 1, values, &res, err));
    int rows = PQntuples(res);
    if (rows == 0)
        return error_set(err, ERROR_SCHEMA, "table %u is gone from the source", oid);
    struct column *columns = arena_array(a, struct column, (size_t)rows);
    *out = (struct relation){.id = oid,
                             .schema = keep(a, PQgetvalue(res, 0, C_SCHEMA)),
                             .name = keep(a, PQgetvalue(res, 0, C_TABLE)),
                             .columns = columns};
    char identity = PQgetvalue(res, 0, C_IDENTITY)[0];
    bool has_key = false;
    for (int i = 0; i < rows && !PQgetisnull(res, i, C_NAME); i++) {
        columns[i].name = keep(a, PQgetvalue(res, i, C_NAME));
        columns[i].type = (uint32_t)pg_u64(res, i, C_TYPE);
        columns[i].typmod = (int32_t)strtol(PQgetvalue(res, i, C_TYPMOD), NULL, 10);
        columns[i].in_key = identity == 'f' || pg_bool(res, i, C_KEY);
        has_key = has_key || columns[i].in_key;
        out->column_count++;
    }
    out->identity = identity == 'f' ? IDENTITY_FULL : has_key ? IDENTITY_KEY : IDENTITY_NONE;
    return true;
}
