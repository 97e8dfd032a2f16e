"""Row builders, one a file: documents to plans of rows. Dropping a file here registers it.

=============== ======================================================= ======================
example         rows                                                    labels
=============== ======================================================= ======================
single          one segment of a document                               none
doc_sentences   the same, under RoBERTa's name                          none
full_sentences  full rows, across documents                             none
nsp_pairs       BERT's pairs                                            next_sentence: 1 random
segment_pairs   the same with RoBERTa's two separators                  next_sentence: 1 random
sentence_pairs  two single sentences                                    next_sentence: 1 random
sop_pairs       ALBERT's two parts in order or swapped                  swapped: 1 swapped
electra_pairs   ELECTRA's one or two segments of running text           none
three_way_pairs StructBERT's next, previous or random                   sentence_order: 0, 1, 2
dialogue        ERNIE's three turns, segments say who speaks            real: 0 fake, 1 real
by_part         each part of a mix by one of these, drawn by weight     of all of them, else -1
alternating     the same, each batch of one part                        the same
stream          consecutive tokens, each row where the one before ended continues: 1 goes on
xlnet_stream    raw tokens, two segments, [CLS] last                  the same; is_next; backward
=============== ======================================================= ======================

One that is registered with ``order="stream"`` plans its rows in reading order and says in the label
``continues`` which of them go on from the row before; places of consecutive batches are then
contiguous streams (see text/pipeline.py). One with ``order="batches"`` says in ``Plan.groups``
which rows may share a batch. The rows of all others come in random order.
"""
