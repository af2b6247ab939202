/* What follows the last row: materialised views. */
#include "appliers/postgres/schema_inner.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"

static const char views_sql[] =
    "select format('%I.%I', n.nspname, c.relname) from pg_class c "
    "join pg_namespace n on n.oid = c.relnamespace "
    "where c.relkind = 'm' and c.relispopulated = $1 order by n.nspname, c.relname";

/* Filled on blue, empty on green. */
struct views {
    const char **names;
    size_t count;
};

static bool list_views(PGconn *blue, PGconn *green, struct arena *arena, struct views *out,
                       struct error *err)
{
    const char *filled[] = {"t"};
    const char *empty[] = {"f"};
    cleanup_with(pg_result_drop) PGresult *there = NULL;
    cleanup_with(pg_result_drop) PGresult *here = NULL;
    TRY(pg_query(blue, views_sql, 1, filled, &there, err));
    TRY(pg_query(green, views_sql, 1, empty, &here, err));
    out->names = arena_array(arena, const char *, (size_t)PQntuples(here) + 1);
    for (int g = 0; g < PQntuples(here); g++)
        for (int b = 0; b < PQntuples(there); b++) {
            const char *name = PQgetvalue(here, g, 0);
            if (strcmp(name, PQgetvalue(there, b, 0)) != 0)
                continue;
            size_t size = strlen(name) + 1;
            out->names[out->count++] = memcpy(arena_array(arena, char, size), name, size);
            break;
        }
    return true;
}

static bool refresh(PGconn *green, const char *name, const _Atomic bool *stop,
                    struct error *err)
{
    cleanup_with(writer_release) struct writer sql = {0};
    writer_printf(&sql, "refresh materialized view %s", name);
    int64_t begun = clock_mono_us();
    if (!schema_run(green, writer_cstr(&sql), stop, err))
        return error_wrap(err, "refresh %s", name);
    char shown[512];
    log_event("schema.view_refreshed", LOG_INFO, "view=%s seconds=%.1f",
              log_quote(shown, sizeof shown, name), (double)(clock_mono_us() - begun) / 1e6);
    return true;
}

/* One pass over what is left. A view that reads one not yet filled (55000) is kept. */
static bool refresh_pass(PGconn *green, struct views *v, const _Atomic bool *stop,
                         struct error *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < v->count; i++) {
        error_clear(err);
        if (refresh(green, v->names[i], stop, err))
            continue;
        if (strcmp(err->sqlstate, "55000") != 0)
            return false;
        v->names[kept++] = v->names[i];
    }
    bool progress = kept < v->count;
    v->count = kept;
    return progress || kept == 0;
}

bool schema_refresh_views(PGconn *blue, PGconn *green, const _Atomic bool *stop,
                          struct error *err)
{
    cleanup_with(arena_clear) struct arena arena = {0};
    struct views views = {0};
    TRY(list_views(blue, green, &arena, &views, err));
    while (views.count > 0)
        TRY(refresh_pass(green, &views, stop, err));
    error_clear(err);
    return true;
}
