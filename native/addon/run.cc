// Runs a loaded program once, on bytes of the caller's.
#include "argument.h"
#include "calls.h"
#include "netns.h"
#include "object.h"

#include <bpf/bpf.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <vector>

namespace addon
{

namespace
{

// The network namespace that a socket lives in.
Fd netns_of(Napi::Env env, int socket)
{
	Fd netns(ioctl(socket, SIOCGSKNS));
	if (!netns.valid())
		throw_errno(env, errno, "ioctl", std::to_string(socket));
	return netns;
}

} // namespace

// Arguments: object, program, data, socketFd | undefined.
Napi::Value program_run(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	const Object &object = handle_open<Object>(info[0], "object");
	std::string name = argument_string(info[1], "program");
	int program = object_program(env, object, name);
	Bytes data = argument_bytes(info[2], "data");
	std::vector<uint8_t> result(data.size());
	bpf_test_run_opts run = {};
	run.sz = sizeof(run);
	run.data_in = data.data();
	run.data_size_in = static_cast<uint32_t>(data.size());
	run.data_out = result.data();
	run.data_size_out = static_cast<uint32_t>(result.size());
	run.repeat = 1;
	int error = 0;
	if (info[3].IsUndefined()) {
		error = bpf_prog_test_run_opts(program, &run);
	} else {
		Fd netns = netns_of(env, argument_fd(info[3], "socketFd"));
		NetnsVisit visit(own_netns(env));
		if (visit.enter(netns.get()) == 0)
			error = bpf_prog_test_run_opts(program, &run);
		else
			error = -errno;
	}
	if (error < 0)
		throw_errno(env, error, "bpf_prog_test_run", name);
	return bytes_copy(env, result.data(), std::min<size_t>(run.data_size_out, result.size()));
}

} // namespace addon
