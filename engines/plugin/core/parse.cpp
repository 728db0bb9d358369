// Plan text → Plan. Statements stand in the order in which engines/kernels/launch.py writes them.
#include <array>
#include <cmath>

#include "error.h"
#include "plan.h"

namespace cat2dog {
namespace {

constexpr std::int64_t kMostShared = 1 << 20;
constexpr std::int64_t kMostThreads = 1024;
constexpr std::int64_t kMostCluster = 16;
constexpr std::size_t kMostWords = 16;
constexpr std::size_t kLongestKernelName = 512;

struct Word {
    char const* word;
    Type type;
    int bytes;
};
constexpr Word kTypes[] = {{"fp16", Type::kFp16, 2}, {"bf16", Type::kBf16, 2}, {"fp32", Type::kFp32, 4},
    {"i32", Type::kI32, 4}, {"u8", Type::kU8, 1}, {"i8", Type::kI8, 1}};

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }
int hex_value(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

// As Python's float.hex writes: 0x1.91eb851eb851fp+1. Read by hand, because strtod follows the process's locale.
bool read_hex_float(std::string_view text, double& value) {
    bool const negative = !text.empty() && text[0] == '-';
    if (negative) text.remove_prefix(1);
    if (text.substr(0, 2) != "0x") return false;
    text.remove_prefix(2);
    std::uint64_t mantissa = 0;
    int digits = 0;
    int exponent = 0;
    bool point = false;
    std::size_t at = 0;
    for (; at < text.size() && text[at] != 'p'; ++at) {
        if (text[at] == '.' && !point) {
            point = true;
        } else if (is_hex(text[at]) && ++digits <= 15) {
            mantissa = mantissa * 16 + static_cast<std::uint64_t>(hex_value(text[at]));
            if (point) exponent -= 4;
        } else {
            return false;
        }
    }
    if (digits == 0 || at + 1 >= text.size()) return false;
    std::string_view power = text.substr(at + 1);
    bool const down = power[0] == '-';
    if (power[0] == '-' || power[0] == '+') power.remove_prefix(1);
    if (power.empty() || power.size() > 4) return false;
    int shift = 0;
    for (char c : power) {
        if (c < '0' || c > '9') return false;
        shift = shift * 10 + (c - '0');
    }
    value = std::ldexp(static_cast<double>(mantissa), exponent + (down ? -shift : shift));
    if (negative) value = -value;
    return true;
}

// -12, 0.125, 1e-3: at most 18 digits, which long double holds exactly.
bool read_decimal(std::string_view text, double& value) {
    bool const negative = !text.empty() && text[0] == '-';
    if (negative) text.remove_prefix(1);
    std::size_t const mark = text.find('e');
    std::string_view power = mark == std::string_view::npos ? "0" : text.substr(mark + 1);
    long double mantissa = 0;
    int digits = 0;
    int exponent = 0;
    bool point = false;
    for (char c : text.substr(0, mark)) {
        if (c == '.' && !point) {
            point = true;
        } else if (c >= '0' && c <= '9' && ++digits <= 18) {
            mantissa = mantissa * 10 + (c - '0');
            if (point) --exponent;
        } else {
            return false;
        }
    }
    bool const down = !power.empty() && power[0] == '-';
    if (!power.empty() && (power[0] == '-' || power[0] == '+')) power.remove_prefix(1);
    if (digits == 0 || power.empty() || power.size() > 3) return false;
    int shift = 0;
    for (char c : power) {
        if (c < '0' || c > '9') return false;
        shift = shift * 10 + (c - '0');
    }
    exponent += down ? -shift : shift;
    for (; exponent > 0; --exponent) mantissa *= 10;
    long double divisor = 1;
    for (; exponent < 0; ++exponent) divisor *= 10;
    value = static_cast<double>(mantissa / divisor);
    if (negative) value = -value;
    return true;
}

class PlanParser {
public:
    explicit PlanParser(std::string_view text) : text_(text) {}

    Plan whole() {
        header();
        while (is("input")) tensor(plan_.inputs, "inputs", true);
        if (plan_.inputs.empty()) error("'input TYPE SIZE...'");
        while (is("output")) tensor(plan_.outputs, "outputs", false);
        if (plan_.outputs.empty()) error("'output TYPE SIZE...'");
        if (is("workspace")) {
            words(2, 2, "'workspace SIZE'");
            plan_.workspace = size(1);
            next();
        }
        while (is("image")) image();
        if (plan_.images.empty()) error("'image LENGTH HASH'");
        while (is("kernel")) launch();
        if (plan_.launches.empty()) error("'kernel IMAGE NAME'");
        if (line_ != "end") error("'end'");
        if (at_ != text_.size()) fail("launch plan: line %d: text after 'end'", number_ + 1);
        return std::move(plan_);
    }

private:
    void header() {
        if (text_.size() > kMostText) fail("launch plan: %zu bytes, at most %zu", text_.size(), kMostText);
        while (!text_.empty() && text_.back() == '\0') text_.remove_suffix(1);
        for (char c : text_) {
            if (c != '\n' && (c < ' ' || c > '~')) fail("launch plan: byte 0x%02x, expected printable ASCII", c & 0xff);
        }
        next();
        if (line_ != "cat2dog-launch 1") error("'cat2dog-launch 1': made by another version of this toolchain?");
        next();
        words(3, 3, "'target CAPABILITY exact|family'");
        if (word(0) != "target" || (word(2) != "exact" && word(2) != "family")) {
            error("'target CAPABILITY exact|family'");
        }
        int const capability = static_cast<int>(integer(1, "compute capability", 50, 999));
        plan_.target = {capability / 10, capability % 10, word(2) == "exact"};
        next();
    }

    void tensor(std::vector<Tensor>& tensors, char const* what, bool binds) {
        words(2, 2 + kMostDims, "a type and at most 8 sizes");
        room(tensors.size(), kMostTensors, what);
        Tensor made;
        made.type = type(1);
        for (std::size_t i = 2; i < count_; ++i) {
            std::string_view const text = words_[i];
            // A bare name binds where it first stands.
            if (binds && is_size_name(text) && plan_.names.find(text) < 0) {
                made.shape.push_back(Size::name(guarded([&] { return plan_.names.add(text); })));
            } else {
                made.shape.push_back(size(i));
            }
        }
        tensors.push_back(std::move(made));
        next();
    }

    void image() {
        words(3, 3, "'image LENGTH HASH'");
        room(plan_.images.size(), kMostImages, "images");
        Image made;
        made.offset = plan_.images.empty() ? 0 : plan_.images.back().offset + plan_.images.back().length;
        made.length = static_cast<std::size_t>(integer(1, "image length", 1, kMostImageBytes));
        if (made.offset + made.length > kMostImageBytes) error("images of at most 64 MiB together");
        if (word(2).size() != 16) error("a hash of 16 hex digits");
        for (char c : word(2)) {
            if (!is_hex(c)) error("a hash of 16 hex digits");
            made.fnv = made.fnv << 4 | static_cast<std::uint64_t>(hex_value(c));
        }
        plan_.images.push_back(made);
        next();
    }

    void launch() {
        words(3, 3, "'kernel IMAGE NAME'");
        room(plan_.launches.size(), kMostLaunches, "kernels");
        Launch made;
        made.image = static_cast<int>(integer(1, "image number", 0, static_cast<int>(plan_.images.size()) - 1));
        if (word(2).size() > kLongestKernelName) error("a kernel name of at most 512 characters");
        made.name = std::string(word(2));
        next();
        statement("grid", 4, 4, "'grid SIZE SIZE SIZE'");
        for (std::size_t i = 0; i < 3; ++i) made.grid[i] = size(i + 1);
        next();
        statement("block", 4, 4, "'block THREADS THREADS THREADS'");
        made.block = three("threads", kMostThreads);
        next();
        statement("shared", 2, 2, "'shared BYTES'");
        made.shared = static_cast<std::uint32_t>(integer(1, "shared memory", 0, kMostShared));
        next();
        if (is("cluster")) {
            words(4, 4, "'cluster BLOCKS BLOCKS BLOCKS'");
            made.cluster = three("blocks", kMostCluster);
            next();
        }
        if (is("serial")) {
            if (line_ != "serial programmatic") error("'serial programmatic'");
            made.programmatic = true;
            next();
        }
        while (is("arg")) argument(made);
        plan_.launches.push_back(std::move(made));
    }

    void argument(Launch& launch) {
        words(2, 7, "'arg KIND ...'");
        room(launch.arguments.size(), kMostArguments, "arguments");
        std::string_view const kind = word(1);
        Argument made;
        if (kind == "input" || kind == "output" || kind == "workspace") {
            made.kind = ArgumentKind::kAddress;
            std::size_t used = 1;
            made.address = address(used);
            whole_line(used);
        } else if (kind == "i32" || kind == "i64") {
            made.kind = kind == "i32" ? ArgumentKind::kI32 : ArgumentKind::kI64;
            whole_line(3);
            made.number = size(2);
        } else if (kind == "f32") {
            made.kind = ArgumentKind::kF32;
            whole_line(3);
            made.real = real(2);
        } else if (kind == "null") {
            whole_line(2);
        } else if (kind == "tensormap") {
            made.kind = ArgumentKind::kMap;
            made.map = static_cast<int>(launch.maps.size());
            room(launch.maps.size(), kMostMaps, "tensor maps");
            launch.maps.push_back(map());  // ends at the last line of the four
        } else {
            error("one of input, output, workspace, i32, i64, f32, null, tensormap");
        }
        launch.arguments.push_back(std::move(made));
        next();
    }

    TensorMap map() {
        TensorMap made;
        std::size_t used = 2;
        made.at = address(used);
        whole_line(used + 2);
        made.type = type(used);
        made.swizzle = swizzle(used + 1);
        next();
        statement("dims", 2, 1 + kMostMapDims, "'dims SIZE...' of 1 to 5 sizes");
        for (std::size_t i = 1; i < count_; ++i) made.dims.push_back(size(i));
        next();
        statement("strides", made.dims.size(), made.dims.size(), "'strides SIZE...', one size fewer than dims");
        for (std::size_t i = 1; i < count_; ++i) made.strides.push_back(size(i));
        next();
        statement("box", 1 + made.dims.size(), 1 + made.dims.size(), "'box SIZE...', as many as dims");
        for (std::size_t i = 1; i < count_; ++i) {
            made.box.push_back(static_cast<std::uint32_t>(integer(i, "box", 1, 256)));
        }
        return made;
    }

    // OPERAND [INDEX] OFFSET from word `used` on, which it moves behind them.
    Address address(std::size_t& used) {
        Address made;
        std::string_view const operand = word(used++);
        if (operand == "workspace") {
            made.operand = Operand::kWorkspace;
        } else if (operand == "input" || operand == "output") {
            bool const input = operand == "input";
            made.operand = input ? Operand::kInput : Operand::kOutput;
            std::size_t const there = input ? plan_.inputs.size() : plan_.outputs.size();
            made.index = static_cast<int>(integer(used++, "operand number", 0, static_cast<int>(there) - 1));
        } else {
            error("one of input, output, workspace");
        }
        made.offset = size(used++);
        return made;
    }

    Type type(std::size_t index) {
        for (Word const& known : kTypes) {
            if (word(index) == known.word) return known.type;
        }
        error("a type of fp16, bf16, fp32, i32, u8, i8");
    }

    Swizzle swizzle(std::size_t index) {
        std::string_view const text = word(index);
        if (text == "none") return Swizzle::kNone;
        if (text == "32B") return Swizzle::k32B;
        if (text == "64B") return Swizzle::k64B;
        if (text == "128B") return Swizzle::k128B;
        error("a swizzle of none, 32B, 64B, 128B");
    }

    float real(std::size_t index) {
        double value = 0;
        std::string_view const text = word(index);
        if (!read_hex_float(text, value) && !read_decimal(text, value)) error("a number, decimal or as float.hex writes");
        auto const narrow = static_cast<float>(value);
        if (!std::isfinite(narrow)) error("a number that FP32 holds");
        return narrow;
    }

    std::array<std::uint32_t, 3> three(char const* what, std::int64_t most) {
        std::array<std::uint32_t, 3> sizes{};
        std::uint64_t product = 1;
        for (std::size_t i = 0; i < 3; ++i) {
            sizes[i] = static_cast<std::uint32_t>(integer(i + 1, what, 1, most));
            product *= sizes[i];
        }
        if (product > static_cast<std::uint64_t>(most)) error("a smaller product of the three");
        return sizes;
    }

    Size size(std::size_t index) {
        return guarded([&] { return Size::parse(word(index), plan_.names); });
    }

    std::int64_t integer(std::size_t index, char const* what, std::int64_t least, std::int64_t most) {
        return guarded([&] { return parse_integer(word(index), what, least, most); });
    }

    // Adds the line to what goes wrong inside.
    template <typename Read>
    auto guarded(Read&& read) -> decltype(read()) {
        try {
            return read();
        } catch (Error const& error) {
            fail("launch plan: line %d: %s", number_, error.what());
        }
    }

    void room(std::size_t count, int most, char const* what) {
        if (count == static_cast<std::size_t>(most)) fail("launch plan: line %d: more than %d %s", number_, most, what);
    }

    std::string_view word(std::size_t index) {
        if (index >= count_) error("more words");
        return words_[index];
    }

    bool is(std::string_view statement) const { return words_[0] == statement; }

    void statement(std::string_view name, std::size_t least, std::size_t most, char const* expected) {
        if (!is(name)) error(expected);
        words(least, most, expected);
    }

    void words(std::size_t least, std::size_t most, char const* expected) {
        if (count_ < least || count_ > most) error(expected);
    }

    void whole_line(std::size_t count) {
        if (count_ != count) error(count_ < count ? "more words" : "fewer words");
    }

    // Moves to the next line and cuts it into words.
    void next() {
        if (at_ >= text_.size()) fail("launch plan: line %d: the text ends, expected more up to 'end'", number_ + 1);
        ++number_;
        std::size_t const end = text_.find('\n', at_);
        if (end == std::string_view::npos) fail("launch plan: line %d: no end of line", number_);
        line_ = text_.substr(at_, end - at_);
        at_ = end + 1;
        count_ = 0;
        for (std::string_view rest = line_;;) {
            if (count_ == kMostWords) error("at most 16 words");
            std::size_t const space = rest.find(' ');
            std::string_view const one = rest.substr(0, space);
            if (one.empty()) error("words apart by one space");
            words_[count_++] = one;
            if (space == std::string_view::npos) break;
            rest.remove_prefix(space + 1);
        }
    }

    [[noreturn]] void error(char const* expected) const {
        fail("launch plan: line %d: '%.*s', expected %s", number_,
            static_cast<int>(line_.size() < 200 ? line_.size() : 200), line_.data(), expected);
    }

    std::string_view text_;
    std::size_t at_ = 0;
    int number_ = 0;
    std::string_view line_;
    std::array<std::string_view, kMostWords> words_{};
    std::size_t count_ = 0;
    Plan plan_;
};

}  // namespace

char const* type_name(Type type) noexcept { return kTypes[static_cast<std::size_t>(type)].word; }

int type_bytes(Type type) noexcept { return kTypes[static_cast<std::size_t>(type)].bytes; }

Plan parse_plan(std::string_view text) { return PlanParser(text).whole(); }

}  // namespace cat2dog
