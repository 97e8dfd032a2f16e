"""The language of the synthetic world: frames, names, pronouns, in English and in Chinese.

Words are separated by spaces in both; a Chinese word may have several characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LANGUAGES = ("en", "zh")


class Frame(NamedTuple):
    """How an event or a fact is told and asked for, by language.

    Attributes:
        kinds: role -> kind of entity.
        tell: a role stands for the words of what fills it, "V=" marks the predicate.
        ask: the question, without its mark; empty where nothing is asked.
        asked: the role that answers it.
    """

    kinds: Mapping[str, str]
    tell: Mapping[str, str]
    ask: Mapping[str, str]
    asked: str


def _frame(kinds: str, asked: str, en: tuple[str, str], zh: tuple[str, str]) -> Frame:
    roles = dict(pair.split(":") for pair in kinds.split())
    return Frame(roles, {"en": en[0], "zh": zh[0]}, {"en": en[1], "zh": zh[1]}, asked)


# fmt: off
RELATIONS = {
    "born_in": _frame("ARG0:person ARG1:city", "ARG1",
                      ("ARG0 was V=born in ARG1", "Where was ARG0 born"),
                      ("ARG0 V=出生 在 ARG1", "ARG0 出生 在 哪里")),
    "works_for": _frame("ARG0:person ARG1:company", "ARG1",
                        ("ARG0 V=works for ARG1", "Who does ARG0 work for"),
                        ("ARG0 在 ARG1 V=工作", "ARG0 在 哪里 工作")),
    "based_in": _frame("ARG0:company ARG1:city", "ARG1",
                       ("ARG0 is V=based in ARG1", "Where is ARG0 based"),
                       ("ARG0 的 总部 V=设 在 ARG1", "ARG0 的 总部 设 在 哪里")),
    "makes": _frame("ARG0:company ARG1:product", "ARG1",
                    ("ARG0 V=makes ARG1", "What does ARG0 make"),
                    ("ARG0 V=生产 ARG1", "ARG0 生产 什么")),
    "lies_in": _frame("ARG0:city ARG1:country", "ARG1",
                      ("ARG0 V=lies in ARG1", "In which country does ARG0 lie"),
                      ("ARG0 V=位于 ARG1", "ARG0 位于 哪个 国家")),
}
EVENTS = {
    "visit": _frame("ARG0:person ARG1:city", "ARG1",
                    ("ARG0 V=visited ARG1", "What did ARG0 visit"),
                    ("ARG0 V=参观 了 ARG1", "ARG0 参观 了 哪里")),
    "meet": _frame("ARG0:person ARG1:person LOC:city", "ARG1",
                   ("ARG0 V=met ARG1 in LOC", "Who did ARG0 meet"),
                   ("ARG0 在 LOC V=遇见 了 ARG1", "ARG0 遇见 了 谁")),
    "buy": _frame("ARG0:person ARG1:product LOC:city", "LOC",
                  ("ARG0 V=bought ARG1 in LOC", "Where did ARG0 buy ARG1"),
                  ("ARG0 在 LOC V=购买 了 ARG1", "ARG0 在 哪里 购买 了 ARG1")),
    "give": _frame("ARG0:person ARG1:product ARG2:person", "ARG2",
                   ("ARG0 V=gave ARG1 to ARG2", "Who did ARG0 give ARG1 to"),
                   ("ARG0 把 ARG1 V=送给 了 ARG2", "ARG0 把 ARG1 送给 了 谁")),
    "find": _frame("ARG0:person ARG1:product", "",
                   ("ARG0 V=found ARG1 ADJ", ""),
                   ("ARG0 V=觉得 ARG1 很 ADJ", "")),
}
FRAMES = {**RELATIONS, **EVENTS}

TIMES = {
    "en": ("in the morning", "at noon", "in the afternoon", "in the evening", "at night"),
    "zh": ("早上", "中午", "下午", "晚上", "深夜"),
}
MOODS = {
    ("en", 1): ("wonderful", "useful", "beautiful", "excellent"),
    ("en", -1): ("terrible", "useless", "ugly", "broken"),
    ("zh", 1): ("美妙", "有用", "漂亮", "出色"),
    ("zh", -1): ("糟糕", "没用", "难看", "破旧"),
}
# What refers to something mentioned before: as a subject, and elsewhere.
SHORT = {
    "en": {"f": ("she", "her"), "m": ("he", "him"), "product": ("it", "it"),
           "company": ("the company", "the company"), "city": ("the city", "the city")},
    "zh": {"f": ("她", "她"), "m": ("他", "他"), "product": ("它", "它"),
           "company": ("这家 公司", "这家 公司"), "city": ("这座 城市", "这座 城市")},
}
# The parts that names are joined from, position by position; "f" and "m" are persons.
_NAMES = {
    "f": ("Ada Mara Lena Nora Tessa Ines Vera Olga | Brook Tolin Hale Marsh Quill",
          "小安 小美 小丽 小娜 小雪 小英 小薇 小兰 | 李 王 陈 林 周"),
    "m": ("Hugo Ivan Paul Otto Sven Karl Emil Jan | Brook Tolin Hale Marsh Quill",
          "小浩 小勇 小刚 小涛 小军 小杰 小明 小建 | 李 王 陈 林 周"),
    "city": ("Vel Mar Tor Lin Kas Ber | da wick ston mouth",
             "青 白 长 东 云 金 | 河市 山市 林市 海市"),
    "country": ("Arva Bel Cor Dor Esk | nia land",
                "阿 贝 科 多 埃 | 尼亚国 兰国"),
    "company": ("Nova Delta Orion Atlas | Motors Foods Systems Textiles",
                "新星 大河 猎户 巨人 | 汽车 食品 系统 纺织"),
    "product": ("red blue silver golden | lamp bicycle clock camera piano",
                "红色 蓝色 银色 金色 | 台灯 自行车 时钟 相机 钢琴"),
}
# fmt: on


def name_parts(kind: str, language: str) -> list[list[str]]:
    """For each position in a name of this kind, what can stand there."""
    listed = _NAMES[kind][LANGUAGES.index(language)]
    return [position.split() for position in listed.split("|")]


def name(kind: str, language: str, parts: list[str]) -> tuple[str, ...]:
    """The words of a name: ("Vel", "da") is "Velda", ("红色", "台灯") is two words."""
    if language == "zh" and kind in ("f", "m"):
        return ("".join(reversed(parts)),)
    if kind in ("city", "country"):
        return ("".join(parts),)
    if (language, kind) == ("en", "product"):
        return ("the", *parts)
    if (language, kind) == ("zh", "company"):
        return (*parts, "公司")
    return tuple(parts)


def write(words: tuple[str, ...], language: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text of words, and where in it each of them stands."""
    text, offsets = "", []
    for word in words:
        if text and language == "en" and word not in (".", ",", "?"):
            text += " "
        offsets.append((len(text), len(text) + len(word)))
        text += word
    return text, tuple(offsets)
