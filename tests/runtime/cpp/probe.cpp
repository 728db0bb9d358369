// Answers lines of stdin, for tests that compare with Python: "= ..." or, for an error, "! CODE WORDS".
//
//   draw SEED NUMBER BELOW        a number
//   pixels FILE                   height, width and SHA-256 of the decoded pixels
//   crop FILE SEED INDEX          top, left and SHA-256 of the crop
//   sha256 HEX | json HEX         of the bytes; "-" stands for none
//   signed HEX                    of a manifest's bytes, what is signed, with its line break as a blank
//   signature HEX                 of the bytes of a `.sig`, the key's name and the signature
//   float TEXT                    a number as it is signed
//   answer LOGIT:VALUE ...        of logits that are 0 elsewhere, mean 0.5 and variance 0.25
#include <iostream>
#include <sstream>
#include <stdexcept>

#include "answer.h"
#include "canonical.h"
#include "error.h"
#include "json.h"
#include "manifest.h"
#include "sha256.h"
#include "signed_text.h"
#include "signing.h"

namespace {

using namespace cat2dog;

Bytes from_hex(std::string const& text) {
    Bytes made;
    for (std::size_t i = 0; text != "-" && i + 1 < text.size(); i += 2) {
        made.push_back(static_cast<std::uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
    }
    return made;
}

std::string to_hex(Bytes const& bytes) {
    std::string made;
    for (std::uint8_t const byte : bytes) {
        made += "0123456789abcdef"[byte >> 4];
        made += "0123456789abcdef"[byte & 15];
    }
    return made;
}

std::string answer_line(std::istringstream& words) {
    Outputs outputs{};
    outputs.statistics = {0.5F, 0.25F};
    for (std::string word; words >> word;) {
        std::size_t const colon = word.find(':');
        outputs.logits.at(std::stoul(word.substr(0, colon))) = std::stof(word.substr(colon + 1));
    }
    std::string said = lines(answer_of(outputs), 7, read_labels(""));
    said.pop_back();
    said.replace(said.find('\n'), 1, " | ");
    return said;
}

std::string answer(std::string const& line) {
    std::istringstream words(line);
    std::ostringstream out;
    std::string verb;
    std::string text;
    words >> verb;
    if (verb == "answer") return answer_line(words);
    if (verb == "draw") {
        std::uint64_t seed = 0;
        std::uint64_t number = 0;
        std::uint64_t below = 0;
        words >> seed >> number >> below;
        out << draw(seed, number, below);
        return out.str();
    }
    words >> text;
    if (verb == "sha256" || verb == "json") {
        Bytes const bytes = from_hex(text);
        if (verb == "sha256") return sha256(bytes.data(), bytes.size());
        Json::parse({reinterpret_cast<char const*>(bytes.data()), bytes.size()});
        return "sound";
    }
    if (verb == "float") return float_text(as_double(Json::parse(text)));
    if (verb == "signed" || verb == "signature") {
        Bytes const bytes = from_hex(text);
        std::string_view const data(reinterpret_cast<char const*>(bytes.data()), bytes.size());
        if (verb == "signature") {
            auto const [key, signature] = read_signature(data);
            return key + ' ' + to_hex(signature);
        }
        std::string said = signed_text(parse_sealed(data));
        said.replace(said.find('\n'), 1, " ");
        return said;
    }
    Picture const picture = decode_jpeg(read_file(text, kMostJpegBytes), text);
    if (verb == "pixels") {
        out << picture.height << ' ' << picture.width << ' ' << sha256(picture.pixels.data(), picture.pixels.size());
        return out.str();
    }
    std::uint64_t seed = 0;
    std::uint64_t index = 0;
    words >> seed >> index;
    Place const at = place(picture, seed, index, text);
    Crop const crop = cut(picture, at);
    out << at.top << ' ' << at.left << ' ' << sha256(crop.data(), crop.size());
    return out.str();
}

}  // namespace

int main() {
    for (std::string line; std::getline(std::cin, line);) {
        try {
            std::string const said = answer(line);
            std::cout << "= " << said << std::endl;
        } catch (Error const& error) {
            std::cout << "! " << static_cast<int>(error.code) << ' ' << error.what() << std::endl;
        } catch (std::invalid_argument const& error) {
            std::cout << "! 4 " << error.what() << std::endl;
        }
    }
}
