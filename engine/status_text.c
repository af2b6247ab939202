/* The status for people: one fact a line, labels aligned, units that can be read. ASCII only,
 * and no byte of a name or a message reaches the terminal as a control character. */
#include <inttypes.h>
#include <stdio.h>

#include "engine/status.h"

enum {
    LABEL_WIDTH = 10,
    NAME_WIDTH_MAX = 40,
    BAR_WIDTH_MIN = 8,
    BAR_WIDTH_MAX = 40,
    BAR_FRAME = 8, /* "[] 100% " */
};

enum { NUMBER_MAX = 48 };

/* "1,234,567", or "unknown". */
static const char *count_of(char *out, int64_t value)
{
    if (value == STATUS_UNKNOWN) {
        (void)snprintf(out, NUMBER_MAX, "unknown");
        return out;
    }
    char digits[NUMBER_MAX];
    int len = snprintf(digits, sizeof digits, "%" PRId64, value);
    size_t used = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

static const char *size_of(char *out, int64_t value)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (value == STATUS_UNKNOWN)
        return count_of(out, value);
    if (value < 1024) {
        (void)snprintf(out, NUMBER_MAX, "%" PRId64 " B", value);
        return out;
    }
    double shown = (double)value / 1024;
    size_t unit = 0;
    for (; shown >= 1024 && unit + 1 < array_count(units); unit++)
        shown /= 1024;
    (void)snprintf(out, NUMBER_MAX, "%.*f %s", shown < 100 ? 1 : 0, shown, units[unit]);
    return out;
}

static const char *duration_of(char *out, int64_t us)
{
    int64_t seconds = us / 1000000;
    if (us == STATUS_UNKNOWN)
        (void)snprintf(out, NUMBER_MAX, "unknown");
    else if (seconds < 1)
        (void)snprintf(out, NUMBER_MAX, "%" PRId64 " ms", us / 1000);
    else if (seconds < 60)
        (void)snprintf(out, NUMBER_MAX, "%.1f s", (double)us / 1e6);
    else if (seconds < 3600)
        (void)snprintf(out, NUMBER_MAX, "%" PRId64 " min %" PRId64 " s", seconds / 60,
                       seconds % 60);
    else
        (void)snprintf(out, NUMBER_MAX, "%" PRId64 " h %" PRId64 " min", seconds / 3600,
                       seconds / 60 % 60);
    return out;
}

static void put_clean(struct writer *out, const char *text)
{
    for (; *text != '\0'; text++) {
        uint8_t byte = (uint8_t)*text;
        writer_u8(out, byte < 0x20 || byte == 0x7f ? '?' : byte);
    }
}

static void put_label(struct writer *out, const char *label)
{
    writer_printf(out, "  %-*s ", LABEL_WIDTH, label);
}

static void put_line(struct writer *out, const char *label, const char *text)
{
    put_label(out, label);
    put_clean(out, text);
    writer_u8(out, '\n');
}

static void put_lag(const struct status *s, struct writer *out)
{
    char a[NUMBER_MAX];
    char b[NUMBER_MAX];
    char c[NUMBER_MAX];
    put_label(out, "lag");
    writer_printf(out, "%s, %s, transactions: %s\n", duration_of(a, s->lag.us),
                  size_of(b, s->lag.bytes), count_of(c, s->lag.transactions));
}

static void put_positions(const struct status *s, struct writer *out)
{
    const struct {
        const char *label;
        const struct position *position;
    } lines[] = {
        {"source", &s->position.source},       {"received", &s->position.received},
        {"durable", &s->position.durable},     {"applied", &s->position.applied},
        {"confirmed", &s->position.confirmed},
    };
    for (size_t i = 0; i < array_count(lines); i++)
        put_line(out, lines[i].label,
                 lines[i].position->len == 0 ? "unknown" : lines[i].position->text);
}

static void put_copy(const struct status *s, struct writer *out)
{
    char a[NUMBER_MAX];
    char b[NUMBER_MAX];
    put_label(out, "copy");
    writer_printf(out, "%s of ", count_of(a, s->copy.tables_done));
    writer_printf(out, "%s tables, ", count_of(a, s->copy.tables));
    writer_printf(out, "%s of %s rows", count_of(a, s->copy.rows_done),
                  count_of(b, s->copy.rows));
    if (s->copy.bytes_done != STATUS_UNKNOWN)
        writer_printf(out, ", %s", size_of(a, s->copy.bytes_done));
    if (s->copy.bytes_done != STATUS_UNKNOWN && s->copy.bytes_total != STATUS_UNKNOWN)
        writer_printf(out, " of %s", size_of(a, s->copy.bytes_total));
    if (s->phase == PHASE_COPYING && s->copy.rows_per_second != STATUS_UNKNOWN)
        writer_printf(out, ", %s rows/s", count_of(a, s->copy.rows_per_second));
    if (s->phase == PHASE_COPYING && s->copy.eta_seconds != STATUS_UNKNOWN)
        writer_printf(out, ", %s left", duration_of(a, s->copy.eta_seconds * 1000000));
    writer_u8(out, '\n');
}

static void put_apply(const struct status *s, struct writer *out)
{
    char a[NUMBER_MAX];
    char b[NUMBER_MAX];
    put_label(out, "apply");
    writer_printf(out, "transactions: %s, changes: %s\n", count_of(a, s->apply.transactions),
                  count_of(b, s->apply.changes));
    put_label(out, "conflicts");
    writer_printf(out, "%s, stray writes: %s\n", count_of(a, s->apply.conflicts),
                  count_of(b, s->apply.stray_writes));
    put_label(out, "spool");
    writer_printf(out, "%s in memory, ", size_of(a, s->spool.memory_bytes));
    writer_printf(out, "%s of %s on disk\n", size_of(a, s->spool.disk_bytes),
                  size_of(b, s->spool.disk_max_bytes));
}

static void put_ready(const struct status *s, struct writer *out)
{
    put_line(out, "ready",
             s->ready.cutover    ? "for cutover"
             : s->ready.rollback ? "for rollback"
                                 : "no");
    for (size_t i = 0; i < s->ready.reason_count; i++)
        put_line(out, "", s->ready.reasons[i]);
}

static void put_error(const struct status *s, struct writer *out)
{
    if (s->error.kind == ERROR_NONE)
        return;
    put_label(out, "error");
    writer_printf(out, "%s: ", error_kind_name(s->error.kind));
    put_clean(out, s->error.text);
    writer_u8(out, '\n');
    if (s->error.hint[0] != '\0')
        put_line(out, "do", s->error.hint);
}

/* "[######----]  60% 600 of 1,000 rows": fits in `room` columns, or has no bar. */
static void put_progress(const struct status_table *t, unsigned room, struct writer *out)
{
    char a[NUMBER_MAX];
    char b[NUMBER_MAX];
    char tail[NUMBER_MAX * 3];
    bool measured = t->rows_copied >= 0 && t->rows_total > 0;
    double share = measured ? (double)t->rows_copied / (double)t->rows_total : 0;
    share = share > 1 ? 1 : share; /* The total is an estimate. */
    (void)snprintf(tail, sizeof tail, "%s of %s rows", count_of(a, t->rows_copied),
                   count_of(b, t->rows_total));
    unsigned taken = (unsigned)strlen(tail) + BAR_FRAME;
    unsigned bar = room < taken ? 0 : room - taken;
    bar = bar > BAR_WIDTH_MAX ? BAR_WIDTH_MAX : bar;
    if (measured && bar >= BAR_WIDTH_MIN) {
        unsigned full = (unsigned)(share * bar);
        writer_u8(out, '[');
        for (unsigned i = 0; i < bar; i++)
            writer_u8(out, i < full ? '#' : '-');
        writer_text(out, "] ");
    }
    if (measured)
        writer_printf(out, "%3d%% ", (int)(share * 100));
    writer_text(out, tail);
}

static bool is_running(const struct status_table *t) { return t->phase == PHASE_COPYING; }

static int name_width(const struct status *s)
{
    size_t width = 0;
    for (size_t i = 0; i < s->table_count; i++)
        if (is_running(&s->tables[i]) && strlen(s->tables[i].name) > width)
            width = strlen(s->tables[i].name);
    return width > NAME_WIDTH_MAX ? NAME_WIDTH_MAX : (int)width;
}

/* A table that follows says nothing: the totals are above, and there may be thousands. */
static void put_tables(const struct status *s, bool bars, unsigned width, struct writer *out)
{
    int name = name_width(s);
    unsigned taken = 3U + (unsigned)name;
    unsigned room = bars && width > taken ? width - taken : 0;
    for (size_t i = 0; i < s->table_count; i++) {
        const struct status_table *t = &s->tables[i];
        if (!is_running(t) && t->phase != PHASE_HALTED)
            continue;
        size_t begin = out->len;
        writer_text(out, "  ");
        put_clean(out, t->name);
        while (out->len - begin < (size_t)name + 3)
            writer_u8(out, ' ');
        if (is_running(t))
            put_progress(t, room, out);
        else
            writer_text(out, phase_name(t->phase));
        writer_u8(out, '\n');
    }
}

void status_text(const struct status *s, bool bars, unsigned width, struct writer *out)
{
    put_clean(out, s->migration);
    writer_printf(out, ": %s, %s\n", phase_name(s->phase), direction_name(s->direction));
    put_lag(s, out);
    put_positions(s, out);
    put_copy(s, out);
    put_apply(s, out);
    put_ready(s, out);
    put_error(s, out);
    put_tables(s, bars, width, out);
}
