"""The variables of the published TensorFlow checkpoints, written out for networks of two layers.

This list is the independent side of the tests: it is of the code that made the checkpoints
(google-research/bert, google-research/albert, google-research/electra: modeling.py and
run_pretraining.py; zihangdai/xlnet: modeling.py) and not of the package's tables. A line is a name
and its shape in letters: V rows of words, P of positions, S of segments, E their width, D, F and N,
H of the network; G, I, E' those of ELECTRA's generator; L layers; numbers are themselves.
"""

from __future__ import annotations

import math
import re

Shapes = dict[str, tuple[int, ...]]

BERT = """
bert/embeddings/word_embeddings                          V D
bert/embeddings/token_type_embeddings                    S D
bert/embeddings/position_embeddings                      P D
bert/embeddings/LayerNorm/beta                           D
bert/embeddings/LayerNorm/gamma                          D
bert/encoder/layer_0/attention/self/query/kernel         D D
bert/encoder/layer_0/attention/self/query/bias           D
bert/encoder/layer_0/attention/self/key/kernel           D D
bert/encoder/layer_0/attention/self/key/bias             D
bert/encoder/layer_0/attention/self/value/kernel         D D
bert/encoder/layer_0/attention/self/value/bias           D
bert/encoder/layer_0/attention/output/dense/kernel       D D
bert/encoder/layer_0/attention/output/dense/bias         D
bert/encoder/layer_0/attention/output/LayerNorm/beta     D
bert/encoder/layer_0/attention/output/LayerNorm/gamma    D
bert/encoder/layer_0/intermediate/dense/kernel           D F
bert/encoder/layer_0/intermediate/dense/bias             F
bert/encoder/layer_0/output/dense/kernel                 F D
bert/encoder/layer_0/output/dense/bias                   D
bert/encoder/layer_0/output/LayerNorm/beta               D
bert/encoder/layer_0/output/LayerNorm/gamma              D
bert/encoder/layer_1/attention/self/query/kernel         D D
bert/encoder/layer_1/attention/self/query/bias           D
bert/encoder/layer_1/attention/self/key/kernel           D D
bert/encoder/layer_1/attention/self/key/bias             D
bert/encoder/layer_1/attention/self/value/kernel         D D
bert/encoder/layer_1/attention/self/value/bias           D
bert/encoder/layer_1/attention/output/dense/kernel       D D
bert/encoder/layer_1/attention/output/dense/bias         D
bert/encoder/layer_1/attention/output/LayerNorm/beta     D
bert/encoder/layer_1/attention/output/LayerNorm/gamma    D
bert/encoder/layer_1/intermediate/dense/kernel           D F
bert/encoder/layer_1/intermediate/dense/bias             F
bert/encoder/layer_1/output/dense/kernel                 F D
bert/encoder/layer_1/output/dense/bias                   D
bert/encoder/layer_1/output/LayerNorm/beta               D
bert/encoder/layer_1/output/LayerNorm/gamma              D
bert/pooler/dense/kernel                                 D D
bert/pooler/dense/bias                                   D
cls/predictions/transform/dense/kernel                   D D
cls/predictions/transform/dense/bias                     D
cls/predictions/transform/LayerNorm/beta                 D
cls/predictions/transform/LayerNorm/gamma                D
cls/predictions/output_bias                              V
cls/seq_relationship/output_weights                      2 D
cls/seq_relationship/output_bias                         2
"""

# Two groups, each of one inner group. The second LayerNorm of a scope is numbered.
ALBERT = """
bert/embeddings/word_embeddings                                                          V E
bert/embeddings/token_type_embeddings                                                    S E
bert/embeddings/position_embeddings                                                      P E
bert/embeddings/LayerNorm/beta                                                           E
bert/embeddings/LayerNorm/gamma                                                          E
bert/encoder/embedding_hidden_mapping_in/kernel                                          E D
bert/encoder/embedding_hidden_mapping_in/bias                                            D
bert/encoder/transformer/group_0/inner_group_0/attention_1/self/query/kernel             D D
bert/encoder/transformer/group_0/inner_group_0/attention_1/self/query/bias               D
bert/encoder/transformer/group_0/inner_group_0/attention_1/self/key/kernel               D D
bert/encoder/transformer/group_0/inner_group_0/attention_1/self/key/bias                 D
bert/encoder/transformer/group_0/inner_group_0/attention_1/self/value/kernel             D D
bert/encoder/transformer/group_0/inner_group_0/attention_1/self/value/bias               D
bert/encoder/transformer/group_0/inner_group_0/attention_1/output/dense/kernel           D D
bert/encoder/transformer/group_0/inner_group_0/attention_1/output/dense/bias             D
bert/encoder/transformer/group_0/inner_group_0/LayerNorm/beta                            D
bert/encoder/transformer/group_0/inner_group_0/LayerNorm/gamma                           D
bert/encoder/transformer/group_0/inner_group_0/ffn_1/intermediate/dense/kernel           D F
bert/encoder/transformer/group_0/inner_group_0/ffn_1/intermediate/dense/bias             F
bert/encoder/transformer/group_0/inner_group_0/ffn_1/intermediate/output/dense/kernel    F D
bert/encoder/transformer/group_0/inner_group_0/ffn_1/intermediate/output/dense/bias      D
bert/encoder/transformer/group_0/inner_group_0/LayerNorm_1/beta                          D
bert/encoder/transformer/group_0/inner_group_0/LayerNorm_1/gamma                         D
bert/encoder/transformer/group_1/inner_group_0/attention_1/self/query/kernel             D D
bert/encoder/transformer/group_1/inner_group_0/attention_1/self/query/bias               D
bert/encoder/transformer/group_1/inner_group_0/attention_1/self/key/kernel               D D
bert/encoder/transformer/group_1/inner_group_0/attention_1/self/key/bias                 D
bert/encoder/transformer/group_1/inner_group_0/attention_1/self/value/kernel             D D
bert/encoder/transformer/group_1/inner_group_0/attention_1/self/value/bias               D
bert/encoder/transformer/group_1/inner_group_0/attention_1/output/dense/kernel           D D
bert/encoder/transformer/group_1/inner_group_0/attention_1/output/dense/bias             D
bert/encoder/transformer/group_1/inner_group_0/LayerNorm/beta                            D
bert/encoder/transformer/group_1/inner_group_0/LayerNorm/gamma                           D
bert/encoder/transformer/group_1/inner_group_0/ffn_1/intermediate/dense/kernel           D F
bert/encoder/transformer/group_1/inner_group_0/ffn_1/intermediate/dense/bias             F
bert/encoder/transformer/group_1/inner_group_0/ffn_1/intermediate/output/dense/kernel    F D
bert/encoder/transformer/group_1/inner_group_0/ffn_1/intermediate/output/dense/bias      D
bert/encoder/transformer/group_1/inner_group_0/LayerNorm_1/beta                          D
bert/encoder/transformer/group_1/inner_group_0/LayerNorm_1/gamma                         D
bert/pooler/dense/kernel                                                                 D D
bert/pooler/dense/bias                                                                   D
cls/predictions/transform/dense/kernel                                                   D E
cls/predictions/transform/dense/bias                                                     E
cls/predictions/transform/LayerNorm/beta                                                 E
cls/predictions/transform/LayerNorm/gamma                                                E
cls/predictions/output_bias                                                              V
cls/seq_relationship/output_weights                                                      2 D
cls/seq_relationship/output_bias                                                         2
"""

# Tables of width E that both networks read; each has a dense layer behind them where its width
# differs. G, I: width and feed-forward width of the generator.
ELECTRA = """
electra/embeddings/word_embeddings                        V E
electra/embeddings/token_type_embeddings                  S E
electra/embeddings/position_embeddings                    P E
electra/embeddings/LayerNorm/beta                         E
electra/embeddings/LayerNorm/gamma                        E
electra/embeddings_project/kernel                         E D
electra/embeddings_project/bias                           D
electra/encoder/layer_0/attention/self/query/kernel       D D
electra/encoder/layer_0/attention/self/query/bias         D
electra/encoder/layer_0/attention/self/key/kernel         D D
electra/encoder/layer_0/attention/self/key/bias           D
electra/encoder/layer_0/attention/self/value/kernel       D D
electra/encoder/layer_0/attention/self/value/bias         D
electra/encoder/layer_0/attention/output/dense/kernel     D D
electra/encoder/layer_0/attention/output/dense/bias       D
electra/encoder/layer_0/attention/output/LayerNorm/beta   D
electra/encoder/layer_0/attention/output/LayerNorm/gamma  D
electra/encoder/layer_0/intermediate/dense/kernel         D F
electra/encoder/layer_0/intermediate/dense/bias           F
electra/encoder/layer_0/output/dense/kernel               F D
electra/encoder/layer_0/output/dense/bias                 D
electra/encoder/layer_0/output/LayerNorm/beta             D
electra/encoder/layer_0/output/LayerNorm/gamma            D
electra/encoder/layer_1/attention/self/query/kernel       D D
electra/encoder/layer_1/attention/self/query/bias         D
electra/encoder/layer_1/attention/self/key/kernel         D D
electra/encoder/layer_1/attention/self/key/bias           D
electra/encoder/layer_1/attention/self/value/kernel       D D
electra/encoder/layer_1/attention/self/value/bias         D
electra/encoder/layer_1/attention/output/dense/kernel     D D
electra/encoder/layer_1/attention/output/dense/bias       D
electra/encoder/layer_1/attention/output/LayerNorm/beta   D
electra/encoder/layer_1/attention/output/LayerNorm/gamma  D
electra/encoder/layer_1/intermediate/dense/kernel         D F
electra/encoder/layer_1/intermediate/dense/bias           F
electra/encoder/layer_1/output/dense/kernel               F D
electra/encoder/layer_1/output/dense/bias                 D
electra/encoder/layer_1/output/LayerNorm/beta             D
electra/encoder/layer_1/output/LayerNorm/gamma            D
discriminator_predictions/dense/kernel                    D D
discriminator_predictions/dense/bias                      D
discriminator_predictions/dense_1/kernel                  D 1
discriminator_predictions/dense_1/bias                    1
generator/embeddings_project/kernel                       E G
generator/embeddings_project/bias                         G
generator/encoder/layer_0/attention/self/query/kernel     G G
generator/encoder/layer_0/attention/self/query/bias       G
generator/encoder/layer_0/attention/self/key/kernel       G G
generator/encoder/layer_0/attention/self/key/bias         G
generator/encoder/layer_0/attention/self/value/kernel     G G
generator/encoder/layer_0/attention/self/value/bias       G
generator/encoder/layer_0/attention/output/dense/kernel   G G
generator/encoder/layer_0/attention/output/dense/bias     G
generator/encoder/layer_0/attention/output/LayerNorm/beta G
generator/encoder/layer_0/attention/output/LayerNorm/gamma G
generator/encoder/layer_0/intermediate/dense/kernel       G I
generator/encoder/layer_0/intermediate/dense/bias         I
generator/encoder/layer_0/output/dense/kernel             I G
generator/encoder/layer_0/output/dense/bias               G
generator/encoder/layer_0/output/LayerNorm/beta           G
generator/encoder/layer_0/output/LayerNorm/gamma          G
generator/encoder/layer_1/attention/self/query/kernel     G G
generator/encoder/layer_1/attention/self/query/bias       G
generator/encoder/layer_1/attention/self/key/kernel       G G
generator/encoder/layer_1/attention/self/key/bias         G
generator/encoder/layer_1/attention/self/value/kernel     G G
generator/encoder/layer_1/attention/self/value/bias       G
generator/encoder/layer_1/attention/output/dense/kernel   G G
generator/encoder/layer_1/attention/output/dense/bias     G
generator/encoder/layer_1/attention/output/LayerNorm/beta G
generator/encoder/layer_1/attention/output/LayerNorm/gamma G
generator/encoder/layer_1/intermediate/dense/kernel       G I
generator/encoder/layer_1/intermediate/dense/bias         I
generator/encoder/layer_1/output/dense/kernel             I G
generator/encoder/layer_1/output/dense/bias               G
generator/encoder/layer_1/output/LayerNorm/beta           G
generator/encoder/layer_1/output/LayerNorm/gamma          G
generator_predictions/dense/kernel                        G E
generator_predictions/dense/bias                          E
generator_predictions/LayerNorm/beta                      E
generator_predictions/LayerNorm/gamma                     E
generator_predictions/output_bias                         V
"""

# With untie_r; without it the three r_?_bias are [N, H]. The misspelt scope is the code's own.
XLNET = """
model/transformer/r_w_bias                       L N H
model/transformer/r_r_bias                       L N H
model/transformer/word_embedding/lookup_table    V D
model/transformer/mask_emb/mask_emb              1 1 D
model/transformer/r_s_bias                       L N H
model/transformer/seg_embed                      L 2 N H
model/transformer/layer_0/rel_attn/q/kernel      D N H
model/transformer/layer_0/rel_attn/k/kernel      D N H
model/transformer/layer_0/rel_attn/v/kernel      D N H
model/transformer/layer_0/rel_attn/r/kernel      D N H
model/transformer/layer_0/rel_attn/o/kernel      D N H
model/transformer/layer_0/rel_attn/LayerNorm/beta   D
model/transformer/layer_0/rel_attn/LayerNorm/gamma  D
model/transformer/layer_0/ff/layer_1/kernel      D F
model/transformer/layer_0/ff/layer_1/bias        F
model/transformer/layer_0/ff/layer_2/kernel      F D
model/transformer/layer_0/ff/layer_2/bias        D
model/transformer/layer_0/ff/LayerNorm/beta      D
model/transformer/layer_0/ff/LayerNorm/gamma     D
model/transformer/layer_1/rel_attn/q/kernel      D N H
model/transformer/layer_1/rel_attn/k/kernel      D N H
model/transformer/layer_1/rel_attn/v/kernel      D N H
model/transformer/layer_1/rel_attn/r/kernel      D N H
model/transformer/layer_1/rel_attn/o/kernel      D N H
model/transformer/layer_1/rel_attn/LayerNorm/beta   D
model/transformer/layer_1/rel_attn/LayerNorm/gamma  D
model/transformer/layer_1/ff/layer_1/kernel      D F
model/transformer/layer_1/ff/layer_1/bias        F
model/transformer/layer_1/ff/layer_2/kernel      F D
model/transformer/layer_1/ff/layer_2/bias        D
model/transformer/layer_1/ff/LayerNorm/beta      D
model/transformer/layer_1/ff/LayerNorm/gamma     D
model/lm_loss/bias                               V
"""
XLNET_SUMMARY = """
model/sequnece_summary/summary/kernel            D D
model/sequnece_summary/summary/bias              D
"""

# A numbered part of a name, of which the lists have two.
NUMBERED = r"(?<=layer_){0}(?=/(attention|intermediate|output|rel_attn|ff)/)|(?<=/group_){0}(?=/)"


def shapes(published: str, **sizes: int) -> Shapes:
    """Name -> shape, for these sizes, of two layers (or groups)."""
    made = {}
    for line in published.strip().split("\n"):
        name, *letters = line.split()
        made[name] = tuple(int(x) if x.isdigit() else sizes[x] for x in letters)
    return made


def deeper(published: str, layers: int) -> str:
    """The list for so many layers, or groups: those of the second one as often as needed."""
    second = re.compile(NUMBERED.format(1))
    lines = published.strip().split("\n")
    kept = [line for line in lines if layers > 1 or not second.search(line)]
    of_second = [line for line in lines if second.search(line)]
    for number in range(2, layers):
        kept += [second.sub(str(number), line) for line in of_second]
    return "\n".join(kept)


def without(published: str, *parts: str) -> str:
    """The list without the lines that have one of these parts in their names."""
    lines = published.strip().split("\n")
    return "\n".join(line for line in lines if not any(part in line for part in parts))


def count(found: Shapes) -> int:
    """How many numbers."""
    return sum(math.prod(shape) for shape in found.values())
