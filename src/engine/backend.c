/* backend: which devices there are. See backend.h.
 *
 * SPDX-License-Identifier: MIT */
#include "backend.h"

#include <string.h>

#include "../base/err.h"


/* "cuda" and "cuda:1" get a sentence of their own: who asks for one has a
 * GPU in mind and not a typing error. */
int engine_backend_find(const struct engine_backend **out, const char *device,
                        uint32_t kv, drover_err *err) {
  *out = NULL;
  if (!device || !strcmp(device, "cpu")) {
    *out = kv == DROVER_KV_Q8_0 ? &engine_cpu_plain : &engine_cpu_packed;
    return DROVER_OK;
  }
  if (!strcmp(device, "cpu_plain")) {
    *out = &engine_cpu_plain;
    return DROVER_OK;
  }
  if (!strncmp(device, "cuda", 4))
    return drover_fail(err, DROVER_EINVAL,
                       "device \"%.32s\": this build has no CUDA, only \"cpu\"",
                       device);
  return drover_fail(err, DROVER_EINVAL,
                     "device \"%.32s\" is unknown, only \"cpu\" is built in",
                     device);
}
