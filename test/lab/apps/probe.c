// SPDX-License-Identifier: Apache-2.0
/*
 * probe: measures a path from its client's end; one thread.
 *
 *   probe connect ADDR PORT COUNT             COUNT blocking connects one after the other; only connect() is timed
 *   probe churn ADDR PORT CLIENTS SECONDS     a connection per request from CLIENTS clients at once, the client closes
 *   probe pace ADDR PORT CONNECTIONS RATE SECONDS   RATE requests/s in all on CONNECTIONS kept-alive connections
 *
 * ADDR is IPv4 or IPv6. `connect` takes a refusal without a packet (EHOSTUNREACH of an unreachable route) as an answer
 * too: so the cost of what runs before the route is looked up shows without the handshake's noise.
 * `churn` and `pace` speak HTTP and expect `web` at the other end. `pace` counts latency from when a request was due,
 * so a stall counts for all the requests that it delays.
 *
 * Prints {"done":N,"failed":N,"seconds":S,"mean_ns":N,"p10_ns":N,"p50_ns":N,"p99_ns":N,"max_ns":N,"error":"..."}.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 1024
#define SAMPLES_MAX (4 * 1024 * 1024)
#define REPLY_MAX 65536
#define NS_PER_S 1000000000ull
#define PATIENCE_MS 20000

struct client {
	int fd;
	bool connected;
	size_t got;
	size_t wanted;
	uint64_t since_ns;
};

static struct sockaddr_storage address;
static socklen_t address_bytes;
static struct client clients[CLIENTS_MAX];
static uint64_t *samples;
static size_t sample_count, done, failed;
static int last_error;
static const char request[] = "GET / HTTP/1.1\r\nhost: web\r\n\r\n";

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void sample_add(uint64_t ns)
{
	if (sample_count < SAMPLES_MAX)
		samples[sample_count++] = ns;
	done++;
}

static int sample_compare(const void *a, const void *b)
{
	uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;

	return (one > other) - (one < other);
}

static uint64_t sample_at(double share)
{
	size_t at = (size_t)(share * (double)sample_count);

	return sample_count ? samples[at < sample_count ? at : sample_count - 1] : 0;
}

static void report(uint64_t began_ns)
{
	double seconds = (double)(now_ns() - began_ns) / NS_PER_S, sum = 0;
	size_t i;

	qsort(samples, sample_count, sizeof(*samples), sample_compare);
	for (i = 0; i < sample_count; i++)
		sum += (double)samples[i];
	printf("{\"done\":%zu,\"failed\":%zu,\"seconds\":%.3f,\"mean_ns\":%.0f,\"p10_ns\":%llu,\"p50_ns\":%llu,"
	       "\"p99_ns\":%llu,\"max_ns\":%llu,\"error\":\"%s\"}\n",
		done, failed, seconds, sample_count ? sum / (double)sample_count : 0,
		(unsigned long long)sample_at(0.1), (unsigned long long)sample_at(0.5),
		(unsigned long long)sample_at(0.99), (unsigned long long)sample_at(1),
		last_error ? strerror(last_error) : "");
}

static void address_parse(const char *host, const char *port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;

	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)atoi(port));
		address_bytes = sizeof(*v4);
		return;
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) {
		fprintf(stderr, "%s is no address\n", host);
		exit(2);
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons((uint16_t)atoi(port));
	address_bytes = sizeof(*v6);
}

static int socket_open(int flags)
{
	int on = 1, fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd < 0)
		fail("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static void run_connect(int count)
{
	struct linger reset = {.l_onoff = 1, .l_linger = 0};
	int i;

	for (i = 0; i < count; i++) {
		int result, fd = socket_open(0);
		uint64_t since;

		/* No TIME_WAIT: ports would run out. */
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		since = now_ns();
		result = connect(fd, (struct sockaddr *)&address, address_bytes);
		if (result && errno != EHOSTUNREACH) {
			last_error = errno;
			failed++;
		} else {
			sample_add(now_ns() - since);
		}
		close(fd);
	}
}

/* How many bytes the whole reply has, or 0 while that is not known. Needs the head in one piece from the start of
 * `bytes`. */
static size_t reply_length(const char *bytes, size_t count)
{
	static const char field[] = "content-length: ";
	const char *end = memmem(bytes, count, "\r\n\r\n", 4), *length;

	if (!end)
		return 0;
	length = memmem(bytes, (size_t)(end - bytes), field, sizeof(field) - 1);
	return (size_t)(end - bytes) + 4 + (length ? (size_t)atol(length + sizeof(field) - 1) : 0);
}

static void request_send(struct client *client)
{
	client->got = 0;
	client->wanted = 0;
	if (send(client->fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0) {
		last_error = errno;
		failed++;
	}
}

/* 1: the whole reply is there; 0: more to come; -1: failed. */
static int reply_receive(struct client *client)
{
	static char bytes[REPLY_MAX];
	ssize_t count = recv(client->fd, bytes, sizeof(bytes), 0);

	if (count < 0 && errno == EAGAIN)
		return 0;
	if (count <= 0) {
		last_error = count ? errno : ECONNRESET;
		failed++;
		return -1;
	}
	if (!client->wanted)
		client->wanted = reply_length(bytes, (size_t)count);
	client->got += (size_t)count;
	return client->wanted && client->got >= client->wanted;
}

static void client_dial(int epoll_fd, struct client *client)
{
	struct epoll_event event = {.events = EPOLLOUT, .data.ptr = client};

	client->fd = socket_open(SOCK_NONBLOCK);
	client->connected = false;
	client->since_ns = now_ns();
	if (connect(client->fd, (struct sockaddr *)&address, address_bytes) && errno != EINPROGRESS)
		fail("connect");
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, client->fd, &event))
		fail("epoll_ctl");
}

static void run_churn(int count, double seconds)
{
	int i, epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	uint64_t end = now_ns() + (uint64_t)(seconds * NS_PER_S);
	struct epoll_event events[CLIENTS_MAX];

	for (i = 0; i < count; i++)
		client_dial(epoll_fd, &clients[i]);
	while (now_ns() < end) {
		int ready = epoll_wait(epoll_fd, events, count, PATIENCE_MS);

		if (ready <= 0)
			fail("no answer");
		for (i = 0; i < ready; i++) {
			struct client *client = events[i].data.ptr;
			struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
			int state;

			if (!client->connected) {
				client->connected = true;
				request_send(client);
				epoll_ctl(epoll_fd, EPOLL_CTL_MOD, client->fd, &event);
				continue;
			}
			state = reply_receive(client);
			if (state == 0)
				continue;
			if (state > 0)
				sample_add(now_ns() - client->since_ns);
			close(client->fd);
			client_dial(epoll_fd, client);
		}
	}
}

static void run_pace(int count, double rate, double seconds)
{
	int i, epoll_fd = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t step = (uint64_t)(NS_PER_S / rate), began, total = (uint64_t)(rate * seconds), sent = 0;
	struct itimerspec tick = {.it_interval = {.tv_nsec = (long)step}, .it_value = {.tv_nsec = (long)step}};
	struct epoll_event events[CLIENTS_MAX], event = {.events = EPOLLIN, .data.ptr = NULL};

	for (i = 0; i < count; i++) {
		struct client *client = &clients[i];

		client->fd = socket_open(0);
		if (connect(client->fd, (struct sockaddr *)&address, address_bytes))
			fail("connect");
		event.data.ptr = client;
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, client->fd, &event))
			fail("epoll_ctl");
	}
	event.data.ptr = NULL;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &event) || timerfd_settime(timer, 0, &tick, NULL))
		fail("timerfd");
	began = now_ns();
	while (done + failed < total) {
		int ready = epoll_wait(epoll_fd, events, CLIENTS_MAX, PATIENCE_MS);
		uint64_t now = now_ns();

		if (ready <= 0)
			fail("no answer");
		for (i = 0; i < ready; i++) {
			struct client *client = events[i].data.ptr;
			uint64_t ticks;
			int state;

			if (!client) {
				if (read(timer, &ticks, sizeof(ticks)) < 0)
					fail("timerfd");
				continue;
			}
			state = reply_receive(client);
			if (state < 0)
				fail("a connection was lost");
			if (state == 0)
				continue;
			sample_add(now - client->since_ns);
			client->since_ns = 0;
		}
		/* In turn, so that each connection is asked at an even pace; one that still waits holds up its
		 * successors. */
		while (sent < total && began + (sent + 1) * step <= now) {
			struct client *client = &clients[sent % (uint64_t)count];

			if (client->since_ns)
				break;
			client->since_ns = began + (sent + 1) * step;
			sent++;
			request_send(client);
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t began;

	samples = calloc(SAMPLES_MAX, sizeof(*samples));
	if (argc < 5 || !samples) {
		fputs("usage: probe connect|churn|pace ADDR PORT ...\n", stderr);
		return 2;
	}
	address_parse(argv[2], argv[3]);
	began = now_ns();
	if (!strcmp(argv[1], "connect") && argc == 5)
		run_connect(atoi(argv[4]));
	else if (!strcmp(argv[1], "churn") && argc == 6 && atoi(argv[4]) <= CLIENTS_MAX)
		run_churn(atoi(argv[4]), atof(argv[5]));
	else if (!strcmp(argv[1], "pace") && argc == 7 && atoi(argv[4]) <= CLIENTS_MAX)
		run_pace(atoi(argv[4]), atof(argv[5]), atof(argv[6]));
	else
		return 2;
	report(began);
	return 0;
}
