/*
 * What the C files of liboci_node share. Functions named oci_* are called from TypeScript (src/native/); all others
 * stay inside the library.
 *
 * One lock, engine_lock, guards every list and table that is about misses: views, parked requests, span states, jobs,
 * events. The hit path takes no lock: it reads the span bitmap atomically.
 */
#ifndef OCI_NODE_H
#define OCI_NODE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "spanfile.h"

#define OCI_ERROR_TEXT 512

/* ---- sha256.c ---- */
struct sha256 {
  uint32_t state[8];
  uint64_t length;
  uint8_t block[64];
};
void sha256_init(struct sha256 *ctx);
void sha256_update(struct sha256 *ctx, const void *data, size_t length);
void sha256_final(struct sha256 *ctx, uint8_t digest[32]);
void sha256_of(const void *data, size_t length, uint8_t digest[32]);

/* ---- thread.c ---- */
extern pthread_mutex_t engine_lock;
/* Three kinds of threads, by their table of descriptors; see thread.c. All detached, with signals blocked and small
 * stacks. 0 or an errno. */
int spawn_thread(void *(*run)(void *), void *argument); /* native */
int spawn_apart(void *(*run)(void *), void *argument);
int spawn_ordinary(void *(*run)(void *), void *argument); /* only from an ordinary thread */
bool thread_is_ordinary(void);
/* Runs on a native thread and waits for it. Whatever touches /dev/fuse, cache or span files must run there. Returns what
 * `run` returned, or -errno. */
int native_call(int (*run)(void *), void *argument);
int64_t now_ns(void);

/* ---- event.c: what JavaScript is told, through one coalesced doorbell ---- */
enum event_type { EVENT_MISS = 1, EVENT_DONE = 2 };
struct event {
  uint32_t type;
  uint32_t id;    /* EVENT_MISS: view; EVENT_DONE: job */
  uint32_t span;  /* EVENT_MISS */
  int32_t result; /* EVENT_DONE: 0 or more, or -errno; EVENT_MISS: spans of the blob that were found damaged so far */
};
/* Call with engine_lock held. */
void post_event_locked(struct event event);
void post_done(uint32_t job, int32_t result);

/* ---- blob.c: a layer's aligned blob ---- */
struct parked;
TAILQ_HEAD(parked_list, parked);

struct task;
struct span_state {
  uint32_t requester; /* the view whose miss is outstanding at JavaScript; 0: none */
  uint16_t filling;   /* fills at work */
  struct task *queued; /* one of them that nobody waited for and that has not begun yet */
  uint32_t refuser;   /* the view whose readers gave the span up … */
  int64_t refused_until_ns; /* … and until when they would be told so at once */
};

struct blob {
  LIST_ENTRY(blob) link;
  char *cache_path;
  dev_t device;
  ino_t inode;
  uint32_t refs; /* engine_lock */
  bool syncing;  /* engine_lock; a thread makes it durable, and holds a reference meanwhile */
  struct span_file spans;
  uint8_t fingerprint[32]; /* of the span file */
  int cache_fd;
  int map_fd;                 /* -1: the map lives in memory only */
  _Atomic uint64_t *bits;     /* spans that may be served: stored and proved, or without any bytes in the blob */
  _Atomic uint64_t *stored;   /* spans in the cache file, proved or not; written with map_lock */
  uint32_t *checks;           /* map_lock; CRC32C of each stored span */
  _Atomic uint32_t present;   /* bits that are set */
  _Atomic uint32_t unproved;  /* spans that are stored and not in bits */
  _Atomic uint32_t dropped;   /* spans whose bytes were found wrong, ever */
  struct span_state *states;  /* engine_lock */
  struct parked_list parked;  /* engine_lock */
  pthread_mutex_t write_lock; /* held while the cache file is written, as the kernel does too; before map_lock */
  pthread_mutex_t map_lock;   /* guards the map and what follows */
  bool marked_dirty;          /* the map's file says so */
  bool stale;                 /* the map's file may say clean, but of another state */
  bool map_lost;              /* the map cannot be written: what is stored is forgotten at the end */
  _Atomic bool writing;       /* between a commit's begin and its end */
  _Atomic uint32_t activity;  /* moves when that does */
  uint64_t generation;
  _Atomic uint64_t doubts;    /* how often all that is stored became unproved; written with map_lock */
  _Atomic int64_t kept_mtime_ns, kept_ctime_ns, kept_blocks; /* of the cache file as we left it */
};

struct stamp {
  int64_t size, mtime_ns, ctime_ns, blocks;
};

/* A user of a blob: misses are asked of the view whose mount they came from, since each pays with its own lease. */
struct view {
  uint32_t id;
  uint32_t refs; /* engine_lock */
  uint32_t closing_job;
  bool released;
  struct blob *blob;
  _Atomic bool noting;        /* whether first reads are noted */
  _Atomic uint32_t *touches;  /* per span; NULL: never noted. See touch.c */
};

struct blob_paths {
  const char *span, *cache, *map;
};
/* Shares or opens the blob of a cache path; `verify`: believe nothing that is there. 0 with a reference, or -errno with the reason in `error`. */
int blob_open(const struct blob_paths *paths, bool verify, struct blob **out, char *error);
void blob_put(struct blob *blob);
void blob_ref_locked(struct blob *blob);
/* Makes the blob durable on a thread of its own, gives the reference back, ends the job. 0 or an errno. */
int blob_sync_and_put(struct blob *blob, uint32_t job);
/* The same in two steps on the caller's thread; `end` gives the reference back. `end`: 0 or an errno. */
void blob_sync_begin(struct blob *blob);
int blob_sync_end(struct blob *blob);
/* The same, but for the reference, when no thread is at it. */
void blob_sync_soon(struct blob *blob);
/* A blob that nobody knows yet, without files but the span file. */
int blob_new(const char *span_path, const char *cache_path, struct blob **out, char *error);
void blob_free(struct blob *blob);
/* Puts an empty file in the place of the cache file. 0 or -errno. */
int blob_renew_cache(struct blob *blob);
/* Moves a whole file, open as the new blob's cache_fd, to its cache path and lets others share the blob; `checks`: the
 * CRC of each span. 0 or -errno. */
int blob_replace(struct blob *blob, const char *source_path, const char *map_path, const uint32_t *checks);

static inline bool blob_has(const struct blob *blob, uint32_t span) {
  return (atomic_load_explicit(&blob->bits[span / 64], memory_order_acquire) >> (span % 64)) & 1;
}
static inline bool blob_is_stored(const struct blob *blob, uint32_t span) {
  return (atomic_load_explicit(&blob->stored[span / 64], memory_order_acquire) >> (span % 64)) & 1;
}
static inline bool blob_is_unproved(const struct blob *blob, uint32_t span) {
  return blob_is_stored(blob, span) && !blob_has(blob, span);
}
/* Reads [offset, offset + length) of the cache file whole. 0 or an errno. */
int blob_read(const struct blob *blob, uint8_t *out, uint64_t offset, size_t length);

/* ---- stamp.c: whether the cache file is as we left it ---- */
/* Must be called before the bytes of a span are written to the cache file, and blob_commit_end, with what the first
 * returned, after; it sets the bit when `stored`. In between no sync can mark the file clean. */
uint64_t blob_commit_begin(struct blob *blob);
void blob_commit_end(struct blob *blob, uint64_t doubts, uint32_t span, bool stored, uint32_t check);
/* As blob_read, of spans that were there; `doubts`: the blob's from before that was looked at. ESTALE: somebody else has
 * changed the file since, and its spans are unproved now. */
int blob_read_sure(struct blob *blob, uint64_t doubts, uint8_t *out, uint64_t offset, size_t length);
/* Looks whether somebody else has changed the file; its spans are unproved then. */
void blob_look(struct blob *blob);
/* The same with map_lock held. True: it was changed. */
bool stamp_look_locked(struct blob *blob);
int stamp_take(const struct blob *blob, struct stamp *stamp); /* 0 or -errno */
void stamp_keep_locked(struct blob *blob, const struct stamp *stamp);
bool stamp_is_kept(const struct blob *blob, const struct stamp *stamp);

/* ---- prove.c ---- */
/* The CRC of what the cache file holds of a span. False: it cannot be read, or there is more than the span gives. */
bool prove_sum(const struct blob *blob, uint32_t span, uint32_t *check);
/* Proves an unproved span on a thread of the pool; miss_proof_ends hears of it. False: no memory. */
bool prove_soon_locked(struct blob *blob, uint32_t span);

/* ---- crc32c.c ---- */
uint32_t crc32c(uint32_t crc, const void *data, size_t length); /* 0 to begin with */

/* ---- view.c ---- */
/* Takes a reference; NULL when the id is unknown or released. */
struct view *view_get(uint32_t id);
void view_put(struct view *view);
void view_ref_locked(struct view *view);

/* ---- map.c ---- */
int map_open(struct blob *blob, const char *map_path, bool cache_is_new, bool verify);
void map_mark_dirty_locked(struct blob *blob);
void map_set_locked(struct blob *blob, uint32_t span, uint32_t check);
void map_clear_locked(struct blob *blob, uint32_t span);
/* Every span is there: of a blob that nobody shares yet. 0 or -errno. */
int map_fill_locked(struct blob *blob, const uint32_t *checks);
/* Makes data, then map, durable and marks the file clean, if nothing was stored meanwhile. 0 or an errno. */
int map_sync(struct blob *blob);
void map_close(struct blob *blob);

/* ---- scatter.c ---- */
/* Writes a span's tar bytes to their places in the cache file, and gives their CRC. 0 or an errno. */
int scatter_span(const struct blob *blob, uint32_t span, const uint8_t *tar, uint32_t *check);
/* Copies what a span gives to [offset, offset + length) of the blob into `out`. */
void scatter_into(const struct blob *blob, uint32_t span, const uint8_t *tar, uint8_t *out, uint64_t offset,
                  size_t length);
/* The same from one picture of the range to another. */
void scatter_copy(const struct blob *blob, uint32_t span, const uint8_t *from, uint8_t *to, uint64_t offset,
                  size_t length);

/* ---- touch.c ---- */
/* Notes the first read of each of the spans; only while view->noting. */
void touch_spans(struct view *view, uint32_t first, uint32_t last);

/* ---- miss.c: parked requests and the states of spans ---- */
struct session;
struct fuse_req;
/* Answers from the cache, or parks until every span of the range is there. */
void miss_park(struct session *session, struct view *view, struct fuse_req *req, uint64_t offset, size_t length,
               uint32_t first, uint32_t last);
void miss_interrupted(struct session *session, uint64_t id);
/* A span's tar bytes are verified: stores them, answers who waits. */
enum fill_status miss_span_ready(struct view *view, uint32_t span, const uint8_t *tar);
/* The view's attempt failed: its readers get `error`; readers of other views ask for themselves. */
void miss_span_failed(struct view *view, uint32_t span, int error);
/* While a fill is at work on a span nobody is asked for it. Returns whether somebody waits for it. */
bool miss_fill_begins(struct view *view, uint32_t span, struct task *task);
/* The task has begun. */
void miss_fill_runs(struct view *view, uint32_t span, const struct task *task);
void miss_fill_ends(struct view *view, uint32_t span);
void miss_proof_ends(struct blob *blob, uint32_t span);
void miss_view_gone_locked(struct view *view);
/* Answers all parked requests of a session with EIO. */
void miss_fail_session(struct session *session);

/* ---- deadline.c ---- */
/* Bytes of the layer have arrived through this view: who waits for it may wait on. */
void deadline_progress(struct view *view, uint64_t bytes);

/* ---- fill.c ---- */
enum fill_status {
  FILL_PENDING = 0,
  FILL_PRESENT = 1,
  FILL_DIGEST_MISMATCH = 2,
  FILL_INFLATE_ERROR = 3,
  FILL_NO_SPACE = 4
};

/* ---- pool.c ---- */
struct worker;
struct task {
  TAILQ_ENTRY(task) link;
  bool is_urgent, is_later; /* pool.c's lock */
  void (*run)(struct task *task, struct worker *worker);
};
/* Queues for the pool of inflate threads, ahead of the others when a reader waits. 0 or an errno. */
int pool_submit(struct task *task, bool urgent);
/* Starts the threads, so that pool_queue, which starts none and may be called with engine_lock held, finds some. */
int pool_start(void);
void pool_queue(struct task *task, bool urgent);
uint32_t pool_threads(void);
/* A reader waits by now: goes ahead of those for which nobody does, if it is not at work yet. */
void pool_hurry(struct task *task);

/* ---- inflate.c ---- */
struct worker *worker_create(void);
/* Decodes the compressed bytes of a span of any kind but 3; the result lives until the worker's next call. NULL: bad. */
const uint8_t *worker_decode(struct worker *worker, const struct span_file *file, uint32_t span,
                             const uint8_t *bytes, size_t length);

/* ---- session.c ---- */
struct session {
  struct fuse_session *fuse; /* NULL once it is over */
  char *mountpoint;
  struct view **views; /* inode - 2 */
  uint32_t view_count;
  int64_t deadline_ns;
  uint32_t minor; /* /sys/fs/fuse/connections/<minor> */
  uint32_t threads_alive, refs, unmount_job; /* engine_lock */
  bool unmounted;                            /* engine_lock */
  _Atomic bool draining;
  _Atomic uint32_t parked; /* requests that wait, or are being answered by another thread */
  _Atomic uint64_t reads, hits, misses, bytes_served;
  /* The kernel's first request, which a later process has to hear too; see adopt.c. Set before INIT is answered. */
  uint8_t *init;
  uint32_t init_length;
};
/* By number, with a reference; NULL when there is none. */
struct session *session_get(uint32_t id);
void session_put(struct session *session);
/* The steps from nothing to a session that serves: 0 or -errno, session_add the number. */
int session_create(const char *mountpoint, const uint32_t *view_ids, uint32_t count, struct session **out);
void session_set_deadline(struct session *session, uint32_t milliseconds);
int session_prepare(struct session *session); /* libfuse's half, without a descriptor yet */
int session_start_threads(struct session *session, uint32_t wanted);
int session_add(struct session *session);
/* Threads and JavaScript each hold the session; the last thread out ends it. */
void session_thread_ends(struct session *session);
void *session_serve(void *session);

/* ---- adopt.c ---- */
/* Keeps a copy when the request is the kernel's first one. */
void session_note_init(struct session *session, const void *request, size_t length);

/* ---- holder.c: the process that keeps /dev/fuse open when this one ends ---- */
/* The descriptor in `fd` (-1: none) goes along. 0 or -errno; -ENOTCONN: the holder is gone. Native threads only. */
int holder_put(uint32_t holder, const char *key, const uint8_t *init, uint32_t length, int fd);
/* Fills `init` (HOLDER_INIT_MAX bytes), its length and a descriptor, which is the caller's to close. */
int holder_take(uint32_t holder, const char *key, uint8_t *init, uint32_t *length, int *fd);

/* ---- syscalls.c ---- */
int write_text(const char *path, const char *text);

#endif
