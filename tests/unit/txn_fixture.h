/* A txn_buffer in a folder of its own, and the events that fill it. */
#ifndef TESTS_UNIT_TXN_FIXTURE_H
#define TESTS_UNIT_TXN_FIXTURE_H

#include "engine/base/writer.h"
#include "engine/txn_buffer.h"

enum { KIB = 1024, MIB = 1024 * 1024, MEMORY_PLENTY = 64 * MIB };

extern const struct relation users;
extern const struct relation barriers;
extern const struct relation ours;

struct fixture {
    char folder[32];
    struct txn_buffer *buffer;
    struct error err;
};

void open_buffer(struct fixture *f, uint64_t memory_max, uint64_t skip_until);
int setup(void **state);
int teardown(void **state);
bool try_put(struct fixture *f, const struct event *event);
void put(struct fixture *f, const struct event *event);
void begin(struct fixture *f, uint64_t xid);
struct event commit_event(uint64_t xid, uint64_t seq);
void commit(struct fixture *f, uint64_t xid, uint64_t seq);
void progress(struct fixture *f, uint64_t seq);
void abort_part(struct fixture *f, uint64_t xid, uint64_t subxid);
void reset(struct fixture *f);
struct bytes text_bytes(const char *text);
void insert_into(struct fixture *f, const struct relation *rel, uint64_t xid, uint64_t subxid,
                 struct bytes id, size_t filler_len);
void insert(struct fixture *f, uint64_t xid, uint64_t subxid, const char *id);
void read_ids(const struct txn *txn, struct writer *out);
void expect_txn(struct fixture *f, uint64_t xid, uint64_t seq, const char *ids);

#define buffer_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
