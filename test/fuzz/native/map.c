/* The map of a cache file, as a crash or a stranger may have left it. Input: u32 length of a span file, it, the map. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../../native/src/oci.h"
#include "fuzz.h"

static char span_path[4096], cache_path[4096], map_path[4096];

static void start(const char *folder) {
  snprintf(span_path, sizeof span_path, "%s/spans", folder);
  snprintf(cache_path, sizeof cache_path, "%s/cache", folder);
  snprintf(map_path, sizeof map_path, "%s/map", folder);
}

static void run(const uint8_t *bytes, size_t length) {
  struct fuzz_layer input;
  if (!fuzz_layer_of(bytes, length, &input)) return;
  fuzz_write_file(span_path, input.spans, input.spans_length);
  fuzz_write_file(map_path, input.layer, input.layer_length);
  char error[OCI_ERROR_TEXT];
  struct blob *blob;
  /* The cache file of the last input is there, half of the time: then the map may be believed. */
  if (fuzz_random(2) == 0) unlink(cache_path);
  const struct blob_paths paths = {span_path, cache_path, map_path};
  if (blob_open(&paths, fuzz_random(4) == 0, &blob, error) != 0) return;
  uint32_t present = 0, unproved = 0, count = blob->spans.header->span_count;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t sum;
    present += blob_has(blob, i);
    unproved += blob_is_unproved(blob, i);
    if (blob_is_unproved(blob, i)) (void)prove_sum(blob, i, &sum);
  }
  fuzz_promise(present == atomic_load(&blob->present), "the count of present spans is wrong");
  fuzz_promise(unproved == atomic_load(&blob->unproved), "the count of unproved spans is wrong");
  fuzz_promise(map_sync(blob) == 0, "it cannot be made durable");
  blob_put(blob);
}

const struct fuzz_target map_target = {"map", start, run};
