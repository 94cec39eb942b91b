from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlora.pretraining.text_encoder import tokenize
from sdlora.pretraining.tokenizer import train_tokenizer

CAPTIONS = ["an emoji of red apple, fruit", "an emoji of green apple, fruit", "a noto emoji of red heart, heart"]
TOKENIZER = train_tokenizer(CAPTIONS * 5, vocabulary_size=600, max_tokens=24)


def test_words_of_the_captions_become_single_tokens() -> None:
    assert TOKENIZER.tokenize("red apple") == ["red</w>", "apple</w>"]


def test_vocabulary_keeps_to_its_size_and_ends_with_the_special_tokens() -> None:
    assert len(TOKENIZER) <= 600
    assert TOKENIZER.eos_token_id == len(TOKENIZER) - 1


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=8))
def test_any_text_is_encoded_without_unknown_tokens(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert TOKENIZER.unk_token_id not in ids


@pytest.mark.parametrize("caption", ["", "apple", " ".join(["apple"] * 60)])
def test_every_caption_gets_the_same_length(caption: str) -> None:
    assert tokenize(TOKENIZER, [caption]).shape == (1, 24)
