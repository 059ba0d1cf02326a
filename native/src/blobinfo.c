/* What JavaScript asks of a blob: places of spans, what is there. All answer at once. */
#include <errno.h>
#include <string.h>

#include "oci.h"

struct blob_info {
  uint64_t blob_size, compressed_size, tar_size;
  uint32_t span_count, kind;
  uint8_t layer_sha256[32];
};

int oci_blob_info(uint32_t id, struct blob_info *out) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  const struct span_header *h = view->blob->spans.header;
  *out = (struct blob_info){h->blob_size, h->compressed_size, h->tar_size, h->span_count, h->kind, {0}};
  memcpy(out->layer_sha256, h->layer_sha256, 32);
  view_put(view);
  return 0;
}

/* Of each span compOffset, compLength, tarOffset, tarLength, blobOffset, as doubles: JavaScript's numbers. */
int oci_blob_spans(uint32_t id, double *out, uint32_t count) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  int result = count == view->blob->spans.header->span_count ? 0 : -ERANGE;
  for (uint32_t i = 0; i < count && result == 0; i++) {
    const struct span *s = &view->blob->spans.spans[i];
    const uint64_t fields[5] = {s->comp_offset, s->comp_length, s->tar_offset, s->tar_length, s->blob_offset};
    for (int f = 0; f < 5; f++) *out++ = (double)fields[f];
  }
  view_put(view);
  return result;
}

/* Spans that need no fetch, proved or not. */
int64_t oci_blob_present_count(uint32_t id) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  int64_t present = (int64_t)atomic_load(&view->blob->present) + atomic_load(&view->blob->unproved);
  view_put(view);
  return present;
}

/* Whether every span is there, and proved. */
int oci_blob_is_complete(uint32_t id) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  int complete = atomic_load(&view->blob->present) == view->blob->spans.header->span_count;
  view_put(view);
  return complete;
}

/* The first span at or after `from` that is not there: its number, -1 when all are, or -errno - 1. */
int64_t oci_blob_next_missing(uint32_t id, uint32_t from) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF - 1;
  const struct blob *blob = view->blob;
  uint32_t count = blob->spans.header->span_count;
  int64_t found = -1;
  for (uint32_t i = from; i < count && found < 0; i++) {
    if (i % 64 == 0 && atomic_load(&blob->bits[i / 64]) == UINT64_MAX) i += 63;
    else if (!blob_has(blob, i) && !blob_is_stored(blob, i)) found = i;
  }
  view_put(view);
  return found;
}

int oci_blob_is_present(uint32_t id, uint32_t index) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  int result = index < view->blob->spans.header->span_count ? blob_has(view->blob, index) || blob_is_stored(view->blob, index) : -ERANGE;
  view_put(view);
  return result;
}

/* The spans that [offset, offset + length) of the blob needs, into out[2]. 0: none (a hole), 1: some, or -errno. */
int oci_blob_spans_of(uint32_t id, uint64_t offset, uint64_t length, uint32_t out[2]) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  uint64_t size = view->blob->spans.header->blob_size;
  int result = 0;
  if (offset < size && length > 0) {
    if (length > size - offset) length = size - offset;
    result = span_file_range(&view->blob->spans, offset, length, &out[0], &out[1]) ? 1 : 0;
  }
  view_put(view);
  return result;
}
