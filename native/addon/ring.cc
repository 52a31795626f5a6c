// Ring buffers: take what is there, never wait.
#include "ring.h"

#include "argument.h"
#include "calls.h"
#include "map.h"

#include <new>

namespace addon
{

namespace
{

constexpr int64_t records_by_default = 512;
constexpr int64_t records_at_most = 65536;

// libbpf 1.1 has no bound of its own for ring_buffer__consume, but a negative answer ends it after the record at hand,
// which counts as consumed: so the last one wanted is answered by this.
constexpr int enough = -ECANCELED;

int on_record(void *context, void *data, size_t length) noexcept
{
	Ring &ring = *static_cast<Ring *>(context);
	try {
		const auto *bytes = static_cast<const uint8_t *>(data);
		ring.bytes.insert(ring.bytes.end(), bytes, bytes + length);
	} catch (const std::bad_alloc &) {
		return -ENOMEM;
	}
	return --ring.wanted == 0 ? enough : 0;
}

} // namespace

Napi::Value ring_open(const Napi::CallbackInfo &info)
{
	const Map &map = handle_open<Map>(info[0], "map");
	if (map.type != BPF_MAP_TYPE_RINGBUF)
		throw_errno(info.Env(), EINVAL, "ring_buffer__new", map.name, "The map is not a ring buffer.");
	auto ring = std::make_unique<Ring>();
	ring->raw.reset(ring_buffer__new(map.fd.get(), on_record, ring.get(), nullptr));
	if (ring->raw == nullptr)
		throw_errno(info.Env(), errno, "ring_buffer__new", map.name);
	return handle_make(info.Env(), std::move(ring));
}

Napi::Value ring_read(const Napi::CallbackInfo &info)
{
	Ring &ring = handle_open<Ring>(info[0], "ring");
	int64_t most = records_by_default;
	if (!info[1].IsUndefined())
		most = argument_integer(info[1], "maxRecords", 1, records_at_most);
	ring.bytes.clear();
	ring.wanted = static_cast<size_t>(most);
	int result = ring_buffer__consume(ring.raw.get());
	// What was taken before memory ran out is still handed over.
	if (result < 0 && result != enough && ring.bytes.empty())
		throw_errno(info.Env(), result, "ring_buffer__consume", "ring");
	return bytes_copy(info.Env(), ring.bytes.data(), ring.bytes.size());
}

} // namespace addon
