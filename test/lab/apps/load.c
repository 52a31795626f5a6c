// SPDX-License-Identifier: Apache-2.0
/*
 * load: opens connections at a rate to many destinations, one line each way, and closes first.
 *
 *   load RATE SECONDS LOCAL AT_ONCE HOST:PORT|[HOST]:PORT...
 *
 * Each connection goes to the next destination, sends "?\n", waits for a line and closes. LOCAL is the address that
 * getsockname must give ("-": any). At most AT_ONCE connections are under way (OPEN_MAX bounds it); above that the rate
 * is not reached, and `started` tells so. A connection that takes longer than PATIENCE_MS counts as "ETIMEDOUT". Stops
 * early on SIGTERM.
 *
 * Prints {"event":"end","started":N,"answered":N,"local_wrong":N,"open_max":N,"seconds":S,"errors":{"ECONNREFUSED":N}}.
 * In C, since a few thousand connections per second should not take the CPUs away from what is tested.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
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

#define OPEN_MAX 8192
#define DESTINATIONS_MAX 64
#define EVENTS_MAX 256
#define ERRNO_MAX 256
#define STARTS_PER_TURN 64
#define PATIENCE_MS 20000
#define ERROR_EOF 0
#define NS_PER_S 1000000000ull

struct destination {
	struct sockaddr_storage address;
	socklen_t bytes;
};

/* A connection under way; free while fd is negative. */
struct attempt {
	int fd;
	bool asked;
	uint64_t since_ns;
};

static struct destination destinations[DESTINATIONS_MAX];
static struct attempt attempts[OPEN_MAX];
static int vacant[OPEN_MAX];
static int vacant_count;
static uint64_t errors[ERRNO_MAX], started, answered, local_wrong;
static int at_once, open_max;
static char local_wanted[INET6_ADDRSTRLEN];
static volatile sig_atomic_t stopped;

static void on_stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void usage(const char *problem)
{
	fprintf(stderr, "%s\nusage: load RATE SECONDS LOCAL|- AT_ONCE HOST:PORT...\n", problem);
	exit(2);
}

static struct destination destination_parse(const char *text)
{
	struct destination destination = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&destination.address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&destination.address;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2] = {0};
	uint16_t port;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		usage(text);
	port = htons((uint16_t)atoi(colon + 1));
	memcpy(host, text, (size_t)(colon - text));
	if (host[0] == '[') {
		host[strlen(host) - 1] = 0;
		v6->sin6_family = AF_INET6;
		v6->sin6_port = port;
		destination.bytes = sizeof(*v6);
		if (inet_pton(AF_INET6, host + 1, &v6->sin6_addr) != 1)
			usage(text);
		return destination;
	}
	v4->sin_family = AF_INET;
	v4->sin_port = port;
	destination.bytes = sizeof(*v4);
	if (inet_pton(AF_INET, host, &v4->sin_addr) != 1)
		usage(text);
	return destination;
}

static void attempt_end(struct attempt *attempt)
{
	close(attempt->fd);
	attempt->fd = -1;
	vacant[vacant_count++] = (int)(attempt - attempts);
}

static void attempt_fail(struct attempt *attempt, int error)
{
	errors[error >= 0 && error < ERRNO_MAX ? error : ERRNO_MAX - 1]++;
	attempt_end(attempt);
}

static void local_check(int fd)
{
	struct sockaddr_storage address;
	socklen_t bytes = sizeof(address);
	char text[INET6_ADDRSTRLEN] = "";

	if (!local_wanted[0])
		return;
	if (getsockname(fd, (struct sockaddr *)&address, &bytes) == 0) {
		if (address.ss_family == AF_INET6)
			inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&address)->sin6_addr, text, sizeof(text));
		else
			inet_ntop(AF_INET, &((struct sockaddr_in *)&address)->sin_addr, text, sizeof(text));
	}
	if (strcmp(text, local_wanted))
		local_wrong++;
}

static void attempt_start(int epoll_fd, const struct destination *destination)
{
	struct attempt *attempt = &attempts[vacant[--vacant_count]];
	struct epoll_event event = {.events = EPOLLOUT, .data.ptr = attempt};

	started++;
	if (at_once - vacant_count > open_max)
		open_max = at_once - vacant_count;
	attempt->asked = false;
	attempt->since_ns = now_ns();
	attempt->fd = socket(destination->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (attempt->fd < 0) {
		errors[errno]++;
		vacant_count++;
		return;
	}
	if (connect(attempt->fd, (const struct sockaddr *)&destination->address, destination->bytes) &&
		errno != EINPROGRESS) {
		attempt_fail(attempt, errno);
		return;
	}
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, attempt->fd, &event))
		attempt_fail(attempt, errno);
}

static void attempt_continue(int epoll_fd, struct attempt *attempt)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = attempt};
	char reply[4096];
	ssize_t bytes;

	if (!attempt->asked) {
		int error = 0;
		socklen_t error_bytes = sizeof(error);

		if (getsockopt(attempt->fd, SOL_SOCKET, SO_ERROR, &error, &error_bytes) || error) {
			attempt_fail(attempt, error ? error : errno);
			return;
		}
		local_check(attempt->fd);
		attempt->asked = true;
		if (send(attempt->fd, "?\n", 2, MSG_NOSIGNAL) != 2 ||
			epoll_ctl(epoll_fd, EPOLL_CTL_MOD, attempt->fd, &event))
			attempt_fail(attempt, errno);
		return;
	}
	bytes = recv(attempt->fd, reply, sizeof(reply), 0);
	if (bytes < 0 && errno == EAGAIN)
		return;
	if (bytes <= 0) {
		attempt_fail(attempt, bytes == 0 ? ERROR_EOF : errno);
		return;
	}
	if (!memchr(reply, '\n', (size_t)bytes))
		return;
	answered++;
	attempt_end(attempt);
}

static void impatience_apply(uint64_t now)
{
	int i;

	for (i = 0; i < OPEN_MAX; i++)
		/* Some have been started after `now` was read. */
		if (attempts[i].fd >= 0 && now > attempts[i].since_ns + PATIENCE_MS * 1000000ull)
			attempt_fail(&attempts[i], ETIMEDOUT);
}

static void report(double seconds)
{
	const char *comma = "";
	int i;

	printf("{\"event\":\"end\",\"started\":%llu,\"answered\":%llu,\"local_wrong\":%llu,\"open_max\":%d,\"seconds\":"
	       "%.3f,\"errors\":{",
		(unsigned long long)started, (unsigned long long)answered, (unsigned long long)local_wrong, open_max,
		seconds);
	for (i = 0; i < ERRNO_MAX; i++) {
		const char *name = i == ERROR_EOF ? "EOF" : strerrorname_np(i);

		if (!errors[i])
			continue;
		printf("%s\"%s\":%llu", comma, name ? name : "unknown", (unsigned long long)errors[i]);
		comma = ",";
	}
	puts("}}");
}

int main(int argc, char **argv)
{
	struct sigaction stop = {.sa_handler = on_stop};
	struct epoll_event events[EVENTS_MAX];
	uint64_t began, last_look, duration_ns;
	int i, ready, epoll_fd, count = argc - 5;
	double rate;

	if (argc < 6 || count > DESTINATIONS_MAX)
		usage("wrong number of arguments");
	rate = atof(argv[1]);
	duration_ns = (uint64_t)(atof(argv[2]) * NS_PER_S);
	if (strcmp(argv[3], "-"))
		snprintf(local_wanted, sizeof(local_wanted), "%s", argv[3]);
	for (i = 0; i < count; i++)
		destinations[i] = destination_parse(argv[5 + i]);
	at_once = atoi(argv[4]);
	if (at_once < 1 || at_once > OPEN_MAX)
		usage(argv[4]);
	for (i = 0; i < OPEN_MAX; i++) {
		attempts[i].fd = -1;
		if (i < at_once)
			vacant[vacant_count++] = i;
	}
	sigaction(SIGTERM, &stop, NULL);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	began = last_look = now_ns();
	puts("{\"event\":\"started\"}");
	fflush(stdout);

	for (;;) {
		uint64_t now = now_ns(), passed = now - began;
		bool over = stopped || passed >= duration_ns;
		uint64_t due = (uint64_t)(rate * (double)passed / NS_PER_S);

		for (i = 0; !over && started < due && vacant_count && i < STARTS_PER_TURN; i++)
			attempt_start(epoll_fd, &destinations[started % (uint64_t)count]);
		if (over && vacant_count == at_once)
			break;
		if (now - last_look > NS_PER_S) {
			impatience_apply(now);
			last_look = now;
		}
		ready = epoll_wait(epoll_fd, events, EVENTS_MAX, 1);
		for (i = 0; i < ready; i++)
			attempt_continue(epoll_fd, events[i].data.ptr);
	}
	report((double)(now_ns() - began) / NS_PER_S);
	return 0;
}
