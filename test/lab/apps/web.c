// SPDX-License-Identifier: Apache-2.0
/*
 * web: a small HTTP/1.1 server that costs next to nothing, so that a bench measures the path and not the server.
 *
 *   web PORT [BODY_BYTES]
 *
 * One thread, epoll, AF_INET6 dual stack. Any request without a body is answered by 200 and BODY_BYTES (default: 1024)
 * bytes; connections are kept alive, and closed when the client has closed. Requests may be pipelined.
 * Prints {"event":"listening","port":N}. SIGTERM ends it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "listener.h"

#define EVENTS_MAX 256
#define BODY_MAX (1024 * 1024)
#define HEAD_MAX 128
#define REQUEST_MAX 16384
#define DESCRIPTORS_MAX 65536

/* How much of "\r\n\r\n" each connection has sent last: a request may come in pieces. */
static uint8_t matched[DESCRIPTORS_MAX];
static char reply[HEAD_MAX + BODY_MAX];
static size_t reply_bytes;

static int requests_count(int fd, const char *bytes, ssize_t count)
{
	static const char end[] = "\r\n\r\n";
	int requests = 0;
	ssize_t i;

	for (i = 0; i < count; i++) {
		if (bytes[i] == end[matched[fd]])
			matched[fd]++;
		else
			matched[fd] = bytes[i] == '\r';
		if (matched[fd] == 4) {
			matched[fd] = 0;
			requests++;
		}
	}
	return requests;
}

/* Replies are far smaller than a send buffer; a client that does not read them is closed. */
static void connection_serve(int fd)
{
	char bytes[REQUEST_MAX];
	ssize_t count = recv(fd, bytes, sizeof(bytes), 0);
	int requests;

	if (count < 0 && errno == EAGAIN)
		return;
	if (count <= 0) {
		close(fd);
		return;
	}
	for (requests = requests_count(fd, bytes, count); requests > 0; requests--) {
		if (send(fd, reply, reply_bytes, MSG_NOSIGNAL) != (ssize_t)reply_bytes) {
			close(fd);
			return;
		}
	}
}

static void connections_accept(int epoll_fd, int listener)
{
	for (;;) {
		struct epoll_event event = {.events = EPOLLIN};
		int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		if (fd >= DESCRIPTORS_MAX) {
			close(fd);
			continue;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		matched[fd] = 0;
		event.data.fd = fd;
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
	}
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS_MAX], event = {.events = EPOLLIN};
	size_t body_bytes = argc > 2 ? (size_t)atol(argv[2]) : 1024;
	int head_bytes, listener, epoll_fd;

	if (argc < 2 || body_bytes > BODY_MAX) {
		fputs("usage: web PORT [BODY_BYTES]\n", stderr);
		return 2;
	}
	head_bytes = snprintf(reply, HEAD_MAX,
		"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %zu\r\n\r\n", body_bytes);
	memset(reply + head_bytes, 'x', body_bytes);
	reply_bytes = (size_t)head_bytes + body_bytes;
	listener = listener_open((uint16_t)atoi(argv[1]));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	event.data.fd = listener;
	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event))
		fail("epoll");
	printf("{\"event\":\"listening\",\"port\":%d}\n", atoi(argv[1]));
	fflush(stdout);
	for (;;) {
		int i, ready = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);

		for (i = 0; i < ready; i++) {
			if (events[i].data.fd == listener)
				connections_accept(epoll_fd, listener);
			else
				connection_serve(events[i].data.fd);
		}
	}
}
