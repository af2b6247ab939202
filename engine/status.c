#include "engine/status.h"

#include <jansson.h>
#include <stdio.h>
#include <time.h>

static const char *const phase_names[] = {
    [PHASE_NEW] = "new",
    [PHASE_COPYING] = "copying",
    [PHASE_CATCHING_UP] = "catching-up",
    [PHASE_FOLLOWING] = "following",
    [PHASE_FENCED] = "fenced",
    [PHASE_REVERSED] = "reversed",
    [PHASE_FINISHED] = "finished",
    [PHASE_HALTED] = "halted",
    [PHASE_STOPPED] = "stopped",
};
static_assert(array_count(phase_names) == PHASE_COUNT, "every phase has a name");

/* Every number of the status that lives at a fixed place. Runs of one group become one JSON
 * object. */
struct number {
    const char *group;
    const char *key;
    size_t offset;
    bool is_us; /* Microseconds, shown in seconds. */
};

/* NOLINTNEXTLINE(bugprone-macro-parentheses): a member cannot stand in parentheses. */
#define NUMBER_OF(group, key) offsetof(struct status, group.key)
#define NUMBER(group, key)                                                                     \
    {                                                                                          \
#group, #key, NUMBER_OF(group, key), false                                             \
    }
static const struct number numbers[] = {
    {"lag", "seconds", offsetof(struct status, lag.us), true},
    NUMBER(lag, bytes),
    NUMBER(lag, transactions),
    NUMBER(copy, tables),
    NUMBER(copy, tables_done),
    NUMBER(copy, rows),
    NUMBER(copy, rows_done),
    NUMBER(copy, bytes_done),
    NUMBER(copy, bytes_total),
    NUMBER(copy, eta_seconds),
    NUMBER(copy, rows_per_second),
    NUMBER(apply, transactions),
    NUMBER(apply, changes),
    NUMBER(apply, conflicts),
    NUMBER(apply, stray_writes),
    NUMBER(spool, memory_bytes),
    NUMBER(spool, disk_bytes),
    NUMBER(spool, disk_max_bytes),
};
#undef NUMBER
#undef NUMBER_OF

static int64_t *number_of(struct status *s, const struct number *n)
{
    return (int64_t *)(void *)((char *)s + n->offset);
}

const char *phase_name(enum phase phase)
{
    check((size_t)phase < array_count(phase_names));
    return phase_names[phase];
}

const char *direction_name(enum direction direction)
{
    return direction == BLUE_TO_GREEN ? "blue-to-green" : "green-to-blue";
}

/* ---- memory ---- */

void status_init(struct status *s)
{
    *s = (struct status){.migration = ""};
    for (size_t i = 0; i < array_count(numbers); i++)
        *number_of(s, &numbers[i]) = STATUS_UNKNOWN;
}

void status_free(struct status *s)
{
    arena_clear(&s->arena);
    status_init(s);
}

const char *status_string(struct status *s, struct bytes text)
{
    char *copy = arena_array(&s->arena, char, text.len + 1);
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    return copy;
}

static const char *string_again(struct status *s, const char *text)
{
    if (text == NULL)
        return NULL;
    return status_string(s, (struct bytes){(const uint8_t *)text, strlen(text)});
}

static void clone_strays(const struct status *from, struct status *to)
{
    struct status_stray *strays =
        arena_array(&to->arena, struct status_stray, from->stray_count);
    for (size_t i = 0; i < from->stray_count; i++) {
        const struct status_stray *stray = &from->strays[i];
        struct status_key *key = arena_array(&to->arena, struct status_key, stray->key_count);
        for (size_t k = 0; k < stray->key_count; k++)
            key[k] = (struct status_key){string_again(to, stray->key[k].column),
                                         string_again(to, stray->key[k].value)};
        strays[i] = *stray;
        strays[i].table = string_again(to, stray->table);
        strays[i].key = key;
    }
    to->strays = strays;
}

void status_clone(const struct status *from, struct status *to)
{
    *to = *from;
    to->arena = (struct arena){0};
    to->migration = string_again(to, from->migration);

    const char **reasons = arena_array(&to->arena, const char *, from->ready.reason_count);
    for (size_t i = 0; i < from->ready.reason_count; i++)
        reasons[i] = string_again(to, from->ready.reasons[i]);
    to->ready.reasons = reasons;

    struct status_table *tables =
        arena_array(&to->arena, struct status_table, from->table_count);
    for (size_t i = 0; i < from->table_count; i++) {
        tables[i] = from->tables[i];
        tables[i].name = string_again(to, from->tables[i].name);
    }
    to->tables = tables;
    clone_strays(from, to);
}

/* ---- JSON ---- */

static void set(json_t *object, const char *key, json_t *value)
{
    check(json_object_set_new_nocheck(object, key, value) == 0);
}

static void append(json_t *array, json_t *value)
{
    check(json_array_append_new(array, value) == 0);
}

bool status_is_utf8(const char *text)
{
    json_t *trial = json_string(text);
    bool valid = trial != NULL;
    json_decref(trial);
    return valid;
}

/* A database may hold names that are not UTF-8, JSON may not: their bytes become '?'. */
static json_t *string_of(const char *text)
{
    if (text == NULL)
        return json_null();
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    struct writer w = {0};
    for (; *text != '\0'; text++)
        writer_u8(&w, (uint8_t)*text < 0x80 ? (uint8_t)*text : '?');
    value = json_string(writer_cstr(&w));
    check(value != NULL);
    writer_release(&w);
    return value;
}

static json_t *number_json(int64_t value)
{
    return value == STATUS_UNKNOWN ? json_null() : json_integer(value);
}

static json_t *seconds_json(int64_t us)
{
    return us == STATUS_UNKNOWN ? json_null() : json_real((double)us / 1e6);
}

static json_t *position_json(const struct position *p)
{
    return p->len == 0 ? json_null() : string_of(p->text);
}

static json_t *group_json(const struct status *s, const char *group)
{
    json_t *object = json_object();
    for (size_t i = 0; i < array_count(numbers); i++) {
        const struct number *n = &numbers[i];
        if (strcmp(n->group, group) != 0)
            continue;
        int64_t value = *(const int64_t *)(const void *)((const char *)s + n->offset);
        set(object, n->key, n->is_us ? seconds_json(value) : number_json(value));
    }
    return object;
}

static json_t *positions_json(const struct status *s)
{
    json_t *object = json_object();
    set(object, "source", position_json(&s->position.source));
    set(object, "received", position_json(&s->position.received));
    set(object, "durable", position_json(&s->position.durable));
    set(object, "applied", position_json(&s->position.applied));
    set(object, "confirmed", position_json(&s->position.confirmed));
    return object;
}

static json_t *reasons_json(const struct status *s)
{
    json_t *array = json_array();
    for (size_t i = 0; i < s->ready.reason_count; i++)
        append(array, string_of(s->ready.reasons[i]));
    return array;
}

static json_t *ready_json(const struct status *s)
{
    json_t *object = json_object();
    set(object, "cutover", json_boolean(s->ready.cutover));
    set(object, "rollback", json_boolean(s->ready.rollback));
    set(object, "reasons", reasons_json(s));
    return object;
}

static json_t *tables_json(const struct status *s)
{
    json_t *array = json_array();
    for (size_t i = 0; i < s->table_count; i++) {
        const struct status_table *t = &s->tables[i];
        json_t *object = json_object();
        set(object, "name", string_of(t->name));
        set(object, "phase", string_of(phase_name(t->phase)));
        set(object, "rows_copied", number_json(t->rows_copied));
        set(object, "rows_total", number_json(t->rows_total));
        set(object, "changes", number_json(t->changes));
        set(object, "conflicts", number_json(t->conflicts));
        append(array, object);
    }
    return array;
}

static json_t *error_json(const struct error *error)
{
    if (error->kind == ERROR_NONE)
        return json_null();
    json_t *object = json_object();
    set(object, "kind", string_of(error_kind_name(error->kind)));
    set(object, "text", string_of(error->text));
    set(object, "hint", string_of(error->hint[0] == '\0' ? NULL : error->hint));
    return object;
}

static json_t *time_json(int64_t us)
{
    if (us == STATUS_UNKNOWN)
        return json_null();
    time_t seconds = (time_t)(us / 1000000);
    struct tm utc;
    if (gmtime_r(&seconds, &utc) == NULL)
        return json_null();
    char text[64];
    size_t len = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(text + len, sizeof text - len, ".%03dZ", (int)(us / 1000 % 1000));
    return json_string(text);
}

static json_t *strays_json(const struct status *s)
{
    json_t *array = json_array();
    for (size_t i = 0; i < s->stray_count; i++) {
        const struct status_stray *stray = &s->strays[i];
        json_t *key = stray->key_count == 0 ? json_null() : json_object();
        for (size_t k = 0; k < stray->key_count; k++) {
            json_t *column = string_of(stray->key[k].column);
            set(key, json_string_value(column), string_of(stray->key[k].value));
            json_decref(column);
        }
        json_t *object = json_object();
        set(object, "table", string_of(stray->table));
        set(object, "key", key);
        set(object, "position", position_json(&stray->position));
        set(object, "time", time_json(stray->time_us));
        append(array, object);
    }
    return array;
}

static int put_json(const char *text, size_t len, void *out)
{
    writer_put(out, text, len);
    return 0;
}

static void write_json(json_t *value, struct writer *out)
{
    size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15);
    check(json_dump_callback(value, put_json, out, flags) == 0);
    json_decref(value);
}

void status_json(const struct status *s, struct writer *out)
{
    json_t *root = json_object();
    set(root, "teal", json_string(TEAL_VERSION));
    set(root, "migration", string_of(s->migration));
    set(root, "phase", string_of(phase_name(s->phase)));
    set(root, "direction", string_of(direction_name(s->direction)));
    set(root, "lag", group_json(s, "lag"));
    set(root, "position", positions_json(s));
    set(root, "copy", group_json(s, "copy"));
    set(root, "apply", group_json(s, "apply"));
    set(root, "spool", group_json(s, "spool"));
    set(root, "ready", ready_json(s));
    set(root, "tables", tables_json(s));
    set(root, "error", error_json(&s->error));
    set(root, "strays", strays_json(s));
    write_json(root, out);
}

void status_error_json(const struct error *error, struct writer *out)
{
    write_json(error_json(error), out);
}

void status_position_json(const struct position *position, struct writer *out)
{
    write_json(position_json(position), out);
}

/* The reasons the engine gave are about the switch that can come next; the other one is not
 * ready because of the direction. */
void status_ready_json(const struct status *s, bool rollback, struct writer *out)
{
    bool ready = rollback ? s->ready.rollback : s->ready.cutover;
    bool is_next = rollback == (s->direction == GREEN_TO_BLUE);
    json_t *reasons = ready || is_next ? reasons_json(s) : json_array();
    if (!ready && !is_next)
        append(reasons, json_string(rollback ? "blue takes the writes: nothing to roll back"
                                             : "green takes the writes: already cut over"));
    if (!ready && json_array_size(reasons) == 0)
        append(reasons, json_sprintf("the phase is %s", phase_name(s->phase)));
    json_t *object = json_object();
    set(object, "ready", json_boolean(ready));
    set(object, "reasons", reasons);
    write_json(object, out);
}
