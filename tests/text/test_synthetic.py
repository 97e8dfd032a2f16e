"""The synthetic world: everything that is said to be known of a story is so."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bert_variants import registry
from bert_variants.text.sentences import split
from bert_variants.text.sources import SourceError
from bert_variants.text.sources.synthetic import story as numbered_story
from bert_variants.text.synthetic import World
from bert_variants.text.synthetic_language import FRAMES, MOODS, SHORT, TIMES

STORIES = 60


@pytest.fixture(scope="module", params=["en", "zh"])
def world(request):
    return World(3, request.param)


@pytest.fixture(scope="module")
def stories(world):
    return [numbered_story(world, 3, n) for n in range(STORIES)]


def test_the_same_world_and_the_same_plot_in_both_languages():
    english, chinese = World(3, "en"), World(3, "zh")
    assert english.entities == chinese.entities
    assert english.triples == chinese.triples
    assert World(4).triples != english.triples
    for n in range(20):
        one, two = (numbered_story(w, 3, n) for w in (english, chinese))
        for a, b in zip(one.sentences, two.sentences, strict=True):
            assert (a.frame, a.triple, a.sentiment) == (b.frame, b.triple, b.sentiment)
            assert {m.entity for m in a.mentions} == {m.entity for m in b.mentions}
    assert numbered_story(english, 3, 0) == numbered_story(World(3, "en"), 3, 0)


def test_every_subject_has_every_fact_of_its_kind(world):
    kinds = {e.id: e.kind for e in world.entities.values()}
    assert {(t.subject, t.relation) for t in world.triples} == {
        (e, relation)
        for relation in ("born_in", "works_for", "based_in", "makes", "lies_in")
        for e, kind in kinds.items()
        if kind == FRAMES[relation].kinds["ARG0"]
    }
    assert all(kinds[t.object] == FRAMES[t.relation].kinds["ARG1"] for t in world.triples)
    names = [world.name(e) for e in world.entities]
    assert len(set(names)) == len(names)


def test_words_sentences_and_offsets(world, stories):
    for story in stories:
        assert 8 <= len(story.sentences) <= 11
        spans = [(s.offsets[0][0], s.offsets[-1][1]) for s in story.sentences]
        assert split(story.text) == spans
        for sentence in story.sentences:
            assert tuple(story.text[a:b] for a, b in sentence.offsets) == sentence.words


def test_roles_and_mentions(world, stories):
    for story in stories:
        for sentence in story.sentences:
            frame = FRAMES[sentence.frame]
            assert set(sentence.roles) - {"TMP", "ADJ"} == {"V", *frame.kinds}
            spans = sorted(sentence.roles.values())
            assert all(0 <= a < b < len(sentence.words) for a, b in spans)
            assert all(b <= c for (_, b), (c, _) in itertools.pairwise(spans))
            kinds = {sentence.roles[role]: kind for role, kind in frame.kinds.items()}
            assert {(m.start, m.stop): m.kind for m in sentence.mentions} == kinds
            if "TMP" in sentence.roles:
                said = " ".join(sentence.words[slice(*sentence.roles["TMP"])]).lower()
                assert said in TIMES[world.language]


def test_names_are_names_and_short_forms_refer_to_what_was_mentioned_last(world, stories):
    short = 0
    for story in stories:
        last = {}
        for at, sentence in enumerate(story.sentences):
            for mention in sentence.mentions:
                entity = world.entities[mention.entity]
                kind = entity.gender or entity.kind
                surface = story.text[slice(*story.span(at, mention.start, mention.stop))]
                if mention.form == "name":
                    assert surface.lower() == world.name(mention.entity).lower()
                else:
                    forms = {
                        form.replace(" ", "" if world.language == "zh" else " ")
                        for form in SHORT[world.language][kind]
                    }
                    assert surface.lower() in forms
                    assert last[kind] == mention.entity
                    short += 1
                last[kind] = mention.entity
        clusters = story.clusters()
        assert sum(map(len, clusters.values())) == sum(len(s.mentions) for s in story.sentences)
        assert all(mentions[0][1].form == "name" for mentions in clusters.values())
    assert short > STORIES


def test_facts_order_and_sentiment(world, stories):
    moods = set()
    for story in stories:
        facts = [s.triple for s in story.sentences if s.triple]
        assert set(facts) <= set(world.triples)
        assert [s.triple is None for s in story.sentences] == sorted(
            s.triple is None for s in story.sentences
        )
        times = TIMES[world.language]
        hours = [
            times.index(" ".join(s.words[slice(*s.roles["TMP"])]).lower())
            for s in story.sentences
            if "TMP" in s.roles
        ]
        assert hours == sorted(set(hours))
        assert len(hours) >= 3
        for sentence in story.sentences:
            if sentence.sentiment:
                word = sentence.words[sentence.roles["ADJ"][0]]
                assert word in MOODS[world.language, story.sentiment]
        moods.add(story.sentiment)
    assert moods == {-1, 1}


def test_questions(world, stories):
    for n, story in enumerate(stories):
        *answered, unanswerable = world.questions(story, np.random.default_rng(n))
        names = {world.name(m) for m in story.clusters()}
        assert len(answered) >= 3
        for question in answered:
            assert story.text[slice(*question.answer)] in names
            assert question.text[-1] in "?？"
            assert "ARG" not in question.text
        assert unanswerable.answer is None
        asked_about = {world.name(e) for e in world.entities if world.name(e) in unanswerable.text}
        assert asked_about - names


def test_lexicon(world, stories):
    lexicon = dict(world.lexicon())
    assert set(lexicon.values()) == {"person", "city", "country", "company", "product", "phrase"}
    everything = "\n".join(story.text for story in stories).lower()
    assert sum(name.lower() in everything for name in lexicon) > len(lexicon) // 2


def test_the_source_is_the_stories(world):
    call = f"synthetic(documents=1200, seed=3, language={world.language!r})"
    body = registry.lookup("source", call)()
    assert [(p.start, p.stop) for p in body.parts()] == [(0, 1000), (1000, 1200)]
    documents = list(body.documents())
    assert len(documents) == len({d.id for d in documents}) == 1200
    assert len({d.text for d in documents}) > 1190
    assert documents[1100].text == numbered_story(world, 3, 1100).text
    other = registry.lookup("source", call.replace("seed=3", "seed=4"))()
    assert body.fingerprint() == registry.lookup("source", call)().fingerprint()
    assert body.fingerprint() != other.fingerprint()


def test_errors():
    with pytest.raises(SourceError, match="a language of en, zh"):
        registry.lookup("source", "synthetic(language='de')")()
    with pytest.raises(ValueError, match="'de', expected one of en, zh"):
        World(0, "de")
