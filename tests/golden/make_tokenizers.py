"""Write ``tokenizers.json``: what transformers' tokenizers make of awkward texts.

    python tests/golden/make_tokenizers.py path/to/vocab tests/golden/tokenizers.json

For every published vocabulary it stores the ids with the whole vocabulary, and a part of the
vocabulary that holds every token that could occur in the texts, with the ids that the oracle gives
for that part; so the comparison runs on machines that do not have the vocabularies.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

TEXTS = {
    "english": "The quick brown fox didn't jump over 3,456 lazy dogs; unhappily, U.S. law forbids.",
    "capitals": "NASA's Voyager-2 left the HELIOSPHERE (2018-11-05) at 17.1km/s -- wow!?",
    "accents": "Ça déjà vu: naïve façade, Zürich, Ålesund, İstanbul, straße, œuvre, Łódź.",
    "combining": "cafe\u0301 a\u0308o\u0308u\u0308 n\u0303 e\u0323\u0302 \u0301alone",
    "chinese": "自然语言处理是人工智能的一个重要方向。我爱北京天安门！",
    "mixed": "我在Google的Mountain View总部学习BERT模型，共12层。",
    "japanese": "東京タワーは日本にあります。ｶﾀｶﾅ１２３",
    "korean": "한국어 문장을 나눕니다",
    "extension_b": "𠀀𠀁 and 𪚥 are rare",
    "emoji": "hi 👋🏽 family 👨\u200d👩\u200d👧\u200d👦 flag 🇩🇪 ok",
    "controls": "a\x00b\x01c\x7fd\x9fe\x1ff\x0bg\x0ch",
    "separators": "one\u2028two\u2029three\u0085four\u00a0five\u3000six\u200bseven",
    "white_space": "  two  spaces\ttab\nline\r\nreturn \n ",
    "right_to_left": "\u200fשלום עולם\u200e مرحبا بالعالم",
    "long_word": "x" * 100 + " " + "y" * 101 + " end",
    "marks": "a…b—c–d “q” ‘s’ €5 £6 §7 ©8 ½ ² ∑x≤y ~`^|<>=+$",
    "replacement": "bad \ufffd byte \ufeff mark",
    "sharps": "##ing # #tag C## a_b",
    "turkish": "Iğdır ILIK ışık İİ",
    "greek": "ΟΔΥΣΣΕΥΣ Ελλάδα",
    "soft_hyphen": "co\u00adoperate zero\u200cwidth",
    "empty": "",
    "blank": " \t\n",
}
BERT = {
    "bert_uncased": ("bert_base_uncased_vocab.txt", True),
    "bert_cased": ("bert_base_cased_vocab.txt", False),
    "bert_chinese": ("bert_base_chinese_vocab.txt", True),
}


def bert_oracle(tokens: list[str], lowercase: bool) -> Any:
    """transformers' BertTokenizer over ``tokens``."""
    from transformers import BertTokenizer

    return BertTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, do_lower_case=lowercase
    )


def roberta_oracle(tokens: list[str], merges: list[tuple[str, str]]) -> Any:
    """transformers' RobertaTokenizer over ``tokens`` and ``merges``."""
    from transformers import RobertaTokenizer

    return RobertaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)


def albert_oracle(pieces: list[str], scores: list[float]) -> Any:
    """transformers' AlbertTokenizer over ``pieces``."""
    from transformers import AlbertTokenizer

    return AlbertTokenizer(vocab=list(zip(pieces, scores, strict=True)))


def oracle_ids(oracle: Any, text: str) -> list[int]:
    """Ids without special tokens."""
    return list(oracle(text, add_special_tokens=False)["input_ids"])


def golden(oracle: Any) -> dict[str, list[int]]:
    """Ids of every text."""
    return {name: oracle_ids(oracle, text) for name, text in TEXTS.items()}


def _forms() -> str:
    raw = "\n".join(TEXTS.values())
    plain = "".join(c for c in unicodedata.normalize("NFD", raw) if not unicodedata.combining(c))
    clean = "".join(c for c in raw + plain if unicodedata.category(c) not in ("Cc", "Cf"))
    return "\n".join([raw, raw.lower(), plain, plain.lower(), clean, clean.lower()])


def _bert(folder: Path) -> dict[str, Any]:
    forms, found = _forms(), {}
    for name, (file, lowercase) in BERT.items():
        text = (folder / file).read_bytes().decode("utf-8").removesuffix("\n")
        tokens = text.split("\n")
        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        part = [t for t in tokens if t in special or t.removeprefix("##") in forms]
        found[name] = {
            "file": file,
            "lowercase": lowercase,
            "ids": golden(bert_oracle(tokens, lowercase)),
            "part": part,
            "part_ids": golden(bert_oracle(part, lowercase)),
        }
    return found


def _roberta(folder: Path) -> dict[str, Any]:
    from tokenizers import pre_tokenizers

    ids = json.loads((folder / "roberta_vocab.json").read_bytes())
    tokens = sorted(ids, key=ids.__getitem__)
    lines = (folder / "gpt2_vocab.bpe").read_bytes().decode("utf-8").removesuffix("\n")
    merges = [tuple(line.split(" ")) for line in lines.split("\n")[1:]]
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    forms = "\n".join(w for t in TEXTS.values() for w, _ in splitter.pre_tokenize_str(t))
    few = [(a, b) for a, b in merges if a + b in forms]
    special = {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
    kept = special | set(pre_tokenizers.ByteLevel.alphabet()) | {a + b for a, b in few}
    part = [token for token in tokens if token in kept]
    return {
        "ids": golden(roberta_oracle(tokens, merges)),
        "part": part,
        "merges": [f"{a} {b}" for a, b in few],
        "part_ids": golden(roberta_oracle(part, few)),
    }


def main(folder: Path, out: Path) -> None:
    """Compute everything and write it."""
    stored = {"texts": TEXTS, "bert": _bert(folder), "roberta": _roberta(folder)}
    out.write_text(json.dumps(stored, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
