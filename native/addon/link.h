// An attached link: a descriptor is all it takes. A pinned one lives on when the descriptor is closed.
#ifndef CULVERT_ADDON_LINK_H
#define CULVERT_ADDON_LINK_H

#include "fd.h"
#include "handle.h"

namespace addon
{

struct Link {
	static constexpr napi_type_tag tag = {0x8e70c5a94b1d23f6, 0x3c6fd8129ae7b054};
	static constexpr const char *noun = "a link";

	Fd fd;

	bool closed() const
	{
		return !fd.valid();
	}
	void close()
	{
		fd.close();
	}
};

} // namespace addon

#endif
