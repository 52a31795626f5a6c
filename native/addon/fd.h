// An owned file descriptor: closed exactly once, moved but never copied.
#ifndef CULVERT_ADDON_FD_H
#define CULVERT_ADDON_FD_H

#include <unistd.h>

#include <utility>

namespace addon
{

class Fd
{
      public:
	Fd() = default;
	explicit Fd(int fd) : fd_(fd)
	{
	}
	Fd(Fd &&other) noexcept : fd_(other.release())
	{
	}
	Fd &operator=(Fd &&other) noexcept
	{
		if (this != &other) {
			close();
			fd_ = other.release();
		}
		return *this;
	}
	Fd(const Fd &) = delete;
	Fd &operator=(const Fd &) = delete;
	~Fd()
	{
		close();
	}

	int get() const
	{
		return fd_;
	}
	bool valid() const
	{
		return fd_ >= 0;
	}
	// Hands the descriptor to the caller, who now owns it.
	int release()
	{
		return std::exchange(fd_, -1);
	}
	// EINTR is no reason to try again: on Linux the descriptor is gone whatever close() returns.
	void close()
	{
		if (fd_ >= 0)
			::close(release());
	}

      private:
	int fd_ = -1;
};

} // namespace addon

#endif
