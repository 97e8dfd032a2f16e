"""Texts on which tokenizers disagree, and small directories as others publish them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_variants import registry
from bert_variants.text.tokenizer import Tokenizer

NASTY = {
    "plain": "The quick brown fox didn't jump over 3,456 lazy dogs; unhappily, U.S. law forbids.",
    "capitals": "NASA's Voyager-2 left the HELIOSPHERE (2018-11-05) at 17.1km/s -- wow!?",
    "accents": "Ça déjà vu: naïve façade, Zürich, Ålesund, straße, œuvre, Łódź.",
    "combining": "cafe\u0301 a\u0308o\u0308u\u0308 n\u0303 e\u0323\u0302 \u0301alone",
    "many_marks": "Z\u0337\u031b\u034da\u0338l\u0336g\u0334o\u0335",
    "chinese": "自然语言处理是人工智能的一个重要方向。我爱北京天安门！",
    "mixed": "我在Google的Mountain View总部学习BERT模型，共12层。",
    "japanese": "東京タワーは日本にあります。ｶﾀｶﾅ１２３ がぎぐ か\u3099",
    "korean": "한국어 문장을 나눕니다 \u1112\u1161\u11ab",
    "indic": "हिन्दी भाषा தமிழ் বাংলা",
    "thai": "ภาษาไทยไม่มีช่องว่าง",
    "extension_b": "𠀀𠮷野家 and 𪚥 are rare",
    "emoji": "hi 👋🏽 flag 🇩🇪 key 1\ufe0f\u20e3 ok ☺\ufe0f",
    "zwj": "👩\u200d👩\u200d👧\u200d👦 👨🏽\u200d🚀 🏳\ufe0f\u200d🌈",
    "controls": "".join(f"x{chr(i)}" for i in (*range(1, 32), *range(127, 160))),
    "nul": "a\x00b \x00 c",
    "separators": "one\u2028two\u2029three\u0085four\u00a0five\u3000six\u200bseven\u1680eight",
    "white_space": "  two  spaces\ttab\nline\r\nreturn \n ",
    "trailing": "trailing blanks   ",
    "leading": "   leading blanks",
    "blank": " \t\n",
    "one_blank": " ",
    "empty": "",
    "right_to_left": "\u200fשלום עולם\u200e مرحبا بالعالم \u202eabc\u202c مُحَمَّد",
    "replacement": "bad \ufffd byte \ufeff mark",
    "private_use": "a\ue000b\uf8ff \U000f0000",
    "not_characters": "a\ufffe b\uffff \U0010ffff",
    "long_word": "supercalifragilistic" * 500 + " end",
    "hundred": "x" * 100 + " " + "y" * 101 + " end",
    "marks": "a…b—c–d “q” ‘s’ €5 £6 §7 ©8 ∑x≤y ~`^|<>=+$",
    "quotes": "``quoted'' '' `` 'one' \"two\" ```three'''",
    "numbers": "1,000, 2,010, ½ ② Ⅷ 10⁵ 3,",
    "ligatures": "ﬁne ﬂow oﬃce ﬆ Ǆ ĳ ﷺ",
    "sigma": "ΟΔΥΣΣΕΥΣ ΣΑΣ. Ελλάδα",
    "turkish": "Iğdır ILIK ışık İstanbul İİ",
    "sharps": "##ing # #tag C## a_b",
    "full_width": "ＡＢＣ　ｄｅｆ１２３，。！",
    "soft_hyphen": "co\u00adoperate zero\u200cwidth word\u2060joiner",
    "mask": "a [MASK] b[MASK]c [SEP] [CLS] [PAD] [UNK]",
    "sentence_marks": "a <mask> b<mask>c <s> </s> <pad> <unk> <cls> <sep> <eop>",
    "blank_signs": "a▁b ▁c Ġd ▅",
}

ENGLISH = (
    "The quick brown fox jumps over the lazy dog, in 2010, and 1,000 foxes didn't.",
    "Unhappily the law of the United States forbids (some) foxes to jump over dogs; wow!",
    "A naïve façade in Zürich, and a café in Łódź: the straße of an œuvre.",
    "NASA left the heliosphere in 2018 - at 17.1 km/s - with the quoted end of a line.",
    "Two spaces and a tab return to the word that joined zero width and leading blanks.",
)
CHINESE = (
    "自然语言处理是人工智能的一个重要方向。我爱北京天安门！",
    "我在总部学习模型，共12层。东京和日本都有野家。",
)
TEXTS = (*ENGLISH, *CHINESE) * 6


def trained(call: str) -> Tokenizer:
    """A tokenizer of the call-string, trained on ``TEXTS``."""
    return registry.lookup("tokenizer", call)().build(TEXTS)


def spm_model(family: str, size: int = 190, texts: tuple[str, ...] = TEXTS, **more: Any) -> bytes:
    """A sentencepiece model with the special pieces that the family's published ones have."""
    import sentencepiece

    layouts: dict[str, dict[str, Any]] = {
        "albert": {
            "pad_id": 0,
            "unk_id": 1,
            "bos_id": -1,
            "eos_id": -1,
            "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
        },
        "xlnet": {
            "unk_id": 0,
            "bos_id": 1,
            "eos_id": 2,
            "pad_id": -1,
            "control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"],
        },
        "deberta-v2": {
            "pad_id": 0,
            "bos_id": 1,
            "eos_id": 2,
            "unk_id": 3,
            "pad_piece": "[PAD]",
            "bos_piece": "[CLS]",
            "eos_piece": "[SEP]",
            "unk_piece": "[UNK]",
        },
    }
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        **{
            "model_type": "unigram",
            "vocab_size": size,
            "hard_vocab_limit": False,
            "character_coverage": 1.0,
            "num_threads": 1,
            "minloglevel": 2,
            **layouts[family],
            **more,
        },
    )
    return model.getvalue()


def folder_of(path: Path, family: str, files: Mapping[str, bytes], **said: Any) -> Path:
    """A directory as others publish it: config.json, vocabulary files, tokenizer_config.json."""
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    (path / "config.json").write_text(json.dumps({"model_type": family}))
    if said:
        (path / "tokenizer_config.json").write_text(json.dumps(said))
    return path


def vocab_txt(tokens: list[str]) -> bytes:
    """One token a line."""
    return "".join(token + "\n" for token in tokens).encode()


_THEIRS = {"pad": "<pad>", "unk": "<unk>", "cls": "<cls>", "sep": "<sep>", "mask": "<mask>"}


def _wordpieces(
    path: Path, family: str, names: bool = False, cased: bool = False, **said: Any
) -> Path:
    tokens = trained(f"wordpiece(size=300, lowercase={not cased})").tokens
    if names:
        renamed = {f"[{name.upper()}]": token for name, token in _THEIRS.items()}
        tokens = [renamed[token] if token in renamed else token for token in tokens]
        said |= {f"{name}_token": token for name, token in _THEIRS.items()}
    return folder_of(path, family, {"vocab.txt": vocab_txt(list(tokens))}, **said)


def _bytes(path: Path, family: str, names: bool = False, **said: Any) -> Path:
    files = trained("byte_bpe(size=400, clean=False)").files()
    ids = json.loads(files["vocab.json"])
    if names:
        renamed = {"<s>": "[CLS]", "</s>": "[SEP]", "<pad>": "[PAD]", "<unk>": "[UNK]"}
        renamed |= {"<mask>": "[MASK]"}
        ids = {renamed[token] if token in renamed else token: i for token, i in ids.items()}
    data = {"vocab.json": json.dumps(ids).encode(), "merges.txt": files["merges.txt"]}
    return folder_of(path, family, data, **said)


def _spm(path: Path, family: str, rule: str = "nmt_nfkc", lower: bool = False, **said: Any) -> Path:
    texts = tuple(text.lower() for text in TEXTS) if lower else TEXTS
    model = spm_model(family, texts=texts, normalization_rule_name=rule)
    name = "spm.model" if family == "deberta-v2" else "spiece.model"
    return folder_of(path, family, {name: model}, **said)


# Directories as the authors of each family publish theirs, with other settings beside them.
PUBLISHED: dict[str, Callable[[Path], Path]] = {
    "bert": lambda p: _wordpieces(p, "bert", tokenizer_class="BertTokenizer", do_lower_case=True),
    "bert_plain": lambda p: _wordpieces(p, "bert"),
    "distilbert": lambda p: _wordpieces(
        p, "distilbert", cased=True, do_lower_case=False, strip_accents=True
    ),
    "electra": lambda p: _wordpieces(p, "electra", names=True, strip_accents=False),
    "ernie": lambda p: _wordpieces(p, "ernie", tokenize_chinese_chars=False),
    "roberta": lambda p: _bytes(p, "roberta"),
    "roberta_prefix": lambda p: _bytes(p, "roberta", add_prefix_space=True),
    "deberta": lambda p: _bytes(p, "deberta", names=True, do_lower_case=False, vocab_type="gpt2"),
    "albert": lambda p: _spm(p, "albert", lower=True),
    "albert_cased": lambda p: _spm(p, "albert", do_lower_case=False, keep_accents=True),
    "xlnet": lambda p: _spm(p, "xlnet"),
    "deberta-v2": lambda p: _spm(p, "deberta-v2", do_lower_case=False, vocab_type="spm"),
    "deberta-v2_plain": lambda p: _spm(p, "deberta-v2", "identity"),
    "deberta-v2_marks": lambda p: _spm(
        p, "deberta-v2", "identity", lower=True, do_lower_case=True, split_by_punct=True
    ),
}


# Where transformers' class gives other ids or offsets than ours for the files of its family, by
# the text's name in ``nasty.NASTY``. Every text that is listed must differ, and no other may.
Different = Mapping[str, str]
NONE: Different = {}
CONTROLS = {"controls": "ids", "nul": "ids", "separators": "ids"}  # ours drop them, NEL too
# "▁" in a text: a blank to transformers, a character to ours.
BLANK_SIGN = {"blank_signs": "ids"}
# Their StripAccents drops every mark, also vowels of India and the frame of a key; the authors'
# code drops combining characters.
MARKS = {"emoji": "ids", "indic": "offsets"}
# A character of no width becomes a blank: they leave it out of the offsets, as they do blanks.
NO_WIDTH = {"soft_hyphen": "offsets"}
# Their unigram model knows how the special tokens are spelled, and finds them in text by itself.
SPELLED = {"sentence_marks": "ids"}
SPELLED_IN_BRACKETS = {"mask": "ids"}
# Of a letter and an accent that the model's table makes one character, theirs point at the letter,
# ours at both.
COMPOSED = {"combining": "offsets"}
# DeBERTa's class leaves the model's table out: full-width forms, ligatures, dots, ... stay.
NO_TABLE = {
    **dict.fromkeys(("chinese", "mixed", "japanese", "replacement", "marks", "numbers"), "ids"),
    **dict.fromkeys(("ligatures", "full_width", "soft_hyphen"), "ids"),
    "right_to_left": "offsets",
    "korean": "offsets",
}
# It composes accents instead (NFC), and makes blanks of line ends and tabs, whatever the table.
NFC = {"combining": "ids", "japanese": "offsets", "korean": "offsets", "replacement": "ids"}
LINE_ENDS = {"white_space": "ids", "blank": "ids"}
# It has a token for the blank before a mark that is cut off.
BLANK_BEFORE_MARK = dict.fromkeys(("capitals", "marks", "quotes", "sharps"), "ids")
DIFFERENT: Mapping[str, Different] = {
    "albert": {**CONTROLS, **BLANK_SIGN, **MARKS, **NO_WIDTH, **SPELLED},
    "albert_cased": {
        **CONTROLS,
        **BLANK_SIGN,
        **NO_WIDTH,
        **SPELLED,
        **SPELLED_IN_BRACKETS,
        **COMPOSED,
    },
    "xlnet": {**CONTROLS, **BLANK_SIGN, **MARKS, **NO_WIDTH, **SPELLED},
    "deberta-v2": {**CONTROLS, **BLANK_SIGN, **NO_TABLE, **SPELLED_IN_BRACKETS, **COMPOSED},
    "deberta-v2_plain": {**CONTROLS, **BLANK_SIGN, **NFC, **LINE_ENDS, **SPELLED_IN_BRACKETS},
    "deberta-v2_marks": {
        **CONTROLS,
        **BLANK_SIGN,
        **NFC,
        **LINE_ENDS,
        **BLANK_BEFORE_MARK,
        **SPELLED,
        **SPELLED_IN_BRACKETS,
    },
}


def spans(tokenizer: Tokenizer, text: str, ids: list[int], offsets: Any) -> list[Any]:
    """Where tokens stand. A blank alone stands nowhere; theirs point at some character.

    transformers' offsets of pieces begin at the blank before the word, ours behind it.
    """
    found: list[Any] = []
    for i, (start, end) in zip(ids, offsets, strict=True):
        if tokenizer.tokens[i] == "▁":
            found.append(None)
            continue
        if tokenizer.kind == "sentencepiece" or _keeps_blanks(tokenizer):
            part = text[start:end]
            start += len(part) - len(part.lstrip() if part.strip() else part.lstrip(" "))
        found.append((int(start), int(end)))
    return found


def _keeps_blanks(tokenizer: Tokenizer) -> bool:
    """DeBERTa v1's class leaves the blank in the offsets, RoBERTa's leaves it out."""
    return tokenizer.tokens[tokenizer.vocab.cls] == "[CLS]" and tokenizer.kind == "byte_bpe"


def digest(tokens: Sequence[str]) -> str:
    """Of a vocabulary: equal exactly if all tokens are, in their order."""
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()
