"""A small byte-pair tokenizer in CLIP's format, learnt from the captions (Sennrich et al. 2016, arXiv:1508.07909)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

END_OF_WORD = "</w>"
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")


def train_tokenizer(captions: Iterable[str], vocabulary_size: int, max_tokens: int) -> CLIPTokenizer:
    """Learn merges from captions; any text can be encoded, since every byte is in the vocabulary.

    Args:
        vocabulary_size: at most this many entries, the 512 byte symbols and 2 special tokens included.
        max_tokens: the length that prompts are padded or cut to, start and end tokens included.
    """
    # Normaliser and word splitting come from the class itself, so training and use cannot differ.
    rules = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(BPE(end_of_word_suffix=END_OF_WORD))
    learner.normalizer, learner.pre_tokenizer = rules.normalizer, rules.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=vocabulary_size - len(SPECIAL_TOKENS) - len(alphabet),
        initial_alphabet=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    # CLIP's order: bytes, bytes that end a word, merged pieces, special tokens.
    pieces = [*alphabet, *(symbol + END_OF_WORD for symbol in alphabet)]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, *SPECIAL_TOKENS]))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_tokens)
