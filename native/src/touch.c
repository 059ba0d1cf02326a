/*
 * Which spans of a view were read, in the order of their first read, whether they were there or had to be fetched: what
 * the trace of a start is made of. One order over all views, since a program reads several layers in turns.
 */
#include <errno.h>
#include <stdlib.h>

#include "oci.h"

static _Atomic uint32_t next_order = 1;

void touch_spans(struct view *view, uint32_t first, uint32_t last) {
  for (uint32_t s = first; s <= last; s++) {
    if (atomic_load_explicit(&view->touches[s], memory_order_relaxed) != 0) continue;
    uint32_t untouched = 0, order = atomic_fetch_add_explicit(&next_order, 1, memory_order_relaxed);
    atomic_compare_exchange_strong_explicit(&view->touches[s], &untouched, order, memory_order_relaxed,
                                            memory_order_relaxed);
  }
}

/* Begins to note them; only before the view is mounted. 0 or -errno. */
int oci_touches_begin(uint32_t id) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  int result = 0;
  if (view->touches == NULL) view->touches = calloc(view->blob->spans.header->span_count + 1u, sizeof *view->touches);
  if (view->touches == NULL) result = -ENOMEM;
  else atomic_store(&view->noting, true);
  view_put(view);
  return result;
}

/* Of each span the number of its first read, counted over all views; 0: not read. 0, or -errno. */
int oci_touches(uint32_t id, uint32_t *out, uint32_t count) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  int result = view->touches == NULL || count != view->blob->spans.header->span_count ? -EINVAL : 0;
  for (uint32_t s = 0; s < count && result == 0; s++)
    out[s] = atomic_load_explicit(&view->touches[s], memory_order_relaxed);
  view_put(view);
  return result;
}

/* Notes no more; what was noted stays. */
void oci_touches_end(uint32_t id) {
  struct view *view = view_get(id);
  if (view == NULL) return;
  atomic_store(&view->noting, false);
  view_put(view);
}
