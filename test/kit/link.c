// link HOST PORT: a link before a registry, for benchmarks: a delay per request and a rate for all connections together,
// both settable, and counts. Bodies of answers are spliced, so that it takes little of the machine that it shares with
// what is measured. Prints `link 127.0.0.1:PORT control 127.0.0.1:PORT`; the control port answers
//   GET /stats  {"requests", "bytes", "log"}      GET /reset  the same, from zero
//   GET /set?delay_ms=N&rate=N                    rate in bytes per second, 0: no limit
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { head_max = 64 << 10, log_max = 10000, pipe_size = 1 << 20, slice = 128 << 10 };

// What a client sent and the server gets later.
struct later {
  struct later *next;
  int64_t at_ns;
  size_t size, done;
  char data[];
};

struct side {
  struct connection *connection;
  int fd;
  bool readable, writable;
};

struct connection {
  struct connection *next, *previous;
  struct side client, server;
  int in, out;        // the pipe's ends
  size_t in_pipe;
  bool ended, closed; // the server said all; both are to be closed
  char head[head_max];
  size_t head_size;
  uint64_t body_left; // of a request
  struct later *first, **last;
};

static struct connection all = {.next = &all, .previous = &all};
static struct sockaddr_in upstream;
static int poller, door, control;
static int64_t delay_ns, rate, filled_ns;
static double tokens;
static uint64_t requests, bytes;
static char *requests_log[log_max];

static int64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void watch(int fd, void *data, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = data};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
}

static int listen_on_loopback(uint16_t *port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (fd < 0 || bind(fd, (void *)&address, size) != 0 || listen(fd, 1024) != 0) fail("listen");
  getsockname(fd, (void *)&address, &size);
  *port = ntohs(address.sin_port);
  return fd;
}

static void open_connection(int client) {
  int one = 1, ends[2];
  int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct connection *c = calloc(1, sizeof *c);
  if (server < 0 || c == NULL || pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) fail("connection");
  if (connect(server, (void *)&upstream, sizeof upstream) != 0) {
    close(client), close(server), close(ends[0]), close(ends[1]);
    free(c);
    return;
  }
  fcntl(server, F_SETFL, O_NONBLOCK);
  fcntl(ends[1], F_SETPIPE_SZ, pipe_size);
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  c->client = (struct side){.connection = c, .fd = client};
  c->server = (struct side){.connection = c, .fd = server};
  c->out = ends[0], c->in = ends[1];
  c->last = &c->first;
  c->next = &all, c->previous = all.previous;
  all.previous->next = c, all.previous = c;
  watch(client, &c->client, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
  watch(server, &c->server, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

static void free_connection(struct connection *c) {
  c->previous->next = c->next, c->next->previous = c->previous;
  close(c->client.fd), close(c->server.fd), close(c->in), close(c->out);
  while (c->first != NULL) {
    struct later *later = c->first;
    c->first = later->next;
    free(later);
  }
  free(c);
}

static void send_later(struct connection *c, const char *data, size_t size) {
  struct later *later = malloc(sizeof *later + size);
  if (later == NULL) fail("malloc");
  *later = (struct later){.at_ns = now_ns() + delay_ns, .size = size};
  memcpy(later->data, data, size);
  *c->last = later;
  c->last = &later->next;
}

static void note_request(const char *head) {
  char line[1024], range[128] = "";
  const char *found = strcasestr(head, "\r\nrange:");
  if (found != NULL) sscanf(found + 8, " %127[^\r]", range);
  snprintf(line, sizeof line, "%.*s%s%s", (int)(strcspn(head, " ") + 1 + strcspn(strchrnul(head, ' ') + 1, " ")), head,
           *range ? " " : "", range);
  char **place = &requests_log[requests++ % log_max];
  free(*place);
  *place = strdup(line);
}

// Takes what a client sent apart into requests, to know where one begins.
static void from_client(struct connection *c) {
  for (;;) {
    ssize_t got = read(c->client.fd, c->head + c->head_size, head_max - 1 - c->head_size);
    if (got < 0 && errno == EAGAIN) break;
    if (got <= 0) {
      c->closed = true;
      return;
    }
    c->head_size += got;
    for (;;) {
      size_t body = c->head_size < c->body_left ? c->head_size : c->body_left;
      if (body > 0) {
        send_later(c, c->head, body);
        c->body_left -= body;
        memmove(c->head, c->head + body, c->head_size -= body);
      }
      c->head[c->head_size] = 0;
      char *end = strstr(c->head, "\r\n\r\n");
      if (end == NULL || c->body_left > 0) break;
      size_t size = end + 4 - c->head;
      char first_of_body = end[4];
      end[4] = 0;
      char *length = strcasestr(c->head, "\r\ncontent-length:");
      if (length != NULL) c->body_left = strtoull(length + 17, NULL, 10);
      note_request(c->head);
      end[4] = first_of_body;
      send_later(c, c->head, size);
      memmove(c->head, c->head + size, c->head_size -= size);
    }
    if (c->head_size == head_max - 1) c->closed = true;
  }
  c->client.readable = false;
}

static void to_server(struct connection *c, int64_t now) {
  while (c->first != NULL && c->first->at_ns <= now && !c->closed) {
    struct later *later = c->first;
    ssize_t put = send(c->server.fd, later->data + later->done, later->size - later->done, MSG_NOSIGNAL);
    if (put < 0) {
      if (errno != EAGAIN) c->closed = true;
      c->server.writable = false;
      return;
    }
    later->done += put;
    if (later->done < later->size) continue;
    c->first = later->next;
    if (c->first == NULL) c->last = &c->first;
    free(later);
  }
}

static void fill_bucket(int64_t now) {
  double burst = rate * 0.004;
  tokens += (now - filled_ns) * 1e-9 * rate;
  if (tokens > burst) tokens = burst;
  filled_ns = now;
}

// Moves one slice from the server to the client; true when there may be more to do at once.
static bool to_client(struct connection *c) {
  if (c->in_pipe == 0 && !c->ended && c->server.readable && (rate == 0 || tokens > 0)) {
    ssize_t got = splice(c->server.fd, NULL, c->in, NULL, slice, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (got < 0) {
      if (errno != EAGAIN) c->closed = true;
      c->server.readable = false;
      return false;
    }
    if (got == 0) c->ended = true;
    c->in_pipe = got;
    bytes += got;
    if (rate > 0) tokens -= got;
  }
  if (c->in_pipe == 0) {
    if (c->ended) c->closed = true;
    return false;
  }
  if (!c->client.writable) return false;
  ssize_t put = splice(c->out, NULL, c->client.fd, NULL, c->in_pipe, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  if (put < 0) {
    if (errno != EAGAIN) c->closed = true;
    c->client.writable = false;
    return false;
  }
  c->in_pipe -= put;
  return true;
}

static void answer_control(int fd) {
  char request[4096] = "", *text = NULL;
  size_t size = 0;
  struct timeval patience = {.tv_sec = 1};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (read(fd, request, sizeof request - 1) > 0) {
    long long value;
    char *found;
    if (strncmp(request, "GET /reset", 10) == 0) requests = bytes = 0;
    if ((found = strstr(request, "delay_ms=")) != NULL && sscanf(found + 9, "%lld", &value) == 1)
      delay_ns = value * 1000000;
    if ((found = strstr(request, "rate=")) != NULL && sscanf(found + 5, "%lld", &value) == 1) rate = value, tokens = 0;
    FILE *body = open_memstream(&text, &size);
    fprintf(body, "{\"requests\": %llu, \"bytes\": %llu, \"log\": [", (unsigned long long)requests,
            (unsigned long long)bytes);
    uint64_t from = requests > log_max ? requests - log_max : 0;
    for (uint64_t i = from; i < requests; i++) {
      fprintf(body, "%s\"", i > from ? "," : "");
      for (const char *at = requests_log[i % log_max]; *at; at++)
        if (*at >= ' ' && *at != '"' && *at != '\\') fputc(*at, body);
      fputc('"', body);
    }
    fprintf(body, "]}\n");
    fclose(body);
    fcntl(fd, F_SETFL, 0);
    dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
            size, text);
    free(text);
  }
  close(fd);
}

// How long nothing has to be done: until the next request goes on, or the bucket has a millisecond's worth. -1: for ever.
static int64_t idle_ns(int64_t now) {
  int64_t least = -1;
  for (struct connection *c = all.next; c != &all; c = c->next) {
    int64_t wait = -1;
    if (c->first != NULL) wait = c->first->at_ns > now ? c->first->at_ns - now : c->server.writable ? 0 : -1;
    if (rate > 0 && c->server.readable && c->in_pipe == 0 && tokens <= 0) {
      int64_t bucket = (rate * 0.001 - tokens) * 1e9 / rate;
      if (wait < 0 || bucket < wait) wait = bucket;
    }
    if (wait >= 0 && (least < 0 || wait < least)) least = wait;
  }
  return least;
}

static void serve(void) {
  struct epoll_event events[256];
  for (;;) {
    int64_t idle = idle_ns(now_ns());
    struct timespec wait = {.tv_sec = idle / 1000000000, .tv_nsec = idle % 1000000000};
    int count = epoll_pwait2(poller, events, 256, idle < 0 ? NULL : &wait, NULL);
    if (count < 0 && errno != EINTR) fail("epoll_pwait2");
    for (int i = 0; i < count; i++) {
      if (events[i].data.ptr == &door || events[i].data.ptr == &control) {
        bool is_door = events[i].data.ptr == &door;
        int fd = accept4(is_door ? door : control, NULL, NULL, SOCK_CLOEXEC | (is_door ? SOCK_NONBLOCK : 0));
        if (fd >= 0) is_door ? open_connection(fd) : answer_control(fd);
        continue;
      }
      struct side *side = events[i].data.ptr;
      if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) side->readable = true;
      if (events[i].events & EPOLLOUT) side->writable = true;
    }
    for (bool more = true; more;) {
      more = false;
      int64_t now = now_ns();
      fill_bucket(now);
      for (struct connection *c = all.next; c != &all; c = c->next) {
        if (c->client.readable && !c->closed) from_client(c);
        to_server(c, now);
        if (!c->closed && to_client(c)) more = true;
      }
      // Whoever was first goes last, so that a bucket that is nearly empty serves all in turn.
      if (all.next != &all && all.next->next != &all) {
        struct connection *c = all.next;
        all.next = c->next, c->next->previous = &all;
        c->next = &all, c->previous = all.previous;
        all.previous->next = c, all.previous = c;
      }
      for (struct connection *c = all.next, *next; c != &all; c = next) {
        next = c->next;
        if (c->closed) free_connection(c);
      }
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  signal(SIGPIPE, SIG_IGN);
  upstream = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  if (inet_pton(AF_INET, argv[1], &upstream.sin_addr) != 1) return 2;
  uint16_t port, control_port;
  poller = epoll_create1(EPOLL_CLOEXEC);
  door = listen_on_loopback(&port);
  control = listen_on_loopback(&control_port);
  watch(door, &door, EPOLLIN);
  watch(control, &control, EPOLLIN);
  filled_ns = now_ns();
  printf("link 127.0.0.1:%d control 127.0.0.1:%d\n", port, control_port);
  fflush(stdout);
  serve();
}
