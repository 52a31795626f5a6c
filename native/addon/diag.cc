// TCP sockets by their endpoints: are they there, what have they moved, and away with them; and which there are at all
// (netlink's sock_diag).
#include "argument.h"
#include "calls.h"
#include "netns.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <array>
#include <vector>

namespace addon
{

namespace
{

// As JavaScript gives them. The shapes of endpoints are those of layout.h.
struct End {
	std::array<uint8_t, 16> address;
	uint16_t port;
	uint16_t padding;
};
struct Wanted {
	End local;
	End remote;
	uint64_t cookie;
};
static_assert(sizeof(Wanted) == 48);

struct Request {
	nlmsghdr header;
	inet_diag_req_v2 body;
};
static_assert(sizeof(Request) == sizeof(nlmsghdr) + sizeof(inet_diag_req_v2));

// The app's socket is gone; what is left only keeps its addresses from being used again.
bool is_open(uint8_t state)
{
	return state != 0 && state != TCP_TIME_WAIT;
}

struct Found {
	uint8_t state = 0; // 0: there is none
	uint64_t cookie = 0;
	uint64_t bytes_acked = 0;
	uint64_t bytes_received = 0;
};

// What is told of a socket that is measured.
struct Measured {
	uint8_t state;
	uint8_t padding[7];
	uint64_t bytes_acked;
	uint64_t bytes_received;
};
static_assert(sizeof(Measured) == 24);

// Of struct tcp_info (linux/tcp.h, whose other half netinet/tcp.h has taken).
constexpr size_t info_state = 0;
constexpr size_t info_bytes_acked = 120;
constexpr size_t info_bytes_received = 128;
constexpr size_t info_bytes_least = 136;

// In which data may flow both ways.
constexpr uint32_t connected_states = 1u << TCP_ESTABLISHED | 1u << TCP_CLOSE_WAIT;

// A list ends here: nobody asks for more.
constexpr size_t most_listed = 65536;

// So many requests in one call, and their answers in another: the default receive buffer holds far more of them.
constexpr size_t batch = 64;
constexpr size_t answer_bytes = 1024;

bool is_v4(const End &end)
{
	static constexpr std::array<uint8_t, 12> v4_mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	return std::equal(v4_mapped.begin(), v4_mapped.end(), end.address.begin());
}

// Sockets of AF_INET6 that speak IPv4 stand in the same table as those of AF_INET, and are found as such.
Request request_for(const Wanted &wanted, uint16_t type, uint16_t flags, uint32_t sequence, uint8_t extensions = 0)
{
	Request request = {};
	bool v4 = is_v4(wanted.local) && is_v4(wanted.remote);
	size_t skipped = v4 ? 12 : 0;
	request.header = {sizeof(Request), type, static_cast<uint16_t>(NLM_F_REQUEST | flags), sequence, 0};
	request.body.sdiag_family = v4 ? AF_INET : AF_INET6;
	request.body.sdiag_protocol = IPPROTO_TCP;
	request.body.idiag_ext = extensions;
	request.body.idiag_states = ~0u;
	inet_diag_sockid &id = request.body.id;
	id.idiag_sport = htons(wanted.local.port);
	id.idiag_dport = htons(wanted.remote.port);
	std::copy(wanted.local.address.begin() + skipped, wanted.local.address.end(),
		reinterpret_cast<uint8_t *>(id.idiag_src));
	std::copy(wanted.remote.address.begin() + skipped, wanted.remote.address.end(),
		reinterpret_cast<uint8_t *>(id.idiag_dst));
	id.idiag_cookie[0] = wanted.cookie == 0 ? INET_DIAG_NOCOOKIE : static_cast<uint32_t>(wanted.cookie);
	id.idiag_cookie[1] = wanted.cookie == 0 ? INET_DIAG_NOCOOKIE : static_cast<uint32_t>(wanted.cookie >> 32);
	return request;
}

// What an answer says beyond the socket's state. All of it is of one moment, the state too.
void read_info(const nlmsghdr &header, Found &found)
{
	const auto *message = static_cast<const inet_diag_msg *>(NLMSG_DATA(&header));
	int left = static_cast<int>(header.nlmsg_len - NLMSG_LENGTH(sizeof(inet_diag_msg)));
	const auto *attribute = reinterpret_cast<const rtattr *>(message + 1);
	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
		if (attribute->rta_type != INET_DIAG_INFO || RTA_PAYLOAD(attribute) < info_bytes_least)
			continue;
		const auto *info = static_cast<const uint8_t *>(RTA_DATA(attribute));
		found.state = info[info_state];
		std::memcpy(&found.bytes_acked, info + info_bytes_acked, sizeof(found.bytes_acked));
		std::memcpy(&found.bytes_received, info + info_bytes_received, sizeof(found.bytes_received));
	}
}

End end_of(uint8_t family, const __be32 (&address)[4], __be16 port)
{
	End end = {};
	const auto *bytes = reinterpret_cast<const uint8_t *>(address);
	if (family == AF_INET) {
		end.address[10] = end.address[11] = 0xff;
		std::copy(bytes, bytes + 4, end.address.begin() + 12);
	} else {
		std::copy(bytes, bytes + 16, end.address.begin());
	}
	end.port = ntohs(port);
	return end;
}

// A conversation with the kernel about sockets of one namespace. Exactly one answer comes to each request, and is there
// when the call that sent it returns; so nothing is ever waited for.
class Diagnosis
{
      public:
	Diagnosis(Napi::Env env, int netns)
	    : env_(env), netlink_(socket_in(env, netns, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, "NETLINK_SOCK_DIAG"))
	{
	}

	// A kernel without tcp_diag says ENOENT too, as if there were no such socket. A list of none at all tells the
	// two apart.
	void require_support()
	{
		Request request = request_for({}, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, 0);
		request.body.sdiag_family = AF_INET;
		request.body.idiag_states = 0;
		if (send(netlink_.get(), &request, sizeof(request), 0) < 0)
			throw_errno(env_, errno, "send", "NETLINK_SOCK_DIAG");
		bool supported = false;
		receive(1, 1, [&](size_t, const nlmsghdr &, int error) { supported = error == 0; });
		if (!supported)
			throw_errno(env_, EOPNOTSUPP, "sock_diag", "NETLINK_SOCK_DIAG", "The kernel has no tcp_diag.");
	}

	// States and cookies, one for each that is wanted. Of those without a cookie, no listener.
	std::vector<Found> find(const std::vector<Wanted> &wanted, bool with_info = false)
	{
		std::vector<Found> found(wanted.size());
		extensions_ = with_info ? 1u << (INET_DIAG_INFO - 1) : 0;
		ask(wanted, SOCK_DIAG_BY_FAMILY, 0, [&](size_t index, const nlmsghdr &header, int error) {
			keep_failure(error);
			if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY ||
				header.nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg)))
				return;
			inet_diag_msg told;
			std::memcpy(&told, NLMSG_DATA(&header), sizeof(told));
			if (wanted[index].cookie == 0 && told.idiag_state == TCP_LISTEN)
				return;
			found[index].state = told.idiag_state;
			found[index].cookie = told.id.idiag_cookie[0] | uint64_t(told.id.idiag_cookie[1]) << 32;
			// What has no such part is a request, or only what is left of a socket.
			if (with_info) {
				found[index].state = 0;
				read_info(header, found[index]);
			}
		});
		extensions_ = 0;
		throw_failure();
		return found;
	}

	// Those that are connected.
	std::vector<Wanted> list()
	{
		std::vector<Wanted> listed;
		for (uint8_t family : {AF_INET, AF_INET6}) {
			Request request = request_for({}, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, 0);
			request.body.sdiag_family = family;
			request.body.idiag_states = connected_states;
			if (send(netlink_.get(), &request, sizeof(request), 0) < 0)
				throw_errno(env_, errno, "send", "NETLINK_SOCK_DIAG");
			while (list_some(listed)) {
			}
		}
		return listed;
	}

	// True for each that has been destroyed. Of a failure is told when all have had their turn.
	std::vector<bool> destroy(const std::vector<Wanted> &wanted)
	{
		std::vector<bool> destroyed(wanted.size(), false);
		std::vector<Wanted> refused;
		ask(wanted, SOCK_DESTROY, NLM_F_ACK, [&](size_t index, const nlmsghdr &, int error) {
			destroyed[index] = error == 0;
			if (error == EOPNOTSUPP)
				refused.push_back(wanted[index]);
			else
				keep_failure(error);
		});
		// Old kernels say so of a socket in TIME_WAIT, and kernels without CONFIG_INET_DIAG_DESTROY of each.
		for (const Found &found : find(refused))
			keep_failure(is_open(found.state) ? EOPNOTSUPP : 0);
		throw_failure();
		return destroyed;
	}

      private:
	// That there is no such socket is none.
	void keep_failure(int error)
	{
		if (failure_ == 0 && error != ENOENT)
			failure_ = error;
	}

	void throw_failure()
	{
		if (failure_ != 0)
			throw_errno(env_, failure_, "sock_diag", "NETLINK_SOCK_DIAG");
	}

	// `answered`: for each, with the error in its answer; 0: none.
	template <typename Answered>
	void ask(const std::vector<Wanted> &wanted, uint16_t type, uint16_t flags, Answered answered)
	{
		std::vector<Request> requests;
		for (size_t first = 0; first < wanted.size(); first += batch) {
			size_t count = std::min(batch, wanted.size() - first);
			requests.clear();
			for (size_t i = 0; i < count; i++)
				requests.push_back(request_for(
					wanted[first + i], type, flags, static_cast<uint32_t>(first + i), extensions_));
			if (send(netlink_.get(), requests.data(), count * sizeof(Request), 0) < 0)
				throw_errno(env_, errno, "send", "NETLINK_SOCK_DIAG");
			for (size_t left = count; left > 0;)
				left -= std::min(left, receive(wanted.size(), left, answered));
		}
	}

	// Takes what answers there are; how many.
	template <typename Answered> size_t receive(size_t asked, size_t most, Answered answered)
	{
		std::array<mmsghdr, batch> messages = {};
		std::array<iovec, batch> places;
		for (size_t i = 0; i < most; i++) {
			places[i] = {room_.data() + i * answer_bytes, answer_bytes};
			messages[i].msg_hdr.msg_iov = &places[i];
			messages[i].msg_hdr.msg_iovlen = 1;
		}
		int count =
			recvmmsg(netlink_.get(), messages.data(), static_cast<unsigned>(most), MSG_DONTWAIT, nullptr);
		if (count < 0)
			throw_errno(env_, errno, "recvmmsg", "NETLINK_SOCK_DIAG");
		for (int i = 0; i < count; i++) {
			const auto *header = reinterpret_cast<const nlmsghdr *>(places[i].iov_base);
			if (!NLMSG_OK(header, messages[i].msg_len) || header->nlmsg_seq >= asked)
				throw_errno(env_, EPROTO, "recvmmsg", "NETLINK_SOCK_DIAG");
			answered(header->nlmsg_seq, *header, error_in(*header));
		}
		return static_cast<size_t>(count);
	}

	// The kernel writes the next part of a list when the last one is taken. False: there is no more.
	bool list_some(std::vector<Wanted> &listed)
	{
		ssize_t length = recv(netlink_.get(), room_.data(), room_.size(), MSG_DONTWAIT);
		if (length < 0)
			throw_errno(env_, errno, "recv", "NETLINK_SOCK_DIAG");
		size_t left = static_cast<size_t>(length);
		const auto *header = reinterpret_cast<const nlmsghdr *>(room_.data());
		for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
			if (header->nlmsg_type == NLMSG_DONE)
				return false;
			if (header->nlmsg_type == NLMSG_ERROR)
				throw_errno(env_, error_in(*header), "sock_diag", "NETLINK_SOCK_DIAG");
			if (header->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg)) || listed.size() >= most_listed)
				continue;
			inet_diag_msg told;
			std::memcpy(&told, NLMSG_DATA(header), sizeof(told));
			listed.push_back({end_of(told.idiag_family, told.id.idiag_src, told.id.idiag_sport),
				end_of(told.idiag_family, told.id.idiag_dst, told.id.idiag_dport),
				told.id.idiag_cookie[0] | uint64_t(told.id.idiag_cookie[1]) << 32});
		}
		return length > 0;
	}

	static int error_in(const nlmsghdr &header)
	{
		if (header.nlmsg_type != NLMSG_ERROR)
			return 0;
		nlmsgerr told;
		std::memcpy(&told, NLMSG_DATA(&header), sizeof(told));
		return -told.error;
	}

	Napi::Env env_;
	int failure_ = 0;
	uint8_t extensions_ = 0;
	Fd netlink_;
	alignas(nlmsghdr) std::array<uint8_t, batch * answer_bytes> room_;
};

std::vector<Wanted> argument_sockets(const Napi::Value &value)
{
	Bytes bytes = argument_bytes(value, "sockets");
	if (bytes.size() % sizeof(Wanted) != 0)
		throw_type(value.Env(), "sockets",
			("a Uint8Array of " + std::to_string(sizeof(Wanted)) + " bytes for each").c_str());
	std::vector<Wanted> sockets(bytes.size() / sizeof(Wanted));
	if (!bytes.empty())
		std::memcpy(sockets.data(), bytes.data(), bytes.size());
	return sockets;
}

// Who names a packet that would go to a listener means its connection, if there is one, and never the listener.
std::vector<bool> destroy_connections(Diagnosis &diagnosis, const std::vector<Wanted> &sockets)
{
	std::vector<Wanted> known;
	std::vector<size_t> places;
	std::vector<Wanted> unknown;
	std::vector<size_t> unknown_places;
	for (size_t i = 0; i < sockets.size(); i++) {
		bool is_known = sockets[i].cookie != 0;
		(is_known ? known : unknown).push_back(sockets[i]);
		(is_known ? places : unknown_places).push_back(i);
	}
	std::vector<Found> found = diagnosis.find(unknown);
	for (size_t i = 0; i < unknown.size(); i++) {
		if (!is_open(found[i].state))
			continue;
		unknown[i].cookie = found[i].cookie;
		known.push_back(unknown[i]);
		places.push_back(unknown_places[i]);
	}
	std::vector<bool> destroyed = diagnosis.destroy(known);
	std::vector<bool> result(sockets.size(), false);
	for (size_t i = 0; i < known.size(); i++)
		result[places[i]] = destroyed[i];
	return result;
}

} // namespace

// Arguments: netnsFd | undefined, verb, sockets.
Napi::Value sock_diag(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int netns = info[0].IsUndefined() ? -1 : argument_fd(info[0], "netnsFd");
	std::string verb = argument_string(info[1], "verb");
	std::vector<Wanted> sockets = argument_sockets(info[2]);
	std::vector<uint8_t> told(sockets.size(), 0);
	Diagnosis diagnosis(env, netns);
	diagnosis.require_support();
	if (verb == "list") {
		std::vector<Wanted> listed = diagnosis.list();
		return bytes_copy(
			env, reinterpret_cast<const uint8_t *>(listed.data()), listed.size() * sizeof(Wanted));
	}
	if (verb == "measure") {
		std::vector<Measured> measured;
		measured.reserve(sockets.size());
		for (const Found &one : diagnosis.find(sockets, true))
			measured.push_back({one.state, {}, one.bytes_acked, one.bytes_received});
		return bytes_copy(
			env, reinterpret_cast<const uint8_t *>(measured.data()), measured.size() * sizeof(Measured));
	}
	if (verb == "find") {
		std::vector<Found> found = diagnosis.find(sockets);
		std::transform(found.begin(), found.end(), told.begin(), [](const Found &one) { return one.state; });
	} else if (verb == "destroy") {
		std::vector<bool> destroyed = destroy_connections(diagnosis, sockets);
		std::copy(destroyed.begin(), destroyed.end(), told.begin());
	} else {
		throw_type(env, "verb", "'find', 'measure', 'list' or 'destroy'");
	}
	return bytes_copy(env, told.data(), told.size());
}

} // namespace addon
