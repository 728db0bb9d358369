#include "files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "error.h"

namespace cat2dog {
namespace {

namespace fs = std::filesystem;

// Closes what it opened.
class Descriptor {
public:
    explicit Descriptor(std::string const& path) : number(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
        // O_NONBLOCK: a pipe would wait for its writer.
        if (number < 0) throw bad_input(path + " cannot be read: " + reason(errno));
        struct stat status {};
        if (::fstat(number, &status) != 0 || !S_ISREG(status.st_mode)) {
            ::close(number);
            throw bad_input(path + " is no regular file");
        }
        size = static_cast<std::size_t>(status.st_size);
    }
    ~Descriptor() { ::close(number); }
    Descriptor(Descriptor const&) = delete;
    Descriptor& operator=(Descriptor const&) = delete;
    int const number;
    std::size_t size = 0;
};

bool is_jpeg_name(std::string name) {
    if (name.empty() || name.front() == '.') return false;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return ends_with(name, ".jpg") || ends_with(name, ".jpeg");
}

std::vector<std::string> jpegs_in(fs::path const& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator each(folder, error), end; !error && each != end; each.increment(error)) {
        std::error_code ignored;
        if (each->is_regular_file(ignored) && is_jpeg_name(each->path().filename().string())) {
            names.push_back(each->path().filename().string());
        }
    }
    if (error) throw bad_input(folder.string() + " cannot be read: " + error.message());
    if (names.empty()) throw bad_input("folder " + folder.string() + " holds no JPEG; expected files ending in .jpg or .jpeg");
    std::sort(names.begin(), names.end());
    for (std::string& name : names) name = (folder / name).string();
    return names;
}

}  // namespace

std::string reason(int error) { return std::generic_category().message(error); }

bool ends_with(std::string const& text, std::string const& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string file_name(std::string const& path) { return fs::path(path).filename().string(); }

std::string beside(std::string const& path, std::string const& name) {
    return (fs::path(path).parent_path() / name).string();
}

Bytes read_file(std::string const& path, std::size_t most) {
    Descriptor const file(path);
    if (file.size > most) {
        throw bad_input(path + " has " + std::to_string(file.size) + " bytes, more than the " + std::to_string(most) + " allowed");
    }
    Bytes content(file.size);
    std::size_t done = 0;
    while (done < content.size()) {
        ssize_t const got = ::read(file.number, content.data() + done, content.size() - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw bad_input(path + " cannot be read: " + reason(errno));
        if (got == 0) break;  // it has become shorter
        done += static_cast<std::size_t>(got);
    }
    content.resize(done);
    return content;
}

std::vector<std::string> find_jpegs(std::vector<std::string> const& paths) {
    std::vector<std::string> found;
    for (std::string const& path : paths) {
        std::error_code error;
        fs::file_status const status = fs::status(path, error);
        if (!fs::exists(status)) throw bad_input(path + " does not exist; expected a JPEG file or a folder of them");
        if (!fs::is_directory(status)) {
            found.push_back(path);
            continue;
        }
        for (std::string& each : jpegs_in(path)) found.push_back(std::move(each));
    }
    return found;
}

MappedFile::MappedFile(std::string const& path) {
    Descriptor const file(path);
    if (file.size == 0) return;
    void* const at = ::mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, file.number, 0);
    if (at == MAP_FAILED) throw bad_input(path + " cannot be read: " + reason(errno));
    data_ = static_cast<std::uint8_t const*>(at);
    size_ = file.size;
}

void MappedFile::own() {
    if (data_ == nullptr) return;
    auto* const at = const_cast<std::uint8_t*>(data_);
    if (::mprotect(at, size_, PROT_READ | PROT_WRITE) != 0) throw failed("not enough memory for a copy of the engine: " + reason(errno));
    // The mapping is private: a page that is written to is copied, and no longer the file's.
    std::size_t const page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    for (std::size_t i = 0; i < size_; i += page) {
        std::uint8_t volatile& byte = at[i];
        byte = byte;
    }
    if (::mprotect(at, size_, PROT_READ) != 0) throw failed("the engine's copy cannot be kept from writers: " + reason(errno));
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::uint8_t*>(data_), size_);
}

}  // namespace cat2dog
