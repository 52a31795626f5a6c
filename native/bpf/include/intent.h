/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * intent.h: one connect, as the attach point reads it from its context and as the steps answer it.
 */
#ifndef CULVERT_INTENT_H
#define CULVERT_INTENT_H

#include "layout.h"

#define PROTOCOL_TCP 6
#define PROTOCOL_MPTCP 262
#define SOCKET_STREAM 1

struct intent {
	struct endpoint destination; /* what the app asks for */
	struct endpoint source;	     /* what the socket is bound to; zero where it is not */
	struct endpoint target;	     /* out: where the connect shall go */
	int bind;		     /* out: bind the socket to `local` first */
	struct address local;
};

#endif
