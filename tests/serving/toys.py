"""Functions that need no network: what the server does around a function is what they show."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from serving.function import BAD_INPUT, Answer, Ask, Field, Refusal

TEXT = Field("text", "text", "any text", most=1000)
SECONDS = Field("seconds", "float32", "how long to take", optional=True, least=0, most=60)


class Shout:
    """`text` in capitals, after `seconds`; refuses "whisper", breaks at "break". Keeps the sizes of its batches."""

    name = "shout"
    inputs = (TEXT, SECONDS)
    outputs = (
        Field("loud", "text", "the text in capitals"),
        Field("batch", "int32", "how many were answered together"),
    )

    def __init__(self, most_batch: int = 4, instances: int = 1):
        self.most_batch = most_batch
        self.instances = instances
        self.warm = 0
        self.closed = 0

    def warm_up(self) -> None:
        self.warm += 1

    def answer(self, asks: Sequence[Ask]) -> list[Answer | Refusal]:
        time.sleep(max(float(ask.values.get("seconds", 0.0)) for ask in asks))
        if any(ask.values["text"] == "break" for ask in asks):
            raise ZeroDivisionError("as it was told")
        return [self._one(ask, len(asks)) for ask in asks]

    def close(self) -> None:
        self.closed += 1

    def _one(self, ask: Ask, batch: int) -> Answer | Refusal:
        text = str(ask.values["text"])
        if text == "whisper":
            return Refusal(BAD_INPUT, "a whisper cannot be shouted")
        return Answer({"loud": text.upper(), "batch": batch}, {"batch": batch, "step_ms": 0.5})


class Count:
    """Counts to `most`, one answer each; bytes that end in zeros; refuses to count beyond 5 midway."""

    name = "count"
    inputs = (Field("most", "int32", "how far to count", least=0, most=100), SECONDS)
    outputs = (Field("number", "int32", "where it is"), Field("raw", "bytes", "as many zeros"))

    def __init__(self, instances: int = 1):
        self.instances = instances
        self.closed = 0
        self.under_way = 0

    def warm_up(self) -> None:
        """Nothing is slow."""

    def stream(self, ask: Ask) -> Iterator[Answer]:
        self.under_way += 1
        try:
            for number in range(1, int(ask.values["most"]) + 1):
                time.sleep(float(ask.values.get("seconds", 0.0)))
                if number > 5:
                    raise Refusal(BAD_INPUT, "counting ends at 5")
                yield Answer({"number": number, "raw": b"\0" * number}, {"number": number})
        finally:
            self.under_way -= 1

    def close(self) -> None:
        self.closed += 1
