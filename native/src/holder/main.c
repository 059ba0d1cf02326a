/*
 * oci-node-holder FOLDER MILLISECONDS
 *
 * Keeps the FUSE connections of a worker's mounts open when the worker's process ends, so that what reads the mounts
 * waits for the next process instead of failing. It never reads from them. One per folder. When no worker has been
 * connected for the given time it ends: the kernel then fails every read that waits.
 *
 * The process that is started ends as soon as the holder listens, with 0, or with an errno; EALREADY: there is one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "message.h"
#include "protocol.h"

struct held {
  uint8_t key[HOLDER_KEY];
  int fd;
  uint32_t init_length;
  uint8_t init[HOLDER_INIT_MAX];
};

static struct held *held;
static uint32_t held_count, held_capacity;
static int64_t patience_ms;
static char socket_path[64];

static int64_t now_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- what is held ---- */
static struct held *find(const uint8_t *key) {
  for (uint32_t i = 0; i < held_count; i++)
    if (memcmp(held[i].key, key, HOLDER_KEY) == 0) return &held[i];
  return NULL;
}

static int put(const struct holder_request *request, int fd) {
  if (fd < 0 || request->init_length == 0 || request->init_length > HOLDER_INIT_MAX) return -EINVAL;
  struct held *one = find(request->key);
  if (one == NULL) {
    if (held_count == HOLDER_HELD_MAX) return -ENOSPC;
    if (held_count == held_capacity) {
      uint32_t capacity = held_capacity == 0 ? 16 : held_capacity * 2;
      struct held *larger = realloc(held, capacity * sizeof *larger);
      if (larger == NULL) return -ENOMEM;
      held = larger;
      held_capacity = capacity;
    }
    one = &held[held_count++];
    memcpy(one->key, request->key, HOLDER_KEY);
    one->fd = -1;
  }
  int kept = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (kept < 0 && one->fd < 0) held_count--;
  if (kept < 0) return -errno;
  if (one->fd >= 0) close(one->fd);
  one->fd = kept;
  one->init_length = request->init_length;
  memcpy(one->init, request->init, request->init_length);
  return 0;
}

static int drop(const uint8_t *key) {
  struct held *one = find(key);
  if (one == NULL) return -ENOENT;
  close(one->fd);
  *one = held[--held_count];
  return 0;
}

/* ---- messages ---- */
union rights {
  struct cmsghdr header;
  char space[CMSG_SPACE(sizeof(int) * 4)];
};

/* Bytes received, 0 at the end, negative when the peer broke the rules. Descriptors beyond the first are closed. */
static ssize_t receive(int client, struct holder_request *request, int *fd) {
  union rights rights;
  struct iovec part = {request, sizeof *request};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
  ssize_t got;
  do got = recvmsg(client, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  *fd = -1;
  for (struct cmsghdr *part_of = got < 0 ? NULL : CMSG_FIRSTHDR(&message); part_of != NULL;
       part_of = CMSG_NXTHDR(&message, part_of)) {
    if (part_of->cmsg_level != SOL_SOCKET || part_of->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (part_of->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int one;
      memcpy(&one, CMSG_DATA(part_of) + i * sizeof one, sizeof one);
      if (*fd < 0) *fd = one;
      else close(one);
    }
  }
  if (got > 0 && (message.msg_flags & MSG_TRUNC) != 0) return -1;
  return got;
}

static bool answer(int client, const struct holder_reply *reply, int fd) {
  return holder_send(client, reply, offsetof(struct holder_reply, body) + reply->length, fd) == 0;
}

static void list(uint32_t from, struct holder_reply *reply) {
  for (uint32_t i = from; i < held_count && reply->length + HOLDER_KEY <= sizeof reply->body; i++) {
    memcpy(reply->body + reply->length, held[i].key, HOLDER_KEY);
    reply->length += HOLDER_KEY;
  }
  reply->result = (int32_t)held_count;
}

static void give_up(int code) {
  unlink(socket_path);
  _exit(code);
}

/* Returns whether the connection goes on. */
static bool serve_one(int client, bool *greeted) {
  static struct holder_request request;
  static struct holder_reply reply;
  int fd, given = -1;
  memset(&request, 0, sizeof request);
  ssize_t got = receive(client, &request, &fd);
  if (got <= 0) {
    if (fd >= 0) close(fd);
    return false;
  }
  memset(&reply, 0, offsetof(struct holder_reply, body));
  reply.magic = HOLDER_MAGIC;
  reply.version = HOLDER_VERSION;
  reply.operation = request.operation;
  bool goes_on = true;
  if (got < (ssize_t)offsetof(struct holder_request, key) || request.magic != HOLDER_MAGIC) {
    reply.result = -EBADMSG;
    goes_on = false;
  } else if (request.version != HOLDER_VERSION) {
    reply.result = -EPROTONOSUPPORT;
    goes_on = false;
  } else if (request.operation == HOLDER_HELLO) {
    if (request.argument > 0) patience_ms = request.argument;
    *greeted = true;
  } else if (got != sizeof request || !*greeted) {
    reply.result = -EBADMSG;
    goes_on = false;
  } else if (request.operation == HOLDER_PUT) {
    reply.result = put(&request, fd);
  } else if (request.operation == HOLDER_TAKE) {
    const struct held *one = find(request.key);
    if (one == NULL) {
      reply.result = -ENOENT;
    } else {
      given = one->fd;
      reply.length = one->init_length;
      memcpy(reply.body, one->init, one->init_length);
    }
  } else if (request.operation == HOLDER_DROP) {
    reply.result = drop(request.key);
  } else if (request.operation == HOLDER_LIST) {
    list(request.argument, &reply);
  } else if (request.operation == HOLDER_BYE) {
    if (held_count == 0) give_up(0); /* the peer sees the end of its connection */
    reply.result = -EBUSY;
  } else {
    reply.result = -EOPNOTSUPP;
  }
  if (fd >= 0) close(fd);
  return answer(client, &reply, given) && goes_on;
}

static bool is_ours(int client) {
  struct ucred peer;
  socklen_t length = sizeof peer;
  return getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && (peer.uid == geteuid() || peer.uid == 0);
}

static void serve(int listener) {
  int64_t until = now_ms() + patience_ms;
  for (;;) {
    struct pollfd wait = {.fd = listener, .events = POLLIN};
    int64_t left = until - now_ms();
    int ready = left <= 0 ? 0 : poll(&wait, 1, (int)left);
    if (ready == 0) give_up(0); /* nobody came: every reader gets its error now */
    if (ready < 0) continue;
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) continue;
    bool greeted = false;
    const struct timeval soon = {.tv_sec = 5}, never = {0};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon); /* others wait behind it */
    if (is_ours(client) && serve_one(client, &greeted) && greeted)
      setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof never);
    while (greeted && serve_one(client, &greeted)) {}
    close(client);
    /* Who never said what it is was no worker. */
    if (greeted) until = now_ms() + patience_ms;
  }
}

/* ---- starting ---- */
static int listen_in(const char *folder) {
  int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return -errno;
  if (flock(dir, LOCK_EX | LOCK_NB) != 0) return errno == EWOULDBLOCK ? -EALREADY : -errno;
  /* By the descriptor: a socket's name has room for 107 bytes only. */
  snprintf(socket_path, sizeof socket_path, "/proc/self/fd/%d/" HOLDER_SOCKET, dir);
  if (unlink(socket_path) != 0 && errno != ENOENT) return -errno;
  int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (listener < 0) return -errno;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, socket_path);
  umask(0177);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0) return -errno;
  return listener;
}

static void be_a_daemon(void) {
  setsid();
  if (chdir("/") != 0) _exit(errno);
  int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3 && null >= 0; fd++) dup2(null, fd);
  if (null > 2) close(null);
  signal(SIGHUP, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  /* It weighs nothing, and its end is the end of every container that reads an image. */
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd >= 0 && write(fd, "-900", 4) < 0) { /* not allowed to: no harm */ }
  if (fd >= 0) close(fd);
  /* As every process of the program's: no core, nobody looks in. */
  const struct rlimit none = {0, 0};
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0) _exit(errno);
}

int main(int count, char **argv) {
  int pipes[2], code = 0;
  if (count != 3) return EINVAL;
  patience_ms = atoll(argv[2]);
  if (patience_ms <= 0) return EINVAL;
  if (pipe2(pipes, O_CLOEXEC) != 0) return errno;
  pid_t child = fork();
  if (child < 0) return errno;
  if (child > 0) {
    close(pipes[1]);
    return read(pipes[0], &code, sizeof code) == sizeof code ? code : EIO;
  }
  close(pipes[0]);
  be_a_daemon();
  int listener = listen_in(argv[1]);
  code = listener < 0 ? -listener : 0;
  if (write(pipes[1], &code, sizeof code) < 0 || code != 0) _exit(code);
  close(pipes[1]);
  serve(listener);
}
