// What is the same for every kind of handle: pin, open what is pinned, describe, close.
#include "argument.h"
#include "calls.h"
#include "link.h"
#include "map.h"
#include "object.h"
#include "ring.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <array>
#include <cstdio>
#include <string_view>

namespace addon
{

namespace
{

enum class Kind { map, link, other };

// The kernel answers bpf_obj_get_info_by_fd for any kind alike; what a descriptor is, only its name in procfs tells.
Kind descriptor_kind(Napi::Env env, int fd)
{
	std::array<char, 64> path;
	std::array<char, 128> name;
	std::snprintf(path.data(), path.size(), "/proc/thread-self/fd/%d", fd);
	ssize_t length = readlink(path.data(), name.data(), name.size());
	if (length < 0)
		throw_errno(env, errno, "readlink", path.data());
	std::string_view text(name.data(), static_cast<size_t>(length));
	if (text.find("bpf-map") != std::string_view::npos)
		return Kind::map;
	if (text.find("bpf_link") != std::string_view::npos || text.find("bpf-link") != std::string_view::npos)
		return Kind::link;
	return Kind::other;
}

Kind argument_kind(const Napi::Value &value)
{
	std::string text = argument_string(value, "kind");
	if (text == "map")
		return Kind::map;
	if (text == "link")
		return Kind::link;
	throw_type(value.Env(), "kind", "'map' or 'link'");
}

Napi::Value map_info(Napi::Env env, const Map &map)
{
	Napi::Object told = Napi::Object::New(env);
	told.Set("id", map.id);
	told.Set("type", map.type);
	told.Set("name", static_cast<const char *>(map.name));
	told.Set("keyBytes", map.key_bytes);
	told.Set("valueBytes", map.declared_value_bytes);
	told.Set("maxEntries", map.max_entries);
	told.Set("flags", map.flags);
	return told;
}

Napi::Value link_info(Napi::Env env, const Link &link)
{
	bpf_link_info kernel = {};
	uint32_t length = sizeof(kernel);
	int error = bpf_obj_get_info_by_fd(link.fd.get(), &kernel, &length);
	if (error < 0)
		throw_errno(env, error, "bpf_obj_get_info_by_fd", "link");
	uint32_t attach_type = 0;
	uint64_t target = 0;
	if (kernel.type == BPF_LINK_TYPE_CGROUP) {
		attach_type = kernel.cgroup.attach_type;
		target = kernel.cgroup.cgroup_id;
	} else if (kernel.type == BPF_LINK_TYPE_NETNS) {
		attach_type = kernel.netns.attach_type;
		target = kernel.netns.netns_ino;
	}
	Napi::Object told = Napi::Object::New(env);
	told.Set("id", kernel.id);
	told.Set("type", kernel.type);
	told.Set("programId", kernel.prog_id);
	told.Set("attachType", attach_type);
	told.Set("target", Napi::BigInt::New(env, target));
	return told;
}

template <typename T> bool close_if(const Napi::Value &value)
{
	if (!handle_is<T>(value))
		return false;
	handle_any<T>(value, "handle").close();
	return true;
}

} // namespace

Napi::Value pin_open(const Napi::CallbackInfo &info)
{
	std::string path = argument_string(info[0], "pinPath");
	Kind wanted = argument_kind(info[1]);
	Fd fd(bpf_obj_get(path.c_str()));
	if (!fd.valid())
		throw_errno(info.Env(), errno, "bpf_obj_get", path);
	if (descriptor_kind(info.Env(), fd.get()) != wanted)
		throw_errno(info.Env(), EINVAL, "bpf_obj_get", path, "What is pinned there is of another kind.");
	if (wanted == Kind::map)
		return map_make(info.Env(), std::move(fd), path);
	auto link = std::make_unique<Link>();
	link->fd = std::move(fd);
	return handle_make(info.Env(), std::move(link));
}

Napi::Value pin(const Napi::CallbackInfo &info)
{
	int fd = -1;
	if (handle_is<Map>(info[0]))
		fd = handle_open<Map>(info[0], "handle").fd.get();
	else if (handle_is<Link>(info[0]))
		fd = handle_open<Link>(info[0], "handle").fd.get();
	else
		throw_type(info.Env(), "handle", "a map or a link");
	std::string path = argument_string(info[1], "pinPath");
	int error = bpf_obj_pin(fd, path.c_str());
	if (error < 0)
		throw_errno(info.Env(), error, "bpf_obj_pin", path);
	return info.Env().Undefined();
}

Napi::Value handle_info(const Napi::CallbackInfo &info)
{
	if (handle_is<Map>(info[0]))
		return map_info(info.Env(), handle_open<Map>(info[0], "handle"));
	if (handle_is<Link>(info[0]))
		return link_info(info.Env(), handle_open<Link>(info[0], "handle"));
	throw_type(info.Env(), "handle", "a map or a link");
}

Napi::Value handle_close(const Napi::CallbackInfo &info)
{
	if (!close_if<Object>(info[0]) && !close_if<Map>(info[0]) && !close_if<Link>(info[0]) &&
		!close_if<Ring>(info[0]))
		throw_type(info.Env(), "handle", "an object, a map, a link or a ring");
	return info.Env().Undefined();
}

} // namespace addon
