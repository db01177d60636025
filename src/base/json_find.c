/* json_find: a field by its path, with the cursor of json.h. A path is a line,
 * not a search: once a step has matched, nothing beside it is looked at.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "err.h"
#include "json.h"


/* Go to the value that one step names in the container at the cursor: 1. When
 * there is none, the cursor is past the whole value: 0. */
static int step_to(struct json *j, const char *step, size_t size) {
  struct json_text key;
  enum json_kind kind = json_kind(j);
  if (step[0] == 'k' && kind == JSON_OBJECT) {
    json_enter(j);
    while (json_next(j, &key)) {
      if (json_is(&key, step + 1, size - 1))
        return 1;
      json_skip(j, NULL);
    }
  } else if (step[0] == 'i' && kind == JSON_ARRAY) {
    size_t index = 0;
    for (size_t i = 1; i < size; i++)
      index = index * 10 + (size_t)(step[i] - '0');
    json_enter(j);
    while (json_next(j, &key)) {
      if (index-- == 0)
        return 1;
      json_skip(j, NULL);
    }
  } else {
    json_skip(j, NULL);
  }
  return 0;
}


/* An index of at most 17 digits fits 64 bits, so step_to() adds it up
 * unchecked. An empty name ("k") is a name like others. */
static int step_is_right(const char *step, size_t size) {
  if (size == 0 || (step[0] != 'k' && step[0] != 'i'))
    return 0;
  return step[0] == 'k' || (size > 1 && size < 19 &&
                            strspn(step + 1, "0123456789") == size - 1);
}


/* Steps are read one after the other and not all before: a wrong one behind
 * a field that is missing is not noticed, and need not be, since the path is
 * the caller's literal. Whatever is found or not, the text is read to its
 * end: a field out of a broken text is no answer. */
int json_find(struct json *j, const char *path, size_t path_size,
              drover_span *out, drover_err *err) {
  int found = 1;
  j->depth_max = JSON_PASSED_MAX;
  for (size_t i = 0; i < path_size && found; ) {
    size_t size = strnlen(path + i, path_size - i);
    if (i + size == path_size || !step_is_right(path + i, size))
      return drover_fail(err, DROVER_EINVAL, "a path's step is no kNAME or iN");
    found = step_to(j, path + i, size);
    i += size + 1;
  }
  if (found)
    json_skip(j, out);
  json_leave(j, 0);
  int rc = json_close(j, err);
  return rc ? rc : found ? DROVER_OK
             : drover_fail(err, DROVER_ENOTFOUND, "no such field");
}
