// The program of endpoints' containers in tests and benchmarks: HTTP/1.1 with kept connections, a thread for each.
//
//   PORT (8000) where it listens, START_MS how long it takes until then, EXIT that it ends instead, VERSION what it says
//
//   /            VERSION and the host's name
//   /sleep/MS    the same, after a while
//   /count       how many bytes the request's body has
//   /bytes/N     so many zeros
//   /events/MS   three events with a pause between them
//   /exit/CODE   ends the program, with the request unanswered
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { buffer_bytes = 65536 };

struct reader {
  int fd;
  int used;
  char data[buffer_bytes + 1];
};

static char greeting[256];
static const char zeros[buffer_bytes];

static int fill(struct reader *in) {
  if (in->used == buffer_bytes) return 0;
  ssize_t bytes = recv(in->fd, in->data + in->used, buffer_bytes - in->used, 0);
  if (bytes <= 0) return 0;
  in->used += (int)bytes;
  in->data[in->used] = 0;
  return 1;
}

static void drop(struct reader *in, int bytes) {
  memmove(in->data, in->data + bytes, in->used - bytes + 1);
  in->used -= bytes;
}

// The length of what comes up to and with `end`; 0: the connection is over.
static int up_to(struct reader *in, const char *end) {
  for (;;) {
    char *at = strstr(in->data, end);
    if (at != NULL) return (int)(at - in->data + strlen(end));
    if (!fill(in)) return 0;
  }
}

static int skip(struct reader *in, int64_t bytes) {
  while (bytes > 0) {
    if (in->used == 0 && !fill(in)) return 0;
    int part = in->used < bytes ? in->used : (int)bytes;
    drop(in, part);
    bytes -= part;
  }
  return 1;
}

// The bytes of a chunked body (RFC 9112, 7.1), which are skipped; -1: the connection is over.
static int64_t skip_chunks(struct reader *in) {
  int64_t all = 0;
  for (;;) {
    int line = up_to(in, "\r\n");
    if (line == 0) return -1;
    int64_t size = strtoll(in->data, NULL, 16);
    drop(in, line);
    if (!skip(in, size + 2)) return -1;
    if (size == 0) return all;
    all += size;
  }
}

static int put(int fd, const char *data, size_t bytes) {
  while (bytes > 0) {
    ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return 0;
    data += sent;
    bytes -= (size_t)sent;
  }
  return 1;
}

static int answer(int fd, const char *text) {
  char all[1024];
  int bytes = snprintf(all, sizeof all, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s",
                       strlen(text), text);
  return put(fd, all, (size_t)bytes);
}

static int answer_bytes(int fd, int64_t left) {
  char head[128];
  int bytes = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n\r\n", (long long)left);
  if (!put(fd, head, (size_t)bytes)) return 0;
  for (; left > 0; left -= buffer_bytes)
    if (!put(fd, zeros, left < buffer_bytes ? (size_t)left : buffer_bytes)) return 0;
  return 1;
}

static int answer_events(int fd, int pause_ms) {
  const char *head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
  if (!put(fd, head, strlen(head))) return 0;
  for (int at = 0; at < 3; at++) {
    char event[64];
    int bytes = snprintf(event, sizeof event, "9\r\ndata: %d\n\n\r\n", at);
    if (!put(fd, event, (size_t)bytes)) return 0;
    usleep((useconds_t)pause_ms * 1000);
  }
  return put(fd, "0\r\n\r\n", 5);
}

// One request; 0: the connection is over.
static int serve(struct reader *in) {
  int head = up_to(in, "\r\n\r\n");
  if (head == 0) return 0;
  char path[256] = "";
  sscanf(in->data, "%*s %255s", path);
  int64_t length = 0;
  int chunked = 0, close_after = 0;
  for (char *line = strstr(in->data, "\r\n"); line != NULL && line < in->data + head - 4; line = strstr(line, "\r\n")) {
    line += 2;
    if (strncasecmp(line, "content-length:", 15) == 0) length = atoll(line + 15);
    if (strncasecmp(line, "transfer-encoding:", 18) == 0) chunked = 1;
    if (strncasecmp(line, "connection: close", 17) == 0) close_after = 1;
    if (strncasecmp(line, "expect: 100-continue", 20) == 0) put(in->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25);
  }
  drop(in, head);
  if (chunked) length = skip_chunks(in);
  else if (!skip(in, length)) return 0;
  if (length < 0) return 0;
  int number;
  char text[64];
  int good;
  if (sscanf(path, "/sleep/%d", &number) == 1) {
    usleep((useconds_t)number * 1000);
    good = answer(in->fd, greeting);
  } else if (sscanf(path, "/bytes/%d", &number) == 1) {
    good = answer_bytes(in->fd, number);
  } else if (sscanf(path, "/events/%d", &number) == 1) {
    good = answer_events(in->fd, number);
  } else if (sscanf(path, "/exit/%d", &number) == 1) {
    _exit(number);
  } else if (strncmp(path, "/count", 6) == 0) {
    snprintf(text, sizeof text, "%lld\n", (long long)length);
    good = answer(in->fd, text);
  } else {
    good = answer(in->fd, greeting);
  }
  return good && !close_after;
}

static void *connection(void *of) {
  struct reader *in = of;
  while (serve(in)) continue;
  close(in->fd);
  free(in);
  return NULL;
}

static void end(int signal) {
  _exit(signal == SIGTERM ? 0 : 1);
}

int main(void) {
  const char *version = getenv("VERSION"), *port = getenv("PORT"), *start_ms = getenv("START_MS");
  char host[65] = "";
  gethostname(host, sizeof host - 1);
  snprintf(greeting, sizeof greeting, "%s %s\n", version == NULL ? "v1" : version, host);
  struct sigaction action = {.sa_handler = end};
  sigaction(SIGTERM, &action, NULL);
  if (getenv("EXIT") != NULL) {
    fprintf(stderr, "there is nothing to serve\n");
    return atoi(getenv("EXIT"));
  }
  if (start_ms != NULL) usleep((useconds_t)atoi(start_ms) * 1000);
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(port == NULL ? 8000 : atoi(port)))};
  if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 512) != 0) {
    perror("listen");
    return 1;
  }
  printf("listening\n");
  fflush(stdout);
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 64 * 1024);
  pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
  for (;;) {
    struct reader *in = calloc(1, sizeof *in);
    in->fd = accept(listener, NULL, NULL);
    setsockopt(in->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pthread_t thread;
    if (in->fd < 0 || pthread_create(&thread, &small, connection, in) != 0) free(in);
  }
}
