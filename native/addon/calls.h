// The whole face of the addon in C++: one function per export, in the order of index.d.ts.
#ifndef CULVERT_ADDON_CALLS_H
#define CULVERT_ADDON_CALLS_H

#include "error.h"
#include "fd.h"

#include <fcntl.h>

namespace addon
{

// What one environment (the main thread or a worker) keeps for itself. Freed when it ends.
struct Environment {
	Environment()
	{
		open_own_netns();
	}

	// False if that failed, with errno.
	bool open_own_netns()
	{
		own_netns = Fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
		return own_netns.valid();
	}

	// The network namespace that the thread lives in. Opened before anybody is visited: later there may be no
	// descriptor left.
	Fd own_netns;
};

// object.cc
Napi::Value object_open(const Napi::CallbackInfo &info);
Napi::Value object_set_global(const Napi::CallbackInfo &info);
Napi::Value object_reuse_map(const Napi::CallbackInfo &info);
Napi::Value object_load(const Napi::CallbackInfo &info);
Napi::Value object_map(const Napi::CallbackInfo &info);
Napi::Value object_programs(const Napi::CallbackInfo &info);

// run.cc
Napi::Value program_run(const Napi::CallbackInfo &info);

// map.cc
Napi::Value map_lookup(const Napi::CallbackInfo &info);
Napi::Value map_update(const Napi::CallbackInfo &info);
Napi::Value map_delete(const Napi::CallbackInfo &info);
Napi::Value map_entries(const Napi::CallbackInfo &info);

// ring.cc
Napi::Value ring_open(const Napi::CallbackInfo &info);
Napi::Value ring_read(const Napi::CallbackInfo &info);

// link.cc
Napi::Value link_attach(const Napi::CallbackInfo &info);
Napi::Value link_update(const Napi::CallbackInfo &info);
Napi::Value attached_programs(const Napi::CallbackInfo &info);

// socket.cc
Napi::Value socket_open(const Napi::CallbackInfo &info);
Napi::Value socket_option(const Napi::CallbackInfo &info);
Napi::Value netns_create(const Napi::CallbackInfo &info);
Napi::Value duplicate(const Napi::CallbackInfo &info);

// diag.cc
Napi::Value sock_diag(const Napi::CallbackInfo &info);

// pin.cc
Napi::Value pin_open(const Napi::CallbackInfo &info);
Napi::Value pin(const Napi::CallbackInfo &info);
Napi::Value handle_info(const Napi::CallbackInfo &info);
Napi::Value handle_close(const Napi::CallbackInfo &info);

} // namespace addon

#endif
