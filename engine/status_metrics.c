/* The status in Prometheus' text format 0.0.4. Names and units are a promise: dashboards and
 * alerts rely on them. A value that is not known has no sample, so that absent() finds it. */
#include <inttypes.h>

#include "engine/status.h"

struct metric {
    const char *name;
    const char *type;
    const char *help;
    size_t offset;
    bool is_us;
};

#define METRIC(name, type, field, help)                                                        \
    {                                                                                          \
        name, type, help, offsetof(struct status, field), false                                \
    }
static const struct metric metrics[] = {
    {"teal_lag_seconds", "gauge",
     "Age of the oldest commit on the source that is not yet committed on the target.",
     offsetof(struct status, lag.us), true},
    METRIC("teal_lag_bytes", "gauge", lag.bytes, "Bytes of the source's log not yet applied."),
    METRIC("teal_lag_transactions", "gauge", lag.transactions,
           "Transactions received and not yet applied."),
    METRIC("teal_copy_tables_total", "gauge", copy.tables, "Tables to copy."),
    METRIC("teal_copy_tables_done", "gauge", copy.tables_done, "Tables copied."),
    METRIC("teal_copy_rows_total", "gauge", copy.rows, "Rows to copy, an estimate."),
    METRIC("teal_copy_rows_done", "gauge", copy.rows_done, "Rows copied."),
    METRIC("teal_copy_bytes_total", "gauge", copy.bytes_total, "Bytes to copy, an estimate."),
    METRIC("teal_copy_bytes_done", "gauge", copy.bytes_done, "Bytes copied."),
    METRIC("teal_copy_eta_seconds", "gauge", copy.eta_seconds,
           "Time until the copy is expected to be done."),
    METRIC("teal_copy_rows_per_second", "gauge", copy.rows_per_second,
           "Rows copied in a second, of late."),
    METRIC("teal_apply_transactions_total", "counter", apply.transactions,
           "Source transactions committed on the target."),
    METRIC("teal_apply_changes_total", "counter", apply.changes,
           "Row changes committed on the target."),
    METRIC("teal_apply_conflicts_total", "counter", apply.conflicts,
           "Rows that were not as the source said."),
    METRIC("teal_stray_writes_total", "counter", apply.stray_writes,
           "Rows written on the standby by somebody else."),
    METRIC("teal_spool_memory_bytes", "gauge", spool.memory_bytes,
           "Bytes of the spool held in memory."),
    METRIC("teal_spool_disk_bytes", "gauge", spool.disk_bytes, "Bytes of the spool on disk."),
    METRIC("teal_spool_disk_max_bytes", "gauge", spool.disk_max_bytes,
           "Bytes of disk at which the spool stops receiving."),
};

struct table_metric {
    const char *name;
    const char *type;
    const char *help;
    size_t offset;
};

#define TABLE_METRIC(name, type, field, help)                                                  \
    {                                                                                          \
        name, type, help, offsetof(struct status_table, field)                                 \
    }
static const struct table_metric table_metrics[] = {
    TABLE_METRIC("teal_table_rows_copied", "gauge", rows_copied, "Rows copied, by table."),
    TABLE_METRIC("teal_table_rows", "gauge", rows_total, "Rows to copy, by table."),
    TABLE_METRIC("teal_table_changes_total", "counter", changes,
                 "Row changes committed on the target, by table."),
    TABLE_METRIC("teal_table_conflicts_total", "counter", conflicts,
                 "Rows that were not as the source said, by table."),
};

static void put_head(struct writer *out, const char *name, const char *type, const char *help)
{
    writer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* name{label="text"} value */
static void put_labelled(struct writer *out, const char *name, const char *label,
                         const char *text, int64_t value)
{
    bool utf8 = status_is_utf8(text);
    writer_printf(out, "%s{%s=\"", name, label);
    for (; *text != '\0'; text++) {
        uint8_t byte = (uint8_t)*text;
        if (byte == '\\' || byte == '"' || byte == '\n')
            writer_u8(out, '\\');
        writer_u8(out, byte == '\n' ? 'n' : !utf8 && byte >= 0x80 ? '?' : byte);
    }
    writer_printf(out, "\"} %" PRId64 "\n", value);
}

static int64_t value_at(const void *base, size_t offset)
{
    return *(const int64_t *)(const void *)((const char *)base + offset);
}

static void put_tables(const struct status *s, const struct table_metric *m, struct writer *out)
{
    if (s->table_count > 0)
        put_head(out, m->name, m->type, m->help);
    for (size_t i = 0; i < s->table_count; i++) {
        int64_t value = value_at(&s->tables[i], m->offset);
        if (value != STATUS_UNKNOWN)
            put_labelled(out, m->name, "table", s->tables[i].name, value);
    }
}

void status_metrics(const struct status *s, struct writer *out)
{
    put_head(out, "teal_build_info", "gauge", "The running version.");
    put_labelled(out, "teal_build_info", "version", TEAL_VERSION, 1);

    put_head(out, "teal_phase", "gauge", "1 for the phase the migration is in.");
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        put_labelled(out, "teal_phase", "phase", phase_name((enum phase)phase),
                     phase == (int)s->phase);

    put_head(out, "teal_direction", "gauge", "1 for the direction changes flow in.");
    for (int direction = BLUE_TO_GREEN; direction <= GREEN_TO_BLUE; direction++)
        put_labelled(out, "teal_direction", "direction",
                     direction_name((enum direction)direction), direction == (int)s->direction);

    put_head(out, "teal_ready", "gauge", "Whether a switch could start now.");
    put_labelled(out, "teal_ready", "what", "cutover", s->ready.cutover);
    put_labelled(out, "teal_ready", "what", "rollback", s->ready.rollback);

    for (size_t i = 0; i < array_count(metrics); i++) {
        const struct metric *m = &metrics[i];
        int64_t value = value_at(s, m->offset);
        if (value == STATUS_UNKNOWN)
            continue;
        put_head(out, m->name, m->type, m->help);
        if (m->is_us)
            writer_printf(out, "%s %" PRId64 ".%06" PRId64 "\n", m->name, value / 1000000,
                          value % 1000000);
        else
            writer_printf(out, "%s %" PRId64 "\n", m->name, value);
    }
    for (size_t i = 0; i < array_count(table_metrics); i++)
        put_tables(s, &table_metrics[i], out);
}
