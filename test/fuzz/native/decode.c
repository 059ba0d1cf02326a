/* Span files and layers: what is opened must be inside of all bounds; decoding and scattering must stay there. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../../native/src/oci.h"
#include "fuzz.h"

/* Larger claims are tried too, but would spend the time on clearing memory. */
enum { TAR_MAX = 8 << 20, SPANS_MAX = 16, RANGE_MAX = 1 << 20 };

static struct worker *worker;
static char span_path[4096];

static void start(const char *folder) {
  worker = worker_create();
  snprintf(span_path, sizeof span_path, "%s/spans", folder);
}

static void check_ranges(const struct span_file *file) {
  for (int i = 0; i < 4; i++) {
    uint64_t size = file->header->blob_size, offset = size == 0 ? 0 : fuzz_random(UINT32_MAX) % size;
    uint64_t length = 1 + fuzz_random(UINT32_MAX) % (size - offset + 1);
    uint32_t first, last;
    if (offset + length > size || !span_file_range(file, offset, length, &first, &last)) continue;
    fuzz_promise(first <= last && last < file->header->span_count, "a range leads to spans that are none");
  }
}

/* What the file has after scatter_span, scatter_into must give from memory. */
static void check_scatter(struct blob *blob, uint32_t index, const uint8_t *tar) {
  const struct span *span = &blob->spans.spans[index];
  uint64_t blob_size = blob->spans.header->blob_size, offset = span->blob_offset;
  if (offset >= blob_size) return;
  offset += fuzz_random(8192);
  if (offset >= blob_size) return;
  size_t length = 1 + fuzz_random(RANGE_MAX);
  if (length > blob_size - offset) length = (size_t)(blob_size - offset);
  if (ftruncate(blob->cache_fd, 0) != 0 || ftruncate(blob->cache_fd, (off_t)blob_size) != 0) return;
  uint32_t check, found;
  fuzz_promise(scatter_span(blob, index, tar, &check) == 0, "a file in memory cannot be written");
  fuzz_promise(!span_file_has_data(&blob->spans, index) || (prove_sum(blob, index, &found) && found == check),
               "what was stored is found damaged");
  uint8_t *from_file = malloc(length), *from_memory = calloc(1, length), *copied = calloc(1, length);
  if (from_file == NULL || from_memory == NULL || copied == NULL) abort();
  fuzz_promise(blob_read(blob, from_file, offset, length) == 0, "the blob is shorter than it says");
  scatter_into(blob, index, tar, from_memory, offset, length);
  fuzz_promise(memcmp(from_file, from_memory, length) == 0, "the file and the answer differ");
  scatter_copy(blob, index, from_file, copied, offset, length);
  fuzz_promise(memcmp(from_file, copied, length) == 0, "the copied answer differs");
  free(from_file);
  free(from_memory);
  free(copied);
}

static void run_span(struct blob *blob, uint32_t index, const struct fuzz_layer *input) {
  const struct span *span = &blob->spans.spans[index];
  uint64_t out = span->tar_length + (span_file_has_chunks(&blob->spans) ? span->window_offset : 0);
  if (out > TAR_MAX || span->comp_offset > input->layer_length) return;
  size_t length = input->layer_length - span->comp_offset;
  if (length > span->comp_length) length = span->comp_length;
  uint8_t *bytes = fuzz_copy(input->layer + span->comp_offset, length);
  const uint8_t *tar = worker_decode(worker, &blob->spans, index, bytes, length);
  if (tar != NULL) {
    uint8_t *exact = fuzz_copy(tar, span->tar_length);
    check_scatter(blob, index, exact);
    free(exact);
  }
  free(bytes);
}

static void run(const uint8_t *bytes, size_t length) {
  struct fuzz_layer input;
  if (!fuzz_layer_of(bytes, length, &input)) return;
  char error[OCI_ERROR_TEXT];
  struct blob blob = {.map_fd = -1};
  fuzz_write_file(span_path, input.spans, input.spans_length);
  if (span_file_open(span_path, &blob.spans, error) != 0) return;
  blob.cache_fd = memfd_create("blob", MFD_CLOEXEC);
  uint32_t count = blob.spans.header->span_count;
  for (uint32_t i = 0; i < count && i < 4096; i++) (void)span_file_has_data(&blob.spans, i);
  check_ranges(&blob.spans);
  for (uint32_t i = 0; i < SPANS_MAX && count > 0; i++) run_span(&blob, count <= SPANS_MAX ? i % count : fuzz_random(count), &input);
  close(blob.cache_fd);
  span_file_close(&blob.spans);
}

const struct fuzz_target decode_target = {"decode", start, run};
