"""A small world that is known completely, and texts about it in English and in Chinese.

``World(seed)`` holds entities with types and a graph of facts. ``World.document(rng)`` tells a
story in it: who the hero is, then what happened from morning to night, then what came of it. With
the text comes everything that a task could ask for: words, sentences, mentions and what they refer
to, semantic roles, the facts that are stated, sentiment; ``World.questions`` adds questions with
their answers. So every model has a test in which learning can be measured and the right answer
is known. The same seed gives the same world, and the same ``rng`` the same plot, in either
language::

    Emil Hale was born in Linwick. He works for Nova Systems. In the morning, he met Olga Quill
    陈小明出生在东山市。他在新星系统公司工作。早上，他在东海市遇见了周小兰。

What can be learned: a sentence belongs to the story around it (same hero, same city); sentences
have an order (hero, company, the hours of the day, outcome); a masked entity follows from the
graph; a pronoun's gender from its name.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from bert_variants.text.synthetic_language import (
    FRAMES,
    LANGUAGES,
    MOODS,
    RELATIONS,
    SHORT,
    TIMES,
    Frame,
    name,
    name_parts,
    write,
)

# kind -> how many there are; persons of either gender
SIZES = {"f": 16, "m": 16, "city": 16, "country": 6, "company": 12, "product": 16}

Words = tuple[str, ...]
Span = tuple[int, int]  # of words in a sentence, or of characters in a text


@dataclasses.dataclass(frozen=True)
class Entity:
    """Something that exists: ``kind`` is person, city, country, company or product."""

    id: str
    kind: str
    words: Mapping[str, Words]  # language -> name
    gender: str = ""  # f or m, of persons


class Triple(NamedTuple):
    """A fact, by the ids of two entities: ("person3", "born_in", "city7")."""

    subject: str
    relation: str
    object: str


class Mention(NamedTuple):
    """Words ``start .. stop - 1`` of a sentence that refer to an entity.

    ``form`` is name, nominal ("the company") or pronoun.
    """

    start: int
    stop: int
    entity: str
    kind: str
    form: str


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence and what is true of it.

    Attributes:
        words: as written; punctuation marks are words.
        offsets: where each word stands in the story's text, in code points.
        frame: the event or relation that it tells.
        roles: role -> words: V (the predicate), ARG0, ARG1, ARG2, LOC, TMP.
        mentions: the entities that it mentions, in order.
        triple: the fact of the graph that it states, if it does.
        sentiment: 1, -1 or 0.
    """

    words: Words
    offsets: tuple[Span, ...]
    frame: str
    roles: Mapping[str, Span]
    mentions: tuple[Mention, ...]
    triple: Triple | None
    sentiment: int


@dataclasses.dataclass(frozen=True)
class Story:
    """A document: its text, its sentences, and its sentiment (1 or -1, the outcome's)."""

    text: str
    sentences: tuple[Sentence, ...]
    sentiment: int

    def clusters(self) -> dict[str, list[tuple[int, Mention]]]:
        """Coreference: entity -> (index of the sentence, mention), in order of the text."""
        found: dict[str, list[tuple[int, Mention]]] = {}
        for at, sentence in enumerate(self.sentences):
            for mention in sentence.mentions:
                found.setdefault(mention.entity, []).append((at, mention))
        return found

    def span(self, sentence: int, start: int, stop: int) -> Span:
        """Code points of the text that words ``start .. stop - 1`` of a sentence cover."""
        offsets = self.sentences[sentence].offsets
        return offsets[start][0], offsets[stop - 1][1]


class Question(NamedTuple):
    """A question about a story. ``answer`` is a span of its text, None if it does not say."""

    text: str
    answer: Span | None


class World:
    """Entities, facts, and stories about them, in one language.

    Attributes:
        entities: id -> Entity.
        triples: the facts: every person has a city of birth and an employer, every company a seat
            and a product, every city a country.
    """

    def __init__(self, seed: int = 0, language: str = "en") -> None:
        if language not in LANGUAGES:
            raise ValueError(f"language is {language!r}, expected one of {', '.join(LANGUAGES)}.")
        self.language = language
        rng = np.random.default_rng([seed, 0x3017D])
        self.entities = {e.id: e for kind in SIZES for e in _entities(kind, rng)}
        self.triples = tuple(
            Triple(subject.id, relation, str(rng.choice(self._ids(frame.kinds["ARG1"]))))
            for relation, frame in RELATIONS.items()
            for subject in self.entities.values()
            if subject.kind == frame.kinds["ARG0"]
        )
        self._facts = {(t.subject, t.relation): t for t in self.triples}

    def _ids(self, kind: str) -> list[str]:
        return [e.id for e in self.entities.values() if e.kind == kind]

    def surface(self, words: Words) -> str:
        """Words as they are written: "Nova Motors", "新星汽车公司"."""
        return write(words, self.language)[0]

    def name(self, entity: str) -> str:
        """How an entity is called."""
        return self.surface(self.entities[entity].words[self.language])

    def fact(self, subject: str, relation: str) -> Triple:
        """The one fact of that subject and relation."""
        return self._facts[subject, relation]

    def lexicon(self) -> list[tuple[str, str]]:
        """(spelling, kind) of every name and every fixed phrase, for unit-level masking."""
        names = [(self.name(e.id), e.kind) for e in self.entities.values()]
        phrases = [(self.surface(tuple(t.split())), "phrase") for t in TIMES[self.language]]
        return sorted(names + phrases)

    def document(self, rng: np.random.Generator) -> Story:
        """Tell a story of eight to eleven sentences."""
        mood = int(rng.choice([-1, 1]))
        teller = _Teller(self, rng)
        for beat in list(self._plot(rng, mood)):  # one plot, whatever the telling draws
            teller.tell(beat)
        return Story(teller.text, tuple(teller.sentences), mood)

    def questions(self, story: Story, rng: np.random.Generator) -> list[Question]:
        """Questions about a story, and one that it does not answer.

        Those whose answer stands in the story by its name are asked; the last one is asked about
        somebody or something that the story does not mention.
        """
        asked = []
        for at, sentence in enumerate(story.sentences):
            frame = FRAMES[sentence.frame]
            by_start = {m.start: m for m in sentence.mentions}
            told = {r: by_start[a] for r, (a, _) in sentence.roles.items() if a in by_start}
            if frame.asked and told[frame.asked].form == "name":
                fillers = {role: mention.entity for role, mention in told.items()}
                answer = story.span(at, *sentence.roles[frame.asked])
                asked.append((frame, fillers, answer))
        questions = [Question(self._ask(f, fillers), answer) for f, fillers, answer in asked]
        frame, fillers, _ = asked[rng.integers(len(asked))]
        known = story.clusters()
        strangers = [e for e in self._ids(frame.kinds["ARG0"]) if e not in known]
        other = {**fillers, "ARG0": str(rng.choice(strangers))}
        return [*questions, Question(self._ask(frame, other), None)]

    def _ask(self, frame: Frame, fillers: Mapping[str, str]) -> str:
        words: list[str] = []
        for word in frame.ask[self.language].split():
            entity = self.entities.get(fillers.get(word, ""))
            words += entity.words[self.language] if entity else [word]
        mark = "?" if self.language == "en" else "？"
        return write((*_capital(words), mark), self.language)[0]

    def _plot(self, rng: np.random.Generator, mood: int) -> Iterator[_Beat]:
        """What a story tells, in order: facts about the hero, the hours of a day, the outcome."""
        hero = self.entities[rng.choice(self._ids("person"))]
        strangers = [e.id for e in self.entities.values() if e.gender not in ("", hero.gender)]
        friend, place = str(rng.choice(strangers)), str(rng.choice(self._ids("city")))
        born = self.fact(hero.id, "born_in")
        works = self.fact(hero.id, "works_for")
        makes = self.fact(works.object, "makes")
        thing = makes.object
        told = [born, works, makes]
        if rng.random() < 0.5:
            told.insert(1, self.fact(born.object, "lies_in"))
        if rng.random() < 0.5:
            told.insert(-1, self.fact(works.object, "based_in"))
        for fact in told:
            yield _Beat(fact.relation, {"ARG0": fact.subject, "ARG1": fact.object}, triple=fact)
        hours = iter(np.sort(rng.permutation(len(TIMES["en"]))[:4]).tolist())
        if rng.random() < 0.5:
            yield _Beat("visit", {"ARG0": hero.id, "ARG1": place}, next(hours))
        yield _Beat("meet", {"ARG0": hero.id, "ARG1": friend, "LOC": place}, next(hours))
        yield _Beat("buy", {"ARG0": hero.id, "ARG1": thing, "LOC": place}, next(hours))
        yield _Beat("find", {"ARG0": hero.id, "ARG1": thing}, mood=mood)
        yield _Beat("give", {"ARG0": hero.id, "ARG1": thing, "ARG2": friend}, next(hours))
        yield _Beat("find", {"ARG0": friend, "ARG1": thing}, mood=mood)


class _Beat(NamedTuple):
    """One thing to tell."""

    frame: str
    fillers: Mapping[str, str]  # role -> entity
    hour: int | None = None
    mood: int = 0
    triple: Triple | None = None


class _Teller:
    """Puts beats into words and remembers who was mentioned last, to know when "she" is clear."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.text = ""
        self.sentences: list[Sentence] = []
        self._world, self._language, self._rng = world, world.language, rng
        self._last: dict[str, str] = {}

    def tell(self, beat: _Beat) -> None:
        """Add a sentence."""
        comma, stop = (",", ".") if self._language == "en" else ("，", "。")
        words: list[str] = []
        roles: dict[str, Span] = {}
        mentions: list[Mention] = []
        if beat.hour is not None:
            words += TIMES[self._language][beat.hour].split()
            roles["TMP"] = (0, len(words))
            words.append(comma)
        for word in FRAMES[beat.frame].tell[self._language].split():
            start = len(words)
            role = "V" if word.startswith("V=") else word
            if role in beat.fillers:
                entity = self._world.entities[beat.fillers[role]]
                said, form = self._refer(entity, role == "ARG0")
                words += said
                mentions.append(Mention(start, len(words), entity.id, entity.kind, form))
            elif role == "ADJ":
                words.append(str(self._rng.choice(MOODS[self._language, beat.mood])))
            else:
                words.append(word.removeprefix("V="))
                if role != "V":
                    continue
            roles[role] = (start, len(words))
        self._write((*_capital(words), stop), roles, mentions, beat)

    def _refer(self, entity: Entity, subject: bool) -> tuple[Words, str]:
        """Words for an entity, and their form: the short one only where it was mentioned last."""
        kind = entity.gender or entity.kind
        clear = self._last.get(kind) == entity.id
        self._last[kind] = entity.id
        short = SHORT[self._language].get(kind)
        if short and clear and self._rng.random() < 0.6:
            form = "nominal" if kind in ("company", "city") else "pronoun"
            return tuple(short[not subject].split()), form
        return entity.words[self._language], "name"

    def _write(
        self, words: Words, roles: dict[str, Span], mentions: list[Mention], beat: _Beat
    ) -> None:
        if self.text and self._language == "en":
            self.text += " "
        text, offsets = write(words, self._language)
        at = len(self.text)
        self.text += text
        moved = tuple((a + at, b + at) for a, b in offsets)
        self.sentences.append(
            Sentence(words, moved, beat.frame, roles, tuple(mentions), beat.triple, beat.mood)
        )


def _capital(words: list[str]) -> list[str]:
    return [words[0][:1].upper() + words[0][1:], *words[1:]]


def _entities(kind: str, rng: np.random.Generator) -> list[Entity]:
    """Some of all names that a kind allows, the same ones in every language."""
    gender = kind if kind in ("f", "m") else ""
    parts = {language: name_parts(kind, language) for language in LANGUAGES}
    every = list(itertools.product(*(range(len(position)) for position in parts["en"])))
    found = []
    for k in np.sort(rng.permutation(len(every))[: SIZES[kind]]).tolist():
        words = {
            language: name(kind, language, [p[i] for p, i in zip(positions, every[k], strict=True)])
            for language, positions in parts.items()
        }
        found.append(Entity(f"{kind}{k}", "person" if gender else kind, words, gender))
    return found
