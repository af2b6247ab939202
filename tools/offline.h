/* What both databases say of a migration whose engine is not running. */
#ifndef TOOLS_OFFLINE_H
#define TOOLS_OFFLINE_H

#include "engine/driver.h"
#include "engine/status.h"

/* Fills `out`, which is initialised: phase `stopped`, and whatever can be known. What cannot be
 * reached is in out->error. */
void offline_status(const struct options *o, const struct driver *driver, struct status *out);

/* Whether neither database holds anything of the migration. */
must_check bool offline_is_gone(const struct options *o, const struct driver *driver,
                                bool *gone, struct error *err);

#endif
