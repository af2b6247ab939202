#include "engine/postgres/copy_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "appliers/postgres/catalog.h"
#include "decoders/postgres/shape.h"
#include "engine/base/log.h"

static const char *keep(struct arena *a, struct writer *w)
{
    const char *text = writer_cstr(w);
    const char *kept =
        (const char *)arena_copy(a, (struct bytes){(const uint8_t *)text, w->len + 1}).data;
    writer_release(w);
    return kept;
}

/* ---- statements ---- */

/* Built-in types whose binary form is the same in all versions and says exactly what the text
 * says. Arrays of them included. */
static bool is_binary_exact(uint32_t type)
{
    static const uint32_t exact[] = {
        16,   17,   18,   20,   21,   23,   25,   26,   114,  700,  701,  829,  869,
        650,  1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562, 1700, 2950,
        3802, 1000, 1001, 1002, 1005, 1007, 1016, 1009, 1028, 1021, 1022, 1014, 1015,
        1182, 1183, 1115, 1185, 1187, 1231, 2951, 3807, 199,  1040, 651,  1041};
    for (size_t i = 0; i < array_count(exact); i++)
        if (exact[i] == type)
            return true;
    return false;
}

static void put_columns(struct writer *w, const struct copy_table *t, bool target)
{
    bool first = true;
    for (uint16_t i = 0; i < t->relation.column_count; i++) {
        if (!t->binding->columns[i].mapped)
            continue;
        writer_text(w, first ? "" : ", ");
        pg_quote_name(w, target ? t->binding->columns[i].name : t->relation.columns[i].name);
        first = false;
    }
}

static void write_statements(struct arena *a, struct copy_table *t)
{
    struct writer table = {0};
    struct writer reads = {0};
    struct writer whole = {0};
    struct writer writes = {0};
    pg_quote_table(&table, t->relation.schema, t->relation.name);
    writer_text(&reads, "select ");
    put_columns(&reads, t, false);
    writer_printf(&reads, " from only %.*s", BYTES_ARG(writer_view(&table)));
    writer_printf(&whole, "%.*s (", BYTES_ARG(writer_view(&table)));
    put_columns(&whole, t, false);
    writer_text(&whole, ")");
    writer_text(&writes, "(");
    put_columns(&writes, t, true);
    writer_text(&writes, ")");
    if (writes.len == strlen("()")) { /* A table without columns still has rows. */
        writer_clear(&writes);
        writer_clear(&whole);
        writer_bytes(&whole, writer_view(&table));
    }
    t->reads = keep(a, &reads);
    t->whole = keep(a, &whole);
    t->writes = keep(a, &writes);
    writer_release(&table);
    t->binary = true;
    for (uint16_t i = 0; i < t->relation.column_count; i++)
        if (t->binding->columns[i].mapped)
            t->binary = t->binary && is_binary_exact(t->relation.columns[i].type) &&
                        t->relation.columns[i].type == t->binding->columns[i].type;
}

/* ---- parts ---- */

struct part_list {
    struct arena *arena;
    struct ledger_chunk *list;
    size_t count;
};

static void add_part(struct part_list *l, struct writer *range)
{
    l->list[l->count] =
        (struct ledger_chunk){.part = (uint32_t)l->count, .range = keep(l->arena, range)};
    l->count++;
}

/* By blocks; the last part takes whatever the table has grown by. */
static void split_blocks(struct part_list *l, const struct source_table *t, uint64_t parts)
{
    uint64_t step = t->pages / parts + 1;
    for (uint64_t i = 0; i < parts; i++) {
        struct writer w = {0};
        writer_printf(&w, "ctid >= '(%" PRIu64 ",0)'::tid", i * step);
        if (i + 1 < parts)
            writer_printf(&w, " and ctid < '(%" PRIu64 ",0)'::tid", (i + 1) * step);
        add_part(l, &w);
    }
}

/* By equal steps of a whole-number key, where blocks cannot be addressed quickly. */
static bool split_key(PGconn *pg, struct part_list *l, const struct copy_table *t,
                      uint64_t parts, struct error *err)
{
    const struct column *key = NULL;
    int keys = 0;
    for (uint16_t i = 0; i < t->relation.column_count; i++)
        if (t->relation.identity == IDENTITY_KEY && t->relation.columns[i].in_key && ++keys)
            key = &t->relation.columns[i];
    if (keys != 1 || (key->type != 20 && key->type != 21 && key->type != 23))
        return true;
    struct writer name = {0};
    struct writer sql = {0};
    pg_quote_name(&name, key->name);
    writer_printf(&sql, "select min(%s), max(%s) from only ", writer_cstr(&name),
                  writer_cstr(&name));
    pg_quote_table(&sql, t->relation.schema, t->relation.name);
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    bool ok = pg_query(pg, writer_cstr(&sql), 0, NULL, &res, err);
    if (ok && !PQgetisnull(res, 0, 0)) {
        int64_t low = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
        int64_t high = strtoll(PQgetvalue(res, 0, 1), NULL, 10);
        uint64_t step = ((uint64_t)high - (uint64_t)low) / parts + 1;
        for (uint64_t i = 0; i < parts; i++) {
            struct writer w = {0};
            if (i > 0)
                writer_printf(&w, "%s >= %" PRId64, writer_cstr(&name),
                              (int64_t)((uint64_t)low + i * step));
            if (i + 1 < parts)
                writer_printf(&w, "%s%s < %" PRId64, i > 0 ? " and " : "", writer_cstr(&name),
                              (int64_t)((uint64_t)low + (i + 1) * step));
            add_part(l, &w);
        }
    }
    writer_release(&name);
    writer_release(&sql);
    return ok;
}

/* Tables above the limit in parts of about that size. */
static bool split(const struct copy_planner *p, struct arena *a, struct copy_table *t,
                  struct part_list *out, struct error *err)
{
    enum { PARTS_MAX = 4096 };
    uint64_t parts = t->source->bytes / p->options->copy_chunk_bytes + 1;
    parts = parts > PARTS_MAX ? PARTS_MAX : parts;
    *out =
        (struct part_list){.arena = a, .list = arena_array(a, struct ledger_chunk, parts + 1)};
    if (parts > 1 && PQserverVersion(p->snapshot->keeper) >= 140000 &&
        t->source->pages >= parts)
        split_blocks(out, t->source, parts);
    else if (parts > 1)
        TRY(split_key(p->snapshot->keeper, out, t, parts, err));
    if (out->count == 0)
        out->list[out->count++] = (struct ledger_chunk){.range = ""};
    return true;
}

static void take_parts(struct arena *a, struct copy_table *t, const struct ledger_chunk *chunks,
                       size_t count)
{
    t->part_count = count;
    t->parts = arena_array(a, struct copy_part, count + 1);
    for (size_t i = 0; i < count; i++) {
        t->parts[i] = (struct copy_part){.number = chunks[i].part,
                                         .range = chunks[i].range,
                                         .done = chunks[i].done,
                                         .rows = chunks[i].rows,
                                         .weight = t->source->bytes / count};
        if (chunks[i].done)
            atomic_fetch_add(&t->rows_done, chunks[i].rows);
        else
            atomic_fetch_add(&t->parts_left, 1);
    }
}

/* ---- against the ledger ---- */

static bool is_empty(const struct copy_planner *p, const struct copy_table *t, bool *empty,
                     struct error *err)
{
    struct writer sql = {0};
    writer_printf(&sql, "select not exists (select 1 from %s)", t->binding->table);
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    bool ok = pg_query(p->green, writer_cstr(&sql), 0, NULL, &res, err);
    writer_release(&sql);
    *empty = ok && pg_bool(res, 0, 0);
    return ok;
}

static bool begin_table(const struct copy_planner *p, struct copy_plan *plan,
                        struct copy_table *t, struct error *err)
{
    struct part_list parts;
    TRY(split(p, &plan->arena, t, &parts, err));
    struct ledger_table note = {.oid = t->source->oid,
                                .name = t->source->shown,
                                .target = t->binding->table,
                                .first = p->snapshot->seen,
                                .last = p->snapshot->seen,
                                .file = t->file,
                                .chunk_count = parts.count,
                                .chunks = parts.list};
    TRY(ledger_begin_table(p->green, p->options->name, &note, err));
    take_parts(&plan->arena, t, parts.list, parts.count);
    return true;
}

static bool begin_new(const struct copy_planner *p, struct copy_plan *plan,
                      struct copy_table *t, struct error *err)
{
    bool empty = true;
    if (!t->binding->through_root)
        TRY(is_empty(p, t, &empty, err));
    if (!empty) {
        error_set(err, ERROR_CONFIG,
                  "table %s on the target holds rows that this migration did not put there",
                  t->binding->shown);
        return error_hint(err,
                          "If they are not needed: TRUNCATE %s; on the target. Else leave the "
                          "table out with [tables] exclude.",
                          t->binding->table);
    }
    return begin_table(p, plan, t, err);
}

/* Rows that may be there in part, and cannot be told from those to come. */
static bool begin_again(const struct copy_planner *p, struct copy_plan *plan,
                        struct copy_table *t, struct error *err)
{
    if (t->binding->through_root)
        return error_set(err, ERROR_CONFIG,
                         "partition %s was half copied into %s and has no key: empty that "
                         "table and run teal finish, then teal run",
                         t->source->shown, t->binding->shown);
    struct writer sql = {0};
    writer_printf(&sql, "truncate %s%s", t->binding->only ? "only " : "", t->binding->table);
    bool ok = pg_execute(p->green, writer_cstr(&sql), err);
    writer_release(&sql);
    if (!ok)
        return error_wrap(err, "empty %s to copy it again", t->binding->shown);
    log_event("copy.table_again", LOG_INFO, "table=%s", t->source->shown);
    return begin_table(p, plan, t, err);
}

static size_t chunks_done(const struct ledger_table *note)
{
    size_t done = 0;
    for (size_t i = 0; i < note->chunk_count; i++)
        done += note->chunks[i].done;
    return done;
}

static bool go_on(const struct copy_planner *p, struct copy_plan *plan, struct copy_table *t,
                  const struct ledger_table *note, struct error *err)
{
    size_t done = chunks_done(note);
    bool same_moment =
        strcmp(note->last, p->snapshot->seen) == 0 && strcmp(note->first, note->last) == 0;
    if (note->done) {
        take_parts(&plan->arena, t, note->chunks, note->chunk_count);
        t->done = true;
        return true;
    }
    if (done == 0 && !same_moment)
        return begin_table(p, plan, t, err); /* Nothing was copied: as if never begun. */
    if (note->file != t->file || (!same_moment && t->at_one_moment))
        return begin_again(p, plan, t, err);
    t->mixed = !same_moment;
    if (t->mixed)
        TRY(ledger_set_last(p->green, p->options->name, note->oid, p->snapshot->seen, err));
    take_parts(&plan->arena, t, note->chunks, note->chunk_count);
    return true;
}

static bool has_unique(const struct copy_planner *p, const struct copy_table *t, bool *unique,
                       struct error *err)
{
    const char *values[] = {t->binding->table};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(
        p->green,
        "select exists (select 1 from pg_index where indrelid = $1::regclass and indisunique)",
        1, values, &res, err));
    *unique = pg_bool(res, 0, 0);
    return true;
}

/* ---- the whole ---- */

static bool root_of(void *context, const struct relation *rel, struct writer *schema,
                    struct writer *name)
{
    return catalog_root_of(context, rel, schema, name);
}

static bool type_name(void *context, uint32_t type, int32_t typmod, struct writer *out)
{
    return catalog_type_name(context, type, typmod, out);
}

/* The file as the snapshot sees it: a table that was rewritten or truncated since has another.
 * And whether an index lets rows of two moments stand in each other's way although no key of
 * theirs is equal. */
static const char storage_sql[] =
    "select relfilenode, exists (select 1 from pg_index i where i.indrelid = c.oid and "
    "(i.indisexclusion or to_jsonb(i) ->> 'indnullsnotdistinct' = 'true')) "
    "from pg_class c where oid = $1::oid";

/* `unique`: an index of the target keeps duplicates out. Without one, what tells them apart is
 * asked of blue's indexes, by blue's names of the columns. */
static bool read_storage(const struct copy_planner *p, struct copy_table *t, bool unique,
                         struct error *err)
{
    char oid[16];
    (void)snprintf(oid, sizeof oid, "%u", t->source->oid);
    const char *values[] = {oid};
    cleanup_with(pg_result_drop) PGresult *res = NULL;
    TRY(pg_query(p->snapshot->keeper, storage_sql, 1, values, &res, err));
    t->file = PQntuples(res) == 1 ? pg_u64(res, 0, 0) : 0;
    const struct table_options *map =
        options_table(p->options, t->relation.schema, t->relation.name);
    t->at_one_moment = t->relation.identity != IDENTITY_KEY ||
                       (PQntuples(res) == 1 && pg_bool(res, 0, 1)) ||
                       (!unique && map != NULL && map->column_count > 0);
    return true;
}

static const struct ledger_table *note_of(const struct ledger *l, uint32_t oid)
{
    for (size_t i = 0; i < l->table_count; i++)
        if (l->tables[i].oid == oid)
            return &l->tables[i];
    return NULL;
}

static bool plan_table(const struct copy_planner *p, struct copy_plan *plan,
                       const struct ledger *ledger, struct copy_table *t, struct error *err)
{
    TRY(shape_read(p->snapshot->keeper, t->source->oid, &plan->arena, &t->relation, err));
    struct binding_source from = {.green = p->green,
                                  .options = p->options,
                                  .root_of = root_of,
                                  .type_name = type_name,
                                  .context = p->snapshot->keeper};
    TRY(binding_new(&from, &t->relation, &t->binding, err));
    bool unique;
    TRY(has_unique(p, t, &unique, err));
    TRY(read_storage(p, t, unique, err));
    write_statements(&plan->arena, t);
    const struct ledger_table *note = note_of(ledger, t->source->oid);
    TRY(note == NULL ? begin_new(p, plan, t, err) : go_on(p, plan, t, note, err));
    t->through_staging = t->mixed && unique;
    return true;
}

bool copy_plan_make(const struct copy_planner *p, struct copy_plan *out, struct error *err)
{
    *out = (struct copy_plan){0};
    TRY(publication_tables(p->snapshot->keeper, p->options, &out->sources, err));
    out->tables = arena_array(&out->arena, struct copy_table, out->sources.count + 1);
    struct ledger ledger;
    bool ok = ledger_read(p->green, p->options->name, &ledger, err);
    for (size_t i = 0; ok && i < out->sources.count; i++) {
        if (out->sources.list[i].is_unlogged)
            continue;
        struct copy_table *t = &out->tables[out->table_count++];
        t->source = &out->sources.list[i];
        ok = plan_table(p, out, &ledger, t, err);
    }
    /* What of the ledger the plan uses is kept by the plan. */
    for (size_t i = 0; ok && i < out->table_count; i++)
        for (size_t k = 0; k < out->tables[i].part_count; k++) {
            struct writer w = {0};
            writer_text(&w, out->tables[i].parts[k].range);
            out->tables[i].parts[k].range = keep(&out->arena, &w);
        }
    ledger_release(&ledger);
    if (!ok)
        copy_plan_release(out);
    return ok;
}

void copy_plan_release(struct copy_plan *plan)
{
    for (size_t i = 0; i < plan->table_count; i++)
        if (plan->tables[i].binding != NULL)
            binding_free(plan->tables[i].binding);
    source_tables_release(&plan->sources);
    arena_clear(&plan->arena);
    *plan = (struct copy_plan){0};
}
