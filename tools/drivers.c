#include "tools/drivers.h"

#include <string.h>

#include "engine/postgres/driver.h"

bool driver_find(const struct options *o, const struct driver **out, struct error *err)
{
    static const struct driver *const drivers[] = {&postgres_driver};
    for (size_t i = 0; i < array_count(drivers); i++) {
        if (strcmp(drivers[i]->scheme, o->blue.scheme) != 0)
            continue;
        *out = drivers[i];
        return true;
    }
    return error_set(err, ERROR_CONFIG, "this teal cannot move databases of kind %s",
                     o->blue.scheme);
}
