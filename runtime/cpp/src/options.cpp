#include "options.h"

#include <charconv>
#include <cstdlib>

#include "ed25519.h"
#include "error.h"
#include "files.h"
#include "signing.h"

namespace cat2dog {
namespace {

constexpr std::int64_t kMostRounds = 10'000;
constexpr std::int64_t kMostThreads = 1024;

constexpr char const* kHelp =
    "usage: cat2dog-resnet50 --network FILE --images PATH [PATH ...] [options]\n\n"
    "The two likeliest classes of photos, and mean and variance of their embeddings; no Python, no framework.\n\n"
    "  --network FILE      .engine (TensorRT) or .onnx (ONNX Runtime), with its manifest beside it\n"
    "  --images PATH ...   JPEG files, or folders of them\n"
    "  --labels FILE       1000 lines, a name each (default: class 0 to class 999)\n"
    "  --seed N            of the crops' places (default: 0)\n"
    "  --library FILE      libonnxruntime.so or libnvinfer.so (default: $ONNXRUNTIME_HOME/lib, else the loader's)\n"
    "  --plugins FILE ...  plugin libraries that an engine needs\n"
    "  --signed-by KEY.pub load only engines signed by this key, or by one in this folder (default: $CAT2DOG_SIGNED_BY, else any)\n"
    "  --threads N         of ONNX Runtime (default: its own choice)\n"
    "  --rounds N          pictures so many times, with --json\n"
    "  --json              a JSON object a picture, with times\n"
    "  --version           of what it is made\n\n"
    "example: cat2dog-resnet50 --network build/onnx/resnet50-random_fp32.onnx --images images\n"
    "exit codes: 0 done, 1 failed, 2 bad input, 3 accuracy gate, 4 foreign or altered engine, 130 interrupted\n";

std::string version() {
    std::string const engines = engines_of().empty() ? "ONNX files only, built without TensorRT's headers" : "engines of " + engines_of();
    std::string const signatures = signatures_by() ? "signatures by " + *signatures_by()
                                                   : "built without OpenSSL: where only signed engines are to be loaded, it loads none";
    return "cat2dog-resnet50 " CAT2DOG_VERSION "; " + engines + "; " + signatures + "\n";
}

template <typename Number>
Number number(std::string const& option, std::string const& text, Number least, Number most) {
    Number value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
        throw bad_input(option + " " + text + " was given; expected " + std::to_string(least) + " to " + std::to_string(most));
    }
    return value;
}

class Reader {
public:
    explicit Reader(std::vector<std::string> const& words) : words_(words) {}
    bool more() const { return at_ < words_.size(); }
    std::string next() { return words_[at_++]; }

    std::string value(std::string const& option) {
        if (!more() || is_option()) throw bad_input(option + " lacks its value; see --help");
        return next();
    }

    std::vector<std::string> values(std::string const& option) {
        std::vector<std::string> all{value(option)};
        while (more() && !is_option()) all.push_back(next());
        return all;
    }

private:
    bool is_option() const { return words_[at_].rfind("--", 0) == 0; }
    std::vector<std::string> const& words_;
    std::size_t at_ = 0;
};

}  // namespace

Options parse_options(std::vector<std::string> const& words) {
    Options options;
    Reader reader(words);
    while (reader.more()) {
        std::string const word = reader.next();
        if (word == "--help" || word == "-h") {
            options.said = kHelp;
            return options;
        }
        if (word == "--version") {
            options.said = version();
            return options;
        }
        if (word == "--network") options.network = reader.value(word);
        else if (word == "--images") options.images = reader.values(word);
        else if (word == "--labels") options.labels = reader.value(word);
        else if (word == "--seed") options.seed = number<std::uint64_t>(word, reader.value(word), 0, UINT64_MAX);
        else if (word == "--library") options.loading.library = reader.value(word);
        else if (word == "--plugins") options.loading.plugins = reader.values(word);
        else if (word == "--threads") options.loading.threads = static_cast<int>(number<std::int64_t>(word, reader.value(word), 1, kMostThreads));
        else if (word == "--rounds") options.rounds = static_cast<int>(number<std::int64_t>(word, reader.value(word), 1, kMostRounds));
        else if (word == "--signed-by") options.loading.signed_by = reader.value(word);
        else if (word == "--json") options.json = true;
        else throw bad_input("unknown option " + word + "; see --help");
    }
    if (options.network.empty() || options.images.empty()) throw bad_input("give --network FILE and --images PATH; see --help");
    if (options.loading.signed_by && ends_with(options.network, ".onnx")) {
        throw bad_input("--signed-by is for engines, but " + options.network + " is an ONNX file, which cannot be signed");
    }
    if (char const* const keys = std::getenv(kSignedByVariable); keys != nullptr && !options.loading.signed_by) options.loading.signed_by = keys;
    if (options.rounds > 1 && !options.json) throw bad_input("--rounds is for --json; see --help");
    return options;
}

}  // namespace cat2dog
