// SPDX-License-Identifier: Apache-2.0
/*
 * answer: sends back what comes, on many ports at once, so that a load test measures the path and not the server.
 *
 *   answer PORT [COUNT [TAG]]
 *
 * One thread, epoll, AF_INET6 dual stack; listens on PORT to PORT+COUNT-1 (default: one). Ends its side when the client
 * has. With a TAG (one character) it does not send back what comes, but for each message the tag, and how the client
 * reached it (see route.h). Meant for short messages: what does not fit into the send buffer at once closes the
 * connection, counted as failed. Prints {"event":"listening","port":PORT,"ports":COUNT}; on SIGUSR2
 * {"event":"totals","accepted":N,"open":N,"failed":N}. In C, since a few thousand connections per second should not
 * take the CPUs away from what is tested.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "listener.h"
#include "route.h"

#define EVENTS_MAX 256
#define PORTS_MAX 64
#define MESSAGE_MAX 65536

static int listeners[PORTS_MAX];
static int ports;
static char tag;
static uint64_t accepted, open_now, failed;
static volatile sig_atomic_t asked;

static void on_ask(int signal)
{
	(void)signal;
	asked = 1;
}

static void connection_end(int fd, int good)
{
	close(fd);
	open_now--;
	failed += !good;
}

static void connection_serve(int fd)
{
	static char message[MESSAGE_MAX];
	ssize_t bytes = recv(fd, message, sizeof(message), 0);

	if (bytes > 0 && tag) {
		message[0] = tag;
		message[1] = route_of(fd);
		bytes = 2;
	}
	if (bytes < 0 && errno == EAGAIN)
		return;
	if (bytes <= 0)
		connection_end(fd, bytes == 0);
	else if (send(fd, message, (size_t)bytes, MSG_NOSIGNAL) != bytes)
		connection_end(fd, 0);
}

static void connections_accept(int epoll_fd, int listener)
{
	for (;;) {
		struct epoll_event event = {.events = EPOLLIN};
		int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		accepted++;
		open_now++;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		event.data.fd = fd;
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
			connection_end(fd, 0);
	}
}

static void totals_report(void)
{
	asked = 0;
	printf("{\"event\":\"totals\",\"accepted\":%llu,\"open\":%llu,\"failed\":%llu}\n", (unsigned long long)accepted,
		(unsigned long long)open_now, (unsigned long long)failed);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct sigaction ask = {.sa_handler = on_ask};
	struct epoll_event events[EVENTS_MAX];
	int i, epoll_fd;

	ports = argc > 2 ? atoi(argv[2]) : 1;
	tag = argc > 3 ? argv[3][0] : 0;
	if (argc < 2 || ports < 1 || ports > PORTS_MAX) {
		fputs("usage: answer PORT [COUNT [TAG]]\n", stderr);
		return 2;
	}
	sigaction(SIGUSR2, &ask, NULL);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (i = 0; i < ports; i++) {
		struct epoll_event event = {.events = EPOLLIN};

		listeners[i] = listener_open((uint16_t)(atoi(argv[1]) + i));
		event.data.fd = listeners[i];
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listeners[i], &event))
			fail("epoll_ctl");
	}
	printf("{\"event\":\"listening\",\"port\":%d,\"ports\":%d}\n", atoi(argv[1]), ports);
	fflush(stdout);
	for (;;) {
		int ready = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);

		if (asked)
			totals_report();
		for (i = 0; i < ready; i++) {
			/* The listeners were opened one after the other, so their descriptors are a range. */
			if (events[i].data.fd <= listeners[ports - 1])
				connections_accept(epoll_fd, events[i].data.fd);
			else
				connection_serve(events[i].data.fd);
		}
	}
}
