#include "engine/postgres/driver.h"

#include <stdlib.h>

#include "appliers/postgres/applier.h"
#include "appliers/postgres/cleanup.h"
#include "appliers/postgres/inspect.h"
#include "appliers/postgres/mirror.h"
#include "decoders/postgres/inspect.h"
#include "decoders/postgres/origin.h"
#include "decoders/postgres/pgoutput.h"
#include "decoders/postgres/stream.h"
#include "engine/postgres/copier.h"

static struct origin *new_origin(const struct options *o)
{
    return pg_origin_new(o, o->blue.conninfo);
}

static struct source *new_source(const struct options *o,
                                 const struct stream_identity *identity)
{
    char object[PG_OBJECT_NAME_MAX];
    char system[32];
    pg_object_name(o->name, object);
    pg_identity_system(identity->text, system, sizeof system);
    struct pg_stream_options options = {
        .conninfo = o->blue.conninfo,
        .name = o->name,
        .slot = object,
        .publication = object,
        .system_id = system,
        .streaming = true,
    };
    return pg_stream_new(&options);
}

static struct applier *new_applier(const struct options *o,
                                   const struct stream_identity *identity)
{
    struct pg_applier_options options = {
        .options = o,
        .target = o->green.conninfo,
        .source = o->blue.conninfo,
        .feed = "forward",
        .identity = identity->text,
        .start = identity->start,
    };
    return pg_applier_new(&options);
}

static bool read_checkpoint(const struct options *o, const struct stream_identity *identity,
                            struct checkpoint *out, bool *found, struct error *err)
{
    return pg_read_checkpoint(o, identity == NULL ? NULL : identity->text, out, found, err);
}

const struct driver postgres_driver = {
    .scheme = "postgresql",
    .origin = new_origin,
    .source = new_source,
    .decoder = pgoutput_new,
    .applier = new_applier,
    .copier = pg_copier_new,
    .mirror = pg_mirror_new,
    .checkpoint = read_checkpoint,
    .inspect_source = pg_inspect_source,
    .inspect_target = pg_inspect_target,
    .clean_target = pg_clean_target,
};
