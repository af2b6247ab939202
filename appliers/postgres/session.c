/* What both ways of applying, in batches and row by row, need of green and of blue's catalogue.
 */
#include "appliers/postgres/session.h"

#include <stdio.h>
#include <stdlib.h>

#include "appliers/postgres/binary.h"
#include "appliers/postgres/catalog.h"
#include "engine/base/log.h"

enum { CONNECT_TIMEOUT_S = 10 };

bool session_source(struct session *s, PGconn **out, struct error *err)
{
    if (s->other != NULL && PQstatus(s->other) == CONNECTION_BAD)
        pg_close(&s->other);
    if (s->other == NULL)
        TRY(pg_connect(s->options.source, PG_QUERY, s->key.migration, CONNECT_TIMEOUT_S,
                       &s->other, err));
    *out = s->other;
    return true;
}

/* ---- what only the source's catalogue knows ---- */

/* NULL: it cannot be asked now. */
static PGconn *source_of(void *context)
{
    struct error unheard = {0};
    PGconn *source;
    return session_source(context, &source, &unheard) ? source : NULL;
}

static bool root_of(void *context, const struct relation *rel, struct writer *schema,
                    struct writer *name)
{
    PGconn *source = source_of(context);
    return source != NULL && catalog_root_of(source, rel, schema, name);
}

static bool type_name(void *context, uint32_t type, int32_t typmod, struct writer *out)
{
    PGconn *source = source_of(context);
    return source != NULL && catalog_type_name(source, type, typmod, out);
}

static bool column_type(void *context, const struct relation *rel, struct bytes name,
                        struct writer *out, struct column_facts *facts)
{
    PGconn *source = source_of(context);
    return source != NULL && catalog_column(source, rel, name, out, facts);
}

/* The lock it needs may be held by what we have in flight ourselves: then it gives up, the
 * group is rolled back, and the next attempt finds nothing in its way. */
static bool mend(void *context, const char *sql)
{
    struct session *s = context;
    struct error err = {0};
    struct writer all = {0};
    writer_printf(&all, "set lock_timeout = '2s'; %s; reset lock_timeout", sql);
    bool ok = pg_execute(s->side, writer_cstr(&all), &err);
    writer_release(&all);
    if (ok)
        log_event("ddl.forwarded", LOG_INFO, "statement=\"%s\"", sql);
    else
        log_error("ddl.not_forwarded", LOG_WARN, &err);
    return ok;
}

/* ---- bindings and statements ---- */

bool session_binding(struct session *s, const struct relation *rel, struct binding **out,
                     struct error *err)
{
    *out = map_get(&s->bindings, rel->version);
    if (*out != NULL)
        return true;
    /* Only with the other: to a target that died meanwhile, this one alone would lie of its
     * disk. */
    if (s->side == NULL || PQstatus(s->side) == CONNECTION_BAD)
        return error_set(err, ERROR_RETRY, "the connection to the target was lost");
    struct binding_source from = {.green = s->side,
                                  .options = s->options.options,
                                  .root_of = root_of,
                                  .type_name = type_name,
                                  .column_type = column_type,
                                  .context = s};
    if (s->options.options->ddl_policy == DDL_FORWARD)
        from.mend = mend;
    TRY(binding_new(&from, rel, out, err));
    s->defers = s->defers || (*out)->deferrable;
    map_put(&s->bindings, rel->version, *out);
    return true;
}

bool session_names_statement(struct session *s, struct statement *st, char *name, size_t size,
                             uint32_t *types)
{
    if (st->number == 0)
        st->number = ++s->statements;
    (void)snprintf(name, size, "t%llu", (unsigned long long)st->number);
    if (st->connection == s->connection)
        return false;
    for (uint16_t i = 0; i < st->param_count; i++)
        types[i] = st->params[i].type;
    return true;
}

static void make_room(struct session *s, size_t count)
{
    if (count <= s->param_room)
        return;
    s->param_room = count * 2;
    s->offsets = realloc(s->offsets, s->param_room * sizeof *s->offsets);
    s->pointers = realloc(s->pointers, s->param_room * sizeof *s->pointers);
    s->lengths = realloc(s->lengths, s->param_room * sizeof *s->lengths);
    s->formats = realloc(s->formats, s->param_room * sizeof *s->formats);
    check(s->offsets != NULL && s->pointers != NULL && s->lengths != NULL &&
          s->formats != NULL);
}

/* True: in binary. */
static bool put_values(struct writer *w, const struct statement *st, uint16_t i,
                       const struct tuple *rows, uint32_t count)
{
    const struct statement_param *p = &st->params[i];
    if (!st->many) {
        check(rows->datums[p->column].kind == DATUM_TEXT);
        writer_bytes(w, rows->datums[p->column].value);
        return false;
    }
    if (p->element != 0 && binary_column(w, rows, count, p->column, p->element))
        return true;
    literal_column(w, rows, count, p->column);
    return false;
}

struct parameters session_values(struct session *s, const struct statement *st,
                                 const struct tuple *before, const struct tuple *after,
                                 uint32_t count)
{
    static const size_t is_null = SIZE_MAX;
    make_room(s, st->param_count + 1u);
    writer_clear(&s->values);
    for (uint16_t i = 0; i < st->param_count; i++) {
        const struct tuple *rows = st->params[i].from_before ? before : after;
        s->offsets[i] = s->values.len;
        s->formats[i] = 0;
        if (!st->many && rows->datums[st->params[i].column].kind == DATUM_NULL)
            s->offsets[i] = is_null;
        else
            s->formats[i] = put_values(&s->values, st, i, rows, count);
        s->lengths[i] = (int)(s->values.len - s->offsets[i]);
        writer_u8(&s->values, '\0');
    }
    for (uint16_t i = 0; i < st->param_count; i++)
        s->pointers[i] =
            s->offsets[i] == is_null ? NULL : (const char *)s->values.data + s->offsets[i];
    return (struct parameters){st->param_count, s->pointers, s->lengths, s->formats};
}
