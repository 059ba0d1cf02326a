/*
 * Views: the users of blobs. JavaScript holds them by numbers that are never used twice: a late call with an old number
 * is refused, not followed. A mount holds the views that its files are.
 */
#include <errno.h>
#include <stdlib.h>

#include "oci.h"

static struct view **views; /* engine_lock; index is id - 1, NULL once gone */
static uint32_t view_count, view_capacity;

static int view_add(struct blob *blob) {
  struct view *view = calloc(1, sizeof *view);
  if (view == NULL) return -ENOMEM;
  view->refs = 1;
  view->blob = blob;
  pthread_mutex_lock(&engine_lock);
  if (view_count == view_capacity) {
    uint32_t capacity = view_capacity == 0 ? 64 : view_capacity * 2;
    struct view **larger = realloc(views, capacity * sizeof *views);
    if (larger == NULL) {
      pthread_mutex_unlock(&engine_lock);
      free(view);
      return -ENOMEM;
    }
    views = larger;
    view_capacity = capacity;
  }
  views[view_count++] = view;
  view->id = view_count;
  pthread_mutex_unlock(&engine_lock);
  return (int)view->id;
}

static struct view *view_find_locked(uint32_t id) { return id == 0 || id > view_count ? NULL : views[id - 1]; }

struct view *view_get(uint32_t id) {
  pthread_mutex_lock(&engine_lock);
  struct view *view = view_find_locked(id);
  if (view != NULL) view->refs++;
  pthread_mutex_unlock(&engine_lock);
  return view;
}

void view_ref_locked(struct view *view) { view->refs++; }

static int put_blob(void *blob) {
  blob_put(blob);
  return 0;
}

void view_put(struct view *view) {
  pthread_mutex_lock(&engine_lock);
  bool last = --view->refs == 0;
  if (last) {
    views[view->id - 1] = NULL;
    miss_view_gone_locked(view);
  }
  pthread_mutex_unlock(&engine_lock);
  if (!last) return;
  struct blob *blob = view->blob;
  uint32_t job = view->closing_job;
  free(view->touches);
  free(view);
  if (blob_sync_and_put(blob, job) == 0) return;
  native_call(put_blob, blob);
  post_done(job, 0);
}

struct opening {
  struct blob_paths paths;
  bool verify;
  char *error;
};

static int open_view(void *argument) {
  const struct opening *opening = argument;
  struct blob *blob;
  int result = blob_open(&opening->paths, opening->verify, &blob, opening->error);
  if (result != 0) return result;
  result = view_add(blob);
  if (result < 0) blob_put(blob);
  return result;
}

/* Returns a view's number, or -errno with the reason in `error` (OCI_ERROR_TEXT bytes) where there is more to say. */
int oci_blob_open(const char *span_path, const char *cache_path, const char *map_path, bool verify, char *error) {
  struct opening opening = {{span_path, cache_path, map_path}, verify, error};
  error[0] = '\0';
  return native_call(open_view, &opening);
}

/* Gives JavaScript's reference back; the job is done when data and bitmap are durable, or mounts go on using them. */
int oci_blob_release(uint32_t id, uint32_t job) {
  struct view *view = view_get(id);
  if (view == NULL) return -EBADF;
  pthread_mutex_lock(&engine_lock);
  bool again = view->released, shared = view->refs > 2;
  view->released = true;
  if (!again && !shared) view->closing_job = job;
  if (!again) view->refs--;
  pthread_mutex_unlock(&engine_lock);
  view_put(view);
  if (again) return -EBADF;
  if (shared) post_done(job, 0);
  return 0;
}
