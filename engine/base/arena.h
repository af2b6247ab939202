/* Memory with one lifetime: everything in an arena dies with it. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "engine/base/bytes.h"

struct arena_block;

struct arena {
    struct arena_block *head;
    struct arena_block *spare; /* Kept by arena_reset(). */
    size_t used;               /* Bytes handed out; what budgets count. */
};

/* Zeroed, aligned for any type. Never NULL: running out is fatal (crash-only). */
void *arena_alloc(struct arena *a, size_t count, size_t size);
struct bytes arena_copy(struct arena *a, struct bytes b);

/* Frees all, ready for reuse. A zero arena is an empty one. */
void arena_clear(struct arena *a);

/* Ends all lifetimes too, but keeps the ordinary blocks, for an arena that is filled again and
 * again. Only blocks made for one large piece are freed. */
void arena_reset(struct arena *a);

#define arena_new(a, type)      ((type *)arena_alloc((a), 1, sizeof(type)))
#define arena_array(a, type, n) ((type *)arena_alloc((a), (n), sizeof(type)))

#endif
