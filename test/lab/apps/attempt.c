// SPDX-License-Identifier: Apache-2.0
/*
 * attempt: makes connections as it is told by standard input, one after the other, and says of each who answered and
 * which way it went. Its servers are `answer` with a tag.
 *
 *   try ID HOST PORT TIMES   so many connections, each closed when it has been answered
 *   hold ID HOST PORT        one connection, which stays open if it is answered
 *   ping ID                  asks again on a held one
 *   gone ID                  waits until a held one is ended by others, PATIENCE_S at most
 *   drop ID                  closes a held one
 *
 * Each command is answered by one line: the ID, and for each connection `+TSC` (the server's tag, how the server was
 * reached, how this end goes out: l for by the loopback, so to or from an agent, d for directly) or `-ERRNO`; for
 * `gone`: `gone` or `open`; for `drop`: `dropped`. A HOST ::ffff:A.B.C.D is an IPv4 address on an IPv6 socket. In C,
 * since a thousand connections per second should not take the CPUs away from what is tested.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "route.h"

#define HELD_MAX 1024
#define PATIENCE_S 30
#define HOST_MAX 64
/* Errors that are none of the kernel's. */
#define ENDED (-1)

struct held {
	long id;
	int fd;
};

static struct held helds[HELD_MAX];
static int held_count;

static void result_print(int error)
{
	if (error == ENDED)
		printf(" -EOF");
	else if (error == EINPROGRESS || error == EAGAIN)
		printf(" -ETIMEDOUT");
	else
		printf(" -%s", strerrorname_np(error));
}

/* Asks who is there; 0, or what went wrong. */
static int answer_take(int fd, char reply[2])
{
	ssize_t bytes;

	if (send(fd, "?", 1, MSG_NOSIGNAL) != 1)
		return errno;
	bytes = recv(fd, reply, 2, MSG_WAITALL);
	if (bytes < 0)
		return errno;
	return bytes == 2 ? 0 : ENDED;
}

static int ask(int fd)
{
	char reply[2];
	int error = answer_take(fd, reply);

	if (error)
		result_print(error);
	else
		printf(" +%c%c%c", reply[0], reply[1], route_of(fd));
	return error;
}

static socklen_t address_parse(const char *host, int port, struct sockaddr_storage *address)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) {
		fprintf(stderr, "%s is no address\n", host);
		exit(2);
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons((uint16_t)port);
	return sizeof(*v6);
}

/* A connection that has been answered, or -1. */
static int connection_make(const char *host, int port)
{
	struct timeval patience = {.tv_sec = PATIENCE_S};
	struct sockaddr_storage address;
	socklen_t bytes = address_parse(host, port, &address);
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		result_print(errno);
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&address, bytes))
		result_print(errno);
	else if (!ask(fd))
		return fd;
	close(fd);
	return -1;
}

static void try(const char *host, int port, int times)
{
	int fd;

	while (times-- > 0) {
		fd = connection_make(host, port);
		if (fd >= 0)
			close(fd);
	}
}

static void hold(long id, const char *host, int port)
{
	int fd = connection_make(host, port);

	if (fd >= 0 && held_count == HELD_MAX) {
		fputs("too many are held\n", stderr);
		exit(1);
	}
	if (fd >= 0)
		helds[held_count++] = (struct held){.id = id, .fd = fd};
}

static struct held *held_find(long id)
{
	int i;

	for (i = 0; i < held_count; i++)
		if (helds[i].id == id)
			return &helds[i];
	fprintf(stderr, "%ld is not held\n", id);
	exit(2);
}

static void held_drop(struct held *held)
{
	close(held->fd);
	*held = helds[--held_count];
}

static void held_ping(struct held *held)
{
	if (ask(held->fd))
		held_drop(held);
}

static void held_await(struct held *held)
{
	struct pollfd ended = {.fd = held->fd, .events = POLLIN};
	char byte;

	if (poll(&ended, 1, PATIENCE_S * 1000) > 0 && recv(held->fd, &byte, 1, MSG_DONTWAIT) <= 0) {
		printf(" gone");
		held_drop(held);
	} else {
		printf(" open");
	}
}

static int obey(const char *line)
{
	char verb[8], host[HOST_MAX] = "";
	int port = 0, times = 0;
	long id;

	if (sscanf(line, "%7s %ld %63s %d %d", verb, &id, host, &port, &times) < 2)
		return 0;
	printf("%ld", id);
	if (!strcmp(verb, "try"))
		try(host, port, times);
	else if (!strcmp(verb, "hold"))
		hold(id, host, port);
	else if (!strcmp(verb, "ping"))
		held_ping(held_find(id));
	else if (!strcmp(verb, "gone"))
		held_await(held_find(id));
	else if (!strcmp(verb, "drop"))
		held_drop(held_find(id)), printf(" dropped");
	else
		return 0;
	putchar('\n');
	fflush(stdout);
	return 1;
}

int main(void)
{
	char line[256];

	puts("{\"event\":\"ready\"}");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		if (!obey(line)) {
			fprintf(stderr, "not understood: %s", line);
			return 2;
		}
	return 0;
}
