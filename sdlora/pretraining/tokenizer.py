"""Tokenizer stage: byte-pair encoding of the captions in CLIP's format (Sennrich et al. 2016, arXiv:1508.07909)."""

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
    """Learn merges from captions; every byte is in the vocabulary, so any text can be encoded.

    Args:
        captions: texts to learn from.
        vocabulary_size: largest number of entries, including the 512 byte symbols and 2 special tokens.
        max_tokens: length of padded or cut prompts, including start and end tokens.
    """
    # Normaliser and word splitting are the ones of CLIPTokenizer, so training and use cannot differ.
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
