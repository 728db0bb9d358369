"""A client of plain HTTP that needs Python alone: python example_client.py http://127.0.0.1:8080 cat.jpg dog.png"""

import json
import sys
import urllib.error
import urllib.request


def main() -> int:
    if len(sys.argv) != 4:
        print("usage: example_client.py URL CAT DOG", file=sys.stderr)
        return 2
    url, cat, dog = sys.argv[1:]
    with open(cat, "rb") as file:
        request = urllib.request.Request(f"{url}/v1/cat2dog", file.read())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:  # 400: the picture; 413: too large; 503: busy, try again later
        print(f"error: {error.code}, {json.load(error)['reason']}", file=sys.stderr)
        return 1
    with open(dog, "wb") as file:
        file.write(body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
