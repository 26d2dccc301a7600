"""Ready means loaded: found by the fuzzer, whose audit saw an engine open its models during somebody's call."""

from thinkimg.tools.backends.rapidocr import RapidReader


def test_the_ocr_engine_has_both_models_before_its_first_call() -> None:
    engine = RapidReader()._engine
    assert engine.text_det is not None
    assert engine.text_rec is not None
