#include "engine/tally.h"

#include <stdlib.h>

struct count {
    const struct relation *relation;
    uint64_t changes;
};

void tally_add(struct tally *t, const struct relation *rel)
{
    struct count *c = map_get(&t->of, rel->version);
    if (c == NULL) {
        c = calloc(1, sizeof *c);
        check(c != NULL);
        c->relation = rel;
        map_put(&t->of, rel->version, c);
    }
    c->changes++;
}

void tally_clear(struct tally *t)
{
    size_t at = 0;
    for (struct count *c; (c = map_next(&t->of, &at)) != NULL;)
        free(c);
    map_release(&t->of);
}

void tally_tell(const struct tally *t, void *context,
                void (*counted)(void *context, const struct relation *rel, uint64_t changes))
{
    size_t at = 0;
    for (const struct count *c; (c = map_next(&t->of, &at)) != NULL;)
        counted(context, c->relation, c->changes);
}
