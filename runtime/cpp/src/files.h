// Files of bounded size, and which pictures a command line names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace cat2dog {

using Bytes = std::vector<std::uint8_t>;

// The content of a regular file. Raises Error (bad input) where it cannot be read or has more than `most` bytes.
Bytes read_file(std::string const& path, std::size_t most);

// `paths` in order, of each folder its own JPEG files sorted by name; hidden ones are passed over. Raises Error for a
// missing path and for a folder without any.
std::vector<std::string> find_jpegs(std::vector<std::string> const& paths);

// A file that is mapped, not read: engines have gigabytes. What it shows is what is hashed and what is loaded.
class MappedFile {
public:
    // Raises Error (bad input) where it cannot be opened.
    explicit MappedFile(std::string const& path);
    ~MappedFile();
    MappedFile(MappedFile const&) = delete;
    MappedFile& operator=(MappedFile const&) = delete;
    std::uint8_t const* data() const { return data_; }
    std::size_t size() const { return size_; }
    // From now on these bytes are this process's own: who writes into the file changes nothing here. Takes as much memory
    // as the file has bytes. Raises Error (failed) where there is too little.
    void own();

private:
    std::uint8_t const* data_ = nullptr;
    std::size_t size_ = 0;
};

// `folder/name` of a name beside `path`.
std::string beside(std::string const& path, std::string const& name);
std::string file_name(std::string const& path);
bool ends_with(std::string const& text, std::string const& end);
// The message of an `errno`.
std::string reason(int error);

}  // namespace cat2dog
