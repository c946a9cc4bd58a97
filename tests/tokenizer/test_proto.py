"""The reader of model files, against what SentencePiece says about the same bytes."""

import sentencepiece

from lumi.tokenizer.proto import read_model


def test_pieces_and_scores_are_those_of_the_processor(folder, tokenizer):
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    model_type, pieces = read_model(tokenizer.model_bytes)
    ids = list(range(len(processor)))
    assert model_type == folder.name
    assert [piece.text for piece in pieces] == processor.id_to_piece(ids)
    assert [piece.score for piece in pieces] == processor.get_score(ids)


def test_kinds_are_those_of_the_processor(tokenizer):
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    _, pieces = read_model(tokenizer.model_bytes)
    ids = list(range(len(processor)))
    assert [piece.kind == "control" for piece in pieces] == processor.is_control(ids)
    assert [piece.kind == "byte" for piece in pieces] == processor.is_byte(ids)
    assert [piece.kind == "unknown" for piece in pieces] == processor.is_unknown(ids)
    assert [piece.text for piece in pieces if piece.kind == "user"] == ["foo_bar", "\t\t"]
