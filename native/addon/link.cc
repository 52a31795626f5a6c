// Links: attach a program to a cgroup or network namespace, replace it, and see what else is attached there.
#include "link.h"

#include "argument.h"
#include "calls.h"
#include "object.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <algorithm>
#include <vector>

namespace addon
{

namespace
{

bpf_attach_type argument_attach_type(const Napi::Value &value)
{
	return static_cast<bpf_attach_type>(argument_integer(value, "attachType", 0, 1024));
}

// A network namespace has one list of programs per type; "effective" is a notion of cgroups, where parents' programs
// run too.
uint32_t query_flags(bpf_attach_type type)
{
	return type == BPF_SK_LOOKUP || type == BPF_FLOW_DISSECTOR ? 0 : BPF_F_QUERY_EFFECTIVE;
}

std::vector<uint32_t> program_ids(Napi::Env env, int target, bpf_attach_type type)
{
	std::vector<uint32_t> ids(64);
	// The list may grow between two calls; the kernel itself allows 64 per cgroup and 64 per namespace.
	for (int attempt = 0; attempt < 8; attempt++) {
		uint32_t attach_flags = 0;
		auto count = static_cast<uint32_t>(ids.size());
		int error = bpf_prog_query(target, type, query_flags(type), &attach_flags, ids.data(), &count);
		if (error == 0) {
			ids.resize(count);
			return ids;
		}
		if (error != -ENOSPC)
			throw_errno(env, error, "bpf_prog_query", std::to_string(target));
		ids.resize(std::max<size_t>(count, ids.size() * 2));
	}
	throw_errno(env, ENOSPC, "bpf_prog_query", std::to_string(target));
}

// The maps that a program uses. It cannot come to use others, so their number stays.
std::vector<uint32_t> map_ids(Napi::Env env, const Fd &program, uint32_t count)
{
	std::vector<uint32_t> ids(count);
	bpf_prog_info kernel = {};
	kernel.nr_map_ids = count;
	kernel.map_ids = reinterpret_cast<uintptr_t>(ids.data());
	uint32_t length = sizeof(kernel);
	int error = bpf_obj_get_info_by_fd(program.get(), &kernel, &length);
	if (error < 0)
		throw_errno(env, error, "bpf_obj_get_info_by_fd", std::to_string(program.get()));
	ids.resize(std::min<size_t>(kernel.nr_map_ids, ids.size()));
	return ids;
}

} // namespace

Napi::Value link_attach(const Napi::CallbackInfo &info)
{
	const Object &object = handle_open<Object>(info[0], "object");
	std::string program = argument_string(info[1], "program");
	int target = argument_fd(info[2], "targetFd");
	bpf_attach_type type = argument_attach_type(info[3]);
	auto link = std::make_unique<Link>();
	link->fd = Fd(bpf_link_create(object_program(info.Env(), object, program), target, type, nullptr));
	if (!link->fd.valid())
		throw_errno(info.Env(), errno, "bpf_link_create", program);
	return handle_make(info.Env(), std::move(link));
}

Napi::Value link_update(const Napi::CallbackInfo &info)
{
	const Link &link = handle_open<Link>(info[0], "link");
	const Object &object = handle_open<Object>(info[1], "object");
	std::string program = argument_string(info[2], "program");
	int error = bpf_link_update(link.fd.get(), object_program(info.Env(), object, program), nullptr);
	if (error < 0)
		throw_errno(info.Env(), error, "bpf_link_update", program);
	return info.Env().Undefined();
}

Napi::Value attached_programs(const Napi::CallbackInfo &info)
{
	int target = argument_fd(info[0], "targetFd");
	std::vector<uint32_t> ids = program_ids(info.Env(), target, argument_attach_type(info[1]));
	Napi::Array programs = Napi::Array::New(info.Env());
	for (uint32_t id : ids) {
		Fd program(bpf_prog_get_fd_by_id(id));
		// Detached and gone since the query.
		if (!program.valid() && errno == ENOENT)
			continue;
		if (!program.valid())
			throw_errno(info.Env(), errno, "bpf_prog_get_fd_by_id", std::to_string(id));
		bpf_prog_info kernel = {};
		uint32_t length = sizeof(kernel);
		int error = bpf_obj_get_info_by_fd(program.get(), &kernel, &length);
		if (error < 0)
			throw_errno(info.Env(), error, "bpf_obj_get_info_by_fd", std::to_string(id));
		Napi::Object told = Napi::Object::New(info.Env());
		told.Set("id", kernel.id);
		told.Set("name", std::string(kernel.name, strnlen(kernel.name, sizeof(kernel.name))));
		told.Set("type", kernel.type);
		told.Set("tag", hexadecimal(kernel.tag, sizeof(kernel.tag)));
		Napi::Array maps = Napi::Array::New(info.Env());
		for (uint32_t map : map_ids(info.Env(), program, kernel.nr_map_ids))
			maps.Set(maps.Length(), map);
		told.Set("mapIds", maps);
		programs.Set(programs.Length(), told);
	}
	return programs;
}

} // namespace addon
