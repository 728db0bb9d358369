#include "size.h"

#include <cstddef>
#include <limits>

#include "error.h"

namespace cat2dog {
namespace {

constexpr std::size_t kLongest = 256;
constexpr int kDeepest = 16;
constexpr std::size_t kMostDigits = 19;
constexpr std::size_t kLongestName = 32;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_word(char c) { return is_digit(c) || is_upper(c) || (c >= 'a' && c <= 'z') || c == '_'; }

// Wants 1 to 19 digits; false where they exceed 63 bits.
bool read_digits(std::string_view digits, std::int64_t& value) {
    std::uint64_t sum = 0;  // 19 digits fit 64 bits
    for (char c : digits) sum = sum * 10 + static_cast<std::uint64_t>(c - '0');
    value = static_cast<std::int64_t>(sum);
    return sum <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
}

}  // namespace

int Names::find(std::string_view name) const noexcept {
    for (std::size_t i = 0; i < names_.size(); ++i) {
        if (names_[i] == name) return static_cast<int>(i);
    }
    return -1;
}

int Names::add(std::string_view name) {
    if (count() == kMostNames) fail("more than %d names", kMostNames);
    names_.emplace_back(name);
    return count() - 1;
}

// Recursive descent; the depth of recursion is bounded by kDeepest.
class SizeParser {
public:
    SizeParser(std::string_view text, Names const& names) : text_(text), names_(names) {
        if (text.size() > kLongest) fail("size expression of %zu characters, at most %zu", text.size(), kLongest);
    }

    Size whole() {
        Size size;
        size.steps_.clear();
        steps_ = &size.steps_;
        expression(0);
        if (at_ != text_.size()) error("expected an operator");
        return size;
    }

private:
    void expression(int depth) {
        if (depth > kDeepest) error("nested too deeply");
        factor(depth);
        while (at_ < text_.size()) {
            SizeOp op;
            switch (text_[at_]) {
                case '+': op = SizeOp::kAdd; break;
                case '-': op = SizeOp::kSubtract; break;
                case '*': op = SizeOp::kMultiply; break;
                case '/': op = SizeOp::kDivide; break;
                default: return;
            }
            ++at_;
            factor(depth);
            steps_->push_back({op, 0});
        }
    }

    void factor(int depth) {
        char const first = at_ < text_.size() ? text_[at_] : '\0';
        if (is_digit(first)) {
            std::size_t length = 0;
            while (length < kMostDigits && at_ + length < text_.size() && is_digit(text_[at_ + length])) ++length;
            std::int64_t value = 0;
            bool const fits = read_digits(text_.substr(at_, length), value);
            at_ += length;
            if (!fits) error("a number is not between 0 and 2**63-1");
            steps_->push_back({SizeOp::kConstant, value});
        } else if (is_upper(first)) {
            std::size_t length = 0;
            while (length < kLongestName && at_ + length < text_.size() && is_word(text_[at_ + length])) ++length;
            std::string_view const name = text_.substr(at_, length);
            at_ += length;
            int const index = names_.find(name);
            if (index < 0) error("a name is bound by no input");
            steps_->push_back({SizeOp::kName, index});
        } else if (first == '(') {
            ++at_;
            expression(depth + 1);
            expect(')');
        } else if (function("cdiv(")) {
            call(SizeOp::kCdiv, depth);
        } else if (function("min(")) {
            call(SizeOp::kMin, depth);
        } else if (function("max(")) {
            call(SizeOp::kMax, depth);
        } else {
            error("expected a number, a name or a parenthesis");
        }
    }

    bool function(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    void call(SizeOp op, int depth) {
        expression(depth + 1);
        expect(',');
        expression(depth + 1);
        expect(')');
        steps_->push_back({op, 0});
    }

    void expect(char mark) {
        if (at_ >= text_.size() || text_[at_] != mark) {
            char what[] = "expected '?'";
            what[10] = mark;
            error(what);
        }
        ++at_;
    }

    [[noreturn]] void error(char const* what) const {
        fail("size '%.*s': %s at character %zu", static_cast<int>(text_.size()), text_.data(), what, at_);
    }

    std::string_view text_;
    Names const& names_;
    std::size_t at_ = 0;
    std::vector<Size::Step>* steps_ = nullptr;
};

Size Size::parse(std::string_view text, Names const& names) {
    Size size = SizeParser(text, names).whole();
    if (size.is_constant()) {
        try {
            size.evaluate(Values{});
        } catch (Error const& error) {
            fail("size '%.*s': %s", static_cast<int>(text.size()), text.data(), error.what());
        }
    }
    return size;
}

Size Size::name(int index) {
    Size size;
    size.steps_ = {{SizeOp::kName, index}};
    return size;
}

bool Size::is_constant() const noexcept {
    for (Step const& step : steps_) {
        if (step.op == SizeOp::kName) return false;
    }
    return true;
}

bool Size::is_name(int index) const noexcept {
    return steps_.size() == 1 && steps_[0].op == SizeOp::kName && steps_[0].value == index;
}

std::int64_t Size::evaluate(Values const& values) const {
    return fold<std::int64_t>(
        [&](Step const& step) {
            if (step.op == SizeOp::kConstant) return step.value;
            std::int64_t const value = values[static_cast<std::size_t>(step.value)];
            if (value < 0) fail("a name stands for %lld, which is negative", static_cast<long long>(value));
            return value;
        },
        apply_size_op);
}

std::int64_t apply_size_op(SizeOp op, std::int64_t first, std::int64_t second) {
    std::int64_t result = 0;
    bool overflow = false;
    if ((op == SizeOp::kDivide || op == SizeOp::kCdiv) && second == 0) fail("division by zero");
    switch (op) {
        case SizeOp::kAdd: overflow = __builtin_add_overflow(first, second, &result); break;
        case SizeOp::kSubtract: overflow = __builtin_sub_overflow(first, second, &result); break;
        case SizeOp::kMultiply: overflow = __builtin_mul_overflow(first, second, &result); break;
        case SizeOp::kDivide: result = first / second; break;
        case SizeOp::kCdiv: result = first / second + (first % second != 0); break;
        case SizeOp::kMin: result = first < second ? first : second; break;
        case SizeOp::kMax: result = first > second ? first : second; break;
        default: fail("unknown operator");
    }
    if (overflow || result < 0) fail("a result is not between 0 and 2**63-1");
    return result;
}

std::int64_t parse_integer(std::string_view text, char const* what, std::int64_t least, std::int64_t most) {
    std::int64_t value = 0;
    bool sound = !text.empty() && text.size() <= kMostDigits;
    for (std::size_t i = 0; sound && i < text.size(); ++i) sound = is_digit(text[i]);
    if (!sound || !read_digits(text, value) || value < least || value > most) {
        fail("%s is '%.*s', expected a whole number from %lld to %lld", what,
            static_cast<int>(text.size() < 64 ? text.size() : 64), text.data(), static_cast<long long>(least),
            static_cast<long long>(most));
    }
    return value;
}

bool is_size_name(std::string_view text) noexcept {
    if (text.empty() || text.size() > kLongestName || !is_upper(text[0])) return false;
    for (char c : text) {
        if (!is_word(c)) return false;
    }
    return true;
}

}  // namespace cat2dog
