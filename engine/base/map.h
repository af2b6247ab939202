/* A table from a 64-bit key to a pointer: relation ids, transaction ids, key hashes.
 *
 * Open addressing with linear probing; never more than half full. The map does not own
 * what its values point at. A zero map is an empty one. No value may be NULL. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "engine/base/compiler.h"

struct map_slot {
    uint64_t key;
    void *value; /* NULL: free. */
};

struct map {
    struct map_slot *slots;
    size_t size; /* A power of two, or 0. */
    size_t count;
};

/* The value stored under `key`, or NULL. */
void *map_get(const struct map *m, uint64_t key);

/* Stores, replacing what was there. */
void map_put(struct map *m, uint64_t key, void *value);

/* Forgets `key` and returns what was stored under it, or NULL. */
void *map_remove(struct map *m, uint64_t key);

/* Walks all values in no particular order: start with *at = 0; NULL ends it. The map must not
 * change meanwhile. */
void *map_next(const struct map *m, size_t *at);

/* Forgets all, keeping the memory. */
void map_clear(struct map *m);
void map_release(struct map *m);

#endif
