#include "decoders/postgres/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"

enum { CONNECT_TIMEOUT_S = 10 };

/* ---- visibility ---- */

static bool parse_number(const char **at, char end, uint64_t *out)
{
    char *stop;
    if (**at < '0' || **at > '9')
        return false;
    *out = strtoull(*at, &stop, 10);
    if (*stop != end)
        return false;
    *at = stop + (end != '\0');
    return true;
}

bool visibility_parse(struct arena *a, const char *text, struct visibility *out)
{
    *out = (struct visibility){0};
    const char *at = text;
    if (!parse_number(&at, ':', &out->xmin) || !parse_number(&at, ':', &out->xmax))
        return false;
    size_t room = *at != '\0';
    for (const char *c = at; *c != '\0'; c++)
        room += *c == ',';
    uint64_t *running = arena_array(a, uint64_t, room + 1);
    while (*at != '\0') {
        bool last = strchr(at, ',') == NULL;
        if (!parse_number(&at, last ? '\0' : ',', &running[out->count]))
            return false;
        if (out->count > 0 && running[out->count] <= running[out->count - 1])
            return false;
        out->count++;
        if (last)
            break;
    }
    out->running = running;
    return true;
}

/* The 64-bit transaction id nearest to `near` that ends in these 32 bits. */
static uint64_t widen(uint32_t xid, uint64_t near)
{
    int32_t distance = (int32_t)(xid - (uint32_t)near);
    return near + (uint64_t)(int64_t)distance;
}

bool visibility_sees(const struct visibility *v, uint32_t xid)
{
    uint64_t wide = widen(xid, v->xmax);
    if (wide >= v->xmax)
        return false;
    if (wide < v->xmin)
        return true;
    size_t low = 0;
    size_t high = v->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (v->running[middle] == wide)
            return false;
        if (v->running[middle] < wide)
            low = middle + 1;
        else
            high = middle;
    }
    return true;
}

/* ---- snapshots ---- */

static bool import(struct snapshot *s, const char *from, struct error *err)
{
    char sql[160];
    TRY(pg_execute(s->keeper, "begin isolation level repeatable read read only", err));
    if (from == NULL)
        return true;
    (void)snprintf(sql, sizeof sql, "set transaction snapshot '%.*s'", (int)strcspn(from, "|"),
                   from);
    return pg_execute(s->keeper, sql, err);
}

bool snapshot_take(struct snapshot *s, const char *conninfo, const char *migration,
                   const char *from, struct error *err)
{
    snapshot_drop(s);
    TRY(pg_connect(conninfo, PG_COPY, migration, CONNECT_TIMEOUT_S, &s->keeper, err));
    TRY(import(s, from, err));
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(s->keeper,
                 PQserverVersion(s->keeper) >= 130000
                     ? "select pg_export_snapshot(), pg_current_snapshot()"
                     : "select pg_export_snapshot(), txid_current_snapshot()",
                 0, NULL, &res, err));
    (void)snprintf(s->name, sizeof s->name, "%s", PQgetvalue(res, 0, 0));
    const char *bar = from == NULL ? NULL : strchr(from, '|');
    s->seen = strdup(bar == NULL ? PQgetvalue(res, 0, 1) : bar + 1);
    check(s->seen != NULL);
    s->taken_us = clock_mono_us();
    return true;
}

void snapshot_drop(struct snapshot *s)
{
    pg_close(&s->keeper);
    free(s->seen);
    *s = (struct snapshot){0};
}

bool snapshot_begin(const struct snapshot *s, PGconn *pg, struct error *err)
{
    char sql[160];
    (void)snprintf(
        sql, sizeof sql,
        "begin isolation level repeatable read read only; set transaction snapshot '%s'",
        s->name);
    return pg_execute(pg, sql, err);
}
