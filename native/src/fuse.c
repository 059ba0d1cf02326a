/*
 * The file system that EROFS reads: one flat folder with a regular file per layer, named "0", "1", … in order.
 * Everything is found by inode number alone and nothing by an open file, so any thread may answer any request.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oci.h"

enum { FIRST_INODE = FUSE_ROOT_ID + 1, READ_MAX = 1 << 20 };
static const double for_ever_seconds = 365.0 * 86400;
/* Reply buffers, shared by all mounts: a thousand idle ones must not each keep megabytes. */
enum { BUFFERS_KEPT = 16 };
static uint8_t *buffers[BUFFERS_KEPT];
static uint32_t buffer_count;
static pthread_mutex_t buffer_lock = PTHREAD_MUTEX_INITIALIZER;

static uint8_t *buffer_take(void) {
  pthread_mutex_lock(&buffer_lock);
  uint8_t *buffer = buffer_count > 0 ? buffers[--buffer_count] : NULL;
  pthread_mutex_unlock(&buffer_lock);
  return buffer != NULL ? buffer : malloc(READ_MAX);
}

static void buffer_give(uint8_t *buffer) {
  pthread_mutex_lock(&buffer_lock);
  bool kept = buffer != NULL && buffer_count < BUFFERS_KEPT;
  if (kept) buffers[buffer_count++] = buffer;
  pthread_mutex_unlock(&buffer_lock);
  if (!kept) free(buffer);
}

static struct view *view_of(const struct session *session, fuse_ino_t inode) {
  if (inode < FIRST_INODE || inode - FIRST_INODE >= session->view_count) return NULL;
  return session->views[inode - FIRST_INODE];
}

static bool describe(const struct session *session, fuse_ino_t inode, struct stat *st) {
  memset(st, 0, sizeof *st);
  st->st_ino = inode;
  st->st_blksize = READ_MAX;
  if (inode == FUSE_ROOT_ID) {
    st->st_mode = S_IFDIR | 0500;
    st->st_nlink = 2;
    return true;
  }
  const struct view *view = view_of(session, inode);
  if (view == NULL) return false;
  st->st_mode = S_IFREG | 0400;
  st->st_nlink = 1;
  st->st_size = (off_t)view->blob->spans.header->blob_size;
  st->st_blocks = st->st_size / 512;
  return true;
}

static void on_init(void *userdata, struct fuse_conn_info *conn) {
  (void)userdata;
  /* max_pages follows from max_write: 256 pages, requests of 1 MiB. */
  conn->max_write = READ_MAX;
  conn->max_readahead = READ_MAX;
  conn->max_background = 256; /* read-ahead of many readers must not wait for one slow span */
  conn->congestion_threshold = 192;
  conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_SPLICE_WRITE);
  conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS);
}

static bool parse_name(const char *name, const struct session *session, fuse_ino_t *inode) {
  char *end;
  if (name[0] < '0' || name[0] > '9' || (name[0] == '0' && name[1] != '\0')) return false;
  errno = 0;
  unsigned long number = strtoul(name, &end, 10);
  if (*end != '\0' || errno != 0 || number >= session->view_count) return false;
  *inode = number + FIRST_INODE;
  return true;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
  const struct session *session = fuse_req_userdata(req);
  struct fuse_entry_param entry = {.attr_timeout = for_ever_seconds, .entry_timeout = for_ever_seconds};
  if (parent != FUSE_ROOT_ID || !parse_name(name, session, &entry.ino) || !describe(session, entry.ino, &entry.attr))
    fuse_reply_err(req, ENOENT);
  else fuse_reply_entry(req, &entry);
}

static void on_getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info) {
  (void)info;
  struct stat st;
  if (describe(fuse_req_userdata(req), inode, &st)) fuse_reply_attr(req, &st, for_ever_seconds);
  else fuse_reply_err(req, ENOENT);
}

static void on_open(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info) {
  if (view_of(fuse_req_userdata(req), inode) == NULL) {
    fuse_reply_err(req, ENOENT);
  } else if ((info->flags & O_ACCMODE) != O_RDONLY) {
    fuse_reply_err(req, EROFS);
  } else {
    info->keep_cache = 1;
    info->noflush = 1;
    fuse_reply_open(req, info);
  }
}

static void on_readdir(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *info) {
  (void)info;
  const struct session *session = fuse_req_userdata(req);
  char *entries = inode == FUSE_ROOT_ID ? malloc(size) : NULL;
  if (entries == NULL) {
    fuse_reply_err(req, inode == FUSE_ROOT_ID ? ENOMEM : ENOTDIR);
    return;
  }
  size_t used = 0;
  for (uint64_t at = (uint64_t)offset; at < 2 + (uint64_t)session->view_count; at++) {
    char name[24];
    struct stat st;
    if (at < 2) strcpy(name, at == 0 ? "." : "..");
    else snprintf(name, sizeof name, "%llu", (unsigned long long)(at - 2));
    describe(session, at < 2 ? FUSE_ROOT_ID : at - 2 + FIRST_INODE, &st);
    size_t took = fuse_add_direntry(req, entries + used, size - used, name, &st, (off_t)at + 1);
    if (took > size - used) break;
    used += took;
  }
  fuse_reply_buf(req, entries, used);
  free(entries);
}

/* False: the cache file was changed by somebody else; nothing was replied. */
static bool reply_present(struct session *session, fuse_req_t req, struct blob *blob, uint64_t doubts, uint64_t offset,
                          size_t length) {
  uint8_t *buffer = buffer_take();
  int error = buffer == NULL ? ENOMEM : blob_read_sure(blob, doubts, buffer, offset, length);
  if (error == 0) {
    atomic_fetch_add_explicit(&session->hits, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&session->bytes_served, length, memory_order_relaxed);
    fuse_reply_buf(req, (const char *)buffer, length);
  } else if (error != ESTALE) {
    fuse_reply_err(req, EIO);
  }
  buffer_give(buffer);
  return error != ESTALE;
}

/* A part of the blob that belongs to no file, or is a hole of one: zeros, whatever the cache file has there. */
static void reply_hole(struct session *session, fuse_req_t req, size_t length) {
  uint8_t *buffer = buffer_take();
  if (buffer == NULL) {
    fuse_reply_err(req, EIO);
    return;
  }
  memset(buffer, 0, length);
  atomic_fetch_add_explicit(&session->hits, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&session->bytes_served, length, memory_order_relaxed);
  fuse_reply_buf(req, (const char *)buffer, length);
  buffer_give(buffer);
}

static void on_read(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *info) {
  (void)info;
  struct session *session = fuse_req_userdata(req);
  struct view *view = view_of(session, inode);
  if (view == NULL || size > READ_MAX || offset < 0) {
    fuse_reply_err(req, EIO);
    return;
  }
  struct blob *blob = view->blob;
  uint64_t at = (uint64_t)offset, end = blob->spans.header->blob_size;
  if (at >= end) {
    fuse_reply_buf(req, NULL, 0);
    return;
  }
  size_t length = size < end - at ? size : (size_t)(end - at);
  atomic_fetch_add_explicit(&session->reads, 1, memory_order_relaxed);
  uint32_t first, last;
  uint64_t doubts = atomic_load(&blob->doubts);
  bool present = true, partial = atomic_load(&blob->present) < blob->spans.header->span_count;
  bool noting = atomic_load_explicit(&view->noting, memory_order_relaxed);
  bool known = partial || noting, hole = known && !span_file_range(&blob->spans, at, length, &first, &last);
  if (noting && !hole) touch_spans(view, first, last);
  for (uint32_t s = first; partial && !hole && s <= last && present; s++) present = blob_has(blob, s);
  if (!hole && present && reply_present(session, req, blob, doubts, at, length)) return;
  if (!known) hole = !span_file_range(&blob->spans, at, length, &first, &last);
  if (hole) {
    reply_hole(session, req, length);
    return;
  }
  atomic_fetch_add_explicit(&session->misses, 1, memory_order_relaxed);
  miss_park(session, view, req, at, length, first, last);
}

static void on_statfs(fuse_req_t req, fuse_ino_t inode) {
  (void)inode;
  struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
  fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops blob_operations = {
    .init = on_init,
    .lookup = on_lookup,
    .getattr = on_getattr,
    .open = on_open,
    .read = on_read,
    .readdir = on_readdir,
    .statfs = on_statfs,
};

void *session_serve(void *argument) {
  struct session *session = argument;
  struct fuse_session *fuse = session->fuse;
  struct fuse_buf request = {.mem = NULL};
  while (!fuse_session_exited(fuse)) {
    int got = fuse_session_receive_buf(fuse, &request);
    if (got == -EINTR || got == -EAGAIN) continue;
    if (got <= 0) break;
    if (session->init == NULL) session_note_init(session, request.mem, (size_t)got);
    fuse_session_process_buf(fuse, &request);
  }
  free(request.mem);
  session_thread_ends(session);
  return NULL;
}
