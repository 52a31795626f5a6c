// SPDX-License-Identifier: Apache-2.0
/*
 * route.h: which way a connection goes, as its own end can tell. The addresses that an app is shown do not: the mesh
 * shows those that were asked for. But what is sent to an agent goes out by the loopback, whose packets are larger than
 * others.
 */
#ifndef LAB_ROUTE_H
#define LAB_ROUTE_H

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

/* Above what any link of a lab carries, and below the loopback's. */
#define LOOPBACK_SEGMENT_BYTES 9000

static char route_of(int fd)
{
	int segment = 0;
	socklen_t bytes = sizeof(segment);

	getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, &bytes);
	return segment > LOOPBACK_SEGMENT_BYTES ? 'l' : 'd';
}

#endif
