/* A database small enough to be copied, kept for every moment and compared whole.
 *
 * A value is a number: 0 is null, any other stands in the stream as its digits. Four tables:
 * one with a unique column beside its key, one with a key of two columns, one without a key,
 * and one with a column that updates may leave out. Each has a second shape, with one column
 * more, which the source takes on at some time and the target when it is mended. */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include "engine/base/arena.h"
#include "engine/change.h"

enum model_table_id { ITEMS, PAIRS, NOTES, BLOBS, TABLES };

enum {
    COLUMNS = 4,
    COLUMNS_FIRST = 3, /* Of the first shape. */
    SHAPES = 2,
    ROWS_MAX = 16,
    KEYS = 6,         /* Values of key columns: 1 to here. */
    VERSIONS_MAX = 9, /* Relation versions are 1 to 8. */
};

struct model_row {
    uint16_t v[COLUMNS];
};

struct model_table {
    uint8_t count;
    struct model_row rows[ROWS_MAX];
};

struct model_db {
    struct model_table tables[TABLES];
};

/* A change with its values read. */
struct model_change {
    uint8_t table;
    uint8_t width;     /* Columns of the relation. */
    uint8_t unchanged; /* Bits of columns that `after` leaves out. */
    uint8_t truncated; /* Bits of tables. */
    struct model_row before;
    struct model_row after;
};

extern const struct relation model_relations[TABLES][SHAPES];
extern const struct relation model_barrier;
extern const struct relation model_ours;

bool model_has_key(unsigned table);
bool model_is_key(unsigned table, unsigned column);
bool model_same_key(unsigned table, const struct model_row *a, const struct model_row *b);

/* The place of the row with that key (without a key: of the first equal row), or -1. */
int model_find(const struct model_db *db, unsigned table, const struct model_row *row);
/* The place of another row than `self` that holds the unique value of `row`, or -1. */
int model_clash(const struct model_db *db, unsigned table, const struct model_row *row,
                int self);
void model_add(struct model_db *db, unsigned table, const struct model_row *row);
void model_remove(struct model_db *db, unsigned table, int at);

/* Whether b's table has as many rows equal to this one as a's. */
bool model_same_rows(const struct model_table *a, const struct model_table *b,
                     const struct model_row *row);

/* The values of a tuple and back. A key image is read in its key columns only. */
struct model_row model_read(unsigned table, const struct tuple *tuple, uint8_t *unchanged);
struct tuple model_tuple(struct arena *a, unsigned table, unsigned width, enum image image,
                         const struct model_row *row, uint8_t unchanged, unsigned big);
struct model_change model_change_of(const struct change *change);
unsigned model_table_of(const struct relation *rel);

#endif
