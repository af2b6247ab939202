/* TRUNCATE on the target.
 *
 * What blue truncated is named by its tables, and of a partitioned table these are the leaves.
 * A green that holds the whole of it in one table, or cut in another way, has no such leaf. If
 * all leaves that blue has were truncated, the whole is; of some, the rows go that blue's
 * catalogue says belong there. Which rows a hash puts into a leaf only blue's own table can
 * tell: that halts. */
#include "appliers/postgres/truncate.h"

#include "appliers/postgres/catalog.h"

struct truncating {
    struct session *s;
    const struct change *change;
    struct writer oids;   /* {1,2,3}: all that blue truncated. */
    struct writer tables; /* "truncate a, b". */
    const struct truncate_sink *sink;
};

static void add_table(struct truncating *t, const struct binding *b)
{
    writer_printf(&t->tables, "%s%s%s", t->tables.len == 0 ? "truncate " : ", ",
                  b->only ? "only " : "", b->table);
}

/* A root is named by each of its leaves. */
static bool is_named_before(const struct truncating *t, uint32_t at, const struct binding *b)
{
    for (uint32_t i = 0; i < at; i++) {
        const struct binding *other =
            map_get(&t->s->bindings, t->change->truncated[i]->version);
        if (other->through_root && strcmp(other->table, b->table) == 0)
            return true;
    }
    return false;
}

static bool delete_leaf(struct truncating *t, const struct relation *leaf,
                        const struct binding *b, PGconn *source, struct error *err)
{
    cleanup_with(writer_release) struct writer sql = {0};
    writer_printf(&sql, "delete from %s%s where ", b->only ? "only " : "", b->table);
    if (catalog_partition_rows(source, leaf, &sql))
        return t->sink->put(t->sink->context, writer_cstr(&sql), err);
    error_set(err, ERROR_SCHEMA,
              "partition %.*s was truncated on the source, but on the target it is only a part "
              "of %s, and which rows it had cannot be told there",
              BYTES_ARG(leaf->name), b->shown);
    return error_hint(err, "Delete its rows from the source with DELETE instead, or make the "
                           "partitions on the target as they are on the source.");
}

static bool add_leaf(struct truncating *t, uint32_t at, const struct binding *b,
                     struct error *err)
{
    const struct relation *leaf = t->change->truncated[at];
    PGconn *source;
    TRY(session_source(t->s, &source, err));
    if (!catalog_are_all_leaves(source, leaf, writer_cstr(&t->oids)))
        return delete_leaf(t, leaf, b, source, err);
    if (!is_named_before(t, at, b))
        add_table(t, b);
    return true;
}

static void list_oids(struct truncating *t)
{
    for (uint32_t i = 0; i < t->change->truncated_count; i++)
        writer_printf(&t->oids, "%s%u", i == 0 ? "{" : ",", t->change->truncated[i]->id);
    writer_text(&t->oids, "}");
}

static bool put_all(struct truncating *t, struct error *err)
{
    list_oids(t);
    for (uint32_t i = 0; i < t->change->truncated_count; i++) {
        struct binding *b;
        TRY(session_binding(t->s, t->change->truncated[i], &b, err));
        if (b->through_root)
            TRY(add_leaf(t, i, b, err));
        else
            add_table(t, b);
    }
    if (t->tables.len == 0)
        return true;
    writer_text(&t->tables,
                t->change->restart_identity ? " restart identity" : " continue identity");
    return t->sink->put(t->sink->context, writer_cstr(&t->tables), err);
}

bool session_truncate(struct session *s, const struct change *change,
                      const struct truncate_sink *sink, struct error *err)
{
    struct truncating t = {.s = s, .change = change, .sink = sink};
    bool ok = put_all(&t, err);
    writer_release(&t.oids);
    writer_release(&t.tables);
    return ok;
}
