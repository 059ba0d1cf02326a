/* What the driver and the targets of the native fuzzer share. */
#ifndef OCI_NODE_FUZZ_H
#define OCI_NODE_FUZZ_H

#include <stddef.h>
#include <stdint.h>

struct fuzz_target {
  const char *name;
  /* Called once; `folder` is empty and on a file system in memory. */
  void (*start)(const char *folder);
  /* Ends the process when a promise is broken. */
  void (*run)(const uint8_t *input, size_t length);
};

extern const struct fuzz_target decode_target, points_target, map_target, engine_target;

/* The same numbers for the same input. */
uint32_t fuzz_random(uint32_t below);
/* Ends the process with a message unless `holds`. */
void fuzz_promise(int holds, const char *what);
/* A copy of exactly that many bytes, so that a byte more or less is seen. Never NULL. */
uint8_t *fuzz_copy(const uint8_t *bytes, size_t length);

/* An input of decode and engine: u32 length of the span file, the span file, the layer. False: too short. */
struct fuzz_layer {
  const uint8_t *spans, *layer;
  size_t spans_length, layer_length;
};
int fuzz_layer_of(const uint8_t *input, size_t length, struct fuzz_layer *out);
void fuzz_write_file(const char *path, const uint8_t *bytes, size_t length);

#endif
