#include "tests/golden/golden.h"

#include <glob.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "decoders/postgres/boundary.h"
#include "engine/base/file.h"
#include "engine/postgres/pg.h"

enum { FILE_MAX = 1 << 20, SHOWN = 48 };

/* ---- files ---- */

static void read_file(const char *path, struct writer *out)
{
    struct error err = {0};
    if (!file_read(path, FILE_MAX, out, &err))
        fail_msg("%s", err.text);
}

static void number_frames(struct golden *g)
{
    struct boundary *b = boundary_new();
    struct error err = {0};
    uint64_t seq = 0;
    for (size_t i = 0; i < g->count; i++) {
        struct frame *f = &g->frames[i];
        uint64_t end;
        assert_true(boundary_see(b, f->body, &end, &err));
        assert_int_equal(f->kind, end == 0 ? FRAME_DATA : FRAME_COMMIT);
        f->seq = seq += f->kind == FRAME_COMMIT;
        if (f->kind != FRAME_COMMIT)
            continue;
        pg_lsn_text(end, g->positions[i]);
        f->pos = (struct bytes){(const uint8_t *)g->positions[i], strlen(g->positions[i])};
    }
    boundary_free(b);
}

static void load(struct golden *g, const char *path)
{
    *g = (struct golden){.path = path};
    read_file(path, &g->file);
    enum { RECORD_MIN = 5 };
    size_t most = g->file.len / RECORD_MIN + 1;
    g->frames = calloc(most, sizeof *g->frames);
    g->positions = calloc(most, sizeof *g->positions);
    assert_true(g->frames != NULL && g->positions != NULL);
    struct reader r = reader_of(writer_view(&g->file));
    while (reader_left(&r) > 0) {
        struct frame *f = &g->frames[g->count++];
        f->kind = reader_u8(&r);
        f->body = reader_take(&r, reader_u32be(&r));
        assert_false(r.failed);
    }
    number_frames(g);
}

static void unload(struct golden *g)
{
    writer_release(&g->file);
    free(g->frames);
    free(g->positions);
}

void golden_each(void (*test)(const struct golden *g))
{
    glob_t found;
    assert_int_equal(glob(SOURCE_DIR "/tests/golden/postgres/*.pgoutput", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct golden g;
        load(&g, found.gl_pathv[i]);
        test(&g);
        unload(&g);
    }
    globfree(&found);
}

void golden_expected(const struct golden *g, struct writer *out)
{
    char path[4096];
    const char *dot = strrchr(g->path, '.');
    (void)snprintf(path, sizeof path, "%.*s.expected", (int)(dot - g->path), g->path);
    read_file(path, out);
}

/* ---- text ---- */

static void put_quoted(struct writer *out, struct bytes b)
{
    writer_u8(out, '\'');
    for (size_t i = 0; i < b.len; i++) {
        if (b.data[i] < ' ' || b.data[i] == '\'' || b.data[i] == '\\')
            writer_printf(out, "\\%02x", b.data[i]);
        else
            writer_u8(out, b.data[i]);
    }
    writer_u8(out, '\'');
}

static uint32_t checksum(struct bytes b)
{
    uint32_t value = 2166136261;
    for (size_t i = 0; i < b.len; i++)
        value = (value ^ b.data[i]) * 16777619;
    return value;
}

static void put_datum(struct writer *out, const struct datum *d)
{
    switch (d->kind) {
    case DATUM_NULL: writer_text(out, "null"); return;
    case DATUM_UNCHANGED: writer_text(out, "unchanged"); return;
    case DATUM_TEXT: break;
    }
    if (d->value.len <= SHOWN) {
        put_quoted(out, d->value);
        return;
    }
    put_quoted(out, (struct bytes){d->value.data, SHOWN});
    writer_printf(out, "... %zu bytes %08" PRIx32, d->value.len, checksum(d->value));
}

static void put_tuple(struct writer *out, const char *name, const struct tuple *t)
{
    if (t->image == IMAGE_NONE)
        return;
    writer_printf(out, "  %s", name);
    for (uint16_t i = 0; i < t->count; i++) {
        writer_text(out, i == 0 ? " " : ", ");
        put_datum(out, &t->datums[i]);
    }
    writer_u8(out, '\n');
}

static void put_shape(struct writer *out, const struct relation *rel)
{
    static const char *const identities[] = {"none", "key", "full"};
    writer_printf(out, "shape %" PRIu32 " ", rel->id);
    put_quoted(out, rel->schema);
    writer_u8(out, '.');
    put_quoted(out, rel->name);
    writer_printf(out, " %s", identities[rel->identity]);
    for (uint16_t i = 0; i < rel->column_count; i++) {
        const struct column *c = &rel->columns[i];
        writer_u8(out, ' ');
        put_quoted(out, c->name);
        writer_printf(out, "%s:%" PRIu32 "/%" PRId32, c->in_key ? "*" : "", c->type, c->typmod);
    }
    writer_u8(out, '\n');
}

static void mention(struct writer *out, const struct relation *rel, struct map *shapes)
{
    struct writer shape = {0};
    put_shape(&shape, rel);
    const char *said = shapes == NULL ? NULL : map_get(shapes, rel->id);
    if (said == NULL || strcmp(said, writer_cstr(&shape)) != 0) {
        writer_bytes(out, writer_view(&shape));
        if (shapes != NULL) {
            free(map_remove(shapes, rel->id));
            map_put(shapes, rel->id, strdup(writer_cstr(&shape)));
        }
    }
    writer_release(&shape);
}

void golden_forget_shapes(struct map *shapes)
{
    size_t at = 0;
    for (char *shape; (shape = map_next(shapes, &at)) != NULL;)
        free(shape);
    map_release(shapes);
}

static void describe_truncate(struct writer *out, const struct event *e, struct map *shapes)
{
    const struct change *c = e->change;
    assert_true(c->truncated_count > 0 && c->relation == c->truncated[0]);
    for (uint32_t i = 0; i < c->truncated_count; i++)
        mention(out, c->truncated[i], shapes);
    writer_printf(out, "truncate %" PRIu64 "/%" PRIu64 "%s", e->xid, e->subxid,
                  c->restart_identity ? " restart" : "");
    for (uint32_t i = 0; i < c->truncated_count; i++)
        writer_printf(out, " %" PRIu32, c->truncated[i]->id);
    writer_u8(out, '\n');
}

static void describe_change(struct writer *out, const struct event *e, struct map *shapes)
{
    static const char *const kinds[] = {"insert", "update", "delete"};
    const struct change *c = e->change;
    if (c->kind == CHANGE_TRUNCATE) {
        describe_truncate(out, e, shapes);
        return;
    }
    const struct tuple *both[] = {&c->before, &c->after};
    for (size_t i = 0; i < array_count(both); i++)
        assert_int_equal(both[i]->count,
                         both[i]->image == IMAGE_NONE ? 0 : c->relation->column_count);
    mention(out, c->relation, shapes);
    writer_printf(out, "%s %" PRIu64 "/%" PRIu64 " %" PRIu32 "\n", kinds[c->kind], e->xid,
                  e->subxid, c->relation->id);
    put_tuple(out, c->before.image == IMAGE_KEY ? "key" : "old", &c->before);
    put_tuple(out, "new", &c->after);
}

void golden_describe(struct writer *out, const struct event *e, struct map *shapes)
{
    switch (e->kind) {
    case EVENT_BEGIN: writer_printf(out, "begin %" PRIu64 "\n", e->xid); return;
    case EVENT_CHANGE: describe_change(out, e, shapes); return;
    case EVENT_COMMIT:
        writer_printf(out, "commit %" PRIu64 " seq %" PRIu64 " pos %.*s time %" PRId64 "\n",
                      e->xid, e->seq, BYTES_ARG(e->pos), e->commit_time_us);
        return;
    case EVENT_ABORT:
        writer_printf(out, "abort %" PRIu64 "/%" PRIu64 "\n", e->xid, e->subxid);
        return;
    case EVENT_PROGRESS:
        writer_printf(out, "progress seq %" PRIu64 " pos %.*s\n", e->seq, BYTES_ARG(e->pos));
        return;
    case EVENT_RESET: writer_text(out, "reset\n"); return;
    }
    fail();
}

static bool teller_put(struct event_sink *sink, const struct event *event, struct error *err)
{
    (void)err;
    struct teller *t = container_of(sink, struct teller, sink);
    golden_describe(&t->text, event, &t->shapes);
    t->events++;
    return true;
}

void teller_init(struct teller *t) { *t = (struct teller){.sink.put = teller_put}; }

void teller_release(struct teller *t)
{
    writer_release(&t->text);
    golden_forget_shapes(&t->shapes);
}
