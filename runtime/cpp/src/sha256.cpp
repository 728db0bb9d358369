#include "sha256.h"

#include <array>
#include <cmath>
#include <cstring>

namespace cat2dog {
namespace {

using Word = std::uint32_t;

// First 32 bits of the fractional part of a root of the n-th prime: square roots begin the state, cube roots the rounds.
// They are computed in whole numbers, since no rounding of the machine's may matter.
Word fraction_of_root(unsigned prime, int power) {
    using Wide = unsigned __int128;
    Wide low = 0;
    Wide high = static_cast<Wide>(1) << 36;  // prime < 512: its roots are under 2^4 (cube) and 2^5 (square), times 2^32
    Wide const target = static_cast<Wide>(prime) << (power == 2 ? 64 : 96);
    while (high - low > 1) {
        Wide const middle = (low + high) / 2;
        Wide const raised = power == 2 ? middle * middle : middle * middle * middle;
        (raised <= target ? low : high) = middle;
    }
    return static_cast<Word>(low);
}

struct Constants {
    std::array<Word, 8> state{};
    std::array<Word, 64> rounds{};
    Constants() {
        unsigned candidate = 2;
        for (std::size_t count = 0; count < rounds.size(); ++candidate) {
            bool prime = true;
            for (unsigned divisor = 2; divisor * divisor <= candidate; ++divisor) prime = prime && candidate % divisor != 0;
            if (!prime) continue;
            if (count < state.size()) state[count] = fraction_of_root(candidate, 2);
            rounds[count++] = fraction_of_root(candidate, 3);
        }
    }
};

Word rotated(Word x, int by) { return x >> by | x << (32 - by); }

void block(std::array<Word, 8>& state, std::array<Word, 64> const& rounds, std::uint8_t const* data) {
    std::array<Word, 64> w{};
    for (std::size_t i = 0; i < 16; ++i) {
        std::uint8_t const* const at = data + 4 * i;
        w[i] = Word{at[0]} << 24 | Word{at[1]} << 16 | Word{at[2]} << 8 | Word{at[3]};
    }
    for (std::size_t i = 16; i < 64; ++i) {
        Word const s0 = rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3;
        Word const s1 = rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (std::size_t i = 0; i < 64; ++i) {
        Word const t1 = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & f) ^ (~e & g)) + rounds[i] + w[i];
        Word const t2 = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    std::array<Word, 8> const added{a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) state[i] += added[i];
}

}  // namespace

std::string sha256(std::uint8_t const* data, std::size_t size) {
    static Constants const constants;
    std::array<Word, 8> state = constants.state;
    std::size_t const whole = size / 64 * 64;
    for (std::size_t at = 0; at < whole; at += 64) block(state, constants.rounds, data + at);
    // The rest, a one, zeros, and the length in bits.
    std::array<std::uint8_t, 128> last{};
    std::size_t const rest = size - whole;
    if (rest != 0) std::memcpy(last.data(), data + whole, rest);
    last[rest] = 0x80;
    std::size_t const length = rest < 56 ? 64 : 128;
    std::uint64_t const bits = static_cast<std::uint64_t>(size) * 8;
    for (std::size_t i = 0; i < 8; ++i) last[length - 1 - i] = static_cast<std::uint8_t>(bits >> (8 * i));
    for (std::size_t at = 0; at < length; at += 64) block(state, constants.rounds, last.data() + at);
    std::string hex;
    for (Word const word : state) {
        for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[word >> shift & 15];
    }
    return hex;
}

}  // namespace cat2dog
