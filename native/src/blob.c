/*
 * Layer blobs: one sparse cache file and one span bitmap per layer, shared inside the process by the cache file's path.
 * JavaScript holds views, by numbers that are never used twice: a late call with an old number is refused, not followed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci.h"

static LIST_HEAD(, blob) blobs = LIST_HEAD_INITIALIZER(blobs);
static struct view **views; /* engine_lock; index is id - 1, NULL once gone */
static uint32_t view_count, view_capacity;
/* Opening a path twice at the same time must give one blob. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;

int blob_read(const struct blob *blob, uint8_t *out, uint64_t offset, size_t length) {
  while (length > 0) {
    ssize_t got = pread(blob->cache_fd, out, length, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return EIO; /* somebody cut the cache file */
    out += got;
    offset += (uint64_t)got;
    length -= (size_t)got;
  }
  return 0;
}

void blob_commit_begin(struct blob *blob) {
  pthread_mutex_lock(&blob->map_lock);
  map_mark_dirty_locked(blob);
  blob->commits_at_work++;
  pthread_mutex_unlock(&blob->map_lock);
}

void blob_commit_end(struct blob *blob, uint32_t span, bool stored) {
  pthread_mutex_lock(&blob->map_lock);
  blob->commits_at_work--;
  if (stored) {
    blob->generation++;
    uint64_t bit = 1ull << (span % 64);
    uint64_t before = atomic_fetch_or_explicit(&blob->bits[span / 64], bit, memory_order_release);
    if ((before & bit) == 0) atomic_fetch_add(&blob->present, 1);
  }
  pthread_mutex_unlock(&blob->map_lock);
}

static void blob_free(struct blob *blob) {
  map_close(blob);
  if (blob->cache_fd >= 0) close(blob->cache_fd);
  span_file_close(&blob->spans);
  pthread_mutex_destroy(&blob->map_lock);
  free(blob->states);
  free(blob->cache_path);
  free(blob);
}

/* Counts what is there; a span that gives nothing to the blob is there from the start. */
static void count_present(struct blob *blob) {
  uint32_t present = 0;
  for (uint32_t i = 0; i < blob->spans.header->span_count; i++) {
    if (!blob_has(blob, i) && !span_file_has_data(&blob->spans, i))
      atomic_fetch_or(&blob->bits[i / 64], 1ull << (i % 64));
    if (blob_has(blob, i)) present++;
  }
  atomic_store(&blob->present, present);
}

static int open_cache(struct blob *blob, bool *is_new) {
  blob->cache_fd = open(blob->cache_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (blob->cache_fd < 0) return -errno;
  struct stat st;
  if (fstat(blob->cache_fd, &st) != 0) return -errno;
  if (!S_ISREG(st.st_mode)) return -EINVAL;
  blob->device = st.st_dev;
  blob->inode = st.st_ino;
  *is_new = false;
  if ((uint64_t)st.st_size == blob->spans.header->blob_size) return 0;
  *is_new = true; /* or of another size: what it holds is worth nothing */
  if (ftruncate(blob->cache_fd, 0) != 0) return -errno;
  return ftruncate(blob->cache_fd, (off_t)blob->spans.header->blob_size) == 0 ? 0 : -errno;
}

static int blob_create(const char *span_path, const char *cache_path, const char *map_path, struct blob **out,
                       char *error) {
  struct blob *blob = calloc(1, sizeof *blob);
  if (blob == NULL) return -ENOMEM;
  blob->cache_fd = blob->map_fd = blob->spans.fd = -1;
  blob->refs = 1;
  pthread_mutex_init(&blob->map_lock, NULL);
  TAILQ_INIT(&blob->parked);
  bool is_new = false;
  int result = span_file_open(span_path, &blob->spans, error);
  if (result == 0 && (blob->cache_path = strdup(cache_path)) == NULL) result = -ENOMEM;
  if (result == 0) {
    blob->states = calloc(blob->spans.header->span_count + 1u, sizeof *blob->states);
    if (blob->states == NULL) result = -ENOMEM;
  }
  if (result == 0) result = open_cache(blob, &is_new);
  if (result == 0) result = map_open(blob, map_path, is_new);
  if (result != 0) {
    blob_free(blob);
    return result;
  }
  count_present(blob);
  *out = blob;
  return 0;
}

/* The living blob of a path, with a reference; one whose file was deleted or replaced does not count. */
static struct blob *blob_find(const char *cache_path) {
  struct stat st;
  if (lstat(cache_path, &st) != 0) return NULL;
  struct blob *blob, *found = NULL;
  pthread_mutex_lock(&engine_lock);
  LIST_FOREACH(blob, &blobs, link) {
    if (blob->refs == 0 || strcmp(blob->cache_path, cache_path) != 0) continue;
    if (blob->device != st.st_dev || blob->inode != st.st_ino) continue;
    blob->refs++;
    found = blob;
    break;
  }
  pthread_mutex_unlock(&engine_lock);
  return found;
}

void blob_ref_locked(struct blob *blob) { blob->refs++; }

static bool blob_drop_locked(struct blob *blob) {
  if (--blob->refs > 0) return false;
  LIST_REMOVE(blob, link);
  return true;
}

/* With open_lock held: a blob that is no longer listed must not hold the map's lock any more, or an open would fail. */
static bool blob_put_locked(struct blob *blob) {
  pthread_mutex_lock(&engine_lock);
  bool last = blob_drop_locked(blob);
  pthread_mutex_unlock(&engine_lock);
  if (last) map_close(blob);
  return last;
}

void blob_put(struct blob *blob) {
  pthread_mutex_lock(&open_lock);
  bool last = blob_put_locked(blob);
  pthread_mutex_unlock(&open_lock);
  if (last) blob_free(blob);
}

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

struct closing {
  struct blob *blob;
  uint32_t job;
};

static void *sync_and_put(void *argument) {
  struct closing closing = *(struct closing *)argument;
  free(argument);
  int error = map_sync(closing.blob);
  blob_put(closing.blob);
  post_done(closing.job, -error);
  return NULL;
}

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
  /* fdatasync may take seconds: on a thread of its own, which has the blob until then. */
  struct closing *closing = malloc(sizeof *closing);
  struct blob *blob = view->blob;
  uint32_t job = view->closing_job;
  free(view->touches);
  free(view);
  if (closing != NULL) {
    *closing = (struct closing){.blob = blob, .job = job};
    if (spawn_thread(sync_and_put, closing) == 0) return;
    free(closing);
  }
  native_call(put_blob, blob);
  post_done(job, 0);
}

struct opening {
  const char *span_path, *cache_path, *map_path;
  char *error;
};

static int open_view(void *argument) {
  const struct opening *opening = argument;
  const char *span_path = opening->span_path, *cache_path = opening->cache_path;
  char *error = opening->error;
  pthread_mutex_lock(&open_lock);
  struct blob *blob = blob_find(cache_path);
  int result = 0;
  if (blob != NULL) {
    struct span_file other; /* the same file, cut alike? */
    uint8_t ours[32], theirs[32];
    result = span_file_open(span_path, &other, error);
    if (result == 0) {
      span_file_fingerprint(&blob->spans, ours);
      span_file_fingerprint(&other, theirs);
      span_file_close(&other);
      if (memcmp(ours, theirs, 32) != 0) {
        snprintf(error, OCI_ERROR_TEXT, "the cache file is in use with another span file");
        result = -EBUSY;
      }
    }
  } else {
    result = blob_create(span_path, cache_path, opening->map_path, &blob, error);
    if (result == 0) {
      pthread_mutex_lock(&engine_lock);
      LIST_INSERT_HEAD(&blobs, blob, link);
      pthread_mutex_unlock(&engine_lock);
    }
  }
  if (result == 0) result = view_add(blob);
  bool last = result < 0 && blob != NULL && blob_put_locked(blob);
  pthread_mutex_unlock(&open_lock);
  if (last) blob_free(blob);
  return result;
}

/* Returns a view's number, or -errno with the reason in `error` (OCI_ERROR_TEXT bytes) where there is more to say. */
int oci_blob_open(const char *span_path, const char *cache_path, const char *map_path, char *error) {
  struct opening opening = {span_path, cache_path, map_path, error};
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
