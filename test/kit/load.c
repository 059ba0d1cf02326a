// A load generator for HTTP/1.1: CONNECTIONS connections, each with one request at a time, for MILLISECONDS or until SIGTERM.
//
//   load ADDRESS PORT CONNECTIONS MILLISECONDS PATH [HEADER: VALUE]...
//
// Prints `begun` with the first answer, and one line of JSON at the end: answers with 2xx, other answers, requests whose connection ended before their answer did, the whole
// time, and the latencies' p50, p90, p99 and most in microseconds. One thread: what is measured needs the other processor.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { head_max = 16384, samples_max = 1 << 22 };

struct connection {
  int fd;
  int64_t sent_at;
  int used;          // bytes in `head`
  int in_body;       // the head is complete
  int status;
  int chunked;
  int64_t left;      // of the body, or of this chunk; -1: a chunk's size line is awaited
  int last_chunk;
  char head[head_max];
};

static struct sockaddr_in target;
static char request[8192];
static int request_bytes;
static int epoll_fd;
static uint32_t *latencies;
static int64_t good, other, broken, samples;
static volatile sig_atomic_t enough;

static void stop(int signal) {
  enough = signal;
}

static int64_t now_us(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (int64_t)at.tv_sec * 1000000 + at.tv_nsec / 1000;
}

static void send_request(struct connection *of) {
  of->used = of->in_body = of->chunked = of->last_chunk = 0;
  of->sent_at = now_us();
  if (send(of->fd, request, request_bytes, MSG_NOSIGNAL) != request_bytes) of->status = -1;
}

static void dial(struct connection *of) {
  of->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int on = 1;
  setsockopt(of->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(of->fd, (struct sockaddr *)&target, sizeof target) != 0) {
    perror("connect");
    exit(1);
  }
  fcntl(of->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = of};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, of->fd, &event);
  send_request(of);
}

static void answered(struct connection *of) {
  if (good + other == 0) {
    printf("begun\n");
    fflush(stdout);
  }
  if (samples < samples_max) latencies[samples++] = (uint32_t)(now_us() - of->sent_at);
  if (of->status >= 200 && of->status < 300) good++;
  else other++;
}

static void parse_head(struct connection *of, char *end) {
  *end = 0;
  of->status = atoi(of->head + 9);
  of->left = 0;
  for (char *line = strstr(of->head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
    line += 2;
    if (strncasecmp(line, "content-length:", 15) == 0) of->left = atoll(line + 15);
    if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) of->chunked = 1;
  }
  if (of->chunked) of->left = -1;
  of->in_body = 1;
}

// Takes what has come; 1 when the answer is complete.
static int take(struct connection *of) {
  if (!of->in_body) {
    of->head[of->used] = 0;
    char *end = strstr(of->head, "\r\n\r\n");
    if (end == NULL) return 0;
    parse_head(of, end);
    int begin = (int)(end + 4 - of->head);
    memmove(of->head, of->head + begin, of->used - begin);
    of->used -= begin;
  }
  for (;;) {
    if (of->left == -1) {
      of->head[of->used] = 0;
      char *end = strstr(of->head, "\r\n");
      if (end == NULL) return 0;
      int64_t size = strtoll(of->head, NULL, 16);
      int begin = (int)(end + 2 - of->head);
      memmove(of->head, of->head + begin, of->used - begin);
      of->used -= begin;
      of->left = size + 2;
      of->last_chunk = size == 0;
    }
    int64_t part = of->used < of->left ? of->used : of->left;
    memmove(of->head, of->head + part, of->used - part);
    of->used -= (int)part;
    of->left -= part;
    if (of->left > 0) return 0;
    if (!of->chunked || of->last_chunk) return 1;
    of->left = -1;
  }
}

static void again(struct connection *of) {
  close(of->fd);
  dial(of);
}

static void readable(struct connection *of) {
  ssize_t bytes = recv(of->fd, of->head + of->used, head_max - 1 - of->used, 0);
  if (bytes < 0 && errno == EAGAIN) return;
  if (bytes <= 0) {
    broken++;
    again(of);
    return;
  }
  of->used += (int)bytes;
  if (!take(of)) return;
  answered(of);
  send_request(of);
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static uint32_t quantile(double part) {
  return samples == 0 ? 0 : latencies[(int64_t)(part * (double)(samples - 1))];
}

int main(int argc, char **argv) {
  if (argc < 6) {
    fprintf(stderr, "usage: load ADDRESS PORT CONNECTIONS MILLISECONDS PATH [HEADER]...\n");
    return 2;
  }
  target.sin_family = AF_INET;
  target.sin_port = htons((uint16_t)atoi(argv[2]));
  inet_pton(AF_INET, argv[1], &target.sin_addr);
  int connections = atoi(argv[3]);
  int64_t duration = atoll(argv[4]) * 1000;
  request_bytes = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s:%s\r\n", argv[5], argv[1], argv[2]);
  for (int at = 6; at < argc; at++)
    request_bytes += snprintf(request + request_bytes, sizeof request - request_bytes, "%s\r\n", argv[at]);
  request_bytes += snprintf(request + request_bytes, sizeof request - request_bytes, "\r\n");
  latencies = malloc(sizeof(uint32_t) * samples_max);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  struct connection *all = calloc(connections, sizeof *all);
  int64_t begun = now_us();
  for (int at = 0; at < connections; at++) dial(&all[at]);
  struct epoll_event events[64];
  signal(SIGTERM, stop);
  while (!enough && now_us() - begun < duration) {
    int count = epoll_wait(epoll_fd, events, 64, 100);
    for (int at = 0; at < count; at++) readable(events[at].data.ptr);
  }
  int64_t took = now_us() - begun;
  qsort(latencies, samples, sizeof *latencies, by_size);
  printf("{\"good\":%lld,\"other\":%lld,\"broken\":%lld,\"microseconds\":%lld,"
         "\"p50\":%u,\"p90\":%u,\"p99\":%u,\"most\":%u}\n",
         (long long)good, (long long)other, (long long)broken, (long long)took,
         quantile(0.5), quantile(0.9), quantile(0.99), quantile(1));
  return 0;
}
