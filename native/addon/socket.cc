// Sockets: made inside another network namespace, within one call.
#include "argument.h"
#include "calls.h"
#include "map.h"
#include "netns.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <vector>

namespace addon
{

namespace
{

constexpr size_t address_bytes = 16;
constexpr std::array<uint8_t, 12> v4_mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr int64_t option_bytes_at_most = 65536;

struct Storage {
	int map;
	Bytes value;
};

struct Option {
	int level;
	int name;
	Bytes value;
};

struct Bind {
	std::array<uint8_t, address_bytes> address;
	uint16_t port;
};

// Everything that one call wants, out of JavaScript's hands.
struct SocketPlan {
	int netns = -1; // -1: the caller's own
	int family = AF_UNSPEC;
	std::vector<Storage> storage;
	std::vector<Option> options;
	bool binds = false;
	Bind bind = {};
	bool reuse_port = false;
	int backlog = -1; // -1: do not listen
};

std::string bind_text(const Bind &bind)
{
	std::array<char, INET6_ADDRSTRLEN> text = {};
	inet_ntop(AF_INET6, bind.address.data(), text.data(), text.size());
	return std::string("[").append(text.data()).append("]:").append(std::to_string(bind.port));
}

// In the thread's current namespace. 0 or -1 with errno.
int loopback_up()
{
	Fd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	if (!control.valid())
		return -1;
	ifreq request = {};
	std::strcpy(request.ifr_name, "lo");
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	return ioctl(control.get(), SIOCSIFFLAGS, &request);
}

void option_set(Napi::Env env, const Fd &fd, int level, int option, int value, const char *name)
{
	if (setsockopt(fd.get(), level, option, &value, sizeof(value)) != 0)
		throw_errno(env, errno, "setsockopt", name);
}

void socket_bind(Napi::Env env, const Fd &fd, const SocketPlan &plan)
{
	int result = -1;
	if (plan.family == AF_INET) {
		sockaddr_in to = {};
		to.sin_family = AF_INET;
		to.sin_port = htons(plan.bind.port);
		std::memcpy(&to.sin_addr, &plan.bind.address[v4_mapped.size()], sizeof(to.sin_addr));
		result = bind(fd.get(), reinterpret_cast<const sockaddr *>(&to), sizeof(to));
	} else {
		sockaddr_in6 to = {};
		to.sin6_family = AF_INET6;
		to.sin6_port = htons(plan.bind.port);
		std::memcpy(&to.sin6_addr, plan.bind.address.data(), sizeof(to.sin6_addr));
		result = bind(fd.get(), reinterpret_cast<const sockaddr *>(&to), sizeof(to));
	}
	if (result != 0)
		throw_errno(env, errno, "bind", bind_text(plan.bind));
}

Napi::Array argument_array(const Napi::Value &value, const char *name)
{
	if (!value.IsArray())
		throw_type(value.Env(), name, "an array");
	return value.As<Napi::Array>();
}

std::vector<Storage> argument_storage(const Napi::Value &maps_value, const Napi::Value &values_value)
{
	Napi::Array maps = argument_array(maps_value, "storage");
	Napi::Array values = argument_array(values_value, "storage");
	std::vector<Storage> storage;
	for (uint32_t i = 0; i < maps.Length(); i++) {
		Napi::Value map_value = maps[i];
		Napi::Value bytes_value = values[i];
		const Map &map = handle_open<Map>(map_value, "storage.map");
		Bytes value = argument_bytes(bytes_value, "storage.value");
		if (map.type != BPF_MAP_TYPE_SK_STORAGE)
			throw_type(maps.Env(), "storage.map", "an sk_storage map");
		if (value.size() != map.value_bytes)
			throw_type(maps.Env(), "storage.value",
				("a Uint8Array of " + std::to_string(map.value_bytes) + " bytes").c_str());
		storage.push_back({map.fd.get(), value});
	}
	return storage;
}

// Level, name and value of each option, one after the other.
std::vector<Option> argument_options(const Napi::Value &value)
{
	Napi::Array flat = argument_array(value, "options");
	std::vector<Option> options;
	options.reserve(flat.Length() / 3);
	for (uint32_t i = 0; i + 2 < flat.Length(); i += 3) {
		Napi::Value level = flat[i];
		Napi::Value name = flat[i + 1];
		Napi::Value bytes = flat[i + 2];
		options.push_back({argument_int(level, "options.level", 0), argument_int(name, "options.option", 0),
			argument_bytes(bytes, "options.value")});
	}
	return options;
}

// Arguments: netnsFd | undefined, family, maps[], values[], options[], address | undefined, port, reusePort,
// backlog | undefined.
SocketPlan socket_plan(const Napi::CallbackInfo &info)
{
	SocketPlan plan;
	if (!info[0].IsUndefined())
		plan.netns = argument_fd(info[0], "netnsFd");
	int64_t family = argument_integer(info[1], "family", 4, 6);
	plan.family = family == 4 ? AF_INET : AF_INET6;
	plan.storage = argument_storage(info[2], info[3]);
	plan.options = argument_options(info[4]);
	if (!info[5].IsUndefined()) {
		Bytes address = argument_bytes(info[5], "bind.address");
		if (address.size() != address_bytes)
			throw_type(info.Env(), "bind.address", "a Uint8Array of 16 bytes");
		if (plan.family == AF_INET && std::memcmp(address.data(), v4_mapped.data(), v4_mapped.size()) != 0)
			throw_type(info.Env(), "bind.address", "a v4-mapped address");
		plan.binds = true;
		std::memcpy(plan.bind.address.data(), address.data(), address_bytes);
		plan.bind.port = static_cast<uint16_t>(argument_integer(info[6], "bind.port", 0, 65535));
	}
	plan.reuse_port = info[7].ToBoolean();
	if (!info[8].IsUndefined())
		plan.backlog = argument_int(info[8], "backlog", 0);
	return plan;
}

} // namespace

Napi::Value socket_open(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	SocketPlan plan = socket_plan(info);
	Fd fd = socket_in(env, plan.netns, plan.family, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP,
		plan.family == AF_INET ? "AF_INET" : "AF_INET6");
	int number = fd.get();
	for (const Storage &entry : plan.storage) {
		int error = bpf_map_update_elem(entry.map, &number, entry.value.data(), BPF_ANY);
		if (error < 0)
			throw_errno(env, error, "bpf_map_update_elem", "storage");
	}
	if (plan.family == AF_INET6)
		option_set(env, fd, IPPROTO_IPV6, IPV6_V6ONLY, 0, "IPV6_V6ONLY");
	if (plan.reuse_port) {
		option_set(env, fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
		option_set(env, fd, SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT");
	}
	for (const Option &option : plan.options) {
		if (setsockopt(number, option.level, option.name, option.value.data(),
			    static_cast<socklen_t>(option.value.size())) != 0)
			throw_errno(env, errno, "setsockopt",
				std::to_string(option.level) + " " + std::to_string(option.name));
	}
	if (plan.binds) {
		// The source port is then chosen at connect, when the destination is known: far more of them can be
		// had. The option is IPv4's by name and both families' by effect.
		if (plan.bind.port == 0 && plan.backlog < 0)
			option_set(env, fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1, "IP_BIND_ADDRESS_NO_PORT");
		socket_bind(env, fd, plan);
	}
	if (plan.backlog >= 0 && listen(number, plan.backlog) != 0)
		throw_errno(env, errno, "listen", plan.binds ? bind_text(plan.bind) : std::to_string(number));
	Napi::Value told = Napi::Number::New(env, number);
	fd.release();
	return told;
}

Napi::Value netns_create(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	Fd made;
	const char *failed = nullptr;
	int error = 0;
	{
		NetnsVisit visit(own_netns(env));
		if (visit.create() != 0)
			failed = "unshare";
		else if (loopback_up() != 0)
			failed = "ioctl";
		else {
			made = Fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
			if (!made.valid())
				failed = "open";
		}
		error = errno;
	}
	if (failed != nullptr)
		throw_errno(env, error, failed, "network namespace");
	Napi::Value told = Napi::Number::New(env, made.get());
	made.release();
	return told;
}

// Arguments: fd, level, option, and the value to set, or else how many bytes to read at most.
Napi::Value socket_option(const Napi::CallbackInfo &info)
{
	int fd = argument_fd(info[0], "fd");
	int level = argument_int(info[1], "level", 0);
	int option = argument_int(info[2], "option", 0);
	if (!info[3].IsNumber()) {
		Bytes value = argument_bytes(info[3], "value");
		if (setsockopt(fd, level, option, value.data(), static_cast<socklen_t>(value.size())) != 0)
			throw_errno(info.Env(), errno, "setsockopt", std::to_string(fd));
		return info.Env().Undefined();
	}
	std::vector<uint8_t> value(static_cast<size_t>(argument_integer(info[3], "maxBytes", 0, option_bytes_at_most)));
	auto length = static_cast<socklen_t>(value.size());
	if (getsockopt(fd, level, option, value.data(), &length) != 0)
		throw_errno(info.Env(), errno, "getsockopt", std::to_string(fd));
	// Some options answer with how much there would be.
	return bytes_copy(info.Env(), value.data(), std::min<size_t>(length, value.size()));
}

Napi::Value duplicate(const Napi::CallbackInfo &info)
{
	int fd = argument_fd(info[0], "fd");
	Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
	if (!copy.valid())
		throw_errno(info.Env(), errno, "fcntl", std::to_string(fd));
	Napi::Value told = Napi::Number::New(info.Env(), copy.get());
	copy.release();
	return told;
}

} // namespace addon
