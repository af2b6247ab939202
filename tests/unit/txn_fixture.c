#include "tests/unit/txn_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const struct column columns[] = {
    {.name = BYTES_INIT("id"), .in_key = true},
    {.name = BYTES_INIT("v")},
};
const struct relation users = {.id = 1,
                               .identity = IDENTITY_KEY,
                               .schema = BYTES_INIT("public"),
                               .name = BYTES_INIT("users"),
                               .column_count = 2,
                               .columns = columns};
const struct relation barriers = {.id = 2,
                                  .role = ROLE_BARRIER,
                                  .schema = BYTES_INIT("teal"),
                                  .name = BYTES_INIT("barrier"),
                                  .column_count = 2,
                                  .columns = columns};
const struct relation ours = {.id = 3,
                              .role = ROLE_OURS,
                              .schema = BYTES_INIT("teal"),
                              .name = BYTES_INIT("other"),
                              .column_count = 2,
                              .columns = columns};

void open_buffer(struct fixture *f, uint64_t memory_max, uint64_t skip_until)
{
    struct txn_buffer_options options = {
        .spill_path = f->folder, .memory_max = memory_max, .skip_until = skip_until};
    txn_buffer_free(f->buffer);
    f->buffer = NULL;
    if (!txn_buffer_new(&options, &f->buffer, &f->err))
        fail_msg("%s", f->err.text);
}

int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    snprintf(f->folder, sizeof f->folder, "/tmp/txn-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    open_buffer(f, MEMORY_PLENTY, 0);
    *state = f;
    return 0;
}

int teardown(void **state)
{
    struct fixture *f = *state;
    txn_buffer_free(f->buffer);
    assert_int_equal(rmdir(f->folder), 0);
    free(f);
    return 0;
}

/* ---- saying events ---- */

bool try_put(struct fixture *f, const struct event *event)
{
    struct event_sink *sink = txn_buffer_sink(f->buffer);
    error_clear(&f->err);
    return sink->put(sink, event, &f->err);
}

void put(struct fixture *f, const struct event *event)
{
    if (!try_put(f, event))
        fail_msg("%s", f->err.text);
}

void begin(struct fixture *f, uint64_t xid)
{
    put(f, &(struct event){.kind = EVENT_BEGIN, .xid = xid, .subxid = xid});
}

struct event commit_event(uint64_t xid, uint64_t seq)
{
    return (struct event){.kind = EVENT_COMMIT,
                          .xid = xid,
                          .subxid = xid,
                          .seq = seq,
                          .pos = BYTES("0/AB"),
                          .commit_time_us = 77};
}

void commit(struct fixture *f, uint64_t xid, uint64_t seq)
{
    struct event event = commit_event(xid, seq);
    put(f, &event);
}

void progress(struct fixture *f, uint64_t seq)
{
    put(f, &(struct event){.kind = EVENT_PROGRESS, .seq = seq, .pos = BYTES("0/CD")});
}

void abort_part(struct fixture *f, uint64_t xid, uint64_t subxid)
{
    put(f, &(struct event){.kind = EVENT_ABORT, .xid = xid, .subxid = subxid});
}

void reset(struct fixture *f) { put(f, &(struct event){.kind = EVENT_RESET}); }

struct bytes text_bytes(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

/* An insert whose memory is gone when this returns. */
void insert_into(struct fixture *f, const struct relation *rel, uint64_t xid, uint64_t subxid,
                 struct bytes id, size_t filler_len)
{
    uint8_t *copy = malloc(id.len + filler_len + 1);
    assert_non_null(copy);
    memcpy(copy, id.data, id.len);
    memset(copy + id.len, 'x', filler_len);
    struct datum datums[] = {{DATUM_TEXT, {copy, id.len}},
                             {DATUM_TEXT, {copy + id.len, filler_len}}};
    struct change change = {
        .kind = CHANGE_INSERT, .relation = rel, .after = {IMAGE_ROW, 2, datums}};
    put(f,
        &(struct event){.kind = EVENT_CHANGE, .xid = xid, .subxid = subxid, .change = &change});
    free(copy);
}

void insert(struct fixture *f, uint64_t xid, uint64_t subxid, const char *id)
{
    insert_into(f, &users, xid, subxid, text_bytes(id), 0);
}

/* ---- reading back ---- */

/* The ids of all changes, each behind a space. */
void read_ids(const struct txn *txn, struct writer *out)
{
    struct txn_cursor c;
    struct error err = {0};
    const struct change *change;
    uint64_t count = 0;
    txn_cursor_init(&c, txn);
    for (;;) {
        if (!txn_cursor_next(&c, &change, &err))
            fail_msg("%s", err.text);
        if (change == NULL)
            break;
        count++;
        assert_ptr_equal(change->relation, &users);
        writer_text(out, " ");
        writer_bytes(out, change->after.datums[0].value);
    }
    txn_cursor_release(&c);
    assert_int_equal(count, txn->change_count);
}

void expect_txn(struct fixture *f, uint64_t xid, uint64_t seq, const char *ids)
{
    struct txn *txn = txn_buffer_take(f->buffer);
    assert_non_null(txn);
    assert_int_equal(txn->xid, xid);
    assert_int_equal(txn->seq, seq);
    assert_string_equal(txn->pos.text, "0/AB");
    assert_int_equal(txn->commit_time_us, 77);
    struct writer w = {0};
    read_ids(txn, &w);
    assert_string_equal(writer_cstr(&w), ids);
    writer_release(&w);
    txn_free(txn);
}
