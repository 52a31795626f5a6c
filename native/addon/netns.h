// A thread's stay in another network namespace.
#ifndef CULVERT_ADDON_NETNS_H
#define CULVERT_ADDON_NETNS_H

#include "calls.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>

namespace addon
{

// Nothing else of this process may run there: not JavaScript, and no thread may be started meanwhile. A thread that
// cannot come back would open everything else it opens in the wrong place, so the process ends instead.
class NetnsVisit
{
      public:
	explicit NetnsVisit(int own) : own_(own)
	{
	}
	NetnsVisit(const NetnsVisit &) = delete;
	NetnsVisit &operator=(const NetnsVisit &) = delete;
	~NetnsVisit()
	{
		if (away_ && setns(own_, CLONE_NEWNET) != 0) {
			std::fprintf(stderr, "culvert: cannot return to the thread's own network namespace: %s\n",
				error_text(errno).c_str());
			std::abort();
		}
	}

	int enter(int netns)
	{
		int result = setns(netns, CLONE_NEWNET);
		away_ = result == 0;
		return result;
	}

	// Into a namespace that did not exist before.
	int create()
	{
		int result = unshare(CLONE_NEWNET);
		away_ = result == 0;
		return result;
	}

      private:
	int own_;
	bool away_ = false;
};

// Opened when the addon was loaded in this thread; if there was no descriptor left then, now.
inline int own_netns(Napi::Env env)
{
	Environment *environment = env.GetInstanceData<Environment>();
	if (!environment->own_netns.valid() && !environment->open_own_netns())
		throw_errno(env, errno, "open", "/proc/thread-self/ns/net");
	return environment->own_netns.get();
}

// A socket in a network namespace (-1: the caller's own), close-on-exec. It stays in the namespace it was made in, so
// this is all that must happen over there. Errors are thrown only from home: throwing runs JavaScript.
inline Fd socket_in(Napi::Env env, int netns, int family, int type, int protocol, const char *argument)
{
	Fd made;
	int entered = 0;
	int error = 0;
	if (netns < 0) {
		made = Fd(socket(family, type | SOCK_CLOEXEC, protocol));
		error = errno;
	} else {
		NetnsVisit visit(own_netns(env));
		entered = visit.enter(netns);
		if (entered == 0)
			made = Fd(socket(family, type | SOCK_CLOEXEC, protocol));
		error = errno;
	}
	if (entered != 0)
		throw_errno(env, error, "setns", std::to_string(netns));
	if (!made.valid())
		throw_errno(env, error, "socket", argument);
	return made;
}

} // namespace addon

#endif
