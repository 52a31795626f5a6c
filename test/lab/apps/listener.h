// SPDX-License-Identifier: Apache-2.0
/*
 * listener.h: how the lab's servers in C begin: an AF_INET6 dual-stack listener, and the end when there is none to be
 * had.
 */
#ifndef LAB_LISTENER_H
#define LAB_LISTENER_H

#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BACKLOG 8192

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int listener_open(uint16_t port)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int on = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		fail("bind");
	if (listen(fd, BACKLOG))
		fail("listen");
	return fd;
}

#endif
