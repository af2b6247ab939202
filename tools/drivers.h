/* The kinds of databases this build knows. */
#ifndef TOOLS_DRIVERS_H
#define TOOLS_DRIVERS_H

#include "engine/driver.h"

/* The driver for the configuration's databases. ERROR_CONFIG if there is none. */
must_check bool driver_find(const struct options *o, const struct driver **out,
                            struct error *err);

#endif
