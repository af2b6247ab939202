#include "tests/sim/memory_source.h"

#include <inttypes.h>
#include <stdio.h>

enum { CHANGES_MAX = 10, STEPS_MAX = 40, ACTIVE_MAX = 3, TXNS_MAX = 24, RESETS_MAX = 3 };

/* A transaction with the events it is told by, commit or abort last. */
struct story {
    struct source_txn txn;
    unsigned count;
    unsigned told;
    struct event steps[STEPS_MAX];
};

struct maker {
    struct memory_source *s;
    const struct source_options *options;
    struct chance *chance;
    struct model_db now;
    uint8_t shape[TABLES];
    uint64_t next_xid;
    uint64_t barriers;
    size_t event_room;
    unsigned resets;
};

struct position source_position(uint64_t seq)
{
    struct position p = {0};
    p.len = (uint16_t)snprintf(p.text, sizeof p.text, "0/%" PRIu64, seq);
    return p;
}

/* ---- changes ---- */

static struct change *new_change(struct maker *m, enum change_kind kind, unsigned table)
{
    struct change *c = arena_new(&m->s->arena, struct change);
    c->kind = kind;
    c->relation = &model_relations[table][m->shape[table]];
    return c;
}

static unsigned width_of(const struct maker *m, unsigned table)
{
    return model_relations[table][m->shape[table]].column_count;
}

static struct tuple tuple_of(struct maker *m, unsigned table, enum image image,
                             const struct model_row *row, uint8_t unchanged)
{
    unsigned big = m->options->big == 0 ? 0 : chance_below(m->chance, m->options->big);
    return model_tuple(&m->s->arena, table, width_of(m, table), image, row, unchanged, big);
}

static enum image before_image(unsigned table)
{
    return model_has_key(table) ? IMAGE_KEY : IMAGE_ROW;
}

static uint16_t any_value(struct maker *m, unsigned below)
{
    return (uint16_t)chance_below(m->chance, below);
}

static struct model_row any_row(struct maker *m, unsigned table)
{
    struct model_row row = {0};
    for (unsigned i = 0; i < width_of(m, table); i++)
        row.v[i] = (uint16_t)(any_value(m, KEYS) + model_is_key(table, i));
    if (table == NOTES)
        row.v[0] = (uint16_t)(row.v[0] % 2 + 1); /* So that equal rows are common. */
    return row;
}

static const struct change *insert(struct maker *m, unsigned table)
{
    struct model_row row = any_row(m, table);
    if (m->now.tables[table].count >= ROWS_MAX / 2 ||
        (model_has_key(table) && model_find(&m->now, table, &row) >= 0))
        return NULL;
    if (model_clash(&m->now, table, &row, -1) >= 0)
        row.v[1] = 0;
    model_add(&m->now, table, &row);
    struct change *c = new_change(m, CHANGE_INSERT, table);
    c->after = tuple_of(m, table, IMAGE_ROW, &row, 0);
    return c;
}

static const struct change *update_to(struct maker *m, unsigned table, int at,
                                      const struct model_row *after, uint8_t unchanged)
{
    struct model_row before = m->now.tables[table].rows[at];
    struct change *c = new_change(m, CHANGE_UPDATE, table);
    if (!model_has_key(table) || !model_same_key(table, &before, after))
        c->before = tuple_of(m, table, before_image(table), &before, 0);
    c->after = tuple_of(m, table, IMAGE_ROW, after, unchanged);
    m->now.tables[table].rows[at] = *after;
    return c;
}

/* What an update leaves out while it gives the row another key (a long value, a column that the
 * table has only later) cannot be made good in a copy: the target's row of the old key may be a
 * later one that took the key over. So a source that is copied does neither. */
static const struct change *update(struct maker *m, unsigned table)
{
    const struct model_table *t = &m->now.tables[table];
    if (t->count == 0)
        return NULL;
    int at = (int)chance_below(m->chance, t->count);
    struct model_row after = t->rows[at];
    unsigned column = chance_below(m->chance, width_of(m, table));
    uint8_t unchanged = 0;
    after.v[column] = (uint16_t)(any_value(m, KEYS) + model_is_key(table, column));
    int same = model_has_key(table) ? model_find(&m->now, table, &after) : -1;
    if ((same >= 0 && same != at) || model_clash(&m->now, table, &after, at) >= 0)
        return NULL;
    bool may_omit = !m->options->is_copied || !model_is_key(table, column);
    if (table == BLOBS && column != 1 && may_omit && after.v[1] != 0 &&
        chance_percent(m->chance, 60))
        unchanged = 1u << 1;
    return update_to(m, table, at, &after, unchanged);
}

static const struct change *delete (struct maker *m, unsigned table)
{
    const struct model_table *t = &m->now.tables[table];
    if (t->count == 0)
        return NULL;
    int at = (int)chance_below(m->chance, t->count);
    struct change *c = new_change(m, CHANGE_DELETE, table);
    c->before = tuple_of(m, table, before_image(table), &t->rows[at], 0);
    if (!model_has_key(table))
        at = model_find(&m->now, table, &t->rows[at]);
    model_remove(&m->now, table, at);
    return c;
}

static const struct change *truncate(struct maker *m, unsigned table)
{
    unsigned other = chance_below(m->chance, TABLES);
    struct change *c = new_change(m, CHANGE_TRUNCATE, table);
    const struct relation **truncated = arena_array(&m->s->arena, const struct relation *, 2);
    truncated[c->truncated_count++] = c->relation;
    m->now.tables[table].count = 0;
    if (other != table) {
        truncated[c->truncated_count++] = &model_relations[other][m->shape[other]];
        m->now.tables[other].count = 0;
    }
    c->truncated = truncated;
    return c;
}

static const struct change *any_change(struct maker *m)
{
    for (;;) {
        unsigned table = chance_below(m->chance, TABLES);
        unsigned what = chance_below(m->chance, 100);
        const struct change *c = what < 38   ? insert(m, table)
                                 : what < 80 ? update(m, table)
                                 : what < 98 ? delete (m, table)
                                             : truncate(m, table);
        if (c != NULL)
            return c;
    }
}

/* ---- one transaction ---- */

static struct event *step(struct story *st, enum event_kind kind, uint64_t subxid)
{
    check(st->count < STEPS_MAX);
    struct event *e = &st->steps[st->count++];
    *e = (struct event){.kind = kind, .xid = st->txn.xid, .subxid = subxid};
    return e;
}

static void keep(struct story *st, const struct change *change, uint64_t subxid)
{
    if (st->txn.change_count == CHANGES_MAX)
        return;
    st->txn.changes[st->txn.change_count++] = change;
    step(st, EVENT_CHANGE, subxid)->change = change;
}

/* A part that changed something and was aborted, perhaps with one inside. */
static void add_aborted_part(struct maker *m, struct story *st)
{
    struct model_db before = m->now;
    uint64_t part = m->next_xid++;
    for (unsigned n = 1 + chance_below(m->chance, 2); n > 0; n--)
        step(st, EVENT_CHANGE, part)->change = any_change(m);
    if (chance_percent(m->chance, 40)) {
        uint64_t inner = m->next_xid++;
        step(st, EVENT_CHANGE, inner)->change = any_change(m);
        if (chance_percent(m->chance, 50))
            step(st, EVENT_ABORT, inner);
    }
    step(st, EVENT_ABORT, part);
    m->now = before;
}

/* Two rows exchange their unique values: each step is valid, what they come to is not in any
 * order of whole rows. */
static void add_swap(struct maker *m, struct story *st)
{
    const struct model_table *t = &m->now.tables[ITEMS];
    if (t->count < 2 || st->txn.change_count + 4 > CHANGES_MAX)
        return;
    int at[2] = {(int)chance_below(m->chance, t->count), 0};
    at[1] = (at[0] + 1) % t->count;
    struct model_row row[2] = {t->rows[at[0]], t->rows[at[1]]};
    uint16_t value[2] = {row[1].v[1], row[0].v[1]};
    for (unsigned i = 0; i < 4; i++) {
        row[i % 2].v[1] = i < 2 ? 0 : value[i % 2];
        keep(st, update_to(m, ITEMS, at[i % 2], &row[i % 2], 0), st->txn.xid);
    }
}

static void add_own_row(struct maker *m, struct story *st, bool barrier)
{
    struct change *c = arena_new(&m->s->arena, struct change);
    struct model_row row = {{(uint16_t)(m->barriers + 1)}};
    c->kind = CHANGE_INSERT;
    c->relation = barrier ? &model_barrier : &model_ours;
    c->after = model_tuple(&m->s->arena, ITEMS, 1, IMAGE_ROW, &row, 0, 0);
    step(st, EVENT_CHANGE, st->txn.xid)->change = c;
    if (barrier)
        st->txn.barrier = ++m->barriers;
}

static void add_changes(struct maker *m, struct story *st)
{
    unsigned count = chance_below(m->chance, CHANGES_MAX - 3);
    uint64_t part = 0;
    for (unsigned i = 0; i < count; i++) {
        if (chance_percent(m->chance, 10))
            part = part == 0 ? m->next_xid++ : 0;
        keep(st, any_change(m), part == 0 ? st->txn.xid : part);
        if (part == 0 && st->count < 20 && chance_percent(m->chance, 6))
            add_aborted_part(m, st);
    }
    if (count <= 6 && chance_percent(m->chance, 20))
        add_swap(m, st);
    if (chance_percent(m->chance, 10))
        add_own_row(m, st, chance_percent(m->chance, 70));
}

static void make_story(struct maker *m, struct story *st)
{
    bool aborted = chance_percent(m->chance, 8);
    struct model_db before = m->now;
    *st = (struct story){.txn.xid = m->next_xid++};
    st->txn.changes = arena_array(&m->s->arena, const struct change *, CHANGES_MAX);
    step(st, EVENT_BEGIN, st->txn.xid);
    add_changes(m, st);
    step(st, aborted ? EVENT_ABORT : EVENT_COMMIT, st->txn.xid);
    if (aborted)
        m->now = before;
}

/* ---- the stream ---- */

static struct event *say(struct maker *m, const struct event *event)
{
    struct memory_source *s = m->s;
    check(s->event_count < m->event_room);
    s->events[s->event_count] = *event;
    return &s->events[s->event_count++];
}

static void say_boundary(struct maker *m, const struct event *event, const struct model_db *now)
{
    struct memory_source *s = m->s;
    struct event *said = say(m, event);
    struct position pos = source_position(++s->last_seq);
    check(s->last_seq < BOUNDARIES_MAX);
    s->states[s->last_seq] = *now;
    said->seq = s->last_seq;
    said->pos = arena_copy(&s->arena, position_bytes(&pos));
    said->commit_time_us = (int64_t)said->seq * 1000;
}

static void tell_one(struct maker *m, struct story *st, const struct model_db *after)
{
    const struct event *event = &st->steps[st->told++];
    if (event->kind != EVENT_COMMIT) {
        say(m, event);
        return;
    }
    say_boundary(m, event, after);
    st->txn.seq = m->s->last_seq;
    m->s->committed[st->txn.seq] = &st->txn;
}

/* What is open is told again from its beginning. */
static void begin_anew(struct maker *m, struct story *stories, unsigned first)
{
    say(m, &(struct event){.kind = EVENT_RESET});
    for (unsigned i = first; i < m->options->transactions; i++)
        if (stories[i].told < stories[i].count)
            stories[i].told = 0;
}

/* Interleaves; the first untold of `stories` alone may commit. */
static void tell_all(struct maker *m, struct story *stories, const struct model_db *after)
{
    unsigned first = 0;
    while (first < m->options->transactions) {
        if (stories[first].told == stories[first].count) {
            first++;
            continue;
        }
        unsigned active = first + chance_below(m->chance, ACTIVE_MAX);
        active = active < m->options->transactions ? active : first;
        struct story *st = &stories[active];
        if (st->told + 1 < st->count || active == first)
            tell_one(m, st, &after[active]);
        if (chance_permille(m->chance, 30) && m->s->last_seq < BOUNDARIES_MAX / 2)
            say_boundary(m, &(struct event){.kind = EVENT_PROGRESS},
                         &m->s->states[m->s->last_seq]);
        if (chance_permille(m->chance, 5) && m->resets++ < RESETS_MAX)
            begin_anew(m, stories, first);
    }
    say_boundary(m, &(struct event){.kind = EVENT_PROGRESS}, &m->s->states[m->s->last_seq]);
}

static void settle(struct maker *m)
{
    for (unsigned table = 0; table < TABLES; table++)
        for (unsigned n = chance_below(m->chance, 5); n > 0; n--)
            (void)insert(m, table);
    m->s->states[0] = m->now;
}

void source_make(struct memory_source *s, const struct source_options *options,
                 struct chance *chance)
{
    struct maker m = {.s = s, .options = options, .chance = chance, .next_xid = 1000};
    struct model_db after[TXNS_MAX];
    check(options->transactions <= TXNS_MAX);
    m.event_room =
        (options->transactions + RESETS_MAX * ACTIVE_MAX) * STEPS_MAX + BOUNDARIES_MAX;
    s->events = arena_array(&s->arena, struct event, m.event_room);
    settle(&m);
    struct story *stories = arena_array(&s->arena, struct story, options->transactions);
    for (unsigned i = 0; i < options->transactions; i++) {
        if (options->reshapes && chance_percent(chance, 8))
            m.shape[chance_below(chance, TABLES)] = 1;
        make_story(&m, &stories[i]);
        after[i] = m.now;
    }
    tell_all(&m, stories, after);
}

void source_clear(struct memory_source *s)
{
    arena_reset(&s->arena);
    s->event_count = 0;
    s->events = NULL;
    s->last_seq = 0;
    memset(s->committed, 0, sizeof s->committed);
}

static void print_change(const struct change *change)
{
    static const char *const kinds[] = {"insert", "update", "delete", "truncate"};
    if (change->relation->role != ROLE_USER) {
        (void)printf(" ours");
        return;
    }
    struct model_change c = model_change_of(change);
    (void)printf(" %s %u:", kinds[change->kind], c.table);
    for (unsigned i = 0; i < c.width; i++)
        (void)printf(" %u", c.before.v[i]);
    (void)printf(" ->");
    for (unsigned i = 0; i < c.width; i++)
        (void)printf(" %u", c.after.v[i]);
    (void)printf(" unchanged %x truncated %x", c.unchanged, c.truncated);
}

void source_print(const struct memory_source *s)
{
    static const char *const kinds[] = {"begin", "change",   "commit",
                                        "abort", "progress", "reset"};
    for (size_t i = 0; i < s->event_count; i++) {
        const struct event *e = &s->events[i];
        (void)printf("%3zu %s %" PRIu64 ".%" PRIu64 " seq %" PRIu64, i, kinds[e->kind], e->xid,
                     e->subxid, e->seq);
        if (e->kind == EVENT_CHANGE)
            print_change(e->change);
        (void)printf("\n");
    }
}
