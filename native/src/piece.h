/* The pieces of a span: what each of its extents takes from it. */
#ifndef OCI_NODE_PIECE_H
#define OCI_NODE_PIECE_H

#include "spanfile.h"

struct piece {
  uint64_t blob_offset, tar_offset, length; /* tar offset from the span's begin */
};

/* What extent `index` takes from the span. False: the extents of the span are at an end. */
static inline bool piece_at(const struct span_file *file, const struct span *span, uint32_t index, struct piece *piece) {
  if (index >= file->header->extent_count) return false;
  const struct extent *e = &file->extents[index];
  uint64_t span_end = span->tar_offset + span->tar_length, end = e->tar_offset + e->length;
  if (e->tar_offset >= span_end) return false;
  uint64_t begin = e->tar_offset > span->tar_offset ? e->tar_offset : span->tar_offset;
  piece->tar_offset = begin - span->tar_offset;
  piece->blob_offset = e->blob_offset + (begin - e->tar_offset);
  piece->length = (end < span_end ? end : span_end) - begin;
  return true;
}

#endif
