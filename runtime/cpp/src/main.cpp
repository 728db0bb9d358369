// Photos to the lines about them, without Python: see `--help`.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>

#include "answer.h"
#include "error.h"
#include "json_out.h"
#include "options.h"
#include "sha256.h"

namespace cat2dog {
namespace {

class Clock {
public:
    // Milliseconds since it was made, or asked before.
    double lap() {
        auto const now = std::chrono::steady_clock::now();
        double const passed = std::chrono::duration<double, std::milli>(now - last_).count();
        last_ = now;
        return passed;
    }

private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

struct Seen {
    Answer answer;
    Crop crop;
    Milliseconds ms;
};

Seen see(std::string const& path, std::size_t index, Options const& options, Network& network) {
    Bytes const data = read_file(path, kMostJpegBytes);
    Seen made{};
    Outputs outputs{};
    Clock clock;
    Picture const picture = decode_jpeg(data, path);
    made.ms.decode = clock.lap();
    made.crop = cut(picture, place(picture, options.seed, index, path));
    made.ms.preprocess = clock.lap();
    network.infer(made.crop, outputs);
    made.ms.network = clock.lap();
    made.answer = answer_of(outputs);
    made.ms.postprocess = clock.lap();
    return made;
}

int run(Options const& options) {
    std::vector<std::string> const paths = find_jpegs(options.images);
    std::vector<std::string> const labels = read_labels(options.labels);
    std::unique_ptr<Network> const network = open_network(options.network, options.loading);
    if (options.json) std::printf("%s\n", about_json(network->about()).c_str());
    std::size_t faults = 0;
    for (int round = 0; round < options.rounds; ++round) {
        for (std::size_t index = 0; index < paths.size(); ++index) {
            std::string said;
            try {
                Seen const seen = see(paths[index], index, options, *network);
                said = options.json ? seen_json(index + 1, seen.answer, sha256(seen.crop.data(), seen.crop.size()), seen.ms) + "\n"
                                    : lines(seen.answer, index + 1, labels);
            } catch (Error const& error) {
                if (error.code != Exit::kBadInput) throw;
                ++faults;
                std::fprintf(stderr, "skipped: %s\n", error.what());
                if (options.json) said = fault_json(index + 1, error.what()) + "\n";
            }
            std::fputs(said.c_str(), stdout);
        }
    }
    if (std::fflush(stdout) != 0) throw failed("the lines cannot be written");
    if (faults != 0) {
        throw bad_input(std::to_string(faults) + " of " + std::to_string(paths.size() * static_cast<std::size_t>(options.rounds)) +
                        " pictures could not be read");
    }
    return 0;
}

extern "C" void on_interrupt(int) { ::_exit(static_cast<int>(Exit::kInterrupted)); }

}  // namespace
}  // namespace cat2dog

int main(int count, char** words) {
    using cat2dog::Exit;
    std::signal(SIGINT, cat2dog::on_interrupt);
    Exit code = Exit::kFailed;
    std::string why;
    try {
        auto const options = cat2dog::parse_options({words + 1, words + count});
        if (!options.said.empty()) {
            std::fputs(options.said.c_str(), stdout);
            return 0;
        }
        return cat2dog::run(options);
    } catch (cat2dog::Error const& error) {
        code = error.code;
        why = error.what();
    } catch (std::bad_alloc const&) {
        why = "not enough memory";
    } catch (std::exception const& error) {
        why = error.what();
    }
    std::fflush(stdout);
    // A manifest's own words may be in it; an error is one line all the same, and moves no cursor.
    for (char& c : why) c = static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
    std::fprintf(stderr, "error: %s\n", why.c_str());
    return static_cast<int>(code);
}
