from ..demo_run import config, decoder, encoder, make_scorer, params, task  # noqa: F401
